"""What leaves when a turn of the loop has brought all it brings.

Strategy: a busy node finds some dozens of requests in one turn. Their answers are found first and
written after: what finds them stays in the processor's caches, which each answer's bytes would wash
out, and a client that is woken once takes several answers. Measured with wrk on another core:
misses cost up to a sixth less, hits of many objects a tenth, hits of one a twentieth, and half of
all answers come sooner. Parts sent out of files gain nothing, and do not wait here.

A connection that has anything here says so in `outgoing`, and has it leave before anything else is
done to it: before it is read on, answered past this, closed.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

MOST = 64
"""Answers that wait for each other at most: some 0.3 ms."""


class Sender(Protocol):
    """A connection. What it has here is dropped if it is `closing` when that is to leave."""

    closing: bool
    outgoing: Outbox | None
    transport: asyncio.Transport


class Outbox:
    """Of one loop, the running one."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._leaving: list[tuple[Sender, bytes, bytes]] = []

    def put(self, sender: Sender, head: bytes, rest: bytes) -> None:
        """Has `sender` write both, or one where `rest` is empty, at the end of this turn."""
        leaving = self._leaving
        leaving.append((sender, head, rest))
        sender.outgoing = self
        if len(leaving) == 1:
            self._loop.call_soon(self.flush)
        elif len(leaving) >= MOST:
            self.flush()

    def flush(self) -> None:
        """Has all leave now."""
        leaving, self._leaving = self._leaving, []
        for sender, head, rest in leaving:
            sender.outgoing = None
            if sender.closing:
                continue
            try:
                if rest:
                    sender.transport.writelines((head, rest))
                else:
                    sender.transport.write(head)
            except Exception as error:  # a bug, whose others' answers are no part of
                sender.transport.abort()
                context = {"message": "bug: an answer could not be written", "exception": error}
                self._loop.call_exception_handler(context)
