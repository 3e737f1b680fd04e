"""Metrics: counted in plain attributes, collected when Prometheus asks.

Strategy: no room holds a metric object. Each counts in attributes of its own; the role declares
here under which name, with which sentence of help, and how to read it. One registry per node, none
per process. Only requests are counted here, because every label of theirs is needed at once:
`RequestCounts` is a dict of plain rows, and the labels become text at the scrape.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from itertools import accumulate
from typing import Any, Literal

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector

from cdn.observe.hits import Hit, Served

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
"""The media type of `Metrics.render`."""

Read = Callable[[], float | Mapping[tuple[str, ...], float]]
"""A number, or for a metric with labels a number for each tuple of their values."""

DURATION_BOUNDS = (
    *(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0),
)
"""Seconds: from a hit in RAM to a film's worth of content."""

_NAME = re.compile(r"cdn_[a-z][a-z0-9_]*")


@dataclass(frozen=True, slots=True)
class Declaration:
    """One metric as operators know it."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...]

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"metric {self.name!r}: call it cdn_… in small letters")
        if (self.kind == "counter") != self.name.endswith("_total"):
            raise ValueError(f"metric {self.name}: counters, and only they, end in _total")
        if not self.help.endswith("."):
            raise ValueError(f"metric {self.name}: say in a sentence, with its period, what it is")


@dataclass(slots=True)
class _Row:
    requests: int = 0
    content_bytes: int = 0


class _Durations:
    __slots__ = ("buckets", "seconds")

    def __init__(self) -> None:
        self.buckets = [0] * (len(DURATION_BOUNDS) + 1)
        self.seconds = 0.0


class RequestCounts:
    """Finished requests by service, cache outcome and status class; durations by cache outcome
    only, so that the number of series does not grow by services times buckets."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str, int], _Row] = {}
        self._durations: dict[str, _Durations] = {}

    def count(
        self, service: str, cache: str, status: int, content_bytes: int, seconds: float
    ) -> None:
        """`service` and `cache` as in `Outcome`, `seconds` from head received to last byte sent."""
        row = self._row(service, cache, status)
        row.requests += 1
        row.content_bytes += content_bytes
        durations = self._duration(cache)
        durations.buckets[bisect_left(DURATION_BOUNDS, seconds)] += 1
        durations.seconds += seconds

    def count_uses(self, used: Iterable[Served]) -> None:
        """Counts answers that were given as often as they say."""
        service, cache, status, row = "", "", 0, _Row()
        for served in used:
            # Most are like the one before: to compare is cheaper than to look the row up.
            if (
                served.service is not service
                or served.cache is not cache
                or served.status != status
            ):
                service, cache, status = served.service, served.cache, served.status
                row = self._row(service, cache, status)
            uses = served.uses
            row.requests += uses
            row.content_bytes += uses * served.content_bytes

    def time_hits(self, hits: Sequence[Hit], *, all_hits: bool = True) -> None:
        """Counts how long requests took, which were hits, or not all of them."""
        if not all_hits:
            for hit in hits:
                if (cache := hit[0].cache) != "hit":
                    durations = self._duration(cache)
                    durations.buckets[bisect_left(DURATION_BOUNDS, hit[4])] += 1
                    durations.seconds += hit[4]
            hits = [hit for hit in hits if hit[0].cache == "hit"]
            if not hits:
                return
        durations = self._duration("hit")
        buckets, bound = durations.buckets, DURATION_BOUNDS[0]
        taken = [hit[4] for hit in hits]
        durations.seconds += sum(taken)
        if max(taken) <= bound:
            buckets[0] += len(taken)
            return
        for seconds in taken:
            buckets[bisect_left(DURATION_BOUNDS, seconds)] += 1

    def _row(self, service: str, cache: str, status: int) -> _Row:
        key = (service, cache, status // 100)
        row = self._rows.get(key)
        if row is None:
            row = self._rows[key] = _Row()
        return row

    def _duration(self, cache: str) -> _Durations:
        durations = self._durations.get(cache)
        if durations is None:
            durations = self._durations[cache] = _Durations()
        return durations

    def declare(self, metrics: Metrics) -> None:
        labels = ("service", "cache", "status")
        metrics.counter(
            "cdn_requests_total",
            "Requests answered, by delivery service, cache outcome (the words of RFC 9211; none "
            "for the node's own answers) and status class.",
            lambda: {_texts(key): self._rows[key].requests for key in sorted(self._rows)},
            labels,
        )
        metrics.counter(
            "cdn_response_content_bytes_total",
            "Bytes of content sent downstream, without heads and transfer codings.",
            lambda: {_texts(key): self._rows[key].content_bytes for key in sorted(self._rows)},
            labels,
        )
        metrics.histogram(
            "cdn_request_duration_seconds",
            "From the whole request head received to the last byte of the response handed over.",
            DURATION_BOUNDS,
            lambda: {
                (cache or "none",): (durations.buckets, durations.seconds)
                for cache, durations in sorted(self._durations.items())
            },
            ("cache",),
        )


def _texts(key: tuple[str, str, int]) -> tuple[str, str, str]:
    service, cache, status_class = key
    # Prometheus takes an empty label value for no label at all.
    return service or "none", cache or "none", f"{status_class}xx"


ReadHistogram = Callable[[], Mapping[tuple[str, ...], tuple[list[int], float]]]
"""For each tuple of label values: counts per bucket (the last without bound), and the sum."""


class Metrics(Collector):
    """What one node tells Prometheus. `node`, `role` and `operator` label every sample.

    Declaring raises ValueError for a name given twice or against the rules of `Declaration`.
    """

    def __init__(self, *, node: str, role: str, operator: str) -> None:
        self._constant = {"node": node, "role": role, "operator": operator}
        self._collects: dict[str, tuple[Declaration, Callable[[], Metric]]] = {}
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def counter(self, name: str, help: str, read: Read, labels: tuple[str, ...] = ()) -> None:
        """`read` never goes down while the node lives."""
        declaration = Declaration(name, "counter", help, labels)
        self._add(declaration, lambda: self._simple(CounterMetricFamily, declaration, read))

    def gauge(self, name: str, help: str, read: Read, labels: tuple[str, ...] = ()) -> None:
        declaration = Declaration(name, "gauge", help, labels)
        self._add(declaration, lambda: self._simple(GaugeMetricFamily, declaration, read))

    def histogram(
        self,
        name: str,
        help: str,
        bounds: tuple[float, ...],
        read: ReadHistogram,
        labels: tuple[str, ...] = (),
    ) -> None:
        """`bounds` are the buckets' upper bounds, inclusive and rising."""
        declaration = Declaration(name, "histogram", help, labels)
        texts = (*map(str, bounds), "+Inf")

        def collect() -> Metric:
            family = HistogramMetricFamily(name, help, labels=self._labels(declaration))
            for values, (buckets, total) in read().items():
                rising = list(zip(texts, map(float, accumulate(buckets)), strict=True))
                family.add_metric(self._values(values), rising, total)
            return family

        self._add(declaration, collect)

    def counters(self, prefix: str, counts: Any) -> None:
        """One counter `PREFIX_FIELD_total` for each field of the dataclass instance `counts`;
        the sentence of help is the field's metadata "help"."""
        for field in fields(counts):
            read = partial(getattr, counts, field.name)
            self.counter(f"{prefix}_{field.name}_total", field.metadata["help"], read)

    def render(self) -> bytes:
        """All metrics as they are now, in Prometheus' text format (`CONTENT_TYPE`)."""
        return generate_latest(self._registry)

    def declarations(self) -> list[Declaration]:
        """By name."""
        return [declaration for _, (declaration, _) in sorted(self._collects.items())]

    def collect(self) -> Iterator[Metric]:
        """For the registry."""
        for _, collect in self._collects.values():
            yield collect()

    def describe(self) -> list[Metric]:
        """For the registry, which would otherwise collect once at the start to learn names."""
        return []

    def _add(self, declaration: Declaration, collect: Callable[[], Metric]) -> None:
        if declaration.name in self._collects:
            raise ValueError(f"metric {declaration.name} is declared twice")
        self._collects[declaration.name] = declaration, collect

    def _simple(
        self,
        family_class: type[CounterMetricFamily | GaugeMetricFamily],
        declaration: Declaration,
        read: Read,
    ) -> Metric:
        family = family_class(declaration.name, declaration.help, labels=self._labels(declaration))
        value = read()
        for values, number in value.items() if isinstance(value, Mapping) else [((), value)]:
            family.add_metric(self._values(values), number)
        return family

    def _labels(self, declaration: Declaration) -> tuple[str, ...]:
        return (*self._constant, *declaration.labels)

    def _values(self, values: tuple[str, ...]) -> tuple[str, ...]:
        return (*self._constant.values(), *values)


def markdown(declarations: Iterable[Declaration]) -> str:
    """docs/METRICS.md: each declaration as a row of a table."""
    rows = "\n".join(
        f"| `{d.name}` | {d.kind} | {', '.join(d.labels) or '–'} | {d.help} |"
        for d in sorted(set(declarations), key=lambda d: d.name)
    )
    return (
        "# Metrics\n\n"
        "What `GET /metrics` on a node's admin listener tells Prometheus. Every sample also has\n"
        "the labels `node`, `role` and `operator`. This page is made from the declarations in the\n"
        "code and a test keeps it true.\n\n"
        "| name | kind | labels | what it counts |\n|---|---|---|---|\n"
        f"{rows}\n"
    )
