"""Which numbers a node tells, and under which names.

Strategy: the rooms count in plain attributes; here each number gets its name and its sentence, in
one place. `docs/METRICS.md` is made from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import cast

from cdn.gateway.gateway import Gateway
from cdn.gateway.owners import OwnerCounters
from cdn.node.assembly import Upstreams
from cdn.observe.metrics import Metrics, RequestCounts
from cdn.storage.disk import DiskStore
from cdn.storage.memory import MemoryStore
from cdn.upstream.router import RouterCounters
from cdn.wire.rim import Counters
from cdn.wire.tls_counters import TlsCounters


@dataclass(frozen=True, slots=True)
class Instrumented:
    """The parts of a node that count; `disk` is the bytes that a disk store may use, `restarts` is
    of this worker's place."""

    requests: RequestCounts
    wire: Counters
    tls: TlsCounters
    gateway: Gateway
    store: MemoryStore | DiskStore
    disk: int
    upstreams: Upstreams
    owners: OwnerCounters
    restarts: int


def declare(metrics: Metrics, parts: Instrumented) -> None:
    """Declares all of a node's metrics but the access log's own."""
    parts.requests.declare(metrics)
    _declare_wire(metrics, parts.wire)
    _declare_tls(metrics, parts.tls)
    if isinstance(parts.store, DiskStore):
        _declare_disk(metrics, parts.store, parts.disk)
    else:
        _declare_memory(metrics, parts.store)
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


def _declare_tls(metrics: Metrics, tls: TlsCounters) -> None:
    metrics.counter(
        "cdn_tls_handshakes_total",
        "TLS handshakes done, by protocol version, in full or by a session resumed.",
        lambda: {key: count for key, count in tls.handshakes.items()},  # noqa: C416  # widens
        ("version", "kind"),
    )
    metrics.counter(
        "cdn_tls_handshake_failures_total",
        "Handshakes that failed: closed by the client, timeout, not-tls, version, cipher, "
        "certificate (the client refused it), other.",
        lambda: {(reason,): count for reason, count in tls.failures.items()},
        ("reason",),
    )


_OBJECTS = "Stored responses held now."
_BYTES = "Bytes used of the store's budget, fields, overhead and fills in progress included."
_CAPACITY = "The store's budget."
_REFUSED = "What was refused room and only shared in flight: too large, or the disk was in trouble."


def _declare_memory(metrics: Metrics, store: MemoryStore) -> None:
    counters = store.counters
    metrics.gauge("cdn_store_objects", _OBJECTS, lambda: counters.objects)
    metrics.gauge("cdn_store_bytes", _BYTES, lambda: counters.bytes)
    metrics.gauge("cdn_store_capacity_bytes", _CAPACITY, lambda: store.capacity)
    metrics.counter(
        "cdn_store_evictions_total",
        "Stored responses that made room for others in RAM.",
        lambda: counters.evictions,
    )
    metrics.counter("cdn_store_refused_total", _REFUSED, lambda: counters.refused)


def _declare_disk(metrics: Metrics, store: DiskStore, disk: int) -> None:
    for name, sentence in (
        ("objects", _OBJECTS),
        ("slices", "Slices of content held now by a disk store."),
        ("bytes", _BYTES),
    ):
        metrics.gauge(f"cdn_store_{name}", sentence, partial(_told, store, name))
    metrics.gauge("cdn_store_capacity_bytes", _CAPACITY, lambda: disk)
    metrics.gauge(
        "cdn_store_failing",
        "1 while the disk takes no writes or its index cannot be asked, else 0; status says why.",
        lambda: store.status()["state"] != "ok",
    )
    counters = store.counters
    for name, field, sentence in (
        ("refused", "refused", _REFUSED),
        ("written_bytes", "written", "Bytes of new records that a disk store wrote."),
        ("rewritten_bytes", "rewritten", "Bytes written again, to be kept, as their segment went."),
        ("slices_stored", "slices_stored", "Slices of content that a disk store took in."),
        ("slices_kept", "slices_kept", "Slices that were kept when their segment went."),
        ("slices_evicted", "slices_evicted", "Slices that went with their segment."),
        ("segments_dropped", "segments_dropped", "Segments that made room for others."),
        ("damaged", "damaged", "Records that were not as they had been written; fetched anew."),
        ("write_failures", "write_failures", "Times that the disk did not take what was written."),
    ):
        metrics.counter(f"cdn_store_{name}_total", sentence, partial(getattr, counters, field))


def _told(store: DiskStore, key: str) -> float:
    return cast(int, store.status()[key])


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
