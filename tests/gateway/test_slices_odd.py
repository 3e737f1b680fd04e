"""Slices under origins that err, reloads, purges of groups, and clients that want little."""

from dataclasses import replace

import pytest

from cdn.gateway.services import ServiceTable
from tests.gateway.gateway_kit import ETAG, FRESH, HOST, MIB, site
from tests.gateway.test_slices import FILM, asked, at_rest, expect, film, kept, of_slices, ranged
from tests.kit import Pattern, Reply

KIB = 1 << 10
SMALL = {"slice_size": "64KiB"}
NEW = Pattern(8 * MIB + 1000, seed=7)


def reload_with_slices_of(size, cdn):
    """What a reload does that has changed `slice_size`."""
    gateway = cdn.edge.node.gateway
    old = gateway.services.match(HOST[1])
    assert old is not None
    gateway.services = ServiceTable([replace(old, policy=replace(old.policy, slice_size=size))])


def part(content, start, stop, came=None, etag=ETAG, framing="length") -> Reply:
    """A 206 that says to be bytes [start, stop), and has `came` bytes of content."""
    told = ("Content-Range", f"bytes {start}-{stop - 1}/{len(content)}")
    body = content.read(start, stop if came is None else start + came)
    return Reply(206, [FRESH, etag, told], content=body, framing=framing)


def small_parts(numbers) -> str:
    """Two bytes at the end of each of these slices: both sides of the border."""
    return "bytes=" + ",".join(f"{(n + 1) * MIB - 1}-{(n + 1) * MIB}" for n in numbers)


# --- slices of another size -----------------------------------------------------------------------


async def test_small_slices_are_put_together():
    async with site(cache=SMALL) as cdn:
        cdn.origin.on("/a", film())
        await expect(cdn, 0, 200 * KIB)
        await expect(cdn, 50 * KIB, 500 * KIB)
        assert cdn.origin.count() == 8
        assert (await cdn.get("/a")).content == FILM.read(0, len(FILM))


async def test_what_a_304_freshens_keeps_the_size_of_its_slices():
    async with site(cache=SMALL) as cdn:
        cdn.origin.on("/a", film(honours_conditions=True))
        await cdn.get("/a")
        cdn.clock.advance(400)
        await expect(cdn, 70 * KIB, 130 * KIB)
        await expect(cdn, 60 * KIB, 300 * KIB)
        assert asked(cdn) == [None, None]


@pytest.mark.parametrize("size", [16 * KIB, 256 * KIB])
async def test_after_a_reload_what_is_stored_keeps_the_size_of_its_slices(size):
    async with site(cache=SMALL) as cdn:
        cdn.origin.on("/a", film())
        await expect(cdn, 64 * KIB, 128 * KIB)
        reload_with_slices_of(size, cdn)
        await expect(cdn, 200 * KIB, 300 * KIB)
        await expect(cdn, 0, 700 * KIB)
        assert sorted(asked(cdn)) == sorted(
            ranged(n * 64 * KIB, (n + 1) * 64 * KIB)[1] for n in range(11)
        )


@pytest.mark.parametrize("size", [16 * KIB, 256 * KIB])
async def test_after_a_reload_another_version_comes_by_an_origin_that_ignores_if_range(size):
    def ignoring(request):
        first, last = map(int, request.field("range").removeprefix("bytes=").split("-"))
        return part(NEW, first, min(last + 1, len(NEW)), etag=("ETag", '"v2"'))

    async with site(cache=SMALL) as cdn:
        cdn.origin.on("/a", film())
        await expect(cdn, 64 * KIB, 128 * KIB)
        reload_with_slices_of(size, cdn)
        cdn.origin.on("/a", ignoring)
        for start, stop in [(200 * KIB, 210 * KIB), (0, 600 * KIB), (3, 900 * KIB)]:
            answer = await cdn.get("/a", ranged(start, stop))
            assert answer.complete
            assert answer.content == NEW.read(start, stop)


# --- origins that err -----------------------------------------------------------------------------


@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("came", [1000, MIB + 5000, 2 * MIB])
async def test_a_part_of_another_length_than_it_says_is_not_kept(came, framing):
    async with site() as cdn:
        cdn.origin.on("/a", [part(FILM, 0, MIB, came, framing=framing), film()])
        await expect(cdn, 0, 10)
        await at_rest(cdn)
        await expect(cdn, 0, 3 * MIB)
        assert (await cdn.get("/a")).content == FILM.read(0, len(FILM))


async def test_a_part_in_chunks_is_a_slice_like_any_other():
    async with site() as cdn:
        cdn.origin.on("/a", [part(FILM, 0, MIB, framing="chunked"), film()])
        await expect(cdn, 0, MIB)
        assert await kept(cdn) == [0]


async def test_what_has_grown_under_the_same_entity_tag_starts_over():
    grown = Pattern(9 * MIB + 500)
    async with site() as cdn:
        cdn.origin.on("/a", film())
        await expect(cdn, 0, 10)
        cdn.origin.on("/a", film(content=grown))
        await cdn.get("/a", ranged(8 * MIB, 8 * MIB + 100))
        answer = await cdn.get("/a", ranged(8 * MIB, 9 * MIB))
        assert (answer.complete, answer.content) == (True, grown.read(8 * MIB, 9 * MIB))
        assert (await cdn.get("/a")).content == grown.read(0, len(grown))


async def test_a_part_as_it_came_does_not_take_the_place_of_slices():
    async with site() as cdn:
        cdn.origin.on("/a", film())
        await expect(cdn, 0, 3 * MIB)
        odd = Reply(206, [FRESH, ETAG, ("Content-Range", "bytes 5-9/5000000")], content=b"56789")
        cdn.origin.on("/a", [odd, film()])
        await expect(cdn, 5 * MIB + 5, 5 * MIB + 10)
        assert await kept(cdn) == [0, 1, 2]


# --- purged by group ------------------------------------------------------------------------------


@pytest.mark.parametrize("later", [("Range", f"bytes={4 * MIB}-{4 * MIB + 9}"), ("X-None", "")])
async def test_slices_that_a_group_has_outdated_do_not_come_back_with_what_comes_later(later):
    """RFC 9875 §3; by an entity tag alone, the operator's purge of wrong bytes would be undone."""
    group = ("Cache-Groups", '"g"')
    async with site() as cdn:
        cdn.origin.on("/a", Reply(fields=[FRESH, ETAG, group], content=NEW, honours_ranges=True))
        cdn.origin.on("/b", Reply(204, [("Cache-Group-Invalidation", '"g"')]))
        await cdn.get("/a", ranged(0, MIB))
        await cdn.get("/b", method="POST", content=b"x")
        cdn.origin.on("/a", Reply(fields=[FRESH, ETAG, group], content=FILM, honours_ranges=True))
        await cdn.get("/a", later)
        answer = await cdn.get("/a", ranged(0, MIB))
        assert answer.content == FILM.read(0, MIB)


# --- little for much ------------------------------------------------------------------------------


@pytest.mark.parametrize("known", [True, False])
async def test_many_small_ranges_go_up_as_they_are(known):
    async with site() as cdn:
        cdn.origin.on("/a", film())
        if known:
            await expect(cdn, 0, 10)
        wanted = small_parts([0, 2, 4, 6])
        await cdn.get("/a", ("Range", wanted))
        assert asked(cdn) == [*of_slices(0)[:known], wanted]


async def test_a_range_that_may_not_be_stored_is_not_had_by_way_of_the_whole():
    async with site() as cdn:
        cdn.origin.on("/a", film())
        answer = await cdn.get("/a", ranged(MIB, MIB + 9), ("Cache-Control", "no-store"))
        assert answer.content == FILM.read(MIB, MIB + 9)
        assert asked(cdn) == [ranged(MIB, MIB + 9)[1]]
