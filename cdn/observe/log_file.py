"""A file that only grows, written by a thread of its own.

Strategy: writes and reopenings are jobs in one queue, so they happen in the order they were asked
for and never on the caller's thread. The thread is a daemon and not an executor's, because a
reader that stops reading (`--access-log - | less`) blocks a write for as long as it likes, and
neither the event loop nor the end of the process may wait for it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from queue import SimpleQueue

Done = Callable[[OSError | None], None]
"""Called on the writing thread when a job has ended: well (None), or with what went wrong."""

_NEWLINE = ord("\n")
_STDOUT = 1


class LogFile:
    """Appends whole lines to `path`; "-" is standard output.

    Raises OSError from the constructor when the path cannot be opened; afterwards errors go to
    each job's `done`. The caller bounds the queue: it keeps one job in flight or few.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._fd = _open(path)
        self._torn = False
        self._jobs: SimpleQueue[tuple[bytes | None, Done] | None] = SimpleQueue()
        threading.Thread(target=self._work, name=f"log {path}", daemon=True).start()

    def write(self, lines: bytes, done: Done) -> None:
        self._jobs.put((lines, done))

    def reopen(self, done: Done) -> None:
        """Opens the path anew, for logrotate. Where that fails, the old file is written on."""
        self._jobs.put((None, done))

    def close(self) -> None:
        """Closes the file after the jobs before; does not wait for them."""
        self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            lines, done = job
            try:
                if lines is None:
                    self._open_anew()
                else:
                    self._append(lines)
            except OSError as error:
                done(error)
            else:
                done(None)
        os.close(self._fd)

    def _open_anew(self) -> None:
        fd = _open(self.path)
        os.close(self._fd)
        self._fd, self._torn = fd, False

    def _append(self, lines: bytes) -> None:
        # A disk that filled up in the middle of a line: the next line must not be glued to it.
        rest = memoryview(b"\n" + lines if self._torn else lines)
        while rest:
            written = os.write(self._fd, rest)
            self._torn = rest[written - 1] != _NEWLINE
            rest = rest[written:]


def _open(path: str) -> int:
    if path == "-":
        return os.dup(_STDOUT)
    # Viewers' addresses are personal data: not for every user of the machine.
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
