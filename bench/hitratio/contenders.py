"""Who plays: a cache of so many bytes against a trace, and what came of it.

Strategy: one loop for all policies on whole objects, one for the disk store on slices. An object
larger than the cache is fetched and not stored, by all alike. LRU and GDSF are the peers': nginx
and Varnish do the one, Squid offers the other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import perf_counter

from bench.hitratio.log_store import LEAST_SHARD, LogStore
from bench.hitratio.traces import Trace
from cdn.storage.eviction.greedy_dual import GDG, GDSF
from cdn.storage.eviction.lru import LRU
from cdn.storage.eviction.policy import EvictionPolicy
from cdn.storage.eviction.s3_fifo import S3Fifo
from cdn.storage.eviction.sieve import Sieve
from cdn.storage.eviction.two_logs import Admission


@dataclass(frozen=True)
class Outcome:
    """Ratios in percent; bytes a disk would have written; ns per request, the loop included."""

    object_hits: float
    byte_hits: float
    written: int | None = None
    ns: float | None = None


def play_policy(policy: EvictionPolicy[int], trace: Trace) -> Outcome:
    """Whole objects; one that is admitted is written once."""
    hits = hit_bytes = written = 0
    budget = policy.budget
    began = perf_counter()
    for key, size in zip(trace.keys, trace.sizes, strict=True):
        if key in policy:
            policy.touch(key)
            hits += 1
            hit_bytes += size
        elif size <= budget:
            policy.admit(key, size)
            written += size
    return _outcome(trace, hits, hit_bytes, written, perf_counter() - began)


def play_store(store: LogStore, trace: Trace) -> Outcome:
    """Slices; an object is a hit where none of its slices was missing."""
    hits = hit_bytes = 0
    contents = trace.contents
    began = perf_counter()
    for key, size in zip(trace.keys, trace.sizes, strict=True):
        found = store.request(contents[key])
        hit_bytes += found
        hits += found == size
    return _outcome(trace, hits, hit_bytes, store.written, perf_counter() - began)


def play_disk(admission: Admission, budget: int, trace: Trace) -> Outcome | None:
    """None where no store opens with so little."""
    if budget < LEAST_SHARD:
        return None
    return play_store(LogStore(budget, admission), trace)


def _outcome(trace: Trace, hits: int, hit_bytes: int, written: int, seconds: float) -> Outcome:
    requests = len(trace)
    ns = seconds / requests * 1e9
    return Outcome(100 * hits / requests, 100 * hit_bytes / trace.bytes, written, ns)


RAM_DEFAULT = "GDG"
DISK_DEFAULT = "two logs, all"

CONTENDERS: Mapping[str, Callable[[int, Trace], Outcome | None]] = {
    "LRU": lambda budget, trace: play_policy(LRU(budget), trace),
    "GDSF": lambda budget, trace: play_policy(GDSF(budget), trace),
    "SIEVE": lambda budget, trace: play_policy(Sieve(budget), trace),
    "S3-FIFO": lambda budget, trace: play_policy(S3Fifo(budget), trace),
    RAM_DEFAULT: lambda budget, trace: play_policy(GDG(budget), trace),
    DISK_DEFAULT: lambda budget, trace: play_disk(Admission.ALL, budget, trace),
    "two logs, reuse": lambda budget, trace: play_disk(Admission.REUSE, budget, trace),
}
