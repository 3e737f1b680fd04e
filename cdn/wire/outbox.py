"""What leaves when a turn of the loop has brought all it brings.

Strategy: a busy node finds some dozens of requests in one turn. Their answers are found first and
written after: what finds them stays in the processor's caches, which each answer's bytes would wash
out, and a client that is woken once takes several answers. Measured with wrk on another core:
misses cost up to a sixth less, hits of many objects a tenth, hits of one a twentieth, and half of
all answers come sooner. Parts sent out of files gain nothing, and do not wait here.

A connection that has anything here says so in `outgoing`, and has it leave before anything else is
done to it: before it is read on, answered past this, closed. What was given is told when it leaves:
only then it is known whether the client takes all of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

from cdn.gateway.plain import PlainMiss
from cdn.observe.hits import Said, Served

Given = tuple[Served, Said, str, float, int | str, bytes | PlainMiss]
"""One answer: what is said of it, and of itself by its client, the client's address, when it was
asked for (the clock's seconds), for how many seconds more it is fresh ("" for a miss), and the
request: its head, or the miss that it began as."""

MOST = 64
"""Answers that wait for each other at most: some 0.3 ms."""


class Sender(Protocol):
    """A connection; where it is `closing`, nothing of it leaves any more. `room` is set while its
    client has not taken what was written."""

    closing: bool
    outgoing: Outbox | None
    room: asyncio.Future[None] | None
    tls: bool
    transport: asyncio.Transport

    def see_off(self, given: Given, *, begun: bool = True) -> None:
        """Waits for what has not left, if it has `begun` to; else it never will."""
        ...


class Outbox:
    """Of one loop, the running one. `left` takes what has left whole."""

    def __init__(self, left: Callable[[Sequence[Given]], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._left = left
        self._leaving: list[tuple[Sender, bytes, bytes, Given]] = []

    def put(self, sender: Sender, head: bytes, rest: bytes, given: Given) -> None:
        """Has `sender` write both, or one where `rest` is empty, at the end of this turn."""
        leaving = self._leaving
        leaving.append((sender, head, rest, given))
        sender.outgoing = self
        if len(leaving) == 1:
            self._loop.call_soon(self.flush)
        elif len(leaving) >= MOST:
            self.flush()

    def flush(self) -> None:
        """Has all leave now."""
        leaving, self._leaving = self._leaving, []
        whole = []
        for sender, head, rest, given in leaving:
            sender.outgoing = None
            if sender.closing:
                sender.see_off(given, begun=False)
                continue
            try:
                if rest:
                    sender.transport.writelines((head, rest))
                else:
                    sender.transport.write(head)
            except Exception as error:  # a bug, whose others' answers are no part of
                context = {"message": "bug: an answer could not be written", "exception": error}
                self._loop.call_exception_handler(context)
                sender.see_off(given, begun=False)
                continue
            if sender.room is None or sender.tls:
                whole.append(given)
            else:
                sender.see_off(given)
        if whole:
            self._left(whole)
