"""What is too large to store: shared out of a window, paced by its readers, bounded in memory."""

import asyncio
import tracemalloc

import pytest

from cdn.gateway import fill as fill_module
from tests.gateway.gateway_kit import ETAG, FRESH, MIB, site
from tests.kit import Gate, Pattern, Reply

LARGE = Pattern(24 * MIB)
SMALL_STORE = 16 * MIB
"""Of which a single response gets 2 MiB."""

LAST_MODIFIED = ("Last-Modified", "Wed, 31 Dec 2025 00:00:00 GMT")


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(fill_module, "PATIENCE", 0.05)


async def read_some(answer, size):
    pieces, got = aiter(answer), b""
    while len(got) < size:
        got += await anext(pieces)
    return pieces, got


async def one_stops_another_reads(cdn):
    """What a client gets that stopped reading, for so long that another one had it all."""
    first, second = await cdn.ask("/a"), await cdn.ask("/a")
    await cdn.all_joined(2)
    stopped, fast = await first.read_head(), await second.read_head()
    pieces, got = await read_some(stopped, 1000)
    whole = await fast.read()
    assert whole.complete
    assert whole.content == LARGE.read(0, len(LARGE))
    got += b"".join([piece async for piece in pieces])
    first.close()
    second.close()
    return got, stopped.complete


async def test_who_stops_reading_goes_on_by_range():
    async with site(memory=SMALL_STORE) as cdn:
        cdn.origin.on("/a", Reply(fields=[FRESH, ETAG], content=LARGE, honours_ranges=True))
        got, complete = await one_stops_another_reads(cdn)
        assert complete
        assert got == LARGE.read(0, len(LARGE))
        rest = cdn.origin.requests[1]
        assert rest.field("range").startswith("bytes=")
        assert rest.field("if-range") == '"v1"'
        assert cdn.origin.count() == 2
        assert cdn.edge.node.gateway.filling.counters.gone_alone == 1
        assert cdn.stored() == ()


@pytest.mark.parametrize(
    "validator", [("ETag", 'W/"v1"'), LAST_MODIFIED, ETAG], ids=["weak", "date", "no ranges"]
)
async def test_or_afresh_where_it_is_the_same_again(validator):
    async with site(memory=SMALL_STORE) as cdn:
        cdn.origin.on("/a", Reply(fields=[FRESH, validator], content=LARGE))
        got, complete = await one_stops_another_reads(cdn)
        assert complete
        assert got == LARGE.read(0, len(LARGE))
        assert cdn.origin.count() == 2


@pytest.mark.parametrize(
    "second",
    [
        Reply(fields=[FRESH, ("ETag", '"v2"')], content=LARGE, honours_ranges=True),
        Reply(500),
        Reply(disconnect=True),
        Reply(206, [ETAG, ("Content-Range", "bytes 0-9/100")], content=b"0123456789"),
    ],
    ids=["changed", "500", "no answer", "another part"],
)
async def test_or_is_cut_off_where_it_is_not(second):
    async with site(memory=SMALL_STORE) as cdn:
        cdn.origin.on("/a", [Reply(fields=[FRESH, ETAG], content=LARGE), second])
        got, complete = await one_stops_another_reads(cdn)
        assert not complete
        assert LARGE.verify(0, got)


async def test_without_a_validator_nothing_more_is_asked():
    async with site(memory=SMALL_STORE) as cdn:
        cdn.origin.on("/a", Reply(fields=[FRESH], content=LARGE))
        got, complete = await one_stops_another_reads(cdn)
        assert not complete
        assert LARGE.verify(0, got)
        assert cdn.origin.count() == 1


async def test_what_turns_out_too_large_is_shared_too():
    async with site(memory=SMALL_STORE) as cdn:
        reply = Reply(fields=[FRESH, ETAG], content=LARGE, framing="chunked", honours_ranges=True)
        cdn.origin.on("/a", reply)
        got, complete = await one_stops_another_reads(cdn)
        assert complete
        assert got == LARGE.read(0, len(LARGE))
        assert cdn.stored() == ()


async def test_late_comers_join_while_the_beginning_is_kept():
    gate = Gate(after=MIB)
    async with site(memory=SMALL_STORE) as cdn:
        cdn.origin.on("/a", Reply(fields=[FRESH, ETAG], content=LARGE, gate=gate))
        async with await cdn.ask("/a") as early:
            first = await early.read_head()
            pieces, got = await read_some(first, MIB)
            async with await cdn.ask("/a") as late:
                second = await late.read_head()
                gate.open()
                reading = asyncio.ensure_future(second.read())
                got += b"".join([piece async for piece in pieces])
                assert got == (await reading).content == LARGE.read(0, len(LARGE))
        assert cdn.origin.count() == 1


async def test_later_ones_begin_again():
    gate = Gate(after=8 * MIB)
    async with site(memory=SMALL_STORE) as cdn:
        large = Reply(fields=[FRESH, ETAG], content=LARGE, gate=gate)
        cdn.origin.on("/a", [large, Reply(fields=[FRESH, ETAG], content=LARGE)])
        async with await cdn.ask("/a") as early:
            first = await early.read_head()
            pieces, got = await read_some(first, 8 * MIB)
            assert (await cdn.get("/a")).content == LARGE.read(0, len(LARGE))
            gate.open()
            got += b"".join([piece async for piece in pieces])
            assert got == LARGE.read(0, len(LARGE))
        assert cdn.origin.count() == 2


async def at_rest(cdn):
    """Until the fill waits for its readers."""
    (fill,) = {
        *cdn.edge.node.gateway.filling._alone,
        *(one for _, one in cdn.edge.node.gateway.filling._flights.under_way()),
    } or {None}
    async with asyncio.timeout(5):
        while fill is not None and fill._progress is None:
            await asyncio.sleep(0)


@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_a_slow_reader_of_a_gibibyte_costs_less_than_four_mebibytes(framing):
    content = Pattern(1024 * MIB)
    content.read(0, 1)  # the pattern's own block
    async with site() as cdn:
        cdn.origin.on("/a", Reply(fields=[FRESH, ETAG], content=content, framing=framing))
        client = await cdn.ask("/a")
        answer = await client.read_head()
        tracemalloc.start()
        try:
            pieces, at = aiter(answer), 0
            while at < 6 * MIB:
                piece = await anext(pieces)
                assert content.verify(at, piece)
                at += len(piece)
                await asyncio.sleep(0)
            await at_rest(cdn)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        stored = cdn.edge.node._store._reserved
        assert peak - stored < 4 * MIB
        assert stored < at + 16 * MIB
        client.close()


async def test_nobody_reads_faster_than_the_store_has_room_for():
    """Without a length nobody knows that it will be stored: it is not read ahead of its readers."""
    content = Pattern(1024 * MIB)
    async with site() as cdn:
        cdn.origin.on("/a", Reply(fields=[FRESH, ETAG], content=content, framing="chunked"))
        client = await cdn.ask("/a")
        await client.read_head()
        await cdn.all_joined(1)
        await at_rest(cdn)
        assert cdn.edge.node._store._reserved < 16 * MIB
        client.close()
