"""The index: objects by digest, slices by number, all or nothing, at few bytes a record."""

import os
import subprocess
import sys

import pytest

from cdn.storage.eviction.two_logs import Log
from cdn.storage.index import Entry, Index, IndexFailed, Location, Next, SegmentRow

MAP = 64 << 20
DIGEST = b"d" * 16
HERE = Location(3, 1 << 30, 65_535, 1 << 20)


@pytest.fixture
def index(tmp_path):
    index = Index(tmp_path / "index", MAP)
    yield index
    index.close()


def _entry(object_id=1, slices=0b101, length=10):
    return Entry(object_id, HERE, 99, length, slices)


def test_objects_are_found_by_digest_only(index):
    with index.change() as change:
        change.put_head(DIGEST, _entry(2, length=None))
        change.put_head(DIGEST, _entry(1))
        change.put_head(b"e" * 16, _entry(3))
    assert index.heads(DIGEST) == [_entry(1), _entry(2, length=None)]
    assert index.heads(b"c" * 16) == []
    assert index.heads(b"\xff" * 16) == []
    assert [digest for digest, _ in index.all_heads()] == [DIGEST, DIGEST, b"e" * 16]
    assert index.counts() == (3, 0)


def test_ten_thousand_slices_are_as_many_bits(index):
    entry = _entry(slices=(1 << 10_240) - 1)
    with index.change() as change:
        change.put_head(DIGEST, entry)
        assert change.head(DIGEST, 1) == entry
        assert change.head(DIGEST, 2) is None
    assert index.heads(DIGEST) == [entry]


def test_slices_are_located(index):
    with index.change() as change:
        for number in (0, 2, 0xFFFFFFFF):
            change.put_slice(5, number, HERE._replace(record=number & 7))
        change.put_slice(6, 1, HERE)
        change.delete_slice(5, 2)
        assert change.slice(5, 2) is None
    found = index.locate(5, (0, 1, 2, 0xFFFFFFFF))
    assert found == {0: HERE._replace(record=0), 0xFFFFFFFF: HERE._replace(record=7)}


def test_a_change_is_whole_or_not_at_all(index):
    def half():
        with index.change() as change:
            change.put_head(DIGEST, _entry())
            raise RuntimeError

    with pytest.raises(RuntimeError):
        half()
    assert index.heads(DIGEST) == []


def test_a_deleted_head_is_gone(index):
    with index.change() as change:
        change.put_head(DIGEST, _entry())
        change.delete_head(DIGEST, 1)
    assert index.heads(DIGEST) == []


def test_segments_and_counters_are_kept(tmp_path):
    rows = [SegmentRow(1, Log.MAIN, 1 << 32, 7, True), SegmentRow(2, Log.PROBATION, 0, 0, False)]
    index = Index(tmp_path / "index", MAP)
    with index.change() as change:
        assert change.next() == Next(1, 1)
        for row in reversed(rows):
            change.put_segment(row)
        change.put_next(Next(1 << 40, 3))
    index.close()
    index = Index(tmp_path / "index", MAP)
    assert index.segments() == rows
    with index.change() as change:
        assert change.next() == Next(1 << 40, 3)
        change.delete_segment(1)
    assert index.segments() == rows[1:]
    index.close()


def test_a_record_costs_less_than_200_bytes(index):
    with index.change() as change:
        for number in range(20_000):
            digest = (number * 0x9E3779B97F4A7C15 % 2**128).to_bytes(16, "little")
            change.put_head(digest, _entry(number, 1))
            change.put_slice(number, 0, HERE)
    assert index.size / 40_000 < 200


def test_a_full_map_is_an_index_failure_and_the_index_goes_on(tmp_path):
    index = Index(tmp_path / "index", 256 << 10)

    def too_much():
        with index.change() as change:
            for number in range(100_000):
                change.put_slice(number, 0, HERE)

    with pytest.raises(IndexFailed, match="MAP_FULL"):
        too_much()
    assert index.counts() == (0, 0)
    with index.change() as change:
        change.put_slice(1, 0, HERE)
    assert index.counts() == (0, 1)
    index.close()


def test_what_is_no_index_is_an_index_failure(tmp_path):
    (tmp_path / "index").write_bytes(b"x" * 100_000)
    with pytest.raises(IndexFailed):
        Index(tmp_path / "index", MAP)


def test_readers_that_died_are_cleared(tmp_path, index):
    reading = (
        "import os, sys, lmdb\n"
        f"env = lmdb.open({str(tmp_path / 'index')!r}, subdir=False, max_dbs=4)\n"
        "txn = env.begin()\n"
        "os.kill(os.getpid(), 9)\n"
    )
    dead = subprocess.run([sys.executable, "-c", reading], env=os.environ, check=False)
    assert dead.returncode == -9
    assert index.reader_check() == 1
