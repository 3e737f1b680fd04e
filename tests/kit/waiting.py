"""What tests wait for instead of sleeping: counters that reach a number, gates that are opened.

Strategy: one event loop, no locks; a counter wakes whoever waits for the number it has reached.
"""

import asyncio

LIMIT = 10.0
"""Seconds after which a wait is a failed test."""


class Counter:
    """Counts up; `reached(n)` waits until it has counted to `n` (AssertionError after LIMIT)."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.value = 0
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []

    def add(self) -> None:
        self.value += 1
        for n, future in self._waiting:
            if self.value >= n and not future.done():
                future.set_result(None)
        self._waiting = [pair for pair in self._waiting if not pair[1].done()]

    async def reached(self, n: int = 1) -> None:
        if self.value >= n:
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((n, future))
        try:
            async with asyncio.timeout(LIMIT):
                await future
        except TimeoutError:
            raise AssertionError(f"{self.what}: {self.value} of {n} within {LIMIT:g} s") from None


class Gate:
    """Holds the origin's answers until the test opens it.

    `after=None` holds before the head; `after=N` once N bytes of content have been sent. An opened
    gate stays open.
    """

    def __init__(self, after: int | None = None) -> None:
        self.after = after
        self._arrivals = Counter("answers at the gate")
        self._opened = asyncio.Event()

    async def reached(self, n: int = 1) -> None:
        """Until `n` answers have come to the gate."""
        await self._arrivals.reached(n)

    def open(self) -> None:
        self._opened.set()

    async def pass_through(self) -> None:
        """The origin's side: arrive, and wait until the gate is open."""
        self._arrivals.add()
        await self._opened.wait()
