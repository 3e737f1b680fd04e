"""Looking into a store from outside: what is in it, and whether it is as it was written."""

import pickle
import subprocess
import sys

import pytest

from cdn.storage.directory import StoreUnusable
from cdn.storage.inspect import ls, stat, verify
from tests.storage.disk_kit import (
    SLICE,
    content_of,
    files,
    flip,
    key_of,
    only,
    opened,
    put,
    response,
)

BOOT = "this boot"
GZIP = (("accept-encoding", "gzip"),)


def _outside(expression: str):
    """What a process that is no part of the node gets."""
    code = (
        "import pickle, sys, pathlib\n"
        "from cdn.storage.inspect import clear_dead_readers, ls, stat\n"
        f"sys.stdout.buffer.write(pickle.dumps({expression}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    return pickle.loads(done.stdout)


def _ls(path, prefix=b""):
    return {row.key: row for row in _outside(f"list(ls(pathlib.{path!r}, {prefix!r}, {BOOT!r}))")}


@pytest.fixture
async def store(tmp_path):
    with opened(tmp_path) as store:
        put(store, response("a/1"), content_of("1", SLICE + 10))
        put(store, response("a/2", GZIP), b"gz")
        put(store, response("b"), b"")
        head = response("b/part", length=3 * SLICE - 5)
        writer = store.open_writer(head)
        writer.write(1, b"x" * SLICE)
        writer.commit(head)
        await store.flush()
        yield store


def test_stat_counts_what_a_running_node_has(store, tmp_path):
    found = _outside(f"stat(pathlib.{tmp_path!r}, {BOOT!r})")
    assert (found["objects"], found["slices"], found["shards"]) == (4, 4, 2)
    assert (found["starts"], found["closed_cleanly"]) == (1, False)
    assert found["main_bytes"] == 0
    assert found["probation_bytes"] == sum(
        path.stat().st_size for path in files(tmp_path, "segment")
    )
    assert found["index_bytes"] > 0
    assert found["segments"] == len(files(tmp_path, "segment"))


def test_ls_lists_by_prefix(store, tmp_path):
    rows = _ls(tmp_path)
    assert set(rows) == {key_of(name) for name in ("a/1", "a/2", "b", "b/part")}
    assert (rows[key_of("a/1")].length, rows[key_of("a/1")].stored) == (SLICE + 10, SLICE + 10)
    assert rows[key_of("a/2")].variant == GZIP
    assert rows[key_of("b")].stored == 0
    assert (rows[key_of("b/part")].length, rows[key_of("b/part")].stored) == (
        3 * SLICE - 5,
        SLICE,
    )
    assert set(_ls(tmp_path, key_of("a/"))) == {key_of("a/1"), key_of("a/2")}
    assert store.remove(key_of("b")) == 1
    assert set(_ls(tmp_path, key_of("b"))) == {key_of("b/part")}


def test_verify_finds_nothing_where_nothing_is(store, tmp_path):
    progress = []
    report = verify(tmp_path, lambda done, total: progress.append((done, total)))
    assert report.damaged == []
    assert report.records == 8
    assert report.bytes == sum(path.stat().st_size for path in files(tmp_path, "segment"))
    assert progress[-1][0] == progress[-1][1] == report.bytes


async def test_verify_passes_over_what_was_killed(store, tmp_path):
    store.remove(key_of("a/1"))
    assert verify(tmp_path).records == 7


def test_verify_finds_damaged_content_and_damaged_headers(store, tmp_path):
    (path, *_) = files(tmp_path, "segment")
    flip(path, 64 + 40)
    report = verify(tmp_path)
    assert [(one.segment, one.offset) for one in report.damaged] == [(path, 0)]
    assert report.damaged[0].key.startswith(b"http://example.com/")
    flip(path, 10)
    report = verify(tmp_path)
    assert [(one.segment, one.offset, one.key) for one in report.damaged] == [(path, 0, None)]


def test_an_index_of_another_boot_is_not_asked(store, tmp_path):
    for ask in (lambda: stat(tmp_path, "another"), lambda: list(ls(tmp_path, b"", "another"))):
        with pytest.raises(StoreUnusable, match="start its node once"):
            ask()
    assert verify(tmp_path).damaged == []


def test_after_a_clean_close_any_boot_may_ask(tmp_path):
    with opened(tmp_path) as store:
        put(store, response("a"), b"x")
        assert only(store, "a")
    assert stat(tmp_path)["closed_cleanly"] is True
    assert [row.key for row in ls(tmp_path)] == [key_of("a")]


@pytest.mark.parametrize("ask", [stat, lambda path: list(ls(path)), verify])
def test_what_is_no_store_is_said_so(tmp_path, ask):
    with pytest.raises(StoreUnusable, match="is not a store"):
        ask(tmp_path / "nowhere")
    with opened(tmp_path / "store"):
        pass
    (tmp_path / "store" / "00" / "index").unlink()
    if ask is not verify:
        with pytest.raises(StoreUnusable, match="cannot be read"):
            ask(tmp_path / "store")


def test_readers_that_died_are_cleared_from_beside_the_node(store, tmp_path):
    index = tmp_path / "00" / "index"
    opening = (
        "import lmdb, os, sys\n"
        "env = lmdb.open(sys.argv[1], subdir=False, readonly=True, max_readers=512)\n"
    )

    def run(more: str) -> str:
        command = [sys.executable, "-c", opening + more, str(index)]
        return subprocess.run(command, capture_output=True, check=True, text=True).stdout

    pid = run("txn = env.begin(); print(os.getpid(), flush=True); os._exit(0)").strip()
    assert pid in run("print(env.readers())").split()
    _outside(f"clear_dead_readers(pathlib.{tmp_path!r})")
    assert pid not in run("print(env.readers())").split()
