"""Whether reading stalls the loop: what hits in RAM wait, with cold reading beside and without.

Strategy: rounds in pairs, the ratio taken within a pair, the median told: what others do on the
machine is in both. Before each round nothing of the files is in RAM, which is asserted.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from math import ceil
from pathlib import Path
from statistics import median
from typing import NamedTuple

from bench.store.figures import Figure
from bench.store.filling import Stuff, fill
from bench.store.place import Edge, Unusable, cores, directory, drop, edge, started
from cdn.hashing.digest import SHARDS

SMALL, SMALL_SIZE = 200, 4096
GIB = 1 << 30

Step = Callable[[str], object]


class Round(NamedTuple):
    """Seconds that hits took, and bytes read beside them."""

    taken: list[float]
    read: int


class Pair(NamedTuple):
    alone: Round
    beside: Round


class Plan(NamedTuple):
    """`rate` in requests a second, `seconds` of a round; `files` of a GiB each."""

    rounds: int
    seconds: float
    rate: float
    clients: int
    files: int

    @property
    def disk(self) -> int:
        """Room for all files in each shard: where they go is up to their names."""
        return SHARDS * (self.files + 1) * GIB


def measure(given: Path | None, plan: Plan, step: Step) -> list[Pair]:
    """Raises Unusable."""
    with directory(given, (plan.files + 1) * GIB) as place:
        store = place / f"store-of-{plan.files}"
        if not (place / f"{store.name}.filled").exists():
            step(f"storing {plan.files} files of 1 GiB")
            fill(store, plan.disk, _stuff(plan.files), os.urandom(1 << 20), lambda _: None)
            (place / f"{store.name}.filled").touch()
        node_core, load_core = cores()
        with edge(store, plan.disk, node_core, "/small/0") as node:
            return list(_pairs(node, store, plan, load_core, step))


def _stuff(files: int) -> Stuff:
    yield from ((f"/small/{number}", SMALL_SIZE) for number in range(SMALL))
    yield from ((f"/large/{number}", GIB) for number in range(files))


def _pairs(node: Edge, store: Path, plan: Plan, core: int, step: Step) -> Iterator[Pair]:
    _round(node, store, plan._replace(seconds=1), core, reading=False)
    for number in range(plan.rounds):
        step(f"pair {number + 1} of {plan.rounds}")
        # Who is first changes, so that neither has the better half of whatever drifts.
        order = (False, True) if number % 2 else (True, False)
        done = {reading: _round(node, store, plan, core, reading) for reading in order}
        yield Pair(done[False], done[True])


def _round(node: Edge, store: Path, plan: Plan, core: int, reading: bool) -> Round:
    drop(store)
    warm = "probe", node.port, 2 * SMALL / plan.rate, plan.rate, SMALL, SMALL_SIZE
    _said(_load(core, *warm))
    readers = None
    if reading:
        reads = "readers", node.port, plan.seconds + 1, plan.clients, plan.files, GIB
        readers = _load(core, *reads, nice=5)
        assert readers.stdout is not None
        if not readers.stdout.readline():
            _said(readers)
    taken = json.loads(
        _said(_load(core, "probe", node.port, plan.seconds, plan.rate, SMALL, SMALL_SIZE))
    )
    return Round(taken, int(_said(readers)) if readers else 0)


def _load(core: int, what: str, *numbers: float, nice: int = 0) -> subprocess.Popen[str]:
    words = [sys.executable, "-m", "bench.store.load", what, *map(str, numbers)]
    return started(words, core, nice, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _said(load: subprocess.Popen[str]) -> str:
    out, err = load.communicate()
    if load.returncode:
        raise Unusable(err.strip().rpartition("\n")[2])
    return out


def quantile(of: Sequence[float], share: float) -> float:
    """The least value that `share` of them do not exceed."""
    return sorted(of)[max(ceil(share * len(of)) - 1, 0)]


def figures(pairs: Sequence[Pair], plan: Plan) -> list[Figure]:
    ratios = [quantile(p.beside.taken, 0.99) / quantile(p.alone.taken, 0.99) for p in pairs]

    def told(what: str, share: float) -> Figure:
        rounds = [getattr(pair, what).taken for pair in pairs]
        middle = median(quantile(taken, share) for taken in rounds)
        words = "alone" if what == "alone" else "with cold reading beside"
        return Figure(f"hits {words}: p{100 * share:g}", 1000 * middle, "ms")

    return [
        Figure("p99 with cold reading / p99 without, median of the pairs", median(ratios), "", 3.0),
        Figure("the same, best pair", min(ratios)),
        Figure("the same, worst pair", max(ratios)),
        *(told(what, share) for share in (0.5, 0.99, 0.999) for what in ("alone", "beside")),
        Figure(
            "read cold beside",
            median(pair.beside.read / (plan.seconds + 1) for pair in pairs) / (1 << 20),
            "MiB/s",
        ),
    ]
