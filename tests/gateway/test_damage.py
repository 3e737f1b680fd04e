"""A disk that gives back something else than was written: nobody is served a wrong byte."""

import random

import pytest

from tests.gateway.gateway_kit import ETAG, FRESH, MIB, site
from tests.kit import Reply

pytestmark = pytest.mark.usefixtures("on_disk")

FILM = random.Random(5).randbytes(4 * MIB)
"""No two places are alike."""
LAST_MODIFIED = ("Last-Modified", "Wed, 31 Dec 2025 00:00:00 GMT")


async def flip(cdn, content: bytes) -> None:
    """Changes one bit where `content` lies on the disk."""
    store = cdn.edge.node._store
    await store.flush()
    (path, place), *others = [
        (path, place)
        for path in cdn.edge.config.store.glob("*/*.segment")
        if (place := path.read_bytes().find(content)) >= 0
    ]
    assert not others
    with path.open("r+b") as file:
        file.seek(place + len(content) // 2)
        byte = file.read(1)[0]
        file.seek(-1, 1)
        file.write(bytes([byte ^ 1]))


async def damaged(cdn) -> int:
    return cdn.edge.node._store.counters.damaged


async def test_a_slice_that_was_changed_is_fetched_again_before_its_first_byte_is_sent():
    async with site() as cdn:
        film = Reply(fields=[FRESH, ETAG], content=FILM, honours_ranges=True)
        cdn.origin.on("/a", film)
        await cdn.get("/a")
        await flip(cdn, FILM[2 * MIB + 5 : 2 * MIB + 2000])
        for _ in range(2):
            answer = await cdn.get("/a")
            assert (answer.status, answer.complete) == (200, True)
            assert answer.content == FILM
        asked = [request.field("range") for request in cdn.origin.requests]
        assert asked == [None, f"bytes={2 * MIB}-{3 * MIB - 1}"]
        assert await damaged(cdn) == 1
        told = [line for line in cdn.edge.events.getvalue().splitlines() if "damaged" in line]
        assert len(told) == 1


@pytest.mark.parametrize("validator", [ETAG, LAST_MODIFIED, ("X-None", "")])
@pytest.mark.parametrize("size", [100, 300_000])
async def test_so_is_a_small_one_whatever_it_has_for_a_validator(validator, size):
    content = random.Random(9).randbytes(size)
    async with site() as cdn:
        cdn.origin.on("/a", Reply(fields=[FRESH, validator], content=content))
        await cdn.get("/a")
        await flip(cdn, content[3:-3])
        answer = await cdn.get("/a")
        assert (answer.status, answer.complete) == (200, True)
        assert answer.content == content
        assert await damaged(cdn) == 1
        answer = await cdn.get("/a")
        assert answer.field("cache-status") == "edge-a; hit; ttl=300"
        assert cdn.origin.count() == 2


async def test_what_is_too_large_to_be_read_at_once_and_has_no_strong_validator():
    """Its later slices are missing only when its head has gone down: it is had afresh."""
    content = random.Random(11).randbytes(3 * MIB)
    async with site() as cdn:
        cdn.origin.on("/a", Reply(fields=[FRESH, LAST_MODIFIED], content=content))
        await cdn.get("/a")
        await flip(cdn, content[2 * MIB + 5 : 2 * MIB + 2000])
        answer = await cdn.get("/a")
        assert (answer.status, answer.complete) == (200, True)
        assert answer.content == content
        assert cdn.origin.count() == 2
        answer = await cdn.get("/a")
        assert answer.content == content
