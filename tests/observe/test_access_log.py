"""The access log: its batches, and what it does when the disk does not."""

import asyncio
import errno
import io
import os
import re
import resource
from collections.abc import Iterator
from queue import SimpleQueue

import pytest

from cdn.observe import access_log
from cdn.observe.access_log import WAITING_LIMIT, AccessLog, AccessLogUnusable
from cdn.observe.events import EventLog
from cdn.observe.log_file import LogFile
from cdn.observe.log_lines import BATCH
from tests.observe.records import NOON, RECORD, hit


class Node:
    """An access log on `path` with the node's own log beside it."""

    def __init__(self, path) -> None:
        self.told = io.StringIO()
        events = EventLog("edge-a", lambda: NOON, self.told)
        self.log = AccessLog(str(path), node="edge-a", operator="east", events=events)

    def numbered(self, numbers) -> None:
        for number in numbers:
            self.log.append(RECORD._replace(target=f"/{number}"))

    @property
    def warnings(self) -> list[str]:
        return self.told.getvalue().splitlines()


def numbers_in(lines: bytes) -> list[int]:
    return [int(n) for n in re.findall(rb'"GET /(\d+) HTTP', lines)]


class Pipe:
    """A FIFO as a log's path; nobody reads until `read` is called."""

    def __init__(self, path) -> None:
        self.path = path
        os.mkfifo(path)
        self.fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)

    async def readable(self) -> None:
        loop = asyncio.get_running_loop()
        there = asyncio.Event()
        loop.add_reader(self.fd, there.set)
        await asyncio.wait_for(there.wait(), 5)
        loop.remove_reader(self.fd)

    def read_to_the_end(self) -> bytes:
        os.set_blocking(self.fd, True)
        with open(self.fd, "rb", closefd=False) as file:
            return file.read()


@pytest.fixture
def pipe(tmp_path) -> Iterator[Pipe]:
    pipe = Pipe(tmp_path / "pipe")
    yield pipe
    os.close(pipe.fd)


async def test_records_are_written_in_order_and_in_batches(tmp_path):
    path = tmp_path / "access.log"
    node = Node(path)
    node.numbered(range(1000))
    assert path.read_bytes() == b""  # nothing on the request's path
    await node.log.close()
    assert numbers_in(path.read_bytes()) == list(range(1000))
    assert node.log.counts.records == 1000
    assert node.log.counts.writes == 4
    assert path.stat().st_mode & 0o007 == 0


async def test_hits_and_others_keep_their_order(tmp_path, monkeypatch):
    monkeypatch.setattr(access_log, "BATCH_BYTES", 3000)
    path = tmp_path / "access.log"
    node = Node(path)
    node.numbered([1])
    node.log.extend([hit("/2"), hit("/3")])
    node.log.extend([hit("/4", "long" * 1000), hit("/5")])  # to be formatted in its turn
    node.numbered([6])
    await node.log.close()
    assert numbers_in(path.read_bytes()) == [1, 2, 3, 4, 5, 6]
    assert (node.log.counts.records, node.log._waiting_text) == (6, 0)


async def test_hits_are_lost_where_there_is_no_room_for_them(tmp_path, monkeypatch):
    monkeypatch.setattr(access_log, "WAITING_LIMIT", 3)
    node = Node(tmp_path / "access.log")
    node.log.extend([hit("/1"), hit("/2")])
    node.log.extend([hit("/3"), hit("/4")])
    await node.log.close()
    assert numbers_in((tmp_path / "access.log").read_bytes()) == [1, 2, 3]
    assert (node.log.counts.records, node.log.counts.lost_records) == (3, 1)


async def test_a_record_is_written_soon_without_close(pipe):
    node = Node(pipe.path)
    for number in (1, 2):  # the second finds the log idle again
        node.numbered([number])
        await pipe.readable()
        assert numbers_in(os.read(pipe.fd, 65536)) == [number]
    await node.log.close()


async def test_closing_an_idle_log_is_at_once(tmp_path):
    node = Node(tmp_path / "access.log")
    await node.log.close(limit=0)
    assert node.warnings == []


async def test_standard_output(capfd):
    node = Node("-")
    node.numbered([1])
    await node.log.close()
    assert numbers_in(capfd.readouterr().out.encode()) == [1]
    os.write(1, b"")  # ours was a duplicate: 1 is still open


async def test_reopen_follows_logrotate(tmp_path):
    path, moved = tmp_path / "access.log", tmp_path / "access.log.1"
    node = Node(path)
    path.rename(moved)
    node.log.reopen()
    node.numbered([1, 2])
    await node.log.close()
    assert moved.read_bytes() == b""
    assert numbers_in(path.read_bytes()) == [1, 2]


async def test_a_reopen_that_fails_keeps_the_old_file(tmp_path):
    directory = tmp_path / "logs"
    directory.mkdir()
    node = Node(directory / "access.log")
    directory.rename(tmp_path / "away")
    node.log.reopen()
    node.numbered([1])
    await node.log.close()
    assert numbers_in((tmp_path / "away" / "access.log").read_bytes()) == [1]
    (warning,) = node.warnings
    assert "not reopened" in warning
    assert "No such file" in warning


async def test_a_path_that_cannot_be_opened_is_said_at_once(tmp_path):
    with pytest.raises(AccessLogUnusable, match="Is a directory: name a file"):
        Node(tmp_path)


async def test_a_full_disk_is_counted_and_told_once_a_minute():
    node = Node("/dev/full")
    for second in (0, 1, 61, -61):
        node.log.append(RECORD._replace(time=NOON + second))
        await node.log._idle.wait()
    await node.log.close()
    assert node.log.counts.failed_writes == 4
    assert node.log.counts.lost_records == 4
    assert node.log.counts.records == 0
    assert [w.split("log /dev/full: ")[1] for w in node.warnings] == [
        "1 records lost so far: No space left on device",
        "3 records lost so far: No space left on device",
        "4 records lost so far: No space left on device",
    ]


async def test_a_reader_that_went_away_is_no_error(pipe):
    node = Node(pipe.path)
    other_end = os.open(os.devnull, os.O_RDONLY)
    os.dup2(other_end, pipe.fd)
    os.close(other_end)
    node.numbered([1])
    await node.log.close()
    assert node.log.counts.lost_records == 1
    assert "Broken pipe" in node.told.getvalue()


async def test_a_stuck_reader_costs_bounded_memory_and_never_the_order(pipe):
    node = Node(pipe.path)
    node.numbered(range(BATCH))
    await pipe.readable()  # the first batch is in flight and fills the pipe
    extra = 1000
    for _ in range(WAITING_LIMIT + extra):
        node.log.append(RECORD)
    assert node.log._waiting_records == WAITING_LIMIT
    assert node.log.counts.lost_records == extra
    assert len(node.warnings) == 1
    assert "too slowly" in node.warnings[0]
    reading = asyncio.create_task(asyncio.to_thread(pipe.read_to_the_end))
    await node.log.close(limit=30)
    lines = await reading
    assert numbers_in(lines) == list(range(BATCH))
    assert lines.count(b"\n") == BATCH + WAITING_LIMIT


async def test_long_heads_are_bounded_by_their_text(tmp_path, monkeypatch):
    monkeypatch.setattr(access_log, "WAITING_TEXT_LIMIT", 100_000)
    node = Node(tmp_path / "access.log")
    for _ in range(2):  # what was written makes room again
        for _ in range(5):
            node.log.append(RECORD._replace(user_agent="u" * 30_000))
        await node.log._idle.wait()
    assert node.log.counts.records == 6
    assert node.log.counts.lost_records == 4
    assert node.log._waiting_text == 0
    await node.log.close()


async def test_closing_does_not_wait_for_a_stuck_reader(pipe):
    node = Node(pipe.path)
    node.numbered(range(10 * BATCH))
    await pipe.readable()
    await node.log.close(limit=0)
    lost = node.log.counts.lost_records
    assert 8 * BATCH <= lost <= 10 * BATCH
    assert "the node ended" in node.told.getvalue()
    node.numbered([1])
    assert node.log.counts.lost_records == lost + 1
    await asyncio.to_thread(pipe.read_to_the_end)  # lets the writing thread go


def test_a_torn_line_does_not_swallow_the_next(tmp_path):
    path = tmp_path / "access.log"
    file = LogFile(str(path))
    ended: SimpleQueue[OSError | None] = SimpleQueue()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (6, limits[1]))  # a disk with room for six bytes
    try:
        file.write(b"one\ntwo\n", ended.put)
        error = ended.get(timeout=5)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert error is not None
    assert error.errno == errno.EFBIG
    file.write(b"three\n", ended.put)
    assert ended.get(timeout=5) is None
    file.close()
    assert path.read_bytes() == b"one\ntw\nthree\n"
