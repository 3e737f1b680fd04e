"""Purges by what responses have in common, as epochs: O(1) in the number of stored responses.

Strategy: a counter that rises at every purge. A response bears the count at which it was asked for;
a tag bears the count at which it was last purged. A response with a tag purged since is treated as
absent at its next look-up, and so is one that was still on its way.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterable

MOST_TAGS = 65_536
"""Tags remembered; when the oldest is forgotten, everything as old counts as purged."""


class PurgeEpochs:
    """`now` is the epoch to stamp what is asked for now with."""

    def __init__(self, most_tags: int = MOST_TAGS) -> None:
        self.now = 0
        self._most_tags = most_tags
        self._purged: OrderedDict[Hashable, int] = OrderedDict()
        self._forgotten = 0

    def purge(self, tags: Iterable[Hashable]) -> None:
        """Whatever has one of `tags`, and was asked for by now, is outdated."""
        for tag in tags:
            self.now += 1
            self._purged[tag] = self.now
            self._purged.move_to_end(tag)
        while len(self._purged) > self._most_tags:
            _, self._forgotten = self._purged.popitem(last=False)

    def outdated(self, tags: Iterable[Hashable], stamp: int) -> bool:
        """Whether a response with these tags, asked for at `stamp`, has been purged since."""
        return any(self._purged.get(tag, self._forgotten) > stamp for tag in tags)
