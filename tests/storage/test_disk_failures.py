"""What goes wrong: damage, eviction under a reader, a disk that takes no more, a second node."""

import errno
import gc
import os
import subprocess
import sys
import threading
from contextlib import contextmanager

import pytest

from cdn.semantics.ranges import ByteRange
from cdn.semantics.slices import PresentSlices
from cdn.storage import disk_content, segments, trouble
from cdn.storage.directory import StoreUnusable
from cdn.storage.eviction.two_logs import Log
from cdn.storage.index import Change, IndexFailed
from cdn.storage.inspect import stat
from cdn.storage.store import SliceDamaged, SliceGone
from tests.storage.disk_kit import (
    SHARDS,
    SIZE,
    SLICE,
    content_of,
    du,
    files,
    flip,
    key_of,
    only,
    open_store,
    opened,
    put,
    read,
    response,
    slices_there,
    usage,
)

SEGMENT = SIZE // SHARDS // 10


async def _filled(directory, content, name="a"):
    with opened(directory) as store:
        put(store, response(name), content)
        await store.flush()


# --- damage -------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", [64, 100, SLICE + 30])
async def test_a_flipped_bit_is_found_before_the_slice_is_sent(tmp_path, where):
    content = content_of("a", 3 * SLICE)
    await _filled(tmp_path, content)
    (path,) = files(tmp_path, "segment")
    record = 64 + len(key_of("a")) + SLICE
    flip(path, record + where)  # in slice 1
    told = []
    with opened(tmp_path, told=told) as store:
        reading = only(store, "a").open([ByteRange(0, 3 * SLICE)])
        assert await reading.read() == content[:SLICE]
        with pytest.raises(SliceDamaged) as raised:
            await reading.read()
        assert raised.value.number == 1
        stored = only(store, "a")
        assert slices_there(stored) == [0, 2]
        assert stored.response.present == PresentSlices(0b101, SLICE)
        assert store.counters.damaged == len(told) == 1
        assert "slice 1 in " in told[0]
        assert await read(stored, ByteRange(2 * SLICE, 3 * SLICE)) == content[2 * SLICE :]
        writer = store.open_writer(stored.response)
        writer.write(1, content[SLICE : 2 * SLICE])
        writer.abort()
        await store.flush()
        assert await read(only(store, "a")) == content


async def test_a_flipped_bit_in_a_head_is_a_miss(tmp_path):
    await _filled(tmp_path, b"x")
    (path,) = files(tmp_path, "segment")
    flip(path, path.stat().st_size - 3)
    told = []
    with opened(tmp_path, told=told) as store:
        assert only(store, "a") is None
        assert only(store, "a") is None
        assert store.counters.damaged == len(told) == 1
        assert "a head in " in told[0]
        put(store, response("a"), b"new")
        await store.flush()
        assert await read(only(store, "a")) == b"new"


async def test_a_bad_checksum_is_found_also_where_the_slice_was_read_before(tmp_path, monkeypatch):
    content = content_of("a", SLICE)
    await _filled(tmp_path, content)
    with opened(tmp_path) as store:
        assert await read(only(store, "a")) == content
        (path,) = files(tmp_path, "segment")
        flip(path, 2_000)
        # Out of the page cache, it is read from the device, and checked again.
        monkeypatch.setattr(segments.Segment, "read_resident", lambda *of: None)
        with pytest.raises(SliceDamaged):
            await read(only(store, "a"))


async def test_a_device_that_cannot_read_is_damage(tmp_path, monkeypatch):
    await _filled(tmp_path, content_of("a", SLICE))
    with opened(tmp_path) as store:
        stored = only(store, "a")

        def broken(*of):
            raise OSError(errno.EIO, "Input/output error")

        monkeypatch.setattr(segments.Segment, "read_resident", lambda *of: None)
        monkeypatch.setattr(segments.Segment, "read", broken)
        with pytest.raises(SliceDamaged):
            await read(stored)
        assert store.counters.damaged == 1


async def test_what_is_not_resident_is_read_in_a_thread_and_once_verified_no_more(
    tmp_path, monkeypatch
):
    content = content_of("a", 2 * SLICE)
    await _filled(tmp_path, content)
    checked_in = []
    check = disk_content.content_of

    def counting(data):
        checked_in.append(threading.current_thread().name)
        return check(data)

    monkeypatch.setattr(disk_content, "content_of", counting)
    with opened(tmp_path) as store:
        with monkeypatch.context() as cold:
            cold.setattr(segments.Segment, "read_resident", lambda *of: None)
            stored = (await store.lookup_soon(key_of("a")))[0]
            assert await read(stored) == content
        assert len(checked_in) == 2
        assert all(name.startswith("store-reader") for name in checked_in)
        for _ in range(3):
            assert await read(stored) == content
        assert len(checked_in) == 2
    with opened(tmp_path) as store:  # and at first use after a start
        assert await read(only(store, "a")) == content
        assert checked_in[2:] == ["MainThread"] * 2


# --- room ---------------------------------------------------------------------------------------


async def test_use_stays_within_size_and_a_segment_per_shard_in_a_flood_of_three_times_size(
    tmp_path,
):
    """By `du`, also while nothing waits for the disk; make bench-store ARGS=use does the same on
    a store as nodes have it."""
    most, count = 0, 3 * SIZE // 40_000 + 1
    with opened(tmp_path) as store:
        for number in range(count):
            assert put(store, response(f"o{number}"), content_of(f"o{number}", 40_000))
            if number % 20 == 0:
                most = max(most, du(tmp_path))
            if number % 200 == 0:
                await store.flush()
        await store.flush()
        most = max(most, du(tmp_path))
        assert store.counters.written > 3 * SIZE
        assert store.counters.segments_dropped > 20
        assert SIZE * 0.7 < most <= SIZE + SHARDS * SEGMENT
        newest = only(store, f"o{count - 1}")
        assert await read(newest) == content_of(f"o{count - 1}", 40_000)
        assert only(store, "o0") is None


async def test_a_smaller_size_is_kept_from_the_next_segment_on(tmp_path):
    with opened(tmp_path, 2 * SIZE) as store:
        for number in range(700):
            put(store, response(f"o{number}"), content_of(f"o{number}", 40_000))
    assert usage(tmp_path) > 1.5 * SIZE
    with opened(tmp_path) as store:
        for number in range(100):
            put(store, response(f"n{number}"), content_of(f"n{number}", 40_000))
        await store.flush()
        assert usage(tmp_path) <= SIZE + SHARDS * SEGMENT


async def _flood(store, megabytes=40):
    for number in range(megabytes * 10):
        put(store, response(f"flood{number}"), content_of(f"flood{number}", 100_000))
        if number % 20 == 0:
            await store.flush()
    await store.flush()


async def test_a_reader_over_dropped_segments_finishes(tmp_path):
    content = content_of("a", 30 * SLICE)
    with opened(tmp_path) as store:
        put(store, response("a"), content)
        await store.flush()
        stored = only(store, "a")
        reading = stored.open([ByteRange(0, len(content))])
        pieces = [bytes(await reading.read())]
        await _flood(store)
        assert _dropped_and_held()
        left = only(store, "a")
        assert left is None or slices_there(left) == [0]  # which was used
        while piece := await reading.read():
            pieces.append(bytes(piece))
        assert b"".join(pieces) == content
        with pytest.raises(SliceGone):
            await read(stored)
        gc.collect()
        assert not _dropped_and_held()


def _dropped_and_held() -> list[str]:
    held = (f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd"))
    names = [os.readlink(path) for path in held if os.path.lexists(path)]
    return [name for name in names if name.endswith("segment (deleted)")]


async def test_what_is_used_outlives_what_is_not(tmp_path):
    content = content_of("used", 3 * SLICE)
    with opened(tmp_path) as store:
        for name in ("used", "unused"):
            put(store, response(name), content_of(name, 3 * SLICE))
        put(store, response("empty"), b"")
        await store.flush()
        for number in range(400):
            put(store, response(f"flood{number}"), content_of(f"flood{number}", 100_000))
            if number % 20 == 0:
                await store.flush()
                assert await read(only(store, "used")) == content, number
                store.touch(only(store, "empty"))
        assert only(store, "unused") is None
        assert only(store, "empty").response == response("empty", length=0)
        assert store.counters.slices_kept >= 3
        assert store.counters.rewritten > 0
    with opened(tmp_path, boot_id="another, after a clean close") as store:
        assert await read(only(store, "used")) == content


async def test_where_everything_is_used_main_gives_way_too(tmp_path):
    """Each is used twice on probation; in main only the first goes on being used."""
    with opened(tmp_path) as store:
        for number in range(600):
            put(store, response(f"o{number}"), content_of(f"o{number}", 60_000))
            if number % 10 == 0:
                await store.flush()
                assert usage(tmp_path) <= SIZE + SHARDS * SEGMENT
                await read(only(store, "o0"))
                for used in range(number - 9, number + 1):
                    stored = only(store, f"o{used}")
                    if stored is not None and stored.response.present is None:
                        await read(stored)
                        await read(stored)
        await store.flush()
        mains = [shard.logs.size_of(Log.MAIN) for shard in store._shards]
        assert sum(mains) > SIZE / 2
        assert await read(only(store, "o0")) == content_of("o0", 60_000)
        assert only(store, "o100") is None
        assert store.counters.damaged == 0


async def test_what_comes_back_after_eviction_goes_to_main(tmp_path):
    content = content_of("a", 3 * SLICE)
    with opened(tmp_path) as store:
        put(store, response("a"), content)
        await _flood(store, 20)
        assert only(store, "a") is None
        put(store, response("a"), content)
        await store.flush()
        await _flood(store, 8)
        assert await read(only(store, "a")) == content


async def test_a_removed_slice_costs_room_no_longer_than_its_segment(tmp_path):
    with opened(tmp_path) as store:
        for number in range(300):
            put(store, response("same", etag=f'"{number}"'), content_of("same", 100_000))
            if number % 10 == 0:
                await store.flush()
        await store.flush()
        status = store.status()
        assert status["objects"] == 1
        assert status["bytes"] < SIZE
        assert await read(only(store, "same")) == content_of("same", 100_000)


# --- a disk that takes no more --------------------------------------------------------------------


@contextmanager
def _full(monkeypatch, error=errno.ENOSPC):
    pwritev = os.pwritev

    def full(fd, buffers, offset):
        pwritev(fd, [b"".join(buffers)[:100]], offset)  # a part still fits
        raise OSError(error, os.strerror(error))

    with monkeypatch.context() as patch:
        patch.setattr(segments.os, "pwritev", full)
        yield


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO, errno.EFBIG])
async def test_a_full_disk_is_told_once_and_tried_again(tmp_path, monkeypatch, error):
    told = []
    with opened(tmp_path, told=told) as store:
        put(store, response("a"), content_of("a", 9_000))
        await store.flush()
        with _full(monkeypatch, error):
            for name in ("b", "c", "d"):
                put(store, response(name), content_of(name, 9_000))
            await store.flush()
            assert store.status()["state"] == "failing"
            assert os.strerror(error) in store.status()["why"]
            assert store.open_writer(response("e")) is None
            assert store.counters.refused > 0
            assert store.counters.write_failures > 0
            store._trouble.try_again()
            put(store, response("f"), content_of("f", 9_000))
            await store.flush()
        assert await read(only(store, "a")) == content_of("a", 9_000)
        assert [only(store, name) for name in "bcdf"] == [None] * 4
        assert len(told) == 1
        assert str(tmp_path) in told[0]
        store._trouble.try_again()
        put(store, response("b"), content_of("b", 9_000))
        await store.flush()
        assert store.status()["state"] == "ok"
        assert await read(only(store, "b")) == content_of("b", 9_000)
        assert len(told) == 2
    with opened(tmp_path, boot_id="another") as store:
        for name in "ab":
            assert await read(only(store, name)) == content_of(name, 9_000)


async def test_it_is_tried_again_by_itself(tmp_path, monkeypatch):
    monkeypatch.setattr(trouble, "RETRY_AFTER", 0.01)
    again = threading.Event()
    with opened(tmp_path) as store:
        try_again = store._trouble.try_again
        monkeypatch.setattr(store._trouble, "try_again", lambda: (try_again(), again.set()))
        with _full(monkeypatch):
            put(store, response("a"), b"x")
            await store.flush()
        assert again.wait(5)
        assert put(store, response("a"), b"x")


async def test_a_write_that_failed_half_way_leaves_nothing_behind(tmp_path, monkeypatch):
    with opened(tmp_path) as store:
        put(store, response("a"), b"x")
        await store.flush()
        before = [path.read_bytes() for path in files(tmp_path, "segment")]
        with _full(monkeypatch):
            put(store, response("a", etag='"v2"'), content_of("b", 9_000))
            await store.flush()
        assert [path.read_bytes() for path in files(tmp_path, "segment")] == before
        assert await read(only(store, "a")) == b"x"


async def test_an_index_that_takes_no_more_is_a_full_disk(tmp_path, monkeypatch):
    told = []
    with opened(tmp_path, told=told) as store:
        for shard in store._shards:
            shard.index._env.set_mapsize(shard.index.size)
        for number in range(500):
            put(store, response(f"o{number}"), b"x")
        await store.flush()
        assert store.status()["state"] == "failing"
        assert "MAP_FULL" in told[0]
        for shard in store._shards:
            shard.index._env.set_mapsize(1 << 26)
        store._trouble.try_again()
        put(store, response("a"), b"x")
        await store.flush()
        assert await read(only(store, "a")) == b"x"


async def test_a_purge_holds_though_the_index_takes_no_change(tmp_path, monkeypatch):
    def full(self):
        raise IndexFailed("MDB_MAP_FULL")

    with opened(tmp_path) as store:
        put(store, response("a"), b"x")
        await store.flush()
        assert await read(only(store, "a")) == b"x"  # remembered from here on
        commit = Change.delete_head
        with monkeypatch.context() as patch:
            # LMDB says so at the end of a change, when what it kills has been killed.
            patch.setattr(Change, "delete_head", lambda self, *of: (commit(self, *of), full(self)))
            store.remove(key_of("a"))
        assert only(store, "a") is None


async def test_a_sync_that_fails_is_told(tmp_path, monkeypatch):
    told = []
    with opened(tmp_path, told=told) as store:

        def broken(fd):
            raise OSError(errno.EIO, "Input/output error")

        put(store, response("a"), b"x")
        with monkeypatch.context() as patch:
            patch.setattr("cdn.storage.shard.os.fdatasync", broken)
            await store.flush()
        assert store.status()["state"] == "failing"
    assert len(told) == 1
    with pytest.raises(StoreUnusable, match="was in use when the machine went down"):
        stat(tmp_path, "another")


# --- who may open it ----------------------------------------------------------------------------


def test_a_second_node_is_refused_with_one_line(tmp_path):
    with opened(tmp_path), pytest.raises(StoreUnusable) as raised:
        open_store(tmp_path)
    assert "in use by another node" in str(raised.value)
    assert "\n" not in str(raised.value)
    with opened(tmp_path):
        pass


_PART = """
import asyncio, sys
from pathlib import Path
from tests.storage.disk_kit import only, open_store, read

async def part():
    store = open_store(Path(sys.argv[1]), lock_fd=int(sys.argv[2]))
    for name in sys.stdin.read().split():
        stored = only(store, name)
        sys.stdout.buffer.write(b"-" if stored is None else await read(stored))
        if stored is not None:
            store.touch(stored, 2)
    store.close()

asyncio.run(part())
"""


def _part_reads(directory, lock_fd, names) -> bytes:
    command = [sys.executable, "-c", _PART, directory, str(lock_fd)]
    return subprocess.run(
        command, input=names, pass_fds=[lock_fd], stdout=subprocess.PIPE, check=True
    ).stdout


async def test_a_process_of_the_same_node_takes_part(tmp_path):
    with opened(tmp_path) as store:
        put(store, response("a"), b"first")
        put(store, response("b"), b"second")
        await store.flush()
        store.remove(key_of("b"))
        assert _part_reads(tmp_path, store.lock_fd, b"a b") == b"first-"
        # Marks are shared, and the one in charge goes on.
        stored = only(store, "a")
        shard = next(shard for shard in store._shards if shard.index.counts()[0])
        place = shard.index.locate(stored.object_id, [0])[0]
        segment = shard.segments.get(place.segment)
        assert segment.is_verified(place.record)
        assert segment.uses(place.record) == 2
        put(store, response("c"), b"third")
    with opened(tmp_path, boot_id="another, after a clean close") as store:
        assert await read(only(store, "c")) == b"third"


@pytest.mark.parametrize(
    ("size", "more", "least"),
    [
        (1 << 20, {}, SHARDS * 10 * (SLICE + (128 << 10))),
        (SIZE, {"segment_size": SIZE}, SHARDS * 10 * SIZE),
        (SIZE, {"segment_size": 4096}, SHARDS * 10 * (SLICE + (128 << 10))),
    ],
)
def test_a_size_too_small_is_refused_with_the_least_that_works(tmp_path, size, more, least):
    with pytest.raises(StoreUnusable, match=str(least)):
        open_store(tmp_path, size, **more)
    assert not list(tmp_path.iterdir())


def test_the_least_that_works_works(tmp_path):
    with opened(tmp_path, SHARDS * 10 * (SLICE + (128 << 10))) as store:
        assert put(store, response("a"), content_of("a", 5 * SLICE))


def test_what_is_no_store_is_refused(tmp_path):
    (tmp_path / "precious").write_text("data")
    with pytest.raises(StoreUnusable, match="is not a store, and not empty"):
        open_store(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ('{"format": 99}', "another version"),
        ("{", "damaged"),
        ('{"format": 1, "more": 2}', "damaged"),
        ("[]", "damaged"),
    ],
)
def test_a_state_that_cannot_be_read_is_refused(tmp_path, state, words):
    with opened(tmp_path):
        pass
    (tmp_path / "store.json").write_text(state)
    with pytest.raises(StoreUnusable, match=words):
        open_store(tmp_path)


def test_another_layout_is_refused_and_the_lock_let_go(tmp_path):
    with opened(tmp_path):
        pass
    with pytest.raises(StoreUnusable, match="has 2 shards, not 1"):
        open_store(tmp_path, shards=1)
    with opened(tmp_path):
        pass


def test_a_file_in_the_way_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnusable, match="cannot be used"):
        open_store(tmp_path / "file")


def test_an_index_that_is_no_index_is_refused(tmp_path):
    with opened(tmp_path):
        pass
    (tmp_path / "00" / "index").write_bytes(b"x" * 20_000)
    with pytest.raises(StoreUnusable, match="cannot be used"):
        open_store(tmp_path)
