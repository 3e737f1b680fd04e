"""The access log: its line, its batches, and what it does when the disk does not."""

import asyncio
import errno
import io
import os
import re
import resource
import string
from collections.abc import Iterator
from queue import SimpleQueue

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cdn.observe import access_log
from cdn.observe.access_log import (
    BATCH,
    BATCH_BYTES,
    WAITING_LIMIT,
    AccessLog,
    AccessLogUnusable,
    LineFormat,
    LogRecord,
)
from cdn.observe.events import EventLog
from cdn.observe.log_file import LogFile

NOON = 1795348800.0  # 2026-11-22T12:00:00Z

RECORD = LogRecord(
    time=NOON + 0.75,
    client="192.0.2.7",
    method="GET",
    target="/a?b=c",
    authority="www.example.com",
    scheme="https",
    version=(1, 1),
    status=200,
    content_bytes=1024,
    referer="https://www.example.com/",
    user_agent="Mozilla/5.0 (TV)",
    cache_status="edge-a; hit; ttl=295",
    outcome="hit",
    service="films",
    seconds=0.000213,
    complete=True,
    source="",
)

LINE = re.compile(
    r"(?P<client>[^ ]+) - - \[(?P<time>[^]]+)] "
    r'"(?P<request>[^"]*)" (?P<status>\d+) (?P<bytes>\d+) "(?P<referer>[^"]*)" "(?P<agent>[^"]*)" '
    r'"(?P<cache_status>[^"]*)" (?P<seconds>\d+\.\d{6}) "(?P<operator>[^"]*)" (?P<service>[^ ]+)'
    r" (?P<complete>whole|cut)\n"
)


def unescaped(text: str) -> str:
    """What the bytes were that `text` stands for."""
    if text == "-":
        return ""
    return re.sub(r"\\x([0-9a-f]{2})", lambda found: chr(int(found[1], 16)), text)


# --- the line


def test_the_line():
    assert LineFormat("edge-a", "Cable East").line(RECORD) == (
        '192.0.2.7 - - [22/Nov/2026:12:00:00 +0000] "GET /a?b=c HTTP/1.1" 200 1024 '
        '"https://www.example.com/" "Mozilla/5.0 (TV)" "edge-a; hit; ttl=295" 0.000213 '
        '"Cable East" films whole\n'
    )


def test_what_was_not_sent_whole_says_so():
    assert LineFormat("edge-a", "").line(RECORD._replace(complete=False)).endswith(" films cut\n")


def test_a_refused_head_has_a_client_and_no_request():
    line = LineFormat("edge-a", "").line(RECORD._replace(method="", target="", status=400))
    assert line.startswith('192.0.2.7 - - [22/Nov/2026:12:00:00 +0000] "-" 400 ')


def test_what_is_absent_is_a_dash():
    bare = RECORD._replace(referer="", user_agent="", cache_status="", service="")
    line = LineFormat("edge-a", "").line(bare)
    assert line.endswith(' 200 1024 "-" "-" "-" 0.000213 "-" - whole\n')


def test_only_this_nodes_member_of_cache_status_is_logged():
    chain = 'shield-y; hit; detail="a, edge-a; b", edge-a; fwd=uri-miss; stored'
    line = LineFormat("edge-a", "east").line(RECORD._replace(cache_status=chain))
    assert '"edge-a; fwd=uri-miss; stored"' in line
    assert "shield-y" not in line


def test_time_is_the_records_own():
    form = LineFormat("edge-a", "east")
    times = (NOON, NOON + 0.999, NOON + 1, NOON - 1, 0.0)
    stamps = [LINE.fullmatch(form.line(RECORD._replace(time=t)))["time"] for t in times]
    assert stamps == [
        "22/Nov/2026:12:00:00 +0000",
        "22/Nov/2026:12:00:00 +0000",
        "22/Nov/2026:12:00:01 +0000",
        "22/Nov/2026:11:59:59 +0000",
        "01/Jan/1970:00:00:00 +0000",
    ]


def test_an_operators_name_is_utf8():
    line = LineFormat("edge-a", "横浜").line(RECORD)
    assert r'"\xe6\xa8\xaa\xe6\xb5\x9c"' in line


octets = st.text(st.characters(max_codepoint=0xFF)) | st.text('"\\ \n\r\t\x85x2')


@given(octets, octets, octets, octets, octets)
@example('" 200 0\n192.0.2.66 - - [', "\\", '\\"', "\x85\x1c\x0b\x0c", "\\x22")
def test_no_text_forges_a_line(target, referer, agent, cache_status, service):
    record = RECORD._replace(
        target=target,
        referer=referer,
        user_agent=agent,
        cache_status=cache_status,
        service=service,
        client=service,
    )
    line = LineFormat("edge-a", "east").line(record)
    assert set(line[:-1]) <= set(string.printable) - set("\t\n\r\x0b\x0c")
    assert len(line.splitlines()) == 1
    parts = LINE.fullmatch(line)
    assert parts is not None
    assert unescaped(parts["request"]) == f"GET {target} HTTP/1.1"
    for name, text in (
        ("referer", referer),
        ("agent", agent),
        ("cache_status", cache_status),
        ("service", service),
        ("client", service),
    ):
        assert unescaped(parts[name]) == ("" if text == "-" else text)


@given(st.text("a横\U0001f4fa\u2028\udc80\n"), st.text("a横\U0001f4fa\u2028\n"))
def test_not_even_text_that_was_never_bytes(agent, operator):
    line = LineFormat("edge-a", operator).line(RECORD._replace(user_agent=agent))
    assert LINE.fullmatch(line)
    assert line.isascii()


def test_a_batch_ends_at_its_count_and_at_its_bytes():
    form = LineFormat("edge-a", "east")
    lines, count = form.batch([RECORD] * 1000)
    assert count == BATCH == lines.count(b"\n")
    hostile = RECORD._replace(user_agent='"' * 30_000)
    lines, count = form.batch([hostile] * 1000)
    assert count == 2 == lines.count(b"\n")
    assert BATCH_BYTES <= len(lines) < 2 * BATCH_BYTES


# --- the file


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
    assert len(node.log._waiting) == WAITING_LIMIT
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
