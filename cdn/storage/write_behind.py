"""Writing off the loop: a queue, one thread that writes what is in it, one that makes it durable.

Strategy: the writer waits a moment for company, since a batch costs little more than one; then all
that has come goes to `perform`. Syncing is a thread of its own, at most once a second, so a slow
device holds up neither. Whoever has too much waiting is refused, or waits for room.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future

from cdn.storage.incoming import Put

BACKLOG = 64 << 20
"""Bytes that may wait to be written; what comes on top is refused."""

COMPANY = 0.02
"""Seconds that a first thing waits for others."""

SYNC_EVERY = 1.0
"""Seconds between two times at which what was written becomes durable."""

_BATCH = 8 << 20
_BATCH_PUTS = 512


class WriteBehind:
    """`perform` writes a batch; `sync` makes durable what was written. Neither raises."""

    def __init__(self, perform: Callable[[list[Put]], None], sync: Callable[[], None]) -> None:
        self._perform = perform
        self._sync = sync
        self._limit = BACKLOG
        self._backlog = 0
        self._queue: deque[Put] = deque()
        self._changed = threading.Condition()
        self._flushes: list[Future[None]] = []
        self._rooms: list[Future[None]] = []
        self._closing = threading.Event()
        self._threads = [
            threading.Thread(target=self._write, name="store-writer", daemon=True),
            threading.Thread(target=self._keep_syncing, name="store-syncer", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def accept(self, put: Put, must: bool = False) -> bool:
        """Queues `put`; False where too much is waiting already, unless it `must` go in."""
        with self._changed:
            if self._backlog + len(put.content) > self._limit and not must:
                return False
            self._backlog += len(put.content)
            self._queue.append(put)
            self._changed.notify()
        return True

    def room(self) -> Future[None] | None:
        """Done when less than half of the backlog is left; None where that is so."""
        with self._changed:
            if self._backlog * 2 <= self._limit:
                return None
            future: Future[None] = Future()
            self._rooms.append(future)
            return future

    def flush(self) -> Future[None]:
        """Done when all that was accepted has been written and is durable."""
        future: Future[None] = Future()
        with self._changed:
            if self._closing.is_set():
                future.set_result(None)  # `close` leaves nothing behind
                return future
            self._flushes.append(future)
            self._changed.notify()
        return future

    def close(self) -> None:
        """Writes what is queued, and ends. Waits for it."""
        with self._changed:
            self._closing.set()
            self._changed.notify()
        for thread in self._threads:
            thread.join()
        self._sync()

    def _write(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(self._wanted)
                if not self._closing.is_set() and not self._flushes:
                    self._changed.wait_for(self._hurried, COMPANY)
                batch, size = self._take_batch()
                flushes: list[Future[None]] = []
                if not self._queue:
                    flushes, self._flushes = self._flushes, []
            if batch:
                self._perform(batch)
            if flushes:
                self._sync()
            self._told(size, flushes)
            if self._closing.is_set() and not batch:
                return

    def _wanted(self) -> bool:
        return bool(self._queue or self._flushes) or self._closing.is_set()

    def _hurried(self) -> bool:
        return self._backlog >= _BATCH or bool(self._flushes) or self._closing.is_set()

    def _take_batch(self) -> tuple[list[Put], int]:
        batch: list[Put] = []
        size = 0
        while self._queue and size < _BATCH and len(batch) < _BATCH_PUTS:
            put = self._queue.popleft()
            size += len(put.content)
            batch.append(put)
        return batch, size

    def _told(self, size: int, flushes: list[Future[None]]) -> None:
        with self._changed:
            self._backlog -= size
            done = flushes
            if self._backlog * 2 <= self._limit:
                done, self._rooms = done + self._rooms, []
        for future in done:
            if future.set_running_or_notify_cancel():
                future.set_result(None)

    def _keep_syncing(self) -> None:
        while not self._closing.wait(SYNC_EVERY):
            self._sync()
