"""What a node tells its operator: one line an event, on stderr.

Strategy: a line is time, node, level word, sentence. No tracebacks, no levels to configure, and
whatever a sentence quotes it stays one line. Telling never fails: a node whose stderr is gone
goes on serving.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable
from typing import TextIO

# C0, DEL, C1 and the Unicode line ends: all that could begin a second line or move a cursor.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


class EventLog:
    """`clock` gives wall seconds; `stream` is usually sys.stderr."""

    def __init__(self, node: str, clock: Callable[[], float], stream: TextIO) -> None:
        self._node = node
        self._clock = clock
        self._stream = stream

    def info(self, sentence: str) -> None:
        """Something went as it should and an operator would like to know."""
        self._tell("info", sentence)

    def warning(self, sentence: str) -> None:
        """The node serves on, with less than it was configured to have."""
        self._tell("warning", sentence)

    def error(self, sentence: str) -> None:
        """Something that was asked for did not happen."""
        self._tell("error", sentence)

    def _tell(self, level: str, sentence: str) -> None:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self._clock()))
        _write_line(self._stream, f"{stamp} {self._node} {level} {sentence}")


def tell_why_not(role: str, error: Exception, stream: TextIO) -> None:
    """The last line of a process that cannot start: `error` has whose fault, where and the mend."""
    _write_line(stream, f"cdn {role}: {error}")


def _write_line(stream: TextIO, line: str) -> None:
    """In one write: other processes of the node write to the same place. Never raises."""
    # ValueError: the stream was closed.
    with contextlib.suppress(OSError, ValueError):
        stream.write(_CONTROL.sub(" ", line) + "\n")
        stream.flush()
