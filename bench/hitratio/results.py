"""What was measured, row by row, and what it says of the defaults.

Strategy: flat rows, so that JSON, tables, charts and the verdict all read the same list.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

from bench.hitratio.contenders import DISK_DEFAULT, RAM_DEFAULT, Outcome

SHARES = (0.001, 0.01, 0.03, 0.1, 0.3)
"""Of the footprint: the sizes of cache that are played."""

OPTIMUM = "optimum"
SLICED = frozenset({"model_akamai_d1", "model_akamai_v1", "syn_vod_slices"})
"""Traces of large content, for which the disk default is chosen."""


@dataclass(frozen=True)
class Row:
    trace: str
    share: float
    policy: str
    outcome: Outcome


@dataclass(frozen=True)
class Gain:
    """Percentage points over LRU: the mean, and the worst single one with its place."""

    objects: float
    bytes: float
    worst: float
    worst_at: str


def gain(rows: Sequence[Row], policy: str, traces: Iterable[str]) -> Gain:
    """Of `policy` over LRU on all sizes of `traces`."""
    among = set(traces)
    found = {(row.trace, row.share, row.policy): row.outcome for row in rows}
    objects, in_bytes, single = [], [], []
    for (trace, share, name), outcome in found.items():
        if name == policy and trace in among:
            lru = found[trace, share, "LRU"]
            objects.append(outcome.object_hits - lru.object_hits)
            in_bytes.append(outcome.byte_hits - lru.byte_hits)
            single.append((objects[-1], f"{trace} at {share:.1%}, objects"))
            single.append((in_bytes[-1], f"{trace} at {share:.1%}, bytes"))
    return Gain(fmean(objects), fmean(in_bytes), *min(single))


def verdict(rows: Sequence[Row]) -> list[str]:
    """The figures that the defaults were chosen by, a sentence each."""
    traces = list(dict.fromkeys(row.trace for row in rows))
    ram = gain(rows, RAM_DEFAULT, traces)
    sentences = [
        f"RAM default ({RAM_DEFAULT}) over LRU, mean of all traces and sizes: "
        f"{ram.objects:+.2f} object points, {ram.bytes:+.2f} byte points; "
        f"the worst single one {ram.worst:+.2f} ({ram.worst_at})."
    ]
    for trace in traces:
        if trace in SLICED or trace == "made_films":
            disk = gain(rows, DISK_DEFAULT, [trace])
            sentences.append(
                f"Disk default ({DISK_DEFAULT}) over LRU on {trace}, mean of the sizes: "
                f"{disk.objects:+.2f} object points, {disk.bytes:+.2f} byte points."
            )
    return sentences


def grid(rows: Sequence[Row], trace: str) -> list[list[str]]:
    """A trace's table: object and byte hits in percent at each size, then the means of what was
    written and of the time a request took."""
    shares = list(dict.fromkeys(row.share for row in rows))
    head = ["object/byte hits, %", *(f"{share:.1%}" for share in shares), "written, GB", "ns"]
    table = [head]
    for policy in dict.fromkeys(row.policy for row in rows):
        played = {
            row.share: row.outcome for row in rows if (row.trace, row.policy) == (trace, policy)
        }
        outcomes = played.values()
        written = [one.written / 1e9 for one in outcomes if one.written is not None]
        ns = [one.ns for one in outcomes if one.ns is not None]
        table.append(
            [
                policy,
                *(_hits(played.get(share)) for share in shares),
                f"{fmean(written):.3g}" if written else "",
                f"{fmean(ns):.0f}" if ns else "",
            ]
        )
    return table


def _hits(outcome: Outcome | None) -> str:
    return f"{outcome.object_hits:.1f}/{outcome.byte_hits:.1f}" if outcome else "–"
