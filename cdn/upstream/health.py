"""Passive health: which nodes real traffic has shown to be broken.

Strategy: routers report what became of their requests, and this keeps a circuit breaker per node
name: three failures within ten seconds put a node out; when its time is over one request is let
through, and decides. The out-time doubles from ejection to ejection, until the node has stood a
whole window without a failure. What a failure is, the kind of error says
(`UpstreamError.node_failed`): never a 5xx that the node relayed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class NodeState:
    """A node for status pages. `out_until` is in the tracker's clock, None while in service;
    `failures` are those within the window, `ejections` all since the start."""

    name: str
    usable: bool
    failures: int
    out_until: float | None
    ejections: int


@dataclass(slots=True)
class _Node:
    out_for: float
    """Seconds that the next ejection lasts."""

    failures: deque[float] = field(default_factory=deque)
    out_until: float | None = None
    probed_at: float | None = None
    back_at: float = 0.0
    ejections: int = 0


class HealthTracker:
    """Nodes by name; one that was never reported is healthy.

    `now` is a monotonic clock in seconds, as are `window` (in which `failures` of them eject),
    `first_out` and `longest_out`. `tell` hears of every change: for how long a node is out, None
    when it is back.
    """

    def __init__(
        self,
        now: Callable[[], float],
        failures: int = 3,
        window: float = 10.0,
        first_out: float = 10.0,
        longest_out: float = 120.0,
        tell: Callable[[str, float | None], None] = lambda _name, _out_for: None,
    ) -> None:
        self._now = now
        self._limit = failures
        self._window = window
        self._first_out = first_out
        self._longest_out = longest_out
        self._tell = tell
        self._nodes: dict[str, _Node] = {}

    def usable(self, name: str) -> bool:
        """Whether a request may go to `name`: it is in service, or due for a probe. Only asks."""
        node = self._nodes.get(name)
        if node is None or node.out_until is None:
            return True
        now = self._now()
        # A probe that never reports (its client went away) holds the place for a while only.
        probing = node.probed_at is not None and now < node.probed_at + self._first_out
        return now >= node.out_until and not probing

    def asking(self, name: str) -> None:
        """A request goes to `name` now: where the node is out, this is the probe that decides."""
        node = self._nodes.get(name)
        if node is not None and node.out_until is not None:
            node.probed_at = self._now()

    def failed(self, name: str) -> None:
        """A request showed `name` to be broken."""
        node = self._nodes.setdefault(name, _Node(self._first_out))
        now = self._now()
        if node.out_until is None:
            node.failures.append(now)
            if len(self._recent(node)) >= self._limit:
                self._eject(name, node)
        elif now >= node.out_until:
            self._eject(name, node)
        # Else it was on its way when the node was put out: no news.

    def succeeded(self, name: str) -> None:
        """`name` answered a request with a response head."""
        node = self._nodes.get(name)
        if node is None:
            return
        if node.out_until is not None:
            if node.probed_at is not None:
                node.out_until = node.probed_at = None
                node.back_at = self._now()
                self._tell(name, None)
        elif node.out_for > self._first_out:
            proven = self._now() >= node.back_at + self._window and not self._recent(node)
            if proven:
                node.out_for = self._first_out

    def states(self) -> list[NodeState]:
        """Every node that ever failed, by name."""
        return [
            NodeState(
                name, self.usable(name), len(self._recent(node)), node.out_until, node.ejections
            )
            for name, node in sorted(self._nodes.items())
        ]

    def _recent(self, node: _Node) -> deque[float]:
        horizon = self._now() - self._window
        while node.failures and node.failures[0] <= horizon:
            node.failures.popleft()
        return node.failures

    def _eject(self, name: str, node: _Node) -> None:
        self._tell(name, node.out_for)
        node.ejections += 1
        node.out_until = self._now() + node.out_for
        node.out_for = min(2 * node.out_for, self._longest_out)
        node.probed_at = None
        node.failures.clear()
