"""After the machine went down: the index is not believed, the segments tell, no byte is wrong."""

import os
import random
import shutil
from dataclasses import replace

import pytest

from cdn.hashing.digest import key_digest
from cdn.semantics.ranges import ByteRange
from cdn.storage import segments
from cdn.storage.directory import StoreUnusable
from cdn.storage.store import SliceUnavailable
from tests.storage.disk_kit import (
    SLICE,
    content_of,
    files,
    key_of,
    only,
    open_store,
    opened,
    put,
    read,
    response,
    slices_of,
    slices_there,
)

GZIP = (("accept-encoding", "gzip"),)


async def _snapshot(store, directory, target):
    """What is on the disk at this moment, as after a kill: copied while the store is open."""
    await store.flush()
    shutil.copytree(directory, target)


async def test_a_process_that_is_killed_loses_no_time(tmp_path):
    """Under the same boot the index is believed: no scan, and no line about it."""
    with opened(tmp_path / "store") as store:
        put(store, response("a"), content_of("a", 9_000))
        await _snapshot(store, tmp_path / "store", tmp_path / "killed")
    told = []
    with opened(tmp_path / "killed", told=told) as store:
        assert await read(only(store, "a")) == content_of("a", 9_000)
    assert told == []


async def test_after_a_clean_close_any_boot_believes_the_index(tmp_path):
    with opened(tmp_path) as store:
        put(store, response("a"), b"x")
    told = []
    with opened(tmp_path, boot_id="another", told=told) as store:
        assert await read(only(store, "a")) == b"x"
    assert told == []


@pytest.fixture
async def lost(tmp_path):
    """A store with all that there can be in one, as it was when the power went."""
    with opened(tmp_path / "store") as store:
        for number in range(60):
            size = number * 997 % 30_000
            put(store, response(f"o{number}"), content_of(f"o{number}", size))
        put(store, response("variants", GZIP), b"gz")
        put(store, response("variants"), b"plain")
        await store.flush()
        for number in range(10):
            put(store, response(f"o{number}", etag='"v2"'), content_of(f"new{number}", 5_000))
        head = response("part", length=5 * SLICE)
        writer = store.open_writer(head)
        writer.show(head)
        for number in (1, 2, 4):
            writer.write(number, slices_of(content_of("part", 5 * SLICE))[number])
        await store.flush()
        for number in range(10, 15):
            store.remove(key_of(f"o{number}"))
        store.freshen(only(store, "o20"), response("o20", length=20 * 997 % 30_000, at=2e9))
        writer = store.open_writer(response("no head", length=3 * SLICE))
        writer.write(0, b"x" * SLICE)
        await _snapshot(store, tmp_path / "store", tmp_path / "lost")
    return tmp_path / "lost"


async def _check(store) -> int:
    """That nothing is wrong; how many whole responses there are."""
    whole = 0
    for number in range(60):
        stored = only(store, f"o{number}")
        if stored is None:
            continue
        assert not 10 <= number < 15, "it was removed"
        old, new = (
            content_of(f"o{number}", number * 997 % 30_000),
            content_of(f"new{number}", 5_000),
        )
        content = old if stored.response.validator.etag == '"v1"' else new
        try:
            for slice_number in slices_there(stored):
                start = slice_number * SLICE
                part = ByteRange(start, min(start + SLICE, len(content)))
                assert await read(stored, part) == content[part.start : part.stop]
        except SliceUnavailable:
            continue
        whole += stored.response.present is None
    return whole


async def test_all_that_there_was_is_found_again(lost):
    told, progress = [], []
    with opened(
        lost,
        boot_id="another",
        told=told,
        progress=lambda done, total: progress.append((done, total)),
    ) as store:
        assert await _check(store) == 55
        for number in range(10):
            assert only(store, f"o{number}").response.validator.etag == '"v2"'
        assert only(store, "o20").response_time == 2e9
        found = {one.variant: await read(one) for one in store.lookup(key_of("variants"))}
        assert found == {GZIP: b"gz", (): b"plain"}
        assert slices_there(only(store, "part")) == [1, 2, 4]
        assert only(store, "no head") is None
        put(store, response("new"), b"new")
        await store.flush()
        assert await read(only(store, "new")) == b"new"
        assert store.counters.damaged == 0
    assert [line.split(": ", 1)[1] for line in told] == [
        "the machine went down while it was in use: rebuilding its index",
        "the index is whole again, 58 responses were found",
    ]
    assert progress == sorted(progress)
    assert progress[-1][0] == progress[-1][1] > 0
    with opened(lost, boot_id="a third, after a clean close") as store:
        assert await _check(store) == 55
        assert await read(only(store, "new")) == b"new"


async def test_what_was_removed_or_replaced_does_not_come_back_at_the_second_loss(lost, tmp_path):
    with opened(lost, boot_id="another") as store:
        for number in range(20, 60):
            assert store.remove(key_of(f"o{number}")) == 1
        await _snapshot(store, lost, tmp_path / "again")
    with opened(tmp_path / "again", boot_id="a third") as store:
        assert await _check(store) == 15
        assert only(store, "o20") is None


async def test_a_rebuild_that_is_killed_begins_anew(lost, monkeypatch):
    class Killed(BaseException):
        pass

    def killed(*of):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("cdn.storage.recovery._Rebuild._slices_of", killed)
        with pytest.raises(Killed):
            open_store(lost, boot_id="another")
    told = []
    with opened(lost, boot_id="another", told=told) as store:
        assert await _check(store) == 55
    assert len(told) == 2


@pytest.mark.parametrize("boot", ["this boot", "another"])
async def test_parts_and_sizes_of_slices_are_found_again(tmp_path, boot):
    part, content = ByteRange(777, 777 + 3 * SLICE), content_of("part", 3 * SLICE)
    head = replace(response("part", length=1 << 40, etag=None), present=part)
    with opened(tmp_path / "store") as store:
        writer = store.open_writer(head)
        for number, piece in enumerate(slices_of(content)):
            writer.write(number, piece)
        assert writer.commit(head)
        put(store, response("small", slice_size=512), content_of("small", 9_000))
        store.epochs.purge([(b"", "part")])
        await _snapshot(store, tmp_path / "store", tmp_path / "killed")
    with opened(tmp_path / "killed", boot_id=boot) as store:
        stored = only(store, "part")
        assert stored.response == head
        assert await read(stored, part) == content
        assert await read(stored, ByteRange(1_000, 9_000)) == content[223:8_223]
        assert only(store, "small").response.slice_size == 512
        assert await read(only(store, "small")) == content_of("small", 9_000)
        assert store.epochs.outdated([(b"", "part")], 0)


def _shorten(dice, path):
    os.truncate(path, dice.randrange(path.stat().st_size + 1))


def _zero_tail(dice, path):
    size = path.stat().st_size
    start = dice.randrange(size + 1)
    with path.open("r+b") as file:
        file.seek(start)
        file.write(bytes(size - start))


def _zero_page(dice, path):
    pages = path.stat().st_size // 4096 + 1
    with path.open("r+b") as file:
        file.seek(dice.randrange(pages) * 4096)
        file.write(bytes(4096))


def _noise(dice, path):
    with path.open("r+b") as file:
        file.seek(dice.randrange(path.stat().st_size + 1))
        file.write(dice.randbytes(500))


async def test_power_is_lost_in_a_hundred_ways(lost, tmp_path):
    found = 0
    for way in range(100):
        dice = random.Random(way)
        torn = tmp_path / "torn"
        shutil.copytree(lost, torn)
        for path in files(torn, "segment"):
            dice.choice((_shorten, _zero_tail, _zero_page, _noise, lambda *of: None))(dice, path)
        for path in torn.glob("*/index"):
            dice.choice((_shorten, _zero_tail, _zero_page, lambda dice, path: path.unlink()))(
                dice, path
            )
        told = []
        with opened(torn, boot_id=f"boot {way}", told=told) as store:
            found += await _check(store)
            put(store, response("new"), b"new")
            assert await read(only(store, "new")) == b"new"
        assert "rebuilding" in told[0]
        shutil.rmtree(torn)
    assert found > 100 * 10


async def test_of_two_copies_of_a_slice_the_later_one_counts(tmp_path, monkeypatch):
    with opened(tmp_path / "store") as store:
        put(store, response("a"), content_of("a", SLICE))
        await store.flush()
        stored = only(store, "a")
        shard = store._shards.of(key_digest(key_of("a")))
        location = shard.index.locate(stored.object_id, [0])[0]
        shard.slice_damaged(key_digest(key_of("a")), stored.object_id, 7, location)
        with shard.lock, shard.index.change() as change:
            change.delete_slice(stored.object_id, 0)
        writer = store.open_writer(response("a", length=SLICE))
        assert writer.write(0, content_of("a", SLICE))
        writer.abort()
        await store.flush()
        moved = shard.index.locate(stored.object_id, [0])[0]
        assert moved.offset > location.offset
        await _snapshot(store, tmp_path / "store", tmp_path / "lost")
    with opened(tmp_path / "lost", boot_id="another") as store:
        shard = store._shards.of(key_digest(key_of("a")))
        assert shard.index.locate(stored.object_id, [0])[0] == moved
        assert await read(only(store, "a")) == content_of("a", SLICE)


async def test_what_a_killed_process_left_beyond_the_index_is_cut_off(lost):
    (first, *_) = files(lost, "segment")
    size = first.stat().st_size
    with first.open("ab") as file:
        file.write(b"\1" * 1_000)
    stray = first.with_name("0000ffff.segment")
    stray.write_bytes(b"x")
    with opened(lost) as store:
        for number in range(20):
            put(store, response(f"n{number}"), b"x")
        await store.flush()
        assert first.stat().st_size == size
        assert not stray.exists()


def test_a_rebuild_that_cannot_write_is_refused(lost, monkeypatch):
    def full(*of, **more):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(segments.os, "ftruncate", full)
    (path, *_) = files(lost, "segment")
    with path.open("ab") as file:
        file.write(b"x")
    with pytest.raises(StoreUnusable, match="No space left"):
        open_store(lost, boot_id="another")
