"""Strict, pure checking of a request head (RFC 9112 §2–§6, RFC 9110 §7).

Strategy: one compiled expression says whether the raw head is well formed to the byte; llhttp then
parses it and is a second judge of framing. A parser is made anew for each head, and sees nothing
but that head, so no state of one request can reach the next: not an upgrade, not a length. Only
where a head is refused do slower lines look for the reason. Whatever two recipients might read
differently is refused, never repaired: that is where request smuggling lives (RFC 9112 §11.2).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import AddressValueError, IPv6Address

from httptools import (
    HttpParserError,
    HttpParserInvalidMethodError,
    HttpParserInvalidURLError,
    HttpParserUpgrade,
    HttpRequestParser,
)

from cdn.semantics.hop_by_hop import HOP_BY_HOP, end_to_end
from cdn.semantics.message import FieldLine, Fields, Request
from cdn.wire.errors import RequestError

MAX_TARGET = 16 * 1024
MAX_HEAD = 32 * 1024
MAX_FIELDS = 128

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"
_LINE = _TOKEN + rb":[\t\x20-\x7e\x80-\xff]*+"
_HEAD = re.compile(
    rb"(" + _TOKEN + rb") ([\x21\x22\x24-\x7e]++) HTTP/([0-9])\.([0-9])\r\n"
    rb"(?:" + _LINE + rb"\r\n)*+\r\n"
)
_FORBIDDEN = re.compile(rb"(?<!\r)\n|\r(?!\n|\Z)|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
FIELD_LINE = re.compile(_LINE)

_ABSOLUTE = re.compile(r"(https?)://([^/?]*)([/?].*)?", re.IGNORECASE)
# RFC 3986 §3.2.2: reg-name (IPv4 looks the same) or an IPv6 literal; RFC 9110 §4.2.4: no userinfo.
_AUTHORITY = re.compile(
    r"((?:[A-Za-z0-9\-._~!$&'()*+,;=]|%[0-9A-Fa-f]{2})+|\[([0-9A-Fa-f:.]+)\])(?::([0-9]*))?"
)
_DEFAULT_PORT = {"http": 80, "https": 443}
_NO_TARGET = "the target is neither a path nor an http or https URI; begin it with /"
_ALLOW = ("Allow", "GET, HEAD, POST, PUT, DELETE, OPTIONS, PATCH")

# Expect is met by this hop (RFC 9110 §10.1.1).
_THIS_HOP = HOP_BY_HOP | {"expect"}


@dataclass(slots=True)
class RequestHead:
    """A valid head and what this hop must know of it. `content_length` is in bytes, None where
    not declared; `chunked` says that the content ends where its chunks say."""

    request: Request
    content_length: int | None
    chunked: bool
    keep_alive: bool
    expects_continue: bool


class _Lines:
    """Sorts the field lines as llhttp finds them: for this hop, or to be handed on."""

    __slots__ = ("host", "kept", "this_hop")

    def __init__(self) -> None:
        self.kept: list[FieldLine] = []
        self.this_hop: dict[str, list[str]] = {}
        self.host: list[str] = []

    def on_header(self, raw_name: bytes, raw_value: bytes) -> None:
        name = raw_name.decode("latin-1")
        value = raw_value.strip(b" \t").decode("latin-1")
        lower = name.lower()
        if lower in _THIS_HOP:
            self.this_hop.setdefault(lower, []).append(value)
            return
        if lower == "host":
            self.host.append(value)
        self.kept.append((name, value))

    def count(self) -> int:
        return len(self.kept) + sum(map(len, self.this_hop.values()))

    def options(self, name: str) -> list[str]:
        """The members of a list field, lower case (RFC 9110 §5.6.1)."""
        values = self.this_hop.get(name)
        if values is None:
            return []
        return [option.strip(" \t") for option in ",".join(values).lower().split(",")]


def parse_head(raw: bytes, scheme: str) -> RequestHead:
    """`raw` runs up to and with its empty line; `scheme` is the listener's.

    Raises RequestError with the status that the client must get.
    """
    shape = _HEAD.fullmatch(raw)
    if shape is None:
        raise why_malformed(raw)
    raw_method, raw_target, major, digit = shape.groups()
    _check_sizes(raw, len(raw_target))
    if major != b"1":
        raise RequestError(505, "version", "this node speaks HTTP/1.1 and HTTP/1.0; use HTTP/1.1")
    if raw_method in (b"CONNECT", b"TRACE"):
        detail = "CONNECT and TRACE are not served here; see Allow for the methods that are"
        raise RequestError(405, "method", detail, (_ALLOW,))
    # RFC 9110 §2.5: a higher minor version is read as the highest that we know.
    minor = 0 if digit == b"0" else 1
    lines = _parse(raw, lenient_version=digit > b"1")
    if lines.count() > MAX_FIELDS:
        raise RequestError(431, "too-many-fields", "over 128 field lines; send fewer fields")

    method, target = raw_method.decode("ascii"), raw_target.decode("ascii")
    scheme, authority, target = _effective_uri(method, scheme, target, lines, minor)
    content_length, chunked = _framing(lines, minor)
    connection = lines.options("connection")
    fields = Fields(lines.kept)
    if connection and connection not in (["keep-alive"], ["close"]):
        nominating = ("Connection", ", ".join(lines.this_hop["connection"]))
        fields = end_to_end(fields.adding(nominating))
    return RequestHead(
        Request(method, scheme, authority, target, fields, (1, minor)),
        content_length,
        chunked,
        "close" not in connection and (minor == 1 or "keep-alive" in connection),
        _expects_continue(lines, minor) and (chunked or bool(content_length)),
    )


def check_partial(head: bytes | bytearray, start: int, scanned: int) -> None:
    """Refuses early what can no longer become a head: it begins at `start`, and bytes before
    `scanned` were checked. Raises RequestError."""
    if _FORBIDDEN.search(head, scanned):
        raise why_malformed(bytes(head[start:]))
    if len(head) - start > MAX_HEAD:
        line = bytes(head[start : start + MAX_HEAD]).partition(b"\r\n")[0]
        _check_sizes(head[start:], len(line.partition(b" ")[2].partition(b" ")[0]))


def _check_sizes(head: bytes | bytearray, target: int) -> None:
    if target > MAX_TARGET:
        raise RequestError(414, "target-too-long", "the target is over 16 KiB; send a shorter one")
    if len(head) > MAX_HEAD:
        raise RequestError(431, "head-too-large", "the head is over 32 KiB; send fewer fields")


def _parse(raw: bytes, lenient_version: bool) -> _Lines:
    lines = _Lines()
    parser = HttpRequestParser(lines)
    if lenient_version:
        parser.set_dangerous_leniencies(lenient_version=True)
    try:
        parser.feed_data(raw)
    except HttpParserUpgrade:
        pass  # RFC 9110 §7.8: a server may ignore Upgrade; the request is answered as it stands
    except HttpParserInvalidMethodError as fault:
        raise RequestError(501, "method", "unknown method; see RFC 9110 section 9") from fault
    except HttpParserInvalidURLError as fault:
        raise RequestError(400, "target", _NO_TARGET) from fault
    except HttpParserError as fault:
        if "method" in str(fault).lower():  # known to llhttp, but of RTSP or the like
            raise RequestError(501, "method", "not a method of HTTP; see RFC 9110") from fault
        detail = f"the head cannot be framed safely: {fault}; send one valid framing field"
        raise RequestError(400, "framing", detail) from fault
    return lines


def _effective_uri(
    method: str, scheme: str, target: str, lines: _Lines, minor: int
) -> tuple[str, str, str]:
    """RFC 9110 §7.1, RFC 9112 §3.2: scheme, authority and the target in origin-form (or `*`)."""
    if len(lines.host) > 1 or (minor and not lines.host):  # RFC 9112 §3.2
        raise RequestError(400, "host", "send exactly one Host field (RFC 9112 section 3.2)")
    absolute = None if target.startswith("/") else _ABSOLUTE.fullmatch(target)
    if absolute is not None:
        scheme = absolute[1].lower()
    authority = ""
    if lines.host and (minor or lines.host[0]):
        authority = normal_authority(lines.host[0], scheme)
    if absolute is not None:
        # RFC 9112 §3.2.2: the absolute-form wins, and Host is replaced by what it says.
        authority = normal_authority(absolute[2], scheme)
        lines.kept = [line for line in lines.kept if line[0].lower() != "host"]
        lines.kept.append(("Host", absolute[2]))
        rest = absolute[3]
        if rest is None:  # RFC 9112 §3.2.4: OPTIONS on a bare origin means the server as a whole
            return scheme, authority, "*" if method == "OPTIONS" else "/"
        return scheme, authority, rest if rest[0] == "/" else f"/{rest}"
    if target[0] != "/" and (target != "*" or method != "OPTIONS"):
        raise RequestError(400, "target", _NO_TARGET)
    return scheme, authority, target


@lru_cache(maxsize=1024)
def normal_authority(value: str, scheme: str) -> str:
    """Lower-case host[:port], without the scheme's default port. Raises RequestError."""
    match = _AUTHORITY.fullmatch(value)
    valid = match is not None
    if match is not None and match[2] is not None:
        try:
            IPv6Address(match[2])
        except AddressValueError:
            valid = False
    port = int(match[3]) if match is not None and match[3] and len(match[3]) < 6 else None
    if match is None or not valid or (match[3] and (port is None or port > 65_535)):
        detail = "the host is not HOST or HOST:PORT (RFC 9110 section 7.2); send a valid Host"
        raise RequestError(400, "host", detail)
    host = match[1].lower()
    return host if port is None or port == _DEFAULT_PORT[scheme] else f"{host}:{port}"


def _framing(lines: _Lines, minor: int) -> tuple[int | None, bool]:
    """RFC 9112 §6.3, without any of its repairs: (Content-Length, chunked).

    llhttp has refused some of this already; that these rules hold must not hang on its settings.
    """
    lengths = lines.this_hop.get("content-length")
    codings = lines.options("transfer-encoding")
    if codings:
        if lengths:
            detail = "both Content-Length and Transfer-Encoding; send only one of them"
            raise RequestError(400, "framing", detail)
        if minor == 0:
            detail = "Transfer-Encoding does not exist in HTTP/1.0; send Content-Length"
            raise RequestError(400, "framing", detail)
        if codings[-1] != "chunked" or codings.count("chunked") > 1:
            detail = "Transfer-Encoding must end in chunked, once (RFC 9112 section 6.1)"
            raise RequestError(400, "framing", detail)
        if len(codings) > 1:
            detail = "of the transfer codings only chunked is known here; send it alone"
            raise RequestError(501, "transfer-coding", detail)
        return None, True
    if not lengths:
        return None, False
    # RFC 9110 §8.6: 1*DIGIT; a list of equal ones may be accepted, and is not.
    length = lengths[0]
    if len(lengths) > 1 or not (length.isascii() and length.isdigit()) or len(length) > 18:
        raise RequestError(400, "framing", "Content-Length must be one decimal number")
    return int(length), False


def _expects_continue(lines: _Lines, minor: int) -> bool:
    expectations = lines.options("expect")
    if not expectations:
        return False
    if expectations != ["100-continue"]:
        detail = "the only expectation met here is 100-continue; leave Expect out"
        raise RequestError(417, "expectation", detail)
    return minor == 1  # RFC 9110 §10.1.1: to be ignored from HTTP/1.0


def why_malformed(raw: bytes) -> RequestError:
    """The first fault of a head that the expression did not match."""
    if _FORBIDDEN.search(raw):
        detail = "a control byte, bare CR or bare LF in the head; end each line with CR LF"
        return RequestError(400, "control-byte", detail)
    request_line, _, rest = raw.partition(b"\r\n")
    if len(request_line) > MAX_HEAD:
        return RequestError(414, "target-too-long", "the target is over 16 KiB; shorten it")
    if not _HEAD.fullmatch(request_line + b"\r\n\r\n"):
        detail = "the request line is not METHOD SP TARGET SP HTTP/1.1; percent-encode the target"
        return RequestError(400, "request-line", detail)
    for line in rest.split(b"\r\n"):
        if line and not FIELD_LINE.fullmatch(line):
            return RequestError(400, "field-line", _field_line_fault(line))
    return RequestError(400, "head", "the head is not well formed (RFC 9112 section 2)")


def _field_line_fault(line: bytes) -> str:
    if line[:1] in (b" ", b"\t"):
        return "a folded field line; send each field on one line (RFC 9112 section 5.2)"
    name, colon, _ = line.partition(b":")
    if not colon:
        return "a field line without a colon; send NAME: VALUE"
    if not name:
        return "a field line without a name; send NAME: VALUE"
    if name[-1:] in (b" ", b"\t"):
        return "white space before the colon of a field line (RFC 9112 section 5.1); take it out"
    return "a field name with bytes that no token may have (RFC 9110 section 5.6.2)"
