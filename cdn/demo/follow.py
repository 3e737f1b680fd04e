"""Requests as they come, a line each, for a person to read.

Strategy: lines are written a few times a second, off the requests' path, and only as many as can be
read; what came beyond that is counted.
"""

from __future__ import annotations

import asyncio
from collections import deque
from datetime import UTC, datetime

from rich.console import Console
from rich.text import Text

from cdn.observe.log_lines import LogRecord

PAUSE = 0.1
"""Seconds between two looks."""

AT_ONCE = 10
"""Lines written at one look."""

_STYLES = {"hit": "green", "stale": "yellow"}


class Follower:
    """Shows the newest requests on `console`."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._waiting: deque[tuple[str, LogRecord]] = deque(maxlen=AT_ONCE)
        self._come = 0

    def tell(self, node: str, record: LogRecord) -> None:
        """Another request was answered by `node`."""
        self._waiting.append((node, record))
        self._come += 1

    async def until(self, stopped: asyncio.Event) -> None:
        """Writes until `stopped` is set."""
        while not stopped.is_set():
            try:
                async with asyncio.timeout(PAUSE):
                    await stopped.wait()
            except TimeoutError:
                self._write()

    def _write(self) -> None:
        skipped = self._come - len(self._waiting)
        self._come = 0
        if skipped:
            self._console.print(f"… {skipped} more", style="dim", highlight=False)
        while self._waiting:
            self._console.print(_line(*self._waiting.popleft()), soft_wrap=True)


def _line(node: str, record: LogRecord) -> Text:
    moment = datetime.fromtimestamp(record.time, UTC)
    text = Text(f"{moment:%H:%M:%S} {node:16} ")
    text.append(f"{record.outcome or 'own':9}", _STYLES.get(record.outcome, "cyan"))
    text.append(f" {record.status} {record.content_bytes:>9} B {record.seconds * 1000:8.1f} ms  ")
    text.append(f"{record.method} {record.target}")
    if not record.complete:
        text.append("  cut short", "red")
    return text
