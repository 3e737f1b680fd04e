"""The directory by itself, as whoever is in charge of a node's store holds it."""

import os
import subprocess
import sys

import pytest

from cdn.storage.directory import StoreDirectory, StoreUnusable
from cdn.storage.disk import segment_size_for
from tests.storage.disk_kit import (
    SHARDS,
    SIZE,
    SLICE,
    content_of,
    only,
    open_store,
    opened,
    put,
    read,
    response,
)
from tests.storage.disk_peer import Peer

NODE = "this boot"


def _held(path, boot=NODE, lock_fd=None) -> StoreDirectory:
    return StoreDirectory(path, SHARDS, boot, lock_fd)


def test_a_new_one_is_believed_and_begun(tmp_path):
    held = _held(tmp_path)
    assert held.is_new
    assert held.index_believed
    assert held.begin() is False
    assert (held.state.starts, held.state.clean) == (1, False)
    held.close()
    again = _held(tmp_path)
    assert not again.is_new
    assert again.begin() is True  # nobody marked it clean
    again.mark_clean()
    again.close()
    assert _held(tmp_path, "another boot").begin() is False


def test_one_node_has_it(tmp_path):
    held = _held(tmp_path)
    with pytest.raises(StoreUnusable, match="in use by another node"):
        _held(tmp_path)
    heir = _held(tmp_path, lock_fd=held.lock_fd)
    heir.close()
    with pytest.raises(StoreUnusable, match="in use by another node"):
        _held(tmp_path)
    held.close()
    _held(tmp_path).close()


async def test_workers_take_no_charge_of_its_state(tmp_path):
    held = _held(tmp_path)
    held.begin()
    before = (tmp_path / "store.json").read_text()
    store = open_store(tmp_path, lock_fd=held.lock_fd)
    put(store, response("a"), content_of("a", 9_000))
    assert store.close() is True
    assert (tmp_path / "store.json").read_text() == before
    held.mark_clean()
    held.close()
    with opened(tmp_path, boot_id="another, after a clean close") as store:
        assert await read(only(store, "a")) == content_of("a", 9_000)


async def test_the_next_node_in_charge_inherits_the_lock_and_marks_it_clean(tmp_path):
    held = _held(tmp_path)
    held.begin()
    heir = _held(tmp_path, lock_fd=os.dup(held.lock_fd))
    assert heir.state == held.state  # the same session: what was verified is
    held.close()
    with pytest.raises(StoreUnusable, match="in use by another node"):
        _held(tmp_path)
    heir.mark_clean()
    os.close(heir.lock_fd)
    assert _held(tmp_path, "another boot").index_believed


def test_a_close_that_did_not_go_well_says_so(tmp_path, monkeypatch):
    held = _held(tmp_path)
    held.begin()
    store = open_store(tmp_path, lock_fd=held.lock_fd)
    put(store, response("a"), b"x")

    def broken(fd):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("cdn.storage.shard.os.fdatasync", broken)
    assert store.close() is False
    held.close()


_REBUILD = """
import sys
from pathlib import Path
from cdn.storage.recovery import rebuild
print(rebuild(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]),
    lambda done, total: print(done, total, file=sys.stderr)))
"""


def _rebuilt_by_a_child(path):
    command = [sys.executable, "-c", _REBUILD, path, str(SHARDS), str(SIZE)]
    return subprocess.run(command, capture_output=True, text=True, check=True)


async def test_a_child_process_rebuilds_what_is_not_believed(tmp_path):
    with opened(tmp_path) as store:
        for name in "abc":
            put(store, response(name), content_of(name, 9_000))
        await store.flush()
        state = (tmp_path / "store.json").read_text()
    (tmp_path / "store.json").write_text(state)  # as it was before it was closed
    held = _held(tmp_path, "another boot")
    assert not held.index_believed
    for shard in held.shards:
        (shard / "index").write_bytes(b"torn" * 5_000)
    done = _rebuilt_by_a_child(tmp_path)
    assert done.stdout.strip() == "3"
    (*_, last) = done.stderr.splitlines()
    assert last.split()[0] == last.split()[1] != "0"
    held.begin()
    store = open_store(tmp_path, lock_fd=held.lock_fd, boot_id="another boot")
    for name in "abc":
        assert await read(only(store, name)) == content_of(name, 9_000)
    store.close()
    held.close()


def test_a_killed_worker_costs_no_rebuild(tmp_path):
    held = _held(tmp_path)
    held.begin()
    os.set_inheritable(held.lock_fd, True)
    peer = Peer(tmp_path, held.lock_fd)
    assert peer.ask("put", "a", "a")
    peer.kill()
    index = (tmp_path / "00" / "index").stat().st_ino
    peer = Peer(tmp_path, held.lock_fd)
    assert len(peer.ask("get", "a")) == 1
    assert peer.ask("close") is True
    peer.end()
    assert (tmp_path / "00" / "index").stat().st_ino == index
    held.close()


def test_the_least_size_is_told_without_opening_anything(tmp_path):
    assert segment_size_for(tmp_path, SIZE, SLICE, None, SHARDS) == SIZE // SHARDS // 10
    assert segment_size_for(tmp_path, 1 << 40) == 64 << 20
    with pytest.raises(StoreUnusable, match="too small"):
        segment_size_for(tmp_path, 1 << 20)
