"""What a role makes of its configuration, and what it makes it from.

Strategy: a role is a function from configuration to `Assembly`. What must outlive a reload (open
connections, what is known of peers' health) is in `Upstreams` and is handed in each time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from cdn.config.addresses import Url
from cdn.config.models import NodeConfig, OriginDeadlines, ServiceConfig
from cdn.gateway.exchange import Exchange
from cdn.gateway.services import DeliveryService
from cdn.upstream.client import UpstreamClient
from cdn.upstream.exchange import Deadlines, Endpoint
from cdn.upstream.health import HealthTracker
from cdn.upstream.origin_router import OriginRouter
from cdn.upstream.router import RouterCounters


@dataclass(frozen=True, slots=True)
class Upstreams:
    """What reloads keep. `shields` and `origins` count for all services together; `in_flight` is
    requests per shield."""

    client: UpstreamClient
    health: HealthTracker
    shields: RouterCounters = field(default_factory=RouterCounters)
    origins: RouterCounters = field(default_factory=RouterCounters)
    in_flight: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class Assembly:
    """One generation of a node's rules."""

    services: tuple[DeliveryService, ...]
    trusts: Callable[[Exchange], bool]


Assemble = Callable[[NodeConfig, Upstreams], Assembly]


def endpoint(url: Url) -> Endpoint:
    return Endpoint(url.scheme, url.host, url.port)


def deadlines(config: OriginDeadlines) -> Deadlines:
    return Deadlines(config.connect, config.first_byte, config.idle)


def origin_router(service: ServiceConfig, upstreams: Upstreams) -> OriginRouter:
    """The way from this node to a service's origins."""
    return OriginRouter(
        upstreams.client,
        [endpoint(url) for url in service.origins],
        upstreams.health,
        deadlines(service.deadlines),
        host=service.origin_host,
        counters=upstreams.origins,
    )
