"""Probation in RAM: what came once is not written before it is used again."""

from dataclasses import replace

import pytest

from cdn.semantics.ranges import ByteRange
from cdn.storage.eviction.two_logs import Admission
from tests.storage.disk_kit import (
    NOW,
    SLICE,
    content_of,
    key_of,
    only,
    opened,
    put,
    read,
    read_all,
    response,
    slices_there,
)

ROOM = 10 * SLICE


@pytest.fixture
def store(tmp_path):
    with _opened(tmp_path) as store:
        yield store


def _opened(directory, **more):
    return opened(directory, admission=Admission.REUSE, memory=ROOM, **more)


def _slice(number: int) -> ByteRange:
    return ByteRange(number * SLICE, (number + 1) * SLICE)


async def _on_disk(store) -> tuple[int, int]:
    """Objects and slices."""
    await store.flush()
    status = store.status()
    return status["objects"], status["slices"]


async def test_what_came_once_is_there_and_not_written(store):
    content = content_of("a", 3 * SLICE + 5)
    assert put(store, response(), content)
    assert await _on_disk(store) == (0, 0)
    assert store.counters.written == 0
    assert only(store, "a").response == response(length=len(content))
    assert await read(only(store, "a"), ByteRange(5, 6)) == content[5:6]


async def test_a_slice_is_written_when_it_is_read_again_and_the_head_with_it(tmp_path):
    content = content_of("a", 3 * SLICE)
    with _opened(tmp_path) as store:
        put(store, response(), content)
        await read(only(store, "a"), _slice(1))
        assert await _on_disk(store) == (1, 1)
        assert slices_there(only(store, "a")) == [0, 1, 2]
        assert only(store, "a").ready([_slice(2)]) == [content[2 * SLICE :]]
        assert await _on_disk(store) == (1, 2)
        written = store.counters.written
        await read(only(store, "a"), _slice(1))
        assert await _on_disk(store) == (1, 2)
        assert store.counters.written == written
    with _opened(tmp_path) as store:
        assert slices_there(only(store, "a")) == [1, 2]
        assert await read(only(store, "a"), ByteRange(SLICE, 3 * SLICE)) == content[SLICE:]


async def test_content_of_one_slice_is_used_when_the_response_is(store):
    put(store, response(), b"content")
    assert await read(only(store, "a")) == b"content"
    assert await _on_disk(store) == (0, 0)
    store.touch(only(store, "a"))
    assert await _on_disk(store) == (1, 1)


async def test_who_reads_while_it_comes_does_not_use_it(store):
    content = content_of("a", 2 * SLICE)
    writer = store.open_writer(response(length=2 * SLICE))
    writer.write(0, content[:SLICE])
    writer.show(response(length=2 * SLICE))
    assert await writer.open([_slice(0)]).read() == content[:SLICE]
    writer.write(1, content[SLICE:])
    writer.commit(response(length=2 * SLICE))
    assert await _on_disk(store) == (0, 0)


async def test_the_oldest_give_way_and_are_written_when_they_come_back(store):
    for name in "abcde":
        put(store, response(name), content_of(name, 4 * SLICE))
    assert [only(store, name) for name in "ab"] == [None, None]
    assert slices_there(only(store, "c")) == [2, 3]
    assert await _on_disk(store) == (0, 0)
    put(store, response("a"), content_of("a", 4 * SLICE))
    assert await _on_disk(store) == (1, 4)
    assert await read(only(store, "a")) == content_of("a", 4 * SLICE)


async def test_a_slice_that_there_is_no_room_for_passes_by(tmp_path):
    with opened(tmp_path, admission=Admission.REUSE, memory=SLICE - 1) as store:
        writer = store.open_writer(response(length=SLICE))
        assert not writer.write(0, content_of("a", SLICE))
        writer.abort()
        assert await _on_disk(store) == (0, 0)


async def test_what_cannot_be_completed_is_written_whole(tmp_path):
    content = content_of("a", 3 * SLICE)
    with _opened(tmp_path) as store:
        put(store, response(etag=None), content)
        assert await _on_disk(store) == (0, 0)
        await read(only(store, "a"), _slice(1))
        assert await _on_disk(store) == (1, 3)
    with _opened(tmp_path) as store:
        assert await read(only(store, "a")) == content


async def test_what_cannot_be_completed_gives_way_whole(store):
    content = content_of("a", 3 * SLICE)
    put(store, response(etag=None), content)
    put(store, response("b"), content_of("b", 8 * SLICE))
    assert only(store, "a") is None
    assert await read(only(store, "b"), _slice(0)) == content_of("b", SLICE)
    put(store, response(etag=None), content)  # it comes back
    assert await _on_disk(store) == (2, 4)
    assert await read(only(store, "a")) == content
    assert store.open_writer(response("c", etag=None, length=6 * SLICE)) is None


async def test_what_cannot_be_completed_and_outgrows_the_room_is_refused(store):
    writer = store.open_writer(response(etag=None))  # its length is not known
    content = content_of("a", SLICE)
    taken = [writer.write(number, content) for number in range(12)]
    assert taken == [True] * 10 + [False] * 2
    assert not writer.commit(response(etag=None, length=12 * SLICE))
    put(store, response("b"), content_of("b", 10 * SLICE))  # all of the room is there again
    assert slices_there(only(store, "b")) == list(range(10))
    assert only(store, "a") is None


async def test_what_replaces_something_on_the_disk_is_written(tmp_path):
    """Or the older one would be found again once the newer has given way."""
    with _opened(tmp_path) as store:
        put(store, response(), content_of("a", 2 * SLICE))
        await read(only(store, "a"))
        assert await _on_disk(store) == (1, 2)
        newer = response(etag='"v2"', at=NOW + 1)
        put(store, newer, content_of("newer", 3 * SLICE))
        assert await _on_disk(store) == (1, 5)  # the older one's two go with their segment
    with _opened(tmp_path) as store:
        assert only(store, "a").response == newer.with_length(3 * SLICE)
        assert await read(only(store, "a")) == content_of("newer", 3 * SLICE)


async def test_a_newer_response_takes_the_place_of_one_that_waits(store):
    put(store, response(), content_of("a", 2 * SLICE))
    older = only(store, "a")
    reading = older.open([_slice(0)])
    put(store, response(etag='"v2"'), content_of("newer", 2 * SLICE))
    store.touch(older)
    assert await read_all(reading) == content_of("a", SLICE)
    assert await _on_disk(store) == (0, 0)
    assert await read(only(store, "a")) == content_of("newer", 2 * SLICE)


async def test_what_is_removed_is_not_written_any_more(store):
    put(store, response(), content_of("a", 2 * SLICE))
    reading = only(store, "a").open([_slice(0)])
    assert store.remove(key_of("a")) == 1
    assert await read_all(reading) == content_of("a", SLICE)
    assert only(store, "a") is None
    assert await _on_disk(store) == (0, 0)


async def test_a_head_that_was_freshened_is_the_one_that_is_written(tmp_path):
    with _opened(tmp_path) as store:
        put(store, response(), content_of("a", 2 * SLICE))
        fresher = replace(only(store, "a").response, response_time=NOW + 9)
        store.freshen(only(store, "a"), fresher)
        assert await _on_disk(store) == (0, 0)
        assert only(store, "a").response == fresher
        await read(only(store, "a"))
        assert await _on_disk(store) == (1, 2)
    with _opened(tmp_path) as store:
        assert only(store, "a").response == fresher


async def test_a_response_without_content_has_nothing_to_wait_for(store):
    put(store, response(), b"")
    assert await _on_disk(store) == (1, 0)
    assert only(store, "a").response == response(length=0)


async def test_what_the_disk_does_not_take_goes_on_waiting(store):
    content = content_of("a", 2 * SLICE)
    put(store, response(), content)
    store._trouble.failed("it is full")
    assert await read(only(store, "a")) == content
    assert await _on_disk(store) == (0, 0)
    store._trouble.try_again()
    assert await read(only(store, "a")) == content
    assert await _on_disk(store) == (1, 2)


async def test_a_part_by_itself_waits_too(store):
    part = ByteRange(100, 100 + 2 * SLICE)
    content = content_of("a", 2 * SLICE)
    writer = store.open_writer(response(length=9 * SLICE, present=part))
    for number in (0, 1):
        writer.write(number, content[number * SLICE : (number + 1) * SLICE])
    assert writer.commit(response(length=9 * SLICE, present=part))
    assert await _on_disk(store) == (0, 0)
    assert await read(only(store, "a"), ByteRange(100, 200)) == content[:100]
    assert await _on_disk(store) == (1, 2)
    assert await read(only(store, "a"), part) == content


async def test_probation_that_was_on_disk_goes_first(tmp_path):
    """After the operator has chosen otherwise."""
    with opened(tmp_path) as store:
        put(store, response("old"), content_of("old", 20 * SLICE))
        await store.flush()
    with _opened(tmp_path) as store:
        for number in range(600):
            put(store, response(f"o{number}"), content_of(f"o{number}", 10 * SLICE))
            await read(only(store, f"o{number}"))
            if number % 20 == 0:
                await store.flush()
        await store.flush()
        assert only(store, "old") is None
        assert store.status()["bytes"] < 17 << 20
        assert await read(only(store, "o599")) == content_of("o599", 10 * SLICE)
