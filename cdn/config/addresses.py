"""Where to listen, whom to ask, whom to believe: texts to plain values.

Strategy: one strict reader of `host[:port]`, and around it the few shapes that configuration has.
Hosts come out in lower case, IPv6 addresses compressed and without brackets; nothing is resolved.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from pathlib import Path

from cdn.config.problems import BadValue, shown

Network = IPv4Network | IPv6Network

_HOST_PORT = re.compile(r"(\[[^][]*\]|[^][:/?#@\s]+)(?::([0-9]{1,5}))?")
_URL = re.compile(r"(https?)://([^/?#]*)/?", re.IGNORECASE)
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?"  # "_" is no host name's, and many have one
_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")

# Of struct sockaddr_un on Linux (108 bytes), less the final NUL.
_UNIX_PATH_LIMIT = 107


@dataclass(frozen=True, slots=True)
class ListenAddress:
    """A TCP address to listen on. `host` has no brackets; port 0 is any free one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{_bracketed(self.host)}:{self.port}"


@dataclass(frozen=True, slots=True)
class UnixAddress:
    """A Unix socket to listen on, by its absolute path."""

    path: Path

    def __str__(self) -> str:
        return f"unix:{self.path}"


@dataclass(frozen=True, slots=True)
class Url:
    """An upstream: scheme ("http" or "https"), host without brackets, port always told."""

    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.scheme}://{_bracketed(self.host)}:{self.port}"


def parse_listen(value: object) -> ListenAddress:
    """`127.0.0.1:8080`, `[::]:8080`, `localhost:8080`. Raises BadValue."""
    parts = _host_port(value)
    if parts is None or parts[1] is None:
        raise BadValue(
            f"{shown(value)} is not HOST:PORT",
            'write e.g. 127.0.0.1:8080, 0.0.0.0:8080 (all of IPv4) or "[::]:8080" (all of IPv6)',
        )
    return ListenAddress(parts[0], parts[1])


def parse_admin_listen(value: object) -> ListenAddress | UnixAddress:
    """HOST:PORT, or `unix:/path` with an absolute path. Raises BadValue."""
    if not (isinstance(value, str) and value.startswith("unix:")):
        return parse_listen(value)
    path = value.removeprefix("unix:")
    if not path.startswith("/") or len(path.encode()) > _UNIX_PATH_LIMIT:
        raise BadValue(
            f"{shown(value)} is not a Unix socket's absolute path of at most 107 bytes",
            "write e.g. unix:/run/cdn/edge.sock",
        )
    return UnixAddress(Path(path))


def parse_url(value: object) -> Url:
    """`http://host[:port]` or https, nothing after it but at most a "/". Raises BadValue."""
    match = _URL.fullmatch(value) if isinstance(value, str) else None
    parts = _host_port(match[2]) if match else None
    if match is None or parts is None or parts[1] == 0:
        raise BadValue(
            f"{shown(value)} is not an http or https URL of a host",
            "write e.g. http://shield.example:8180, without path, query or user",
        )
    scheme, (host, port) = match[1].lower(), parts
    return Url(scheme, host, port or (443 if scheme == "https" else 80))


def parse_host_pattern(value: object) -> str:
    """A viewer's Host without its port: a name, an address (IPv6 in brackets), `*.example.net` for
    every name below example.net, or `*` for any. Raises BadValue."""
    if value == "*":
        return "*"
    text = value.removeprefix("*.") if isinstance(value, str) else value
    parts = _host_port(text)
    if parts is None or parts[1] is not None or (text != value and not _NAME.fullmatch(parts[0])):
        raise BadValue(
            f"{shown(value)} is not a host name",
            'write e.g. films.example, "*.films.example" or "*", without scheme and port',
        )
    return f"*.{parts[0]}" if text != value else _bracketed(parts[0])


def parse_host(value: object) -> str:
    """What a Host field may say (RFC 9110 §7.2): host[:port]. Raises BadValue."""
    parts = _host_port(value)
    if parts is None or parts[1] == 0:
        raise BadValue(f"{shown(value)} is not a Host", "write e.g. origin.example")
    host, port = parts
    return _bracketed(host) if port is None else f"{_bracketed(host)}:{port}"


def parse_prefix(value: object) -> Network:
    """A CIDR prefix, `192.0.2.0/24` or `2001:db8::/32`. Raises BadValue."""
    try:
        loose = ip_network(value if isinstance(value, str) else "", strict=False)
    except ValueError:
        raise BadValue(
            f"{shown(value)} is not an address prefix",
            "write e.g. 192.0.2.0/24 or 2001:db8::/32",
        ) from None
    try:
        return ip_network(str(value))
    except ValueError:
        # Which of the two was meant, the address or the prefix, is not ours to guess.
        raise BadValue(f"{shown(value)} has bits set after its prefix", f"write {loose}") from None


def _host_port(value: object) -> tuple[str, int | None] | None:
    """Host (lower case, no brackets) and port of `host[:port]`; None where it is not that."""
    match = _HOST_PORT.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        return None
    host = match[1].lower()
    port = int(match[2]) if match[2] else None
    try:
        if host.startswith("["):
            host = IPv6Address(host[1:-1]).compressed
        elif host.replace(".", "").isdigit():
            host = str(IPv4Address(host))
    except ValueError:
        return None
    well_formed = ":" in host or (len(host) <= 253 and _NAME.fullmatch(host))
    return (host, port) if well_formed and (port or 0) < 2**16 else None


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
