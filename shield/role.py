"""An origin shield: it answers edges, which it believes, and alone asks origins."""

from __future__ import annotations

import hmac
from ipaddress import ip_address

from cdn.config.models import KnownEdges, NodeConfig, ShieldConfig
from cdn.gateway.exchange import Exchange
from cdn.gateway.forward import EDGE_SECRET_FIELD
from cdn.gateway.services import DeliveryService
from cdn.node.assembly import Assembly, Upstreams, origin_router


def assemble(config: NodeConfig, upstreams: Upstreams) -> Assembly:
    """The rules of a shield, by its configuration."""
    assert isinstance(config, ShieldConfig)
    return Assembly(
        services=tuple(
            DeliveryService(
                service.name, service.hosts, service.policy(), origin_router(service, upstreams)
            )
            for service in config.services
        ),
        trusts=Believed(config.edges),
    )


class Believed:
    """Whether an exchange's peer is one of our edges: by its address, or by the shared secret."""

    def __init__(self, edges: KnownEdges) -> None:
        self._prefixes = edges.prefixes
        self._secret = None if edges.secret is None else edges.secret.encode()
        self._by_address: dict[str, bool] = {}

    def __call__(self, exchange: Exchange) -> bool:
        by_address = self._by_address.get(exchange.client)
        if by_address is None:
            by_address = self._remember(exchange.client)
        if by_address or self._secret is None:
            return by_address
        told = exchange.request.fields.get(EDGE_SECRET_FIELD.lower())
        return told is not None and hmac.compare_digest(told.encode(), self._secret)

    def _remember(self, client: str) -> bool:
        try:
            address = ip_address(client.partition("%")[0])
        except ValueError:
            return False  # a Unix socket has no address
        if len(self._by_address) > 65_536:
            self._by_address.clear()
        known = any(address in prefix for prefix in self._prefixes)
        self._by_address[client] = known
        return known
