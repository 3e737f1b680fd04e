"""Delivery services by host name: whose content, under which policy, from where.

Strategy: the roles build one immutable table from configuration; a reload builds another and swaps
the whole. Exact names first, then the longest `*.suffix`, then `*`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cdn.semantics.policy import CachePolicy
from cdn.upstream.router import Router

MOST_KNOWN = 4096
"""Authorities whose service is remembered."""


@dataclass(frozen=True, slots=True)
class DeliveryService:
    """One content provider's configuration. `hosts` are lower-case names without port: exact,
    `*.suffix` for any name below it, or `*`."""

    name: str
    hosts: tuple[str, ...]
    policy: CachePolicy
    router: Router


class ServiceTable:
    """Finds the service of a request's authority."""

    def __init__(self, services: Iterable[DeliveryService]) -> None:
        self.services = tuple(services)
        self._exact: dict[str, DeliveryService] = {}
        self._suffixes: dict[str, DeliveryService] = {}
        self._any: DeliveryService | None = None
        self._known: dict[str, DeliveryService | None] = {}
        for service in self.services:
            for host in service.hosts:
                if host == "*":
                    self._any = service
                elif host.startswith("*."):
                    self._suffixes[host[1:]] = service
                else:
                    self._exact[host] = service

    def match(self, authority: str) -> DeliveryService | None:
        """`authority` as in `Request.authority`: lower case, perhaps with a port."""
        known = self._known
        if authority not in known:
            if len(known) >= MOST_KNOWN:
                known.clear()
            known[authority] = self._look_for(authority)
        return known[authority]

    def _look_for(self, authority: str) -> DeliveryService | None:
        host = _without_port(authority).removesuffix(".")
        if (service := self._exact.get(host)) is not None:
            return service
        dot = host.find(".")
        while dot >= 0:
            if (service := self._suffixes.get(host[dot:])) is not None:
                return service
            dot = host.find(".", dot + 1)
        return self._any


def _without_port(authority: str) -> str:
    if authority.startswith("["):
        return authority.partition("]")[0] + "]"
    return authority.partition(":")[0]
