"""What every store does, whatever it keeps responses in."""

import asyncio
from dataclasses import replace

import pytest

from cdn.semantics.ranges import ByteRange
from cdn.semantics.slices import PresentSlices
from cdn.storage.memory import MemoryStore
from cdn.storage.store import SliceUnavailable, Store
from tests.storage.disk_kit import (
    SLICE,
    content_of,
    key_of,
    open_store,
    put,
    read,
    read_all,
    response,
    slices_of,
    slices_there,
)

GZIP = (("accept-encoding", "gzip"),)
CONTENT = content_of("a", 3 * SLICE + 7)
PIECES = slices_of(CONTENT)


@pytest.fixture(params=["disk", "memory"])
def store(request, tmp_path):
    if request.param == "memory":
        yield MemoryStore(64 << 20)
        return
    opened = open_store(tmp_path)
    yield opened
    opened.close()


async def _found(store: Store, name="a"):
    found = store.lookup(key_of(name))
    if found is None:
        found = await store.lookup_soon(key_of(name))
    return list(found)


async def _only(store: Store, name="a"):
    (found,) = await _found(store, name)
    return found


def _writer(store: Store, head, *numbers, pieces=PIECES):
    writer = store.open_writer(head)
    assert writer is not None
    for number in numbers:
        assert writer.write(number, pieces[number])
    return writer


HEAD = response("a", length=len(CONTENT))
PARTS = [ByteRange(SLICE - 3, SLICE + 3), ByteRange(0, 2), ByteRange(3 * SLICE, len(CONTENT))]
IN_PARTS = CONTENT[SLICE - 3 : SLICE + 3] + CONTENT[:2] + CONTENT[3 * SLICE :]


# --- finding and reading ------------------------------------------------------------------------


async def test_what_is_put_at_once_is_as_what_a_writer_brought(store):
    changed = []
    store.on_change = changed.append
    head = response("b", length=9)
    assert store.put(head, b"123456789")
    assert key_of("b") in changed
    stored = await _only(store, "b")
    assert stored.response == head
    assert await read_all(stored.open([ByteRange(2, 9)])) == b"3456789"
    put(store, response("a"), CONTENT)
    assert (await _only(store, "b")).response == head


async def test_what_was_committed_is_found_and_read_both_ways(store):
    assert put(store, response("a"), CONTENT)
    stored = await _only(store)
    assert stored.response == HEAD
    assert (stored.variant, stored.response_time) == (HEAD.variant, HEAD.response_time)
    assert await read_all(stored.open(PARTS)) == IN_PARTS
    pieces = stored.ready(PARTS)
    assert pieces is None or b"".join(pieces) == IN_PARTS
    store.touch(stored)
    store.touch(stored, 5)


async def test_what_was_not_stored_is_not_found(store):
    assert await _found(store) == []
    assert store.remove(key_of("a")) == 0


async def test_no_bytes_are_content_too(store):
    assert put(store, response("a"), b"")
    stored = await _only(store)
    assert stored.response.present is None
    assert stored.ready([]) == []
    assert await read(stored) == b""


async def test_variants_are_kept_beside_each_other_and_removed_together(store):
    put(store, response("a", GZIP), b"gz")
    put(store, response("a"), b"plain")
    assert {one.variant: await read(one) for one in await _found(store)} == {
        GZIP: b"gz",
        (): b"plain",
    }
    assert store.remove(key_of("a")) == 2
    assert await _found(store) == []


async def test_what_is_being_read_outlives_its_removal(store):
    put(store, response("a"), CONTENT)
    reading = (await _only(store)).open([ByteRange(0, len(CONTENT))])
    store.remove(key_of("a"))
    assert await read_all(reading) == CONTENT


async def test_an_aborted_reader_reads_no_more(store):
    put(store, response("a"), CONTENT)
    reading = (await _only(store)).open([ByteRange(0, len(CONTENT))])
    reading.abort()
    reading.abort()
    assert await reading.read() == b""


# --- writers ------------------------------------------------------------------------------------


async def test_what_was_not_shown_leaves_no_trace(store):
    writer = _writer(store, HEAD, 0, 1)
    assert await _found(store) == []
    writer.abort()
    writer.abort()
    assert await _found(store) == []
    assert not writer.write(2, PIECES[2])
    assert not writer.show(HEAD)
    assert not writer.commit(HEAD)


async def test_a_writer_reads_what_it_has_before_anybody_else_sees_it(store):
    writer = _writer(store, HEAD, 1, 0)
    assert await read_all(writer.open([ByteRange(5, 2 * SLICE)])) == CONTENT[5 : 2 * SLICE]
    with pytest.raises(SliceUnavailable):
        await read_all(writer.open([ByteRange(2 * SLICE, 2 * SLICE + 1)]))
    assert await _found(store) == []
    writer.abort()


async def test_a_writer_reads_what_was_there_before(store):
    _writer(store, HEAD, 0).commit(replace(HEAD, present=PresentSlices(1, SLICE)))
    writer = _writer(store, HEAD, 1)
    assert await read_all(writer.open([ByteRange(0, 2 * SLICE)])) == CONTENT[: 2 * SLICE]
    writer.abort()


async def test_what_is_shown_is_found_at_once_also_without_content(store):
    writer = _writer(store, HEAD)
    assert writer.show(HEAD)
    assert (await _only(store)).response == replace(HEAD, present=PresentSlices(0, SLICE))
    writer.write(2, PIECES[2])
    assert (await _only(store)).response.present == PresentSlices(0b100, SLICE)
    writer.abort()
    assert slices_there(await _only(store)) == [2]


async def test_a_shown_response_of_which_nothing_came_is_gone_with_its_writer(store):
    writer = _writer(store, HEAD)
    writer.show(HEAD)
    writer.abort()
    await _settled(store)
    assert await _found(store) == []


async def test_slices_come_in_any_order_and_by_many_writers(store):
    first, second = _writer(store, HEAD, 3), _writer(store, HEAD, 0, 2)
    assert first.show(HEAD)
    first.abort()
    second.write(1, PIECES[1])
    assert second.commit(HEAD)
    stored = await _only(store)
    assert stored.response.present is None
    assert await read(stored) == CONTENT


@pytest.mark.parametrize("settled", [False, True])
async def test_another_slice_size_is_not_joined(store, settled):
    small = SLICE // 2
    _writer(store, HEAD, 1).commit(replace(HEAD, present=PresentSlices(0b10, SLICE)))
    if settled:
        await _settled(store)
    head = replace(HEAD, slice_size=small)
    writer = _writer(store, head, 1, 2, pieces=slices_of(CONTENT, small))
    assert writer.commit(replace(head, present=PresentSlices(0b110, small)))
    stored = await _only(store)
    assert stored.response.present == PresentSlices(0b110, small)
    assert await read(stored, ByteRange(small, 3 * small)) == CONTENT[small : 3 * small]


async def test_sizes_of_slices_live_side_by_side(store):
    for name, size in (("a", SLICE), ("b", SLICE // 4)):
        assert put(store, response(name, slice_size=size), content_of(name, 10_000))
    for name in "ab":
        assert await read(await _only(store, name)) == content_of(name, 10_000)


async def test_a_removed_response_takes_no_more(store):
    writer = _writer(store, HEAD, 0)
    writer.show(HEAD)
    assert store.remove(key_of("a")) == 1
    assert not writer.write(1, PIECES[1])
    assert not writer.commit(HEAD)
    assert await _found(store) == []


async def test_a_replaced_response_takes_no_more(store):
    writer = _writer(store, HEAD, 0)
    writer.show(HEAD)
    put(store, response("a", etag='"v2"'), b"new")
    assert not writer.commit(HEAD)
    assert await read(await _only(store)) == b"new"


@pytest.mark.parametrize("etag", [None, 'W/"v1"'])
async def test_without_a_strong_validator_it_is_kept_whole_or_not_at_all(store, etag):
    head = response("a", length=len(CONTENT), etag=etag)
    assert not _writer(store, head, 0, 1, 3).commit(head)
    await _settled(store)
    assert await _found(store) == []
    assert _writer(store, head, 0, 1, 3, 2).commit(head)
    assert await read(await _only(store)) == CONTENT


async def test_without_a_strong_validator_nothing_is_joined(store):
    head = response("a", length=len(CONTENT), etag=None)
    first, second = _writer(store, head, 0, 1, 2), _writer(store, head, 3)
    assert not first.commit(head)
    assert not second.commit(head)


async def test_room_can_be_waited_for(store):
    writer = _writer(store, HEAD, 0)
    await asyncio.wait_for(writer.room(), 5)
    writer.abort()


# --- parts that came by themselves --------------------------------------------------------------


def _fragment(start=1_000, length=2 * SLICE + 5, etag=None):
    part = ByteRange(start, start + length)
    return replace(response("a", length=100_000, etag=etag), status=206, present=part)


async def test_a_part_is_kept_as_it_came(store):
    head, whole = _fragment(), content_of("whole", 100_000)
    part = head.present
    pieces = slices_of(whole[part.start : part.stop])
    assert _writer(store, head, 0, 1, 2, pieces=pieces).commit(head)
    for _ in range(2):
        stored = await _only(store)
        assert stored.response == head
        for asked in (part, ByteRange(1_001, 1_002), ByteRange(5_000, 5_500)):
            assert await read(stored, asked) == whole[asked.start : asked.stop]
            ready = stored.ready([asked])
            assert ready is None or b"".join(ready) == whole[asked.start : asked.stop]
        await _settled(store)


async def test_a_part_is_never_joined(store):
    head = _fragment(etag='"v1"')
    pieces = slices_of(content_of("x", 2 * SLICE + 5))
    first = _writer(store, head, 0, pieces=pieces)
    second = _writer(store, head, 1, pieces=pieces)
    with pytest.raises(SliceUnavailable):
        await read_all(second.open([ByteRange(1_000, 1_010)]))
    first.abort()
    second.abort()


async def test_a_part_gives_way_to_another_part(store):
    for start in (1_000, 7_000):
        head = _fragment(start, 10)
        assert _writer(store, head, 0, pieces=[b"0123456789"]).commit(head)
    stored = await _only(store)
    assert stored.response.present == ByteRange(7_000, 7_010)
    assert await read(stored, ByteRange(7_002, 7_005)) == b"234"


# --- freshening, epochs -------------------------------------------------------------------------


@pytest.mark.parametrize("head", [response("a", length=5), _fragment(length=5)])
async def test_freshening_replaces_the_head_and_keeps_the_content(store, head):
    assert _writer(store, head, 0, pieces=[b"12345"]).commit(head)
    stored = await _only(store)
    store.freshen(stored, replace(stored.response, response_time=2e9))
    fresh = await _only(store)
    assert fresh.response == replace(head, response_time=2e9)
    part = head.present or ByteRange(0, 5)
    assert await read(fresh, part) == b"12345"


async def test_what_was_asked_for_before_a_purge_is_outdated(store):
    epochs = store.epochs
    before = epochs.now
    epochs.purge([(b"films", "news"), (b"films", "front")])
    assert epochs.outdated([(b"films", "other"), (b"films", "news")], before)
    assert not epochs.outdated([(b"shop", "news")], before)
    assert not epochs.outdated([(b"films", "news")], epochs.now)
    assert not epochs.outdated([], before)


async def _settled(store):
    """Until what is behind the loop's back is done."""
    flush = getattr(store, "flush", None)
    if flush is not None:
        await flush()
