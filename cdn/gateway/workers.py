"""The other workers of a node, as the pipeline knows them.

Strategy: a protocol of two questions, and the answer of a node that has no other workers. How they
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

    async def forget(self, keys: Collection[bytes], tags: Collection[Tag]) -> None:
        """Has every other worker remove what an unsafe method has outdated; returns when all that
        live have done so. Never raises but CancelledError."""
        ...


class OneWorker:
    """A node that is one process."""

    def mine(self, _: bytes) -> bool:
        return True

    async def forget(self, keys: Collection[bytes], tags: Collection[Tag]) -> None:
        return None
