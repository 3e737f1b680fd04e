"""An edge: it answers viewers, asks shields, and believes nobody about who they are."""

from __future__ import annotations

from cdn.config.models import EdgeConfig, NodeConfig, ServiceConfig
from cdn.gateway.asked import nobody
from cdn.gateway.forward import EDGE_SECRET_FIELD
from cdn.gateway.services import DeliveryService
from cdn.node.assembly import Assembly, Upstreams, deadlines, endpoint, origin_router
from cdn.upstream.router import Router
from cdn.upstream.shield_router import ShieldRouter


def assemble(config: NodeConfig, upstreams: Upstreams) -> Assembly:
    """The rules of an edge, by its configuration."""
    assert isinstance(config, EdgeConfig)
    secret = config.shield_secret
    fields = () if secret is None else ((EDGE_SECRET_FIELD, secret),)

    def router(service: ServiceConfig) -> Router:
        direct = origin_router(service, upstreams) if config.direct_to_origin else None
        if not config.shields:
            assert direct is not None  # the configuration's own rule
            return direct
        return ShieldRouter(
            upstreams.client,
            {shield.name: endpoint(shield.url) for shield in config.shields},
            {shield.name: shield.weight for shield in config.shields},
            upstreams.health,
            deadlines(config.deadlines),
            fields=fields,
            fallback=direct,
            in_flight=upstreams.in_flight,
            counters=upstreams.shields,
        )

    return Assembly(
        services=tuple(
            DeliveryService(service.name, service.hosts, service.policy(), router(service))
            for service in config.services
        ),
        trusts=nobody,
    )
