"""The disk store as its users see it: look-ups, variants, slices, writers, freshening, removal."""

import asyncio
import threading
from dataclasses import replace

import pytest

from cdn.semantics.ranges import ByteRange
from cdn.semantics.slices import PresentSlices
from cdn.storage import disk, disk_intake, disk_lookup
from cdn.storage.disk_object import READY
from cdn.storage.eviction.two_logs import PROBATION_SHARE
from cdn.storage.logs import Logs
from cdn.storage.memory import MOST_VARIANTS
from cdn.storage.segments import MOST_USES
from cdn.storage.store import FileSpan, SliceDamaged, SliceGone
from tests.storage.disk_kit import (
    SHARDS,
    SIZE,
    SLICE,
    content_of,
    files,
    flip,
    key_of,
    only,
    opened,
    put,
    read,
    response,
    slices_of,
    slices_there,
)

GZIP = (("accept-encoding", "gzip"),)
BROTLI = (("accept-encoding", "br"),)


@pytest.fixture
def store(tmp_path):
    with opened(tmp_path) as store:
        yield store


@pytest.fixture(params=["in RAM", "on the disk"])
def settle(request, store):
    """Everything is looked at while it is on its way, and when it is there."""

    async def settle():
        if request.param == "on the disk":
            await store.flush()

    return settle


# --- look-ups -----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, SLICE, SLICE + 1, 5 * SLICE])
async def test_what_was_stored_is_found(store, settle, size):
    content = content_of("a", size)
    assert put(store, response("a"), content)
    await settle()
    stored = only(store, "a")
    assert stored.response == response("a", length=size)
    assert slices_there(stored) == list(range(-(-size // SLICE)))
    assert await read(stored) == content
    assert await read(stored) == content


async def test_content_of_no_bytes_is_content(store, settle):
    assert put(store, response("a"), b"")
    await settle()
    stored = only(store, "a")
    assert stored.response == response("a", length=0)
    assert await read(stored) == b""


async def test_what_was_not_stored_is_not_found(store, settle):
    put(store, response("a"), b"x")
    await settle()
    assert not store.lookup(key_of("b"))


@pytest.mark.parametrize(
    "part", [(0, 1), (SLICE - 1, SLICE + 1), (SLICE, 2 * SLICE), (5, 9_999), (9_999, 10_000)]
)
async def test_any_part_is_read(store, settle, part):
    content = content_of("a", 10_000)
    put(store, response("a"), content)
    await settle()
    assert await read(only(store, "a"), ByteRange(*part)) == content[slice(*part)]


async def test_parts_come_in_their_order(store, settle):
    content = content_of("a", 10_000)
    put(store, response("a"), content)
    await settle()
    reading = only(store, "a").open([ByteRange(9_000, 9_005), ByteRange(4_094, 4_098)])
    pieces = []
    while piece := await reading.read():
        pieces.append(bytes(piece))
    assert b"".join(pieces) == content[9_000:9_005] + content[4_094:4_098]


async def test_a_look_up_that_must_not_wait_says_so(store, monkeypatch):
    put(store, response("a"), b"x")
    assert len(store.lookup(key_of("a"))) == 1  # still in RAM
    await store.flush()
    monkeypatch.setattr("cdn.storage.segments.Segment.read_resident", lambda *of: None)
    assert store.lookup(key_of("a")) is None
    assert not store.lookup(key_of("b"))
    assert [one.response.length for one in await store.lookup_soon(key_of("a"))] == [1]


async def test_keys_of_one_digest_are_told_apart(store, monkeypatch):
    for module in (disk, disk_intake, disk_lookup):
        monkeypatch.setattr(module, "key_digest", lambda key: b"d" * 16)
    for name in ("a", "b", "longer"):
        put(store, response(name), content_of(name, 5_000))
    await store.flush()
    for name in ("a", "b", "longer"):
        assert await read(only(store, name)) == content_of(name, 5_000)
    assert not store.lookup(key_of("c"))
    assert store.remove(key_of("b")) == 1
    assert only(store, "b") is None
    assert await read(only(store, "a")) == content_of("a", 5_000)
    assert store.counters.damaged == 0


# --- variants -----------------------------------------------------------------------------------


async def test_variants_live_side_by_side_and_go_together(store, settle):
    for variant, content in ((GZIP, b"gz"), (BROTLI, b"br"), ((), b"plain")):
        put(store, response("a", variant), content)
    await settle()
    found = {one.variant: await read(one) for one in store.lookup(key_of("a"))}
    assert found == {GZIP: b"gz", BROTLI: b"br", (): b"plain"}
    assert store.remove(key_of("a")) == 3
    assert not store.lookup(key_of("a"))


async def test_a_new_response_replaces_the_one_of_its_variant_only(store, settle):
    put(store, response("a", GZIP), content_of("old", 9_000))
    put(store, response("a", BROTLI), b"br")
    await settle()
    put(store, response("a", GZIP, etag='"v2"'), content_of("new", 5_000))
    await settle()
    found = {one.variant: await read(one) for one in store.lookup(key_of("a"))}
    assert found == {GZIP: content_of("new", 5_000), BROTLI: b"br"}


async def test_of_too_many_variants_the_oldest_goes(store):
    for number in range(MOST_VARIANTS + 3):
        put(store, response("a", (("x", str(number)),)), b"x")
    await store.flush()
    found = {one.variant[0][1] for one in store.lookup(key_of("a"))}
    assert found == {str(number) for number in range(3, MOST_VARIANTS + 3)}


# --- writers and slices -------------------------------------------------------------------------


async def test_without_a_head_nothing_is_kept(store, settle):
    writer = store.open_writer(response("a", length=10_000))
    assert writer.write(0, b"x" * SLICE)
    await settle()
    assert only(store, "a") is None
    writer.abort()
    await settle()
    assert only(store, "a") is None
    assert not writer.write(1, b"x" * SLICE)
    assert not writer.commit(response("a", length=10_000))


async def test_slices_under_an_early_head_survive_the_writer(store, settle):
    content = content_of("a", 5 * SLICE)
    pieces = slices_of(content)
    head = response("a", length=len(content))
    writer = store.open_writer(head)
    writer.write(0, pieces[0])
    assert writer.show(head)
    writer.write(1, pieces[1])
    await settle()
    writer.abort()
    stored = only(store, "a")
    assert slices_there(stored) == [0, 1]
    assert stored.response == replace(head, present=PresentSlices(0b11, SLICE))
    assert stored.response.present.covers(ByteRange(5, 2 * SLICE))
    assert not stored.response.present.covers(ByteRange(5, 2 * SLICE + 1))
    assert await read(stored, ByteRange(5, 2 * SLICE)) == content[5 : 2 * SLICE]


async def test_an_interrupted_response_is_completed_by_another_writer(store, settle):
    content = content_of("a", 4 * SLICE + 7)
    pieces = slices_of(content)
    head = response("a", length=len(content))
    for numbers in ((3, 1), (0, 4), (2,)):
        writer = store.open_writer(head)
        assert writer.show(head)
        for number in numbers:
            assert writer.write(number, pieces[number])
        writer.abort()
        await settle()
    stored = only(store, "a")
    assert stored.response == head
    assert await read(stored) == content
    assert store.counters.slices_stored in (0, 5)


async def test_writers_at_work_at_once_fill_one_object(store, settle):
    content = content_of("a", 2 * SLICE)
    head = response("a", length=len(content))
    first, second = store.open_writer(head), store.open_writer(head)
    first.write(0, content[:SLICE])
    second.write(1, content[SLICE:])
    second.commit(head)
    first.abort()
    await settle()
    assert await read(only(store, "a")) == content


async def test_a_slice_that_is_there_is_not_written_again(store):
    head = response("a", length=SLICE)
    put(store, head, content_of("a", SLICE))
    await store.flush()
    written = store.counters.written
    writer = store.open_writer(head)
    assert writer.write(0, content_of("a", SLICE))
    writer.abort()
    await store.flush()
    assert store.counters.written == written


@pytest.mark.parametrize("etag", ['"v2"', 'W/"v1"', None])
async def test_another_validator_drops_the_old_slices(store, settle, etag):
    put(store, response("a"), content_of("old", 2 * SLICE))
    await settle()
    head = response("a", length=2 * SLICE, etag=etag)
    writer = store.open_writer(head)
    writer.write(1, content_of("new", 2 * SLICE)[SLICE:])
    assert slices_there(only(store, "a")) == [0, 1]  # until there is a new head
    assert writer.commit(replace(head, present=PresentSlices(0b10, SLICE)))
    await settle()
    stored = only(store, "a")
    assert slices_there(stored) == [1]
    assert stored.response.validator.etag == etag
    assert await read(stored, ByteRange(SLICE, 2 * SLICE)) == content_of("new", 2 * SLICE)[SLICE:]


async def test_another_length_under_the_same_tag_is_another_response(store, settle):
    put(store, response("a"), content_of("a", 2 * SLICE))
    await settle()
    head = response("a", length=3 * SLICE)
    writer = store.open_writer(head)
    writer.write(2, b"x" * SLICE)
    writer.commit(head)
    await settle()
    assert slices_there(only(store, "a")) == [2]


async def test_a_head_too_long_is_refused(store):
    head = response("a", lines=[("X", "x" * 70_000)])
    writer = store.open_writer(head)
    assert writer.write(0, b"x")
    assert not writer.commit(head)
    assert only(store, "a") is None
    assert store.open_writer(response("k" * 40_000)) is None


async def test_a_backlog_is_refused_and_can_be_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr("cdn.storage.write_behind.BACKLOG", 2 * SLICE)
    with opened(tmp_path) as store:
        head = response("a", length=9 * SLICE)
        writer = store.open_writer(head)
        with store._shards[0].lock, store._shards[1].lock:  # the disk is slow
            taken = [writer.write(number, b"x" * SLICE) for number in range(9)]
            waiting = asyncio.ensure_future(writer.room())
            await asyncio.sleep(0)
            waited = not waiting.done()
        await waiting
        assert waited
        assert taken == [True, True] + [False] * 7
        assert store.counters.refused == 7
        assert writer.write(8, b"x" * SLICE)
        writer.commit(head)
        assert slices_there(only(store, "a")) == [0, 1, 8]


# --- freshening and removal ---------------------------------------------------------------------


async def test_freshening_replaces_the_head_only(store, settle):
    put(store, response("a"), content_of("a", 9_000))
    await settle()
    written = store.counters.written
    fresh = response("a", length=9_000, at=2e9, lines=[("X-New", "1")])
    store.freshen(only(store, "a"), fresh)
    assert only(store, "a").response == fresh
    await store.flush()
    stored = only(store, "a")
    assert stored.response == fresh
    assert await read(stored) == content_of("a", 9_000)
    assert store.counters.written - written < 9_000 + 3_000


async def test_freshening_what_has_gone_or_been_replaced_is_nothing(store, settle):
    put(store, response("a"), b"old")
    await settle()
    old = only(store, "a")
    put(store, response("a", etag='"v2"'), b"new")
    await settle()
    store.freshen(old, response("a", length=3, at=2e9))
    assert only(store, "a").response.validator.etag == '"v2"'
    store.remove(key_of("a"))
    store.freshen(old, response("a", length=3, at=2e9))
    await settle()
    assert only(store, "a") is None


async def test_a_part_is_freshened_and_can_still_be_completed(store, settle):
    head = response("a", length=2 * SLICE)
    writer = store.open_writer(head)
    writer.write(0, b"x" * SLICE)
    writer.commit(head)
    await settle()
    store.freshen(only(store, "a"), replace(head, response_time=2e9))
    await settle()
    writer = store.open_writer(head)
    writer.write(1, b"y" * SLICE)
    writer.abort()
    await settle()
    stored = only(store, "a")
    assert (stored.response_time, len(slices_there(stored))) == (2e9, 2)


async def test_what_is_removed_on_its_way_never_arrives(store):
    head = response("a", length=3 * SLICE)
    writer = store.open_writer(head)
    writer.write(0, b"x" * SLICE)
    writer.show(head)
    assert store.remove(key_of("a")) == 1
    assert not writer.write(1, b"x" * SLICE)
    assert not writer.commit(head)
    await store.flush()
    assert only(store, "a") is None
    assert store.status()["objects"] == 0


async def test_a_reader_of_what_was_removed_reads_on(store, settle):
    content = content_of("a", 3 * SLICE)
    put(store, response("a"), content)
    await settle()
    reading = only(store, "a").open([ByteRange(0, len(content))])
    pieces = [bytes(await reading.read())]
    assert store.remove(key_of("a")) == 1
    await store.flush()
    while piece := await reading.read():
        pieces.append(bytes(piece))
    assert b"".join(pieces) == content
    assert await reading.read() == b""


async def test_the_object_of_a_removed_response_has_no_content_for_new_readers(store):
    put(store, response("a"), b"x")
    stored = only(store, "a")
    store.remove(key_of("a"))
    with pytest.raises(SliceGone):
        await read(stored)


async def test_aborting_lets_go(store):
    put(store, response("a"), content_of("a", 3 * SLICE))
    await store.flush()
    reading = only(store, "a").open([ByteRange(0, 3 * SLICE)])
    await reading.read()
    reading.abort()
    reading.abort()
    assert await reading.read() == b""


def _uses(store, stored) -> list[int]:
    """Of its head, and of each of its slices."""
    shard = next(shard for shard in store._shards if shard.index.counts()[0])
    places = (
        next(shard.index.all_heads())[1].location,
        *shard.index.locate(stored.object_id, range(2)).values(),
    )
    return [shard.segments.get(place.segment).uses(place.record) for place in places]


async def test_a_use_counts_for_the_head_and_reading_slice_by_slice(store):
    put(store, response("a"), content_of("a", 2 * SLICE))
    store.touch(only(store, "a"))  # on its way: nothing to count by yet
    await store.flush()
    stored = only(store, "a")
    store.touch(stored, 3)
    assert _uses(store, stored) == [3, 0, 0]
    await read(stored, ByteRange(5, SLICE))
    assert stored.ready([ByteRange(5, SLICE + 1)]) is not None
    assert _uses(store, stored) == [3, 2, 1]


async def test_content_of_one_slice_is_used_when_its_response_is(store):
    put(store, response("a"), content_of("a", SLICE))
    await store.flush()
    for times in range(1, 4):
        stored = only(store, "a")
        assert stored.ready([ByteRange(0, SLICE)]) is not None
        await read(stored)
        store.touch(stored, 2)
        assert _uses(store, stored) == [2 * times, 2 * times]
    store.touch(stored, 1_000)
    assert _uses(store, stored) == [MOST_USES, MOST_USES]


async def test_slices_are_read_in_small_pieces_once_verified(tmp_path):
    size = 1 << 20
    with opened(tmp_path, 256 << 20, largest_slice=size) as store:
        put(store, response("a", slice_size=size), content_of("a", 2 * size))
        await store.flush()
        lengths = []
        for _ in range(2):
            reading = only(store, "a").open([ByteRange(0, 2 * size)])
            while piece := await reading.read():
                lengths.append(len(piece))
        assert lengths == [size, size] + [256 << 10] * 8
        assert len(files(tmp_path, "marks")) == 1


# --- what is had at once --------------------------------------------------------------------------


async def test_what_is_not_resident_is_not_ready(store, monkeypatch):
    put(store, response("a"), content_of("a", SLICE))
    await store.flush()
    stored = only(store, "a")
    assert b"".join(stored.ready([ByteRange(3, 9)])) == content_of("a", SLICE)[3:9]
    monkeypatch.setattr("cdn.storage.segments.Segment.read_resident", lambda *of: None)
    assert stored.ready([ByteRange(3, 9)]) is None
    assert await read(stored) == content_of("a", SLICE)


async def test_too_much_is_not_ready(tmp_path):
    size = 1 << 20
    with opened(tmp_path, 256 << 20, largest_slice=size) as store:
        put(store, response("a", slice_size=size), content_of("a", size))
        await store.flush()
        stored = only(store, "a")
        few = [ByteRange(0, 10)]
        assert stored.ready(few) is None  # to be verified, off the loop
        await read(stored)
        assert stored.ready(few) == [content_of("a", 10)]
        assert stored.ready([ByteRange(5, 5 + READY)]) == [content_of("a", size)[5 : 5 + READY]]
        assert stored.ready([ByteRange(0, READY), ByteRange(0, 1)]) is None


async def test_what_is_resident_and_verified_is_sent_out_of_its_segment(tmp_path, monkeypatch):
    size = 1 << 20
    content = content_of("a", 3 * size)
    with opened(tmp_path, 256 << 20, largest_slice=size) as store:
        put(store, response("a", slice_size=size), content)
        await store.flush()
        stored = only(store, "a")
        part = ByteRange(size - 100_000, size + 70_000)
        assert stored.ready_to_send([part]) is None  # to be verified, off the loop
        assert await read(stored) == content
        spans = stored.ready_to_send([part])
        assert all(isinstance(span, FileSpan) for span in spans)
        assert b"".join(span.read() for span in spans) == content[part.start : part.stop]
        assert bytes(spans[0].read_again(1_000)) == content[part.start + 1_000 : size]
        reading = stored.open_to_send([ByteRange(5, 3 * size)])
        pieces = [await reading.read() for _ in range(4)]
        assert b"".join(span.read() for span in pieces[:3]) == content[5:]
        assert pieces[3] == b""
        monkeypatch.setattr("cdn.storage.segments.Segment.is_resident", lambda *of: False)
        assert stored.ready_to_send([part]) is None
        assert not spans[0].is_resident(0, 1)
        reading = stored.open_to_send([part])
        assert await reading.read() == content[part.start : size]  # read in a thread
        for path in files(tmp_path, "segment"):
            if path.stat().st_size > size:
                flip(path, 64 + len(key_of("a")) + 100)
        with pytest.raises(SliceDamaged):
            spans[0].read_again(0)


@pytest.mark.parametrize("size", [SLICE, 2 * SLICE])
async def test_what_is_found_damaged_is_never_ready(store, tmp_path, size):
    put(store, response("a"), content_of("a", size))
    await store.flush()
    (path,) = files(tmp_path, "segment")
    flip(path, 64 + len(key_of("a")) + 100)
    stored = only(store, "a")
    with pytest.raises(SliceDamaged) as raised:
        stored.ready([ByteRange(0, size)])
    assert raised.value.number == 0
    found = only(store, "a")
    assert found is None if size == SLICE else slices_there(found) == [1]
    with pytest.raises(SliceGone):
        stored.ready([ByteRange(0, size)])


async def test_what_has_moved_since_it_was_looked_up_is_still_ready(store):
    content = content_of("a", SLICE)
    put(store, response("a"), content)
    await store.flush()
    stored = only(store, "a")
    stored.ready([ByteRange(0, SLICE)])
    store.touch(stored, 2)
    moved = store.counters.slices_kept
    for number in range(300):
        put(store, response(f"flood{number}"), content_of(f"flood{number}", 100_000))
        if number % 10 == 0:
            await store.flush()
    await store.flush()  # a file that is being written to may have to be waited for
    assert store.counters.slices_kept > moved
    for shard in store._shards:
        shard.segments.let_go()
    assert stored.ready([ByteRange(0, SLICE)]) == [content]
    store.touch(stored)


async def test_a_look_up_is_the_same_until_somebody_writes(store):
    put(store, response("a"), b"one")
    await store.flush()
    (first,) = store.lookup(key_of("a"))
    assert store.lookup(key_of("a"))[0] is first
    store.freshen(first, response("a", length=3, at=2e9))
    await store.flush()
    (second,) = store.lookup(key_of("a"))
    assert second.response_time == 2e9
    store.remove(key_of("a"))
    assert not store.lookup(key_of("a"))


async def test_no_more_look_ups_are_remembered_than_allowed(store, monkeypatch):
    monkeypatch.setattr(disk_lookup, "MOST_KNOWN", 3)
    for number in range(9):
        put(store, response(f"o{number}"), b"x")
    await store.flush()
    for number in range(9):
        assert only(store, f"o{number}")
    assert len(store._lookups._known) == 3


# --- what cannot be completed ---------------------------------------------------------------------


LARGEST_WHOLE = SIZE // SHARDS * PROBATION_SHARE // 100 // 2
"""Half of a shard's probation."""


@pytest.mark.parametrize("part", [None, ByteRange(5, 5 + LARGEST_WHOLE)])
def test_what_cannot_be_completed_may_not_fill_probation(store, part):
    etag = None if part is None else '"v1"'

    def head(more):
        asked = part and ByteRange(part.start, part.stop + more)
        length = LARGEST_WHOLE + more if part is None else 1 << 40
        return replace(response("a", length=length, etag=etag), present=asked)

    assert store.open_writer(head(0)) is not None
    assert store.open_writer(head(1)) is None
    assert store.open_writer(response("a", length=1 << 40)) is not None
    assert store.open_writer(response("a", etag=None)) is not None


async def test_what_lost_a_slice_before_its_end_came_is_not_kept(store):
    head = response("a", length=2 * SLICE, etag=None)
    writer = store.open_writer(head)
    writer.write(0, b"x" * SLICE)
    await store.flush()
    for number in range(200):
        put(store, response(f"flood{number}"), content_of(f"flood{number}", 100_000))
        if number % 10 == 0:
            await store.flush()
    writer.write(1, b"y" * SLICE)
    assert not writer.commit(head)
    await store.flush()
    assert only(store, "a") is None


async def test_what_loses_a_slice_while_its_head_is_written_is_not_kept(store, monkeypatch):
    head = response("a", length=2 * SLICE, etag=None)
    writer = store.open_writer(head)
    writer.write(0, b"x" * SLICE)
    await store.flush()
    writer.write(1, b"y" * SLICE)
    monkeypatch.setattr("cdn.storage.logs.Logs.has", lambda logs, number: False)
    monkeypatch.setattr("cdn.storage.shard.Shard.has_whole", lambda *of: True)
    assert writer.commit(head)
    await store.flush()
    assert only(store, "a") is None
    assert store.status()["objects"] == 0


def test_slices_larger_than_the_store_is_made_for_are_refused(store):
    assert store.open_writer(response("a", slice_size=SLICE + 1)) is None
    assert store.counters.refused == 1


async def test_a_head_that_was_shown_is_not_written_again(store):
    head = response("a", length=SLICE)
    writer = store.open_writer(head)
    writer.show(head)
    writer.write(0, b"x" * SLICE)
    await store.flush()
    written = store.counters.written
    assert writer.commit(head)
    writer = store.open_writer(head)
    assert writer.commit(only(store, "a").response)
    await store.flush()
    assert store.counters.written == written
    assert only(store, "a").response == head


async def test_a_head_that_is_just_being_indexed_is_kept(store, monkeypatch):
    """Until the index has it for all to see it is on its way, also where it was shown before."""
    indexing, go_on = threading.Event(), threading.Event()
    last_step = Logs.put

    def slowly(*of):
        last_step(*of)
        indexing.set()
        assert go_on.wait(10)

    head = response("a", length=SLICE)
    with monkeypatch.context() as slow:
        slow.setattr(Logs, "put", slowly)
        writer = store.open_writer(head)
        assert writer.show(head)
        await asyncio.to_thread(indexing.wait)
        try:
            assert writer.write(0, content_of("a", SLICE))
            assert writer.commit(head)
        finally:
            go_on.set()
            await store.flush()
    assert await read(only(store, "a")) == content_of("a", SLICE)


async def test_a_part_that_lost_a_slice_is_what_is_left_at_its_beginning(store):
    content = content_of("a", 3 * SLICE)
    part = ByteRange(100, 100 + 3 * SLICE)
    head = replace(response("a", length=1_000_000), present=part, status=206)
    writer = store.open_writer(head)
    for number, piece in enumerate(slices_of(content)):
        writer.write(number, piece)
    writer.commit(head)
    await store.flush()
    shard = store._shards.of(disk.key_digest(key_of("a")))
    stored = only(store, "a")
    for number, left in ((2, ByteRange(100, 100 + 2 * SLICE)), (0, None)):
        place = shard.index.locate(stored.object_id, [number])[number]
        shard.slice_damaged(disk.key_digest(key_of("a")), stored.object_id, number, place)
        found = only(store, "a")
        assert (found and found.response.present) == left
        if found:
            assert await read(found, left) == content[: 2 * SLICE]
