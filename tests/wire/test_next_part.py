"""The next part of what a client asks for part by part: what is taken for one, and what it gets."""

import random

import pytest

from cdn.wire.field_block import LONGEST_BLOCK
from cdn.wire.next_part import NextPart
from tests.gateway.gateway_kit import HOST, site, storable
from tests.wire.test_fastpath import fast_answers, hot

CONTENT = random.Random(1).randbytes(1 << 20)
HEAD = b"GET /a HTTP/1.1\r\nHost: a\r\nRange: bytes=%b\r\nAccept: */*\r\n\r\n"


def following(head: bytes) -> NextPart | None:
    return NextPart.following(head, head.find(b"\r\n"))


@pytest.mark.parametrize(
    ("asked", "wanted"),
    [
        (HEAD % b"7-8", (7, 8)),
        (HEAD % b"7-", (7, None)),
        (HEAD % b"8-7", None),
        (HEAD % b"-7", None),
        (HEAD % b"7-8,9-10", None),
        (HEAD % b"7-8 ", None),
        (HEAD % b"1234567890123456789-", None),
        (HEAD % b"1-1234567890123456789", None),
        (HEAD % b"123456789012345678-123456789012345678", (123456789012345678,) * 2),
        (HEAD % b"7", None),
        (HEAD % b"-", None),
        (HEAD % b"", None),
        (HEAD % b"7--8", None),
        (HEAD % b"+7-8", None),
        (HEAD % b"7-+8", None),
        (HEAD % b"7_0-8_0", None),
        (HEAD % "\u0667-\u0668".encode(), None),
        (HEAD[: HEAD.index(b"%b")] + HEAD[HEAD.index(b"%b") + 4 :], None),
        (HEAD % b"7-8" + b"G", None),
        ((HEAD % b"7-8")[:-1], None),
        ((HEAD % b"7-8").replace(b"/a", b"/b"), None),
        ((HEAD % b"7-8").replace(b"*/*", b"b/*"), None),
        ((HEAD % b"7-8").replace(b"Range", b"range"), None),
        (b"", None),
    ],
)
def test_it_differs_from_the_last_in_one_valid_range_alone(asked, wanted):
    part = following(HEAD % b"0-99")
    assert part is not None
    assert part.wanted(asked) == wanted


@pytest.mark.parametrize(
    "head",
    [
        (HEAD % b"0-99").replace(b"Range", b"range"),
        HEAD % b"-99",
        HEAD % b"0-1,3-4",
        b"GET /5-6\r\n\r\n",
        (HEAD % b"0-99").replace(b"*/*", b"a" * LONGEST_BLOCK),
    ],
)
def test_a_head_that_is_long_or_spelled_in_another_way_is_not_kept(head):
    assert following(head) is None


async def test_each_part_is_what_it_would_be_by_itself():
    async with site() as at:
        at.origin.on("/a", [storable(CONTENT, ("ETag", '"v1"')), storable(b"b" * 200_000)])
        await hot(at, "/a", ("Range", "bytes=0-0"))
        async with await at.open() as client:

            async def part(first, last, target="/a"):
                fields = [HOST, ("Range", f"bytes={first}-{last}")]
                return await client.get(target, fields)

            spans = [(0, 9), (1 << 19, (1 << 19) + 65_535), (1_000_000, 2_000_000), (7, 7)]
            before = fast_answers(at)
            for first, last in spans:
                got = await part(first, last)
                assert got.status == 206
                assert got.content == CONTENT[first : last + 1]
            assert fast_answers(at) == before + len(spans)
            assert (await part(1 << 20, 1 << 21)).status == 416
            assert (await part(0, "")).content == CONTENT
            assert (await part(9, 10, "/b")).status == 404
            assert (await part(9, 10)).content == CONTENT[9:11]
            await at.edge.node.purge(f"http://{HOST[1]}/a")
            assert (await part(9, 10)).content == b"bb"
        records = at.edge.log[-4:]
        assert [one.content_bytes for one in records][-1] == 2


async def test_where_the_range_selects_among_what_is_stored_it_is_looked_up():
    async with site() as at:
        at.origin.on("/a", storable(CONTENT, ("ETag", '"v1"'), ("Vary", "Range")))
        async with await at.open() as client:
            for first in (0, 0, 0, 5, 6):
                got = await client.get("/a", [HOST, ("Range", f"bytes={first}-{first}")])
                assert got.content == CONTENT[first : first + 1]
        asked = len(at.origin.requests)
        assert asked == 3  # once for each way to ask


async def test_a_range_that_was_answered_with_the_whole_is_again():
    async with site() as at:
        at.origin.on("/a", storable(CONTENT, ("ETag", '"v1"')))
        async with await at.open() as client:
            for first in (0, 0, 0, 5, 6):
                asked = [HOST, ("If-Range", '"v0"'), ("Range", f"bytes={first}-9")]
                got = await client.get("/a", asked)
                assert (got.status, got.content == CONTENT) == (200, True)


async def test_the_same_again_is_known_by_its_bytes(monkeypatch):
    async with site() as at:
        at.origin.on("/a", [storable(b"one"), storable(b"two")])
        at.origin.on("/b", storable(b"other"))
        async with await at.open() as client:

            async def get(target, referer="x"):
                got = await client.get(target, [HOST, ("Referer", referer)])
                return got.content, got.field("cache-status").partition(";")[2][:4]

            for _ in range(3):
                await get("/a")
            monkeypatch.setattr(at.edge.node.server._rim.memory, "blocks", None)
            before = fast_answers(at)
            for _ in range(2):
                assert await get("/a") == (b"one", " hit")
            assert fast_answers(at) == before + 2
            assert at.edge.log[-1].referer == "x"
            monkeypatch.undo()
            assert await get("/a", "y") == (b"one", " hit")
            assert at.edge.log[-1].referer == "y"
            assert (await get("/b"))[0] == b"other"
            assert await get("/a", "y") == (b"one", " hit")
            await at.edge.node.purge(f"http://{HOST[1]}/a")
            assert (await get("/a", "y"))[0] == b"two"


@pytest.mark.parametrize("between", ["bytes=2000-2001", "bytes=5-4", "bytes=-1"])
@pytest.mark.parametrize("again", ["bytes=0-9", None])
async def test_what_was_answered_another_way_is_not_taken_for_the_last(between, again):
    async with site() as at:
        at.origin.on("/a", storable(b"a" * 1000, ("ETag", '"v1"')))
        at.origin.on("/b", storable(b"b" * 1000, ("ETag", '"v1"')))
        fields = [HOST] if again is None else [HOST, ("Range", again)]
        for target in ("/a", "/b"):
            await hot(at, target)
            await hot(at, target, ("Range", "bytes=0-9"))
        async with await at.open() as client:
            for _ in range(2):
                expected = await client.get("/a", fields)
            await client.get("/b", [HOST, ("Range", between)])
            got = await client.get("/a", fields)
            assert (got.status, got.content) == (expected.status, expected.content)


@pytest.mark.parametrize("name", ["range", "RANGE", "Range"])
@pytest.mark.parametrize("space", ["", "\t"])
async def test_a_range_in_another_spelling_is_one_again(name, space):
    async with site() as at:
        at.origin.on("/a", storable(CONTENT, ("ETag", '"v1"')))
        async with await at.open() as client:
            for _ in range(5):
                got = await client.get("/a", [HOST, (name, f"{space}bytes=1-5")])
                assert (got.status, got.content) == (206, CONTENT[1:6])
