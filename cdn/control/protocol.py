"""What the admin API needs of a node, and nothing of how either is made.

Strategy: apart from `api.py`, so that the command line can speak of a `ReloadReport` without
loading a web server.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class ReloadReport:
    """What became of a reload. `messages` are lines for the operator: where a file is at fault,
    `configs/edge.yaml:12: …` and the mend."""

    ok: bool
    messages: list[str] = field(default_factory=list)


class NoAnswer(Exception):
    """A worker of the node lives, but has not answered: nobody knows whether it has done it."""


class Node(Protocol):
    """A running node: a process's own, or all workers of one, which raise NoAnswer."""

    async def status(self) -> dict[str, Any]:
        """What `GET /v1/status` answers: values that JSON knows."""
        ...

    async def metrics(self) -> bytes:
        """What `GET /metrics` answers: `cdn.observe.metrics.Metrics.render`."""
        ...

    async def purge(self, url: str, invalidation: str = "") -> int:
        """Removes what is stored of `url`, all variants, and tells how many stored responses that
        was. Raises ValueError, with a sentence for the operator, for a URL that is malformed or
        of a host that this node does not serve. A worker repeats nothing of it until it is told by
        that name that all have purged it, or a while has gone by."""
        ...

    async def purged(self, url: str, invalidation: str) -> None:
        """All workers have done the `purge` of that name."""
        ...

    async def reload(self) -> ReloadReport:
        """Reads the configuration again and swaps it whole, or changes nothing."""
        ...
