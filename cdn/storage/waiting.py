"""Probation in RAM (`Admission.REUSE`): what came once is not written until it is used again.

Strategy: slices stay among what is on its way (`Arrivals`), so look-ups see them, but are not
handed to the disk. Whoever is used is; the oldest give way when bytes are short, and leave ghosts.
What cannot be completed goes as a whole, or is gone as a whole.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from cdn.storage.incoming import Arrivals, Incoming, Put


class Waiting:
    """`room` in bytes. `write` hands slices of one response to the disk, False: it takes none now;
    `gone` is told which gave way. Called on the loop only."""

    def __init__(
        self,
        room: int,
        arrivals: Arrivals,
        write: Callable[[list[Put]], bool],
        gone: Callable[[Put], None],
    ) -> None:
        self.room = room
        self.bytes = 0
        self._arrivals = arrivals
        self._write = write
        self._gone = gone
        self._puts: OrderedDict[tuple[Incoming, int], Put] = OrderedDict()  # the oldest first

    def hold(self, put: Put, number: int) -> bool:
        """A slice, which is among what is on its way, has come for the first time. False: there is
        no room for it, or for all of what it is part of."""
        size = len(put.content)
        if size > self.room:
            return False
        while self.bytes + size > self.room:
            self._give_way()
        if put.incoming.cancelled:
            return False  # its own beginning gave way to it, and it is kept whole or not at all
        self._puts[put.incoming, number] = put
        self.bytes += size
        return True

    def use(self, incoming: Incoming, number: int) -> None:
        """A slice is used again: to the disk with it, if it was waiting."""
        if (incoming, number) not in self._puts or incoming.cancelled:
            return
        numbers = [number]
        if incoming.whole_only:
            numbers = [one for one in list(incoming.slices) if (incoming, one) in self._puts]
        puts = [self._puts[incoming, one] for one in numbers]
        if self._write(puts):
            for one in numbers:
                self._take(incoming, one)

    def _take(self, incoming: Incoming, number: int) -> Put:
        put = self._puts.pop((incoming, number))
        self.bytes -= len(put.content)
        return put

    def _give_way(self) -> None:
        incoming, number = next(iter(self._puts))
        put = self._take(incoming, number)
        if not incoming.cancelled:
            self._gone(put)
            if incoming.whole_only:
                self._arrivals.cancel(incoming)
        self._arrivals.written(put)
