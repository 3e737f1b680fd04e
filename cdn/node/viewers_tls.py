"""The node's TLS: its configuration as the rim takes it, and what its operator is told of it.

Strategy: certificates come read out of the configuration; here they only change hands.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cdn.config.certificates import ServerCertificate
from cdn.config.models import NodeConfig, TlsConfig
from cdn.wire.tls import Certificate, TlsContext


def make_tls(config: NodeConfig) -> TlsContext | None:
    """What the node's handshakes begin on: once for all workers, or no ticket of one is good at
    another. None where nothing speaks TLS."""
    return None if config.tls is None else TlsContext(offered(config.tls))


def offered(tls: TlsConfig) -> list[Certificate]:
    """The certificates in the file's order."""
    return [Certificate(one.names, one.context) for one in tls.loaded]


def warnings(config: NodeConfig, now: float) -> Iterator[str]:
    """A line for each certificate that ends soon or is not to be used; `now` is wall time."""
    for one in _loaded(config):
        if trouble := one.trouble(now):
            yield f"tls: {one.cert} {trouble}: have it renewed, and reload"


def expiries(config: NodeConfig) -> dict[tuple[str, ...], float]:
    """The wall time of each certificate's end, by its path."""
    return {(str(one.cert),): one.not_after for one in _loaded(config)}


def status(config: NodeConfig, now: float) -> list[dict[str, Any]]:
    """The certificates, for `GET /v1/status`."""
    return [
        {
            "name": str(one.cert),
            "names": list(one.names),
            "expires": one.expires(),
            "warning": one.trouble(now),
        }
        for one in _loaded(config)
    ]


def _loaded(config: NodeConfig) -> tuple[ServerCertificate, ...]:
    return config.tls.loaded if config.tls is not None else ()
