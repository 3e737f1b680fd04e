"""The other workers of a node, as the pipeline knows them.

Strategy: a protocol of few questions, and the answer of a node that has no other workers. How they
are reached is `owners.py`'s; nothing here does any I/O.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

Tag = tuple[bytes, str]
"""A group's origin and name (`semantics.groups.group_tags`)."""


class Workers(Protocol):
    """Who else works for this node."""

    def mine(self, key: bytes) -> bool:
        """Whether this worker owns the primary key: it alone fills and stores it."""
        ...

    def invalidation(self) -> str:
        """A name for an invalidation that begins here: no other of this node has it."""
        ...

    async def forget(
        self, invalidation: str, keys: Collection[bytes], tags: Collection[Tag]
    ) -> bool:
        """Has every other worker remove what an unsafe method has outdated, and bar the keys;
        whether all that live have done so. Never raises but CancelledError."""
        ...

    async def lift(self, invalidation: str, keys: Collection[bytes]) -> None:
        """Has every other worker take down the bars of that invalidation. Never raises but
        CancelledError."""
        ...


class OneWorker:
    """A node that is one process."""

    def mine(self, _: bytes) -> bool:
        return True

    def invalidation(self) -> str:
        return ""

    async def forget(
        self, invalidation: str, keys: Collection[bytes], tags: Collection[Tag]
    ) -> bool:
        return True

    async def lift(self, invalidation: str, keys: Collection[bytes]) -> None:
        return None
