"""Which numbers a node tells, and under which names.

Strategy: the rooms count in plain attributes; here each number gets its name and its sentence, in
one place. `docs/METRICS.md` is made from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from cdn.gateway.gateway import Gateway
from cdn.gateway.owners import OwnerCounters
from cdn.node.assembly import Upstreams
from cdn.observe.metrics import Metrics, RequestCounts
from cdn.storage.memory import MemoryStore
from cdn.upstream.router import RouterCounters
from cdn.wire.rim import Counters


@dataclass(frozen=True, slots=True)
class Instrumented:
    """The parts of a node that count; `restarts` is of this worker's place."""

    requests: RequestCounts
    wire: Counters
    gateway: Gateway
    store: MemoryStore
    upstreams: Upstreams
    owners: OwnerCounters
    restarts: int


def declare(metrics: Metrics, parts: Instrumented) -> None:
    """Declares all of a node's metrics but the access log's own."""
    parts.requests.declare(metrics)
    _declare_wire(metrics, parts.wire)
    _declare_store(metrics, parts.store)
    _declare_gateway(metrics, parts.gateway)
    _declare_upstream(metrics, parts.upstreams)
    _declare_workers(metrics, parts.owners, parts.restarts)


def _declare_wire(metrics: Metrics, wire: Counters) -> None:
    metrics.gauge(
        "cdn_connections_open", "Viewers' connections open now.", lambda: wire.connections_open
    )
    metrics.counter(
        "cdn_connections_total", "Viewers' connections accepted.", lambda: wire.connections_total
    )
    metrics.counter(
        "cdn_protocol_errors_total",
        "Requests refused because they broke HTTP's rules, by the rule.",
        lambda: {(reason,): count for reason, count in wire.protocol_errors.items()},
        ("reason",),
    )


def _declare_store(metrics: Metrics, store: MemoryStore) -> None:
    counters = store.counters
    metrics.gauge("cdn_store_objects", "Stored responses held now.", lambda: counters.objects)
    metrics.gauge(
        "cdn_store_bytes",
        "Bytes used of the store's budget, fields, overhead and fills in progress included.",
        lambda: counters.bytes,
    )
    metrics.gauge("cdn_store_capacity_bytes", "The store's budget.", lambda: store.capacity)
    metrics.counter(
        "cdn_store_evictions_total",
        "Stored responses that made room for others.",
        lambda: counters.evictions,
    )
    metrics.counter(
        "cdn_store_refused_total",
        "Responses that were too large for the store and only shared in flight.",
        lambda: counters.refused,
    )


def _declare_gateway(metrics: Metrics, gateway: Gateway) -> None:
    fills, counters = gateway.filling.counters, gateway.counters
    for name, sentence in (
        ("begun", "Fills begun: requests upstream whose answer may be shared or stored."),
        ("stored", "Fills whose response was stored."),
        ("cut_short", "Fills that ended before their content did."),
        ("abandoned", "Fills given up because nobody waited for them any more."),
        ("gone_alone", "Readers too slow for a window, which went on by a request of their own."),
    ):
        metrics.counter(f"cdn_fills_{name}_total", sentence, partial(getattr, fills, name))
    metrics.counter(
        "cdn_invalidated_total",
        "Stored responses removed because an unsafe method or a HEAD showed them outdated.",
        lambda: counters.invalidated,
    )
    metrics.counter(
        "cdn_purged_total", "Stored responses removed by operators.", lambda: counters.purged
    )
    metrics.counter(
        "cdn_stale_on_error_total",
        "Stale responses served in place of an upstream's error or silence.",
        lambda: counters.stale_on_error,
    )


def _declare_upstream(metrics: Metrics, upstreams: Upstreams) -> None:
    tiers = {("shields",): upstreams.shields, ("origins",): upstreams.origins}
    for name, sentence in (
        ("requests", "Requests sent towards shields or origins, retries not counted."),
        ("retries", "Second tries, at another shield or address."),
        ("resumed", "Contents that broke at one shield and went on from another."),
        ("fallbacks", "Requests that went past all shields to the origin."),
    ):
        metrics.counter(
            f"cdn_upstream_{name}_total",
            sentence,
            partial(_by_tier, tiers, name),
            ("tier",),
        )
    metrics.counter(
        "cdn_upstream_failures_total",
        "Failures of a shield or an origin address itself: refused, reset, malformed.",
        lambda: {
            (peer,): count for counts in tiers.values() for peer, count in counts.failures.items()
        },
        ("peer",),
    )
    metrics.gauge(
        "cdn_upstream_in_flight",
        "Requests in flight to each shield.",
        lambda: {(peer,): count for peer, count in upstreams.in_flight.items()},
        ("peer",),
    )
    metrics.gauge(
        "cdn_upstream_usable",
        "1 where a peer that ever failed may be asked now, 0 where it is out.",
        lambda: {(state.name,): float(state.usable) for state in upstreams.health.states()},
        ("peer",),
    )


def _declare_workers(metrics: Metrics, owners: OwnerCounters, restarts: int) -> None:
    metrics.gauge("cdn_workers", "Worker processes that serve now.", lambda: 1)
    metrics.counter(
        "cdn_worker_restarts_total",
        "Workers started in place of one that had died.",
        lambda: restarts,
    )
    metrics.counter(
        "cdn_owner_forwarded_total",
        "Requests that one worker handed to another, which owns their key.",
        lambda: owners.forwarded,
    )
    metrics.counter(
        "cdn_owner_lost_total",
        "Those that the owner did not answer.",
        lambda: owners.lost,
    )


def _by_tier(tiers: dict[tuple[str], RouterCounters], name: str) -> dict[tuple[str, ...], float]:
    return {tier: getattr(counters, name) for tier, counters in tiers.items()}
