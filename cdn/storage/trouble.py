"""A disk that takes no more: left alone for a while, tried again, and told of twice.

Strategy: the first failure is reported, later ones of the same trouble are not; the first thing
that works afterwards is. Between two tries nothing is written, so a full disk costs nothing.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable

_ERRNO = re.compile(r"^\[Errno \d+\] ")

RETRY_AFTER = 5.0
"""Seconds for which a disk that took no more is left alone."""


class Trouble:
    """`where` names the store; `report` takes one line. May be used from any thread."""

    def __init__(self, where: str, report: Callable[[str], None]) -> None:
        self.why: str | None = None
        self.resting = False
        self._where = where
        self._report = report
        self._retry: threading.Timer | None = None

    def failed(self, why: str) -> None:
        """The disk, or the index, said `why` it could not."""
        told, self.why = self.why is not None, _ERRNO.sub("", why)
        if not told:
            self._report(
                f"{self._where} takes no more: {self.why}; the node goes on without storing, and "
                f"tries again every {RETRY_AFTER:g} s; give the disk room, or replace it"
            )
        if not self.resting:
            self.resting = True
            self._retry = threading.Timer(RETRY_AFTER, self.try_again)
            self._retry.daemon = True
            self._retry.start()

    def try_again(self) -> None:
        """What comes from here on is written."""
        self.resting = False

    def worked(self) -> None:
        """Something was written."""
        if self.why is not None and not self.resting:
            self.why = None
            self._report(f"{self._where} takes what is stored again")

    def close(self) -> None:
        if self._retry is not None:
            self._retry.cancel()
