"""What names a stored response: primary key and variant (RFC 9111 §2).

Strategy: the primary key is the effective URI, byte for byte as it goes upstream, so that what was
keyed is what was asked for. Only scheme and authority are normalised (RFC 9110 §4.2.3), which
`Request` has done already; a path is never decoded or re-encoded.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote, urljoin, urlsplit

from cdn.semantics.message import Request

_ASCII = bytes(range(128)).decode("ascii")
_DEFAULT_PORT = {"http": "80", "https": "443"}


@dataclass(frozen=True, slots=True)
class CacheKey:
    """`variant` is the normalised value of each nominated request field (RFC 9111 §4.1)."""

    primary: bytes
    variant: tuple[tuple[str, str | None], ...] = ()


def primary_key(request: Request) -> bytes:
    """The key under which all variants of the request's target URI are found."""
    return f"{request.scheme}://{request.authority}{request.target}".encode("latin-1")


def normalize_authority(scheme: str, authority: str) -> str:
    """Lower case, without the port that the scheme has anyway (RFC 9110 §4.2.3)."""
    authority = authority.lower()
    host, colon, port = authority.rpartition(":")
    if colon and "]" not in port and (not port or port == _DEFAULT_PORT.get(scheme)):
        return host
    return authority


def normalize_target(url: str) -> tuple[str, str, str]:
    """Splits an absolute http(s) URL into scheme, authority and target as requests are keyed.

    The fragment is dropped, an empty path is "/", what is not ASCII is percent-encoded as a browser
    does it (RFC 3986 §2.5). Raises ValueError with words for an operator.
    """
    parts = urlsplit(url)
    scheme = parts.scheme.lower()
    if scheme not in _DEFAULT_PORT or not parts.netloc:
        raise ValueError(f"{url!r} is not an absolute http or https URL; write http://HOST/PATH")
    authority = normalize_authority(scheme, parts.netloc.rpartition("@")[2])
    if not authority.isascii():
        raise ValueError(f"{url!r} has a host that is not ASCII; write its xn--… form")
    target = parts.path or "/"
    # urlsplit cannot tell "/a?" from "/a"; the URL's own text can, and the two are two keys.
    if "?" in url.partition("#")[0]:
        target += "?" + parts.query
    return scheme, authority, quote(target, safe=_ASCII)


def key_of_url(url: str) -> bytes:
    """The primary key of an absolute URL. Raises ValueError as `normalize_target` does."""
    scheme, authority, target = normalize_target(url)
    return f"{scheme}://{authority}{target}".encode("latin-1")


def is_url_of(url: str, request: Request) -> bool:
    """Whether an absolute URL is the request's own."""
    try:
        return key_of_url(url) == primary_key(request)
    except ValueError:
        return False


def resolve(request: Request, reference: str) -> str | None:
    """The absolute URL that `reference` means in this request's context, None if it is none."""
    try:
        return urljoin(request.url, reference)
    except ValueError:
        return None
