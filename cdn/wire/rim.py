"""What all connections of one server share: who answers, how long to wait, what is counted."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from cdn.gateway.exchange import Exchange, Handler, Outcome
from cdn.gateway.plain import PlainMisses
from cdn.semantics.message import Response
from cdn.wire.errors import ErrorAnswers
from cdn.wire.fastpath import FastPath
from cdn.wire.field_block import FieldMemory

OnFinished = Callable[[Exchange | None, Response, Outcome, int, float, bool], None]
"""(exchange, answer's head, outcome, bytes of content sent, seconds, complete). The exchange is
None where the rim refused the head itself. Status 499: the client went away before an answer."""


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Seconds."""

    idle: float = 75.0
    """A kept-alive connection without a byte."""

    head: float = 10.0
    """From the first byte of a head to its last; also to discard content that nobody needed."""

    stall: float = 60.0
    """A client that takes nothing of what is being sent, or sends nothing of what is awaited."""

    linger: float = 2.0
    """How long a refused client's further bytes are read before its connection is closed."""


@dataclass(slots=True)
class Counters:
    """Plain numbers for metrics; `protocol_errors` counts by RequestError.reason."""

    connections_open: int = 0
    connections_total: int = 0
    requests: int = 0
    protocol_errors: Counter[str] = field(default_factory=Counter)


class Connection(Protocol):
    """What a server asks of its connections."""

    def close_if_idle(self) -> None: ...

    def let_out(self) -> None: ...

    def abort(self) -> None: ...


@dataclass(slots=True)
class Rim:
    """`clock` gives the wall time of arrival in seconds; `report` is told of bugs;
    `emptied` is set whenever the last connection is gone. Without `memory` every head is read
    afresh, without `fast` every request is the handler's; `misses` needs both."""

    handler: Handler
    errors: ErrorAnswers
    scheme: str
    clock: Callable[[], float]
    on_finished: OnFinished
    deadlines: Deadlines
    report: Callable[[str], None]
    counters: Counters = field(default_factory=Counters)
    connections: set[Connection] = field(default_factory=set)
    draining: bool = False
    memory: FieldMemory | None = None
    fast: FastPath | None = None
    misses: PlainMisses | None = None
    emptied: asyncio.Event = field(default_factory=asyncio.Event)
