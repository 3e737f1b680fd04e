"""Who holds the store's directory for a node: lock, state, and what runs in children."""

import io
import json
import os
import signal

import pytest

from cdn.config.models import EdgeConfig
from cdn.config.values import Context
from cdn.node import store_keeper
from cdn.node.limits import raise_file_limit
from cdn.node.store_keeper import StoreKeeper, store_name
from cdn.observe.events import EventLog
from cdn.storage.directory import StoreUnusable
from cdn.storage.disk import DiskStore


@pytest.fixture
def told():
    return io.StringIO()


@pytest.fixture
def take(tmp_path, told):
    """`take()` as the first program of a node does it, `take({name: fd})` as a successor."""
    raw = {"role": "edge", "name": "e", "listen": "a:1", "direct_to_origin": True, "services": ()}
    raw |= {"store": "s", "disk": "256MiB"}
    config = EdgeConfig.model_validate(raw, context=Context(tmp_path, {}, 1))
    events = EventLog("e", lambda: 0.0, told)
    return lambda handed={}: StoreKeeper.take(config, events, handed.get)


def state(tmp_path) -> dict:
    return json.loads((tmp_path / "s" / "store.json").read_text())


def went_down(tmp_path) -> None:
    changed = state(tmp_path) | {"boot_id": "another", "clean": False}
    (tmp_path / "s" / "store.json").write_text(json.dumps(changed))


def test_a_node_without_a_store_has_no_keeper(tmp_path):
    raw = {"role": "edge", "name": "e", "listen": "a:1", "direct_to_origin": True, "services": ()}
    config = EdgeConfig.model_validate(raw, context=Context(tmp_path, {}))
    assert StoreKeeper.take(config, None, {}.get) is None


def test_its_end_marks_the_store_clean_unless_something_went_wrong(take, tmp_path):
    for clean in (True, False, True):
        keeper = take()
        assert state(tmp_path)["clean"] is False
        keeper.end(clean=clean)
        assert state(tmp_path)["clean"] is clean
    assert state(tmp_path)["starts"] == 3


def test_there_is_one_at_a_time_until_it_lets_go(take, tmp_path):
    keeper = take()
    with pytest.raises(StoreUnusable, match="is in use by another node"):
        take()
    keeper.end(clean=True)
    take().end(clean=True)


def test_a_successor_has_the_lock_without_a_gap_and_does_not_begin_again(take, tmp_path):
    first = take()
    second = take({store_name(tmp_path / "s"): os.dup(first.lock_fd)})
    first.let_go()
    with pytest.raises(StoreUnusable):
        take()
    assert state(tmp_path)["starts"] == 1
    second.end(clean=True)
    assert state(tmp_path)["clean"] is True
    take().end(clean=True)


def test_workers_take_part_by_the_lock_and_leave_the_state_alone(take, tmp_path):
    keeper = take()
    store = DiskStore.open(
        tmp_path / "s", 256 << 20, lock_fd=os.dup(keeper.lock_fd), report=pytest.fail
    )
    assert store.close()
    assert state(tmp_path)["clean"] is False
    keeper.worker_died()  # what it does to an index is that room's
    assert os.waitstatus_to_exitcode(os.wait()[1]) == 0
    keeper.end(clean=True)


def test_the_index_is_rebuilt_in_a_child_that_tells_every_tenth(take, tmp_path, told, monkeypatch):
    take().end(clean=False)
    went_down(tmp_path)
    me = os.getpid()

    def rebuild(path, shards, size, progress):
        assert os.getpid() != me
        assert (path, shards, size) == (tmp_path / "s", 16, 256 << 20)
        for done in range(101):
            progress(done, 100)
        return 7

    monkeypatch.setattr(store_keeper, "rebuild", rebuild)
    take().end(clean=True)
    lines = told.getvalue().splitlines()
    assert len(lines) == 12
    assert lines[0].endswith("/s: the machine went down while it was in use: rebuilding its index")
    tenths = [line.rpartition(": ")[2] for line in lines[1:11]]
    assert tenths == [f"{n} %" for n in range(10, 101, 10)]
    assert lines[11].endswith("/s: the index is whole again, 7 responses were found")


@pytest.mark.parametrize(
    ("how", "why"),
    [
        (lambda *_: os.kill(os.getpid(), signal.SIGBUS), f"failed: signal {signal.SIGBUS:d}; "),
        (lambda *_: os.stat("/nowhere"), "failed: [Errno 2] No such file or directory: '/nowhere'"),
    ],
)
def test_what_kills_the_rebuild_is_one_line_and_the_store_is_rebuilt_at_the_next_start(
    take, tmp_path, told, monkeypatch, how, why
):
    take().end(clean=False)
    went_down(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(store_keeper, "rebuild", how)
        with pytest.raises(StoreUnusable) as caught:
            take()
    assert why in str(caught.value)
    assert "\n" not in str(caught.value)


def test_as_many_open_files_as_the_system_allows(monkeypatch, told):
    limits = {"now": (1024, 2048)}
    monkeypatch.setattr("resource.getrlimit", lambda _: limits["now"])
    monkeypatch.setattr("resource.setrlimit", lambda _, to: limits.update(now=to))
    raise_file_limit(False, EventLog("e", lambda: 0.0, told))
    assert limits["now"] == (2048, 2048)
    (line,) = told.getvalue().splitlines()
    assert "open files: 2048 are allowed, fewer than the 4096 that a busy node needs" in line
    limits["now"] = (1024, 1 << 20)
    raise_file_limit(True, EventLog("e", lambda: 0.0, told))
    assert limits["now"] == (1 << 20, 1 << 20)
    assert len(told.getvalue().splitlines()) == 1
