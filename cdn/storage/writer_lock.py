"""Who writes a shard: one process, because the kernel says so.

Strategy: a file in the shard's directory, flock'd through an open file description that no other
process has. It goes with the process, however that ends, and whoever asks next has it.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

_NAME = "writer"


class WriterLock:
    """Of the shard in `directory`. Not held until `take` says so."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / _NAME
        self._fd: int | None = None

    def take(self) -> bool:
        """Whether this process has it now; waits for nobody. Raises OSError."""
        if self._fd is not None:
            return True
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return False
        except OSError:
            os.close(fd)
            raise
        self._fd = fd
        return True

    def release(self) -> None:
        """Others may write. Idempotent."""
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)
