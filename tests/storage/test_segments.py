"""Segments: what is appended is found by walking, marks are shared, and a drop disturbs nobody."""

import os

import pytest

from cdn.storage import segments as module
from cdn.storage.eviction.two_logs import Log
from cdn.storage.records import KILLED, Kind, checksum, pack
from cdn.storage.segments import Segment, Segments, SegmentWriter, segment_path, walk


def _append(writer, number, content, key=b"key"):
    header = pack(
        Kind.SLICE, b"d" * 16, 1, number, number, len(key), len(content), checksum(key, content)
    )
    return writer.add(header, key, content)


def _filled(directory, contents=(b"one", b"two", b"three")):
    writer = SegmentWriter(Segment(directory, 1, 1, create=True), Log.MAIN)
    places = [_append(writer, number, content) for number, content in enumerate(contents)]
    assert writer.flush()
    return writer, places


def test_what_is_appended_is_found_by_walking(tmp_path):
    writer, places = _filled(tmp_path)
    found = list(walk(writer.segment.fd, writer.size))
    assert [(one.offset, one.record) for one in found] == places
    assert [one.header.number for one in found] == [0, 1, 2]
    assert os.fstat(writer.segment.fd).st_size == writer.size


def test_nothing_is_in_the_file_before_flush_and_a_second_flush_has_nothing(tmp_path):
    writer = SegmentWriter(Segment(tmp_path, 1, 1, create=True), Log.MAIN)
    _append(writer, 0, b"x")
    assert os.fstat(writer.segment.fd).st_size == 0
    assert writer.flush()
    assert not writer.flush()


def test_a_short_write_is_finished(tmp_path, monkeypatch):
    pwritev = os.pwritev

    def short(fd, buffers, offset):
        return pwritev(fd, [b"".join(buffers)[:5]], offset)

    monkeypatch.setattr(module.os, "pwritev", short)
    writer, _ = _filled(tmp_path)
    assert len(list(walk(writer.segment.fd, writer.size))) == 3


def test_walking_goes_over_the_killed_and_ends_at_what_is_no_record(tmp_path):
    writer, places = _filled(tmp_path)
    fd = writer.segment.fd
    os.pwrite(fd, KILLED, places[0][0])
    os.pwrite(fd, b"\0" * 8, places[2][0] + 4)
    assert [one.header.live for one in walk(fd, writer.size)] == [False, True]
    assert len(list(walk(fd, places[1][0] + 3))) == 1


def test_reading_ends_with_the_file(tmp_path):
    writer, _ = _filled(tmp_path)
    segment = writer.segment
    assert len(segment.read(0, writer.size + 100)) == writer.size
    assert segment.read_resident(0, writer.size + 100) is None
    assert segment.read_resident(0, 4) == b"iijR"


def test_a_file_system_without_nowait_is_taken_for_resident(tmp_path, monkeypatch):
    writer, _ = _filled(tmp_path)
    preadv = os.preadv

    def unsupported(fd, buffers, offset, flags=0):
        if flags:
            raise OSError(95, "Operation not supported")
        return preadv(fd, buffers, offset)

    monkeypatch.setattr(module.os, "preadv", unsupported)
    assert writer.segment.read_resident(0, 4) == b"iijR"


def test_what_is_not_resident_is_not_waited_for(tmp_path, monkeypatch):
    writer, _ = _filled(tmp_path)

    def cold(fd, buffers, offset, flags=0):
        raise BlockingIOError

    monkeypatch.setattr(module.os, "preadv", cold)
    assert writer.segment.read_resident(0, 4) is None


def test_marks_are_shared_by_all_who_have_the_segment_open(tmp_path):
    writer, _ = _filled(tmp_path)
    other = Segment(tmp_path, 1, 1)
    assert not other.is_verified(2)
    writer.segment.set_verified(2)
    other.add_uses(2)
    writer.segment.add_uses(2, 3)
    assert other.is_verified(2)
    assert other.uses(2) == 4
    assert not other.is_verified(1)
    other.add_uses(2, 1000)
    assert other.uses(2) == module.MOST_USES
    assert other.is_verified(2)


def test_marks_of_an_earlier_start_are_void(tmp_path):
    writer, _ = _filled(tmp_path)
    writer.segment.set_verified(0)
    later = Segment(tmp_path, 1, 2)
    assert not later.is_verified(0)
    later.add_uses(1)
    assert (later.is_verified(0), later.uses(1)) == (False, 1)


def test_who_holds_a_dropped_segment_reads_on_and_leaves_no_marks(tmp_path):
    _filled(tmp_path)
    shard = Segments(tmp_path, 1)
    held = shard.get(1)
    shard.drop(1)
    assert held.dropped
    assert held.read(0, 4) == b"iijR"
    held.set_verified(0)
    assert list(tmp_path.iterdir()) == []
    assert shard.get(1) is None


def test_what_another_process_dropped_is_let_go(tmp_path):
    Segment(tmp_path, 1, 1, create=True)
    Segment(tmp_path, 2, 1, create=True)
    shard = Segments(tmp_path, 1)
    fd = shard.get(1).fd
    segment_path(tmp_path, 1).unlink()
    assert os.readlink(f"/proc/self/fd/{fd}").endswith("(deleted)")
    shard.get(2)
    assert not os.path.exists(f"/proc/self/fd/{fd}")


def test_few_stay_open(tmp_path):
    shard = Segments(tmp_path, 1)
    before = len(os.listdir("/proc/self/fd"))
    for number in range(3 * module.MOST_OPEN):
        shard.create(number)
    assert len(os.listdir("/proc/self/fd")) - before == module.MOST_OPEN
    assert shard.numbers() == list(range(3 * module.MOST_OPEN))


def test_a_number_is_used_once(tmp_path):
    _filled(tmp_path)
    with pytest.raises(FileExistsError):
        Segment(tmp_path, 1, 1, create=True)
