"""Samples, and what they say.

Strategy: a sample is one contender in one round of one workload. Machines drift from minute to
minute, so contenders are compared only within a round; the ratio is the median of the rounds'.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from bench.peers.contenders import FLOOR, OURS
from bench.peers.workloads import WORKLOADS


@dataclass(frozen=True, slots=True)
class Sample:
    """`cost` is server CPU in microseconds per request; in idle, bytes per connection, and the rest
    is nought. Latencies in microseconds, `memory` the peak RSS so far in bytes, `origin` the share
    of requests that reached it, `programs` the cost by program."""

    workload: str
    round: int
    contender: str
    cost: float
    requests: int = 0
    rate: float = 0.0
    p50: float = 0.0
    p99: float = 0.0
    memory: int = 0
    origin: float = 0.0
    programs: dict[str, float] | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """Medians of a contender's rounds; `ratio` is our cost over its cost, `tail` our p99 / p50 over
    its own."""

    workload: str
    contender: str
    cost: float
    rate: float
    p50: float
    p99: float
    memory: int
    ratio: float | None
    tail: float | None


def cost(sample: Sample) -> float:
    return sample.cost


def tail(sample: Sample) -> float:
    """How much longer the slowest hundredth takes than the middle."""
    return sample.p99 / sample.p50 if sample.p50 else 0.0


def paired_ratio(
    ours: Iterable[Sample], theirs: Iterable[Sample], figure: Callable[[Sample], float]
) -> float | None:
    """The median over the rounds that both have; None if there is none in which theirs is more
    than nought."""
    by_round = {sample.round: figure(sample) for sample in theirs}
    ratios = [
        figure(sample) / by_round[sample.round] for sample in ours if by_round.get(sample.round)
    ]
    return median(ratios) if ratios else None


def rows(samples: Sequence[Sample]) -> list[Row]:
    """A row for each workload and contender, in the order in which they came."""
    found = []
    for workload, contender in dict.fromkeys((one.workload, one.contender) for one in samples):
        these = _of(samples, workload, contender)
        ours = _of(samples, workload, OURS)
        found.append(
            Row(
                workload,
                contender,
                cost=median(one.cost for one in these),
                rate=median(one.rate for one in these),
                p50=median(one.p50 for one in these),
                p99=median(one.p99 for one in these),
                memory=max(one.memory for one in these),
                ratio=None if contender == OURS else paired_ratio(ours, these, cost),
                tail=None if contender == OURS else paired_ratio(ours, these, tail),
            )
        )
    return found


def _of(samples: Sequence[Sample], workload: str, contender: str) -> list[Sample]:
    return [one for one in samples if (one.workload, one.contender) == (workload, contender)]


@dataclass(frozen=True, slots=True)
class Verdict:
    """One aim of one workload."""

    workload: str
    what: str
    figure: float
    target: float

    @property
    def met(self) -> bool:
        return self.figure <= self.target

    @property
    def sentence(self) -> str:
        said = "reached" if self.met else "missed"
        return f"{self.workload}: {self.what} {self.figure:.2f}, target {self.target:.2f}: {said}"


def verdicts(table: Sequence[Row]) -> list[Verdict]:
    """What the table's rows say of the targets."""
    return [verdict for row in table for verdict in _verdicts(row)]


def _verdicts(row: Row) -> Iterator[Verdict]:
    workload = WORKLOADS[row.workload]
    if workload.is_idle:
        if row.contender == OURS:
            yield Verdict(row.workload, "KiB per connection", row.cost / 1024, workload.target)
        return
    if row.contender == FLOOR:
        target = workload.floor_target
        if target is not None and row.tail is not None:
            yield Verdict(row.workload, "our p99 / p50 over the floor's", row.tail, target)
    else:
        # Against Varnish and Traffic Server: ahead of both in every row.
        target = workload.target if row.contender == "nginx" else 1.0
    if target is not None and row.ratio is not None:
        yield Verdict(row.workload, f"our CPU / {row.contender}'s", row.ratio, target)


HEAD = ("", "CPU µs / request", "requests / s", "p50 ms", "p99 ms", "peak RSS MiB", "ours / its")


def grid(table: Sequence[Row], workload: str) -> list[list[str]]:
    """The cells of one workload's rows, under HEAD; in idle the first figure is KiB per
    connection."""
    return [_cells(row) for row in table if row.workload == workload]


def _cells(row: Row) -> list[str]:
    ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
    if WORKLOADS[row.workload].is_idle:
        return [row.contender, f"{row.cost / 1024:.1f} KiB", "", "", "", "", ratio]
    return [
        row.contender,
        f"{row.cost:.1f}",
        f"{row.rate:,.0f}",
        f"{row.p50 / 1000:.2f}",
        f"{row.p99 / 1000:.2f}",
        f"{row.memory / 2**20:,.0f}",
        ratio,
    ]
