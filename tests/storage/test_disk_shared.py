"""Several processes of one node: one writes a shard, all read and remove, each may be killed."""

import pytest

from cdn.hashing.digest import key_digest, shard_of
from cdn.semantics.ranges import ByteRange
from cdn.storage.directory import StoreDirectory
from cdn.storage.records import KILLED
from cdn.storage.writer_lock import WriterLock
from tests.storage.disk_kit import (
    SHARDS,
    SLICE,
    content_of,
    files,
    flip,
    key_of,
    only,
    open_store,
    put,
    read,
    response,
    slices_of,
    slices_there,
)
from tests.storage.disk_peer import Peer, name_of

NODE = "this boot"


@pytest.fixture
def directory(tmp_path):
    """Held as a supervisor holds it."""
    held = StoreDirectory(tmp_path, SHARDS, NODE)
    held.begin()
    yield held
    held.close()


@pytest.fixture
def worker(directory):
    """Begins processes with the store open; none outlives the test."""
    begun = []

    def begin(*shards) -> Peer:
        begun.append(Peer(directory.path, directory.lock_fd, list(shards) or None))
        return begun[-1]

    yield begin
    for peer in begun:
        if peer.process.poll() is None:
            peer.kill()


@pytest.fixture
def here(directory):
    """The store as this process has it open beside them."""
    store = open_store(directory.path, lock_fd=directory.lock_fd)
    yield store
    store.close()


def _in_shard(number: int) -> str:
    return next(
        name
        for name in (f"o{at}" for at in range(100))
        if shard_of(key_digest(key_of(name))) % SHARDS == number
    )


A, B = _in_shard(0), _in_shard(1)


def _content(name):
    return content_of(name, 3 * SLICE)


# --- the lock -----------------------------------------------------------------------------------


def test_a_lock_is_held_by_one_and_taken_by_the_next(tmp_path):
    first, second = WriterLock(tmp_path), WriterLock(tmp_path)
    assert first.take()
    assert first.take()
    assert not second.take()
    first.release()
    first.release()
    assert second.take()
    assert not first.take()
    second.release()


# --- owners -------------------------------------------------------------------------------------


async def test_each_writes_its_shards_and_reads_all(worker):
    zero, one = worker(0), worker(1)
    assert [zero.ask("put", A, A), one.ask("put", B, B)] == [True, True]
    assert [zero.ask("put", B, "x"), one.ask("put", A, "x")] == [False, False]
    for peer in (zero, one):
        assert peer.ask("get", A) == [name_of(_content(A))]
        assert peer.ask("get", B) == [name_of(_content(B))]


async def test_each_tells_of_all_that_the_store_holds(here, worker):
    peer = worker()
    assert peer.ask("put", A, A)
    assert peer.ask("put", B, B)
    assert (here.status()["objects"], here.status()["slices"]) == (2, 6)
    assert here.status()["bytes"] > 6 * SLICE
    assert here.status() == peer.ask("status")


async def test_a_shard_is_not_written_while_another_process_holds_it(here, worker):
    assert put(here, response(A), _content(A))
    peer = worker()
    assert peer.ask("put", A, "x") is False
    assert peer.ask("put", B, B) is True
    assert here.open_writer(response(B)) is None
    assert here.counters.refused == 1
    here.freshen(only(here, B), response(B, length=3 * SLICE, at=2e9))
    assert only(here, B).response == response(B, length=3 * SLICE)


async def test_a_killed_workers_shards_are_free_at_once_and_nothing_is_rebuilt(here, worker):
    peer = worker()
    assert peer.ask("put", A, A)
    stored = only(here, A)
    assert peer.ask("begin", B)
    peer.kill()
    assert await read(stored) == _content(A)
    assert slices_there(only(here, B)) == [0]
    assert put(here, response(B), _content(B))
    await here.flush()
    assert await read(only(here, B)) == _content(B)
    successor = worker(0)
    assert successor.ask("put", A, A) is True
    assert successor.ask("get", A) == [name_of(_content(A))]
    assert here.counters.damaged == 0


# --- stopping, at an upgrade ----------------------------------------------------------------------


async def test_the_successor_writes_when_the_predecessor_has_stopped(here, worker):
    old = worker()
    assert old.ask("put", A, A)
    assert old.ask("begin", B)
    assert put(here, response(A), b"x") is False
    old.ask("stop")
    assert old.ask("put", A, "x") is False
    assert old.ask("end", B) == [False, False, False]
    numbers = {path.name for path in files(here._directory.path, "segment")}
    assert put(here, response(A, etag='"v2"'), _content("new"))
    assert put(here, response(B), _content(B))
    await here.flush()
    # In fresh segments; and reading goes on on both sides.
    assert len({path.name for path in files(here._directory.path, "segment")} - numbers) == 1
    assert len(files(here._directory.path, "segment")) == 4
    assert old.ask("get", A) == [name_of(_content("new"))]
    assert old.ask("get", B) == [name_of(_content(B))]
    assert here.counters.damaged == 0


async def test_stopping_makes_what_was_accepted_durable_and_refuses_the_rest(here):
    put(here, response(A), _content(A))
    writer = here.open_writer(response(B, length=3 * SLICE))
    writer.write(0, slices_of(_content(B))[0])
    await here.stop_writing()
    assert not writer.write(1, slices_of(_content(B))[1])
    assert not writer.show(response(B, length=3 * SLICE))
    assert not writer.commit(response(B, length=3 * SLICE))
    assert here.open_writer(response(A)) is None
    assert await read(only(here, A)) == _content(A)
    assert only(here, B) is None
    assert here.remove(key_of(A)) == 1
    assert only(here, A) is None
    await here.stop_writing()


async def test_a_running_writers_content_can_be_read_on_after_stopping(here):
    writer = here.open_writer(response(B, length=3 * SLICE))
    writer.write(0, slices_of(_content(B))[0])
    await here.stop_writing()
    reading = writer.open([ByteRange(0, SLICE)])
    assert await reading.read() == _content(B)[:SLICE]


# --- removal and damage beside the writer ---------------------------------------------------------


async def test_what_one_process_removes_is_gone_for_all(here, worker):
    peer = worker()
    for name in (A, B):
        assert peer.ask("put", name, name)
        assert len(peer.ask("get", name)) == 1
    assert here.remove(key_of(A)) == 1
    assert peer.ask("get", A) == []
    assert peer.ask("put", A, "again") is True
    assert await read(only(here, A)) == _content("again")


async def test_a_purge_that_all_processes_execute_counts_what_was_there_once(here, worker):
    peer = worker()
    for first, second in ((here.remove, peer_remove(peer)), (peer_remove(peer), here.remove)):
        assert peer.ask("begin", A)
        assert [first(key_of(A)), second(key_of(A))] == [1, 0]


def peer_remove(peer):
    return lambda key: peer.ask("remove", A)


async def test_what_was_removed_elsewhere_does_not_come_back_with_its_writer(here, worker):
    """Its own process hears of the purge a moment later; meanwhile nothing of it is indexed."""
    peer = worker()
    assert peer.ask("begin", A)
    assert slices_there(only(here, A)) == [0]
    assert here.remove(key_of(A)) == 1
    peer.ask("end", A)
    peer.ask("stop")
    assert only(here, A) is None
    assert here.status()["objects"] == 0
    assert peer.ask("remove", A) in (0, 1)
    assert peer.ask("get", A) == []


async def test_a_head_that_was_killed_before_the_index_knew_is_not_found_and_forgotten(here):
    put(here, response(A), _content(A))
    await here.flush()
    shard = here._shards.of(key_digest(key_of(A)))
    (_, entry) = next(shard.index.all_heads())
    path = files(here._directory.path, "segment")[0]
    with path.open("r+b") as file:
        file.seek(entry.location.offset)
        file.write(KILLED)
    assert only(here, A) is None
    assert here.status()["objects"] == 0
    assert here.counters.damaged == 0


async def test_a_head_that_was_killed_does_not_come_to_life_when_its_segment_goes(here):
    put(here, response(A), _content(A))
    await here.flush()
    stored = only(here, A)
    await read(stored)
    here.touch(stored, 5)
    path = files(here._directory.path, "segment")[0]
    with path.open("r+b") as file:
        file.seek(stored.head.offset)
        file.write(KILLED)
    for number in range(300):
        put(here, response(f"flood{number}"), content_of(f"flood{number}", 100_000))
        if number % 10 == 0:
            await here.flush()
    assert not path.exists()
    assert only(here, A) is None


async def test_a_reader_elsewhere_finds_damage_and_the_writer_mends_it(here, worker):
    peer = worker()
    assert peer.ask("put", A, A)
    (path,) = files(here._directory.path, "segment")
    flip(path, 64 + len(key_of(A)) + SLICE + 64 + 100)  # in slice 1
    with pytest.raises(Exception, match="slice 1 is damaged"):
        await read(only(here, A))
    assert slices_there(only(here, A)) == [0, 2]
    assert peer.ask("put", A, A)
    assert slices_there(only(here, A)) == [0, 1, 2]
    assert await read(only(here, A)) == _content(A)


# --- names ----------------------------------------------------------------------------------------


async def test_no_writer_gives_out_a_number_that_one_before_it_gave_out(here, worker):
    """Also where that one was killed, or failed, before the index learnt of it."""
    peer = worker()
    assert peer.ask("put", A, A)
    first = only(here, A).object_id
    peer.kill()
    assert put(here, response(A, etag='"v2"'), b"x")
    await here.flush()
    assert only(here, A).object_id > first + (1 << 31)


def _lost(store, monkeypatch):
    """What was given a number, in a segment that was too, before disk and index both failed."""
    head = response(A, length=3 * SLICE)
    writer = store.open_writer(head)
    with monkeypatch.context() as patch:

        def full(fd, buffers, offset):
            raise OSError(28, "No space left on device")

        patch.setattr("cdn.storage.segments.os.pwritev", full)
        patch.setattr("cdn.storage.logs.Logs.abandon", lambda logs: None)
        writer.write(0, slices_of(_content(A))[0])
        writer.show(head)
        found = only(store, A)
        store._intake.flush().result(10)
    assert found.object_id is not None
    return found


async def test_what_a_process_held_of_a_lost_write_never_names_anothers_content(
    here, worker, monkeypatch
):
    lost = _lost(here, monkeypatch)
    await here.stop_writing()
    peer = worker()
    for at in range(20):
        assert peer.ask("put", f"{A}-{at}", f"{at}")
    with pytest.raises(Exception, match="slice 0"):
        await read(lost, ByteRange(0, SLICE))
    for at in range(20):
        assert await read(only(here, f"{A}-{at}")) == _content(f"{at}")
    assert here.counters.damaged == 0
