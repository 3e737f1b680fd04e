"""A bound that no cache can beat, however much it knows of the future: PFOO-L.

Strategy: a hit means that an object stayed between two requests, and staying costs its size times
the requests in between. A cache has its bytes times the length of the trace to spend. Spending
them on the cheapest hits first, and on no more than that, is at least what any real schedule gets
(Berger, Beckmann, Harchol-Balter, "Practical Bounds on Optimal Caching with Variable Object Sizes",
SIGMETRICS 2018). Belady's rule is none for objects of different sizes; this is one for both ratios.
"""

from __future__ import annotations

from collections.abc import Sequence

from bench.hitratio.contenders import Outcome
from bench.hitratio.traces import Trace


def optimum(trace: Trace, budgets: Sequence[int]) -> list[Outcome]:
    """For each budget in bytes the upper bounds of both hit ratios, each taken by itself."""
    last: dict[int, int] = {}
    stays: list[tuple[int, int]] = []  # requests in between, size
    for number, (key, size) in enumerate(zip(trace.keys, trace.sizes, strict=True)):
        before = last.get(key)
        if before is not None:
            stays.append((number - before, size))
        last[key] = number
    by_object = sorted(stays, key=lambda stay: stay[0] * stay[1])
    by_byte = sorted(stays)  # a byte kept for one request costs one, whoever it belongs to
    outcomes = []
    for budget in budgets:
        objects, _ = _spend(by_object, budget, len(trace))
        _, hit_bytes = _spend(by_byte, budget, len(trace))
        outcomes.append(Outcome(100 * objects / len(trace), 100 * hit_bytes / trace.bytes))
    return outcomes


def _spend(stays: Sequence[tuple[int, int]], budget: int, requests: int) -> tuple[float, float]:
    """Hits and bytes hit; of the last stay the share that is left to pay for."""
    left = budget * requests
    hits = hit_bytes = 0.0
    for length, size in stays:
        if size > budget:
            continue
        cost = length * size
        share = min(left / cost, 1.0)
        hits += share
        hit_bytes += share * size
        left -= cost
        if left <= 0:
            break
    return hits, hit_bytes
