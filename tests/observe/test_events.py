"""The node's own log: one line an event, whatever it quotes, and never an error."""

import io

from cdn.observe.events import EventLog, tell_why_not

NOON = 1795348800.0  # 2026-11-22T12:00:00Z


def test_a_line_is_time_node_level_and_sentence():
    stream = io.StringIO()
    events = EventLog("edge-a", lambda: NOON, stream)
    events.info("reload: configs/edge.yaml ok")
    events.warning("shield yokohama is out for 10 s")
    events.error("reload: configs/edge.yaml:3: nam: unknown key")
    assert stream.getvalue() == (
        "2026-11-22T12:00:00Z edge-a info reload: configs/edge.yaml ok\n"
        "2026-11-22T12:00:00Z edge-a warning shield yokohama is out for 10 s\n"
        "2026-11-22T12:00:00Z edge-a error reload: configs/edge.yaml:3: nam: unknown key\n"
    )


def test_a_quoted_line_end_begins_no_line():
    stream = io.StringIO()
    EventLog("edge-a", lambda: NOON, stream).info(
        "host a\r\n2026 edge-a error b\x1b[2J\u2028c 横浜"
    )
    assert stream.getvalue().splitlines() == [
        "2026-11-22T12:00:00Z edge-a info host a  2026 edge-a error b [2J c 横浜"
    ]


def test_a_stream_that_is_gone_is_no_error():
    stream = io.StringIO()
    stream.close()
    EventLog("edge-a", lambda: NOON, stream).info("still serving")

    class Full(io.StringIO):
        def write(self, _: str) -> int:
            raise BrokenPipeError

    EventLog("edge-a", lambda: NOON, Full()).info("still serving")


def test_why_a_process_cannot_start_is_one_line_in_one_write():
    """Several workers end for the same reason at once: two writes each would mix their lines."""
    writes: list[str] = []

    class Unbuffered(io.StringIO):
        def write(self, text: str) -> int:
            writes.append(text)
            return len(text)

    tell_why_not("edge", OSError("access log missing/log: no such\nfile"), Unbuffered())
    assert writes == ["cdn edge: access log missing/log: no such file\n"]


def test_a_process_that_cannot_start_ends_as_well_without_stderr():
    stream = io.StringIO()
    stream.close()
    tell_why_not("edge", OSError("x"), stream)
