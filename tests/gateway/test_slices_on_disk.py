"""Slices in a node with a disk store: kept there, damaged there, served from there."""

import contextlib

import pytest

from tests.gateway.gateway_kit import FRESH, MIB, Site
from tests.gateway.test_slices import FILM, at_rest, expect, film, kept
from tests.kit import ManualClock, Pattern, Reply, ScriptedOrigin
from tests.kit.cdn_nodes import local_edge

SHORT = Pattern(5 * MIB // 2)


@contextlib.asynccontextmanager
async def disk_site(tmp_path, **keys):
    clock, store = ManualClock(), str(tmp_path / "store")
    async with (
        ScriptedOrigin() as origin,
        local_edge(origin.url, clock=clock, store=store, disk="1GiB", **keys) as edge,
    ):
        yield Site(origin, edge, clock)
        filling = edge.node.gateway.filling
        await at_rest(Site(origin, edge, clock))
        assert not filling._alone
        assert not filling._streams
        assert len(filling._flights) == 0


async def durable(cdn) -> None:
    await at_rest(cdn)
    await cdn.edge.node._store.flush()


def damage(directory, content: bytes) -> None:
    """Overwrites the last place at which `content` lies in any segment."""
    for file in directory.rglob("*"):
        if not file.is_file() or file.name in ("index", "lock"):
            continue
        at = file.read_bytes().rfind(content)
        if at >= 0:
            with file.open("r+b") as segment:
                segment.seek(at)
                segment.write(bytes(8))
            return
    raise AssertionError("it is nowhere")


async def test_a_suffix_is_kept_in_slices_when_more_of_it_comes(tmp_path):
    async with disk_site(tmp_path) as cdn:
        cdn.origin.on("/a", film())
        await cdn.get("/a", ("Range", f"bytes=-{2 * MIB}"))
        await durable(cdn)
        await expect(cdn, 0, 10)
        await durable(cdn)
        assert await kept(cdn) == [0, 7, 8]


async def test_several_ranges_of_what_has_no_strong_validator_are_a_hit(tmp_path):
    async with disk_site(tmp_path) as cdn:
        cdn.origin.on("/a", film(content=SHORT, etag=("ETag", 'W/"v1"')))
        await cdn.get("/a")
        await durable(cdn)
        answer = await cdn.get("/a", ("Range", f"bytes=0-{MIB},{2 * MIB}-{2 * MIB + 9}"))
        assert answer.status == 206
        assert cdn.origin.count() == 1


@pytest.mark.parametrize(
    "validator",
    [("ETag", '"v1"'), ("ETag", 'W/"v1"'), ("X-None", "")],
    ids=["strong", "weak", "no"],
)
async def test_a_later_slice_that_is_damaged_is_fetched_again_before_its_first_byte(
    tmp_path, validator
):
    async with disk_site(tmp_path) as cdn:
        cdn.origin.on("/a", Reply(fields=[FRESH, validator], content=SHORT, honours_ranges=True))
        await cdn.get("/a")
        await durable(cdn)
        damage(tmp_path / "store", SHORT.read(2 * MIB + 1000, 2 * MIB + 1200))
        answer = await cdn.get("/a")
        # Without a validator nobody knows that what comes now goes with what has gone down.
        assert answer.complete == (validator[0] == "ETag")
        assert answer.content == SHORT.read(0, len(SHORT) if answer.complete else 2 * MIB)
        answer = await cdn.get("/a")
        assert (answer.complete, answer.content) == (True, SHORT.read(0, len(SHORT)))


async def test_small_slices_on_disk(tmp_path):
    async with disk_site(tmp_path, cache={"slice_size": "64KiB"}) as cdn:
        cdn.origin.on("/a", film())
        for start, stop in [(0, 100), (3 * MIB + 5, 4 * MIB + 5), (0, len(FILM))]:
            await expect(cdn, start, stop)
        assert cdn.origin.count() == 129
        await durable(cdn)
        await expect(cdn, 0, len(FILM))
        assert cdn.origin.count() == 129
