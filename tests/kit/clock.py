"""A clock that stands still until the test moves it."""

START = 1_767_225_600.0
"""2026-01-01 00:00:00 GMT, in seconds since the epoch."""


class ManualClock:
    """`now` is handed to whatever wants the time; `advance` may also step back."""

    def __init__(self, start: float = START) -> None:
        self._now = start

    def now(self) -> float:
        return self._now

    def advance(self, seconds: float) -> None:
        self._now += seconds
