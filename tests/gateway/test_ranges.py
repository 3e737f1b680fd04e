"""Byte ranges: out of a stored 200, near the start of a cold object, far into one."""

import pytest

from tests.gateway.gateway_kit import MIB, site, storable, tiers
from tests.kit import Gate, Pattern, Reply

DIGITS = b"0123456789"
LAST_MODIFIED = ("Last-Modified", "Wed, 31 Dec 2025 00:00:00 GMT")


@pytest.mark.parametrize(
    ("fields", "status", "content_range", "content"),
    [
        ([("Range", "bytes=2-4")], 206, "bytes 2-4/10", b"234"),
        ([("Range", "bytes=7-")], 206, "bytes 7-9/10", b"789"),
        ([("Range", "bytes=-3")], 206, "bytes 7-9/10", b"789"),
        ([("Range", "bytes=5-99")], 206, "bytes 5-9/10", b"56789"),
        ([("Range", "bytes=10-")], 416, "bytes */10", b""),
        ([("Range", "bytes=4-2")], 200, None, DIGITS),
        ([("Range", "lines=0-1")], 200, None, DIGITS),
        ([("Range", "bytes=2-4"), ("If-Range", '"v1"')], 206, "bytes 2-4/10", b"234"),
        ([("Range", "bytes=2-4"), ("If-Range", 'W/"v1"')], 200, None, DIGITS),
        ([("Range", "bytes=2-4"), ("If-Range", '"v0"')], 200, None, DIGITS),
        ([("Range", "bytes=2-4"), ("If-Range", LAST_MODIFIED[1])], 206, "bytes 2-4/10", b"234"),
        ([("Range", "bytes=2-4"), ("If-None-Match", '"v1"')], 304, None, b""),
        ([("Range", "bytes=0-1,2-3")], 206, "bytes 0-3/10", b"0123"),
    ],
)
@pytest.mark.parametrize("cold", [True, False])
async def test_a_range_of_a_stored_or_a_near_cold_object(
    fields, status, content_range, content, cold
):
    suffix, ranged = fields[0][1] == "bytes=-3", fields[0][1] not in ("bytes=4-2", "lines=0-1")
    several = "," in fields[0][1]
    async with site() as cdn:
        cdn.origin.on("/a", storable(DIGITS, LAST_MODIFIED))
        if not cold:
            await cdn.get("/a")
        answer = await cdn.get("/a", *fields)
        if cold and (suffix or several):
            # A suffix goes straight through; of several ranges, the whole is an answer too.
            assert (answer.status, answer.content) == (200, DIGITS)
        else:
            assert (answer.status, answer.content) == (status, content)
            assert answer.field("content-range") == content_range
        assert answer.complete
        assert answer.field("cache-status").startswith("edge-a; fwd=uri-miss" if cold else "edge-a")
        assert cdn.origin.count() == 1
        # It is asked for a slice; this origin gives the whole.
        asked = None if not (cold and ranged) else "bytes=-3" if suffix else "bytes=0-1048575"
        assert cdn.origin.requests[0].field("range") == asked
        if not (cold and suffix):
            assert cdn.stored_content() == DIGITS


async def test_several_ranges_out_of_the_store():
    async with site() as cdn:
        cdn.origin.on("/a", storable(DIGITS, ("Content-Type", "text/plain")))
        await cdn.get("/a")
        answer = await cdn.get("/a", ("Range", "bytes=0-1,5-6,-1"))
        assert answer.status == 206
        kind, _, boundary = answer.field("content-type").partition("; boundary=")
        assert kind == "multipart/byteranges"
        parts = answer.content.split(b"\r\n--" + boundary.encode())
        assert [part.partition(b"\r\n\r\n")[2] for part in parts[1:4]] == [b"01", b"56", b"9"]
        assert b"Content-Range: bytes 5-6/10" in parts[2]
        assert parts[4:] == [b"--\r\n"]
        assert answer.field("cache-status") == "edge-a; hit; ttl=300"


async def test_a_range_that_crosses_slices():
    content = Pattern(3 * MIB + 17)
    async with site() as cdn:
        cdn.origin.on("/a", storable(content))
        await cdn.get("/a")
        answer = await cdn.get("/a", ("Range", f"bytes={MIB - 3}-{2 * MIB + 4}"))
        assert answer.status == 206
        assert answer.content == content.read(MIB - 3, 2 * MIB + 5)


async def test_a_part_from_the_beginning_is_completed_by_its_rest():
    """RFC 9111 §3.4: joined under one strong validator, asked for by Range and If-Range."""
    content = Pattern(3 * MIB)
    part = f"bytes=0-{MIB - 1}"
    async with tiers() as cdn:
        private = [("Cache-Control", "private"), ("ETag", '"a"')]
        whole = storable(content, honours_ranges=True)
        cdn.origin.on("/a", Reply(fields=private, content=content, honours_ranges=True))
        await cdn.get("/a")  # leaves the mark by which the next range goes up as it is
        cdn.origin.on("/a", whole)
        assert (await cdn.get("/a", ("Range", part))).status == 206
        answer = await cdn.get("/a")
        assert (answer.status, answer.complete) == (200, True)
        assert answer.content == content.read(0, 3 * MIB)
        assert answer.field("content-range") is None
        # The edge asks for the rest, the shield for the slices of it.
        asked = cdn.origin.requests[-2:]
        slices = [f"bytes={MIB}-{2 * MIB - 1}", f"bytes={2 * MIB}-{3 * MIB - 1}"]
        assert [one.field("range") for one in asked] == slices
        assert {one.field("if-range") for one in asked} == {'"v1"'}
        count = cdn.origin.count("/a")
        assert (await cdn.get("/a")).content == content.read(0, 3 * MIB)
        assert cdn.origin.count("/a") == count


async def test_a_part_is_not_completed_by_another_version():
    old, new = Pattern(3 * MIB, seed=1), Pattern(3 * MIB, seed=2)
    async with site() as cdn:
        private = [("Cache-Control", "private"), ("ETag", '"a"')]
        cdn.origin.on("/a", Reply(fields=private, content=old, honours_ranges=True))
        await cdn.get("/a")
        cdn.origin.on("/a", storable(old, honours_ranges=True))
        await cdn.get("/a", ("Range", f"bytes=0-{MIB - 1}"))
        changed = [("Cache-Control", "max-age=60"), ("ETag", '"b"')]
        cdn.origin.on("/a", Reply(fields=changed, content=new, honours_ranges=True))
        answer = await cdn.get("/a")
        assert (answer.status, answer.field("etag")) == (200, '"b"')
        assert answer.content == new.read(0, 3 * MIB)


async def test_a_range_of_what_has_no_known_length_is_the_whole():
    gate = Gate(after=5)
    async with site() as cdn:
        cdn.origin.on("/a", storable(DIGITS, framing="chunked", gate=gate))
        async with await cdn.ask("/a", ("Range", "bytes=2-4")) as client:
            answer = await client.read_head()
            gate.open()
            assert (answer.status, (await answer.read()).content) == (200, DIGITS)
            assert answer.complete
        # Now it is stored, and its length known.
        assert (await cdn.get("/a", ("Range", "bytes=2-4"))).content == b"234"


async def test_a_range_of_what_may_not_be_stored():
    async with site() as cdn:
        private = Reply(fields=[("Cache-Control", "private")], content=DIGITS, honours_ranges=True)
        cdn.origin.on("/a", private)
        wanted = ("Range", "bytes=2-4")
        assert (await cdn.get("/a", wanted)).content == b"234"
        # Now that this is known, the range goes up as it is.
        assert (await cdn.get("/a", wanted)).content == b"234"
        asked = [request.field("range") for request in cdn.origin.requests]
        assert asked == ["bytes=0-1048575", "bytes=2-4"]
