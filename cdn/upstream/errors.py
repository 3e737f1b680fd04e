"""What can go wrong upstream: whose fault it is, what the client is told, whether to try again.

Strategy: every library exception (OSError, ssl, httptools, time-outs) is translated to one of these
at the rim of `client.py`; nothing above ever sees another kind. Each kind is a class with its
facts as class attributes, so that the router and the gateway decide by data, not by type ladders.
"""

from __future__ import annotations

from typing import ClassVar


class UpstreamError(Exception):
    """An exchange with one upstream failed.

    `endpoint` names the peer for operators ("http://10.0.0.7:8080"); `detail` says what happened.
    """

    proxy_error: ClassVar[str] = "proxy_internal_error"
    """The error type told to the client in Proxy-Status (RFC 9209 §2.3)."""

    told: ClassVar[str] = "the upstream failed"
    """What the client is told: never an address, which is for operators only."""

    status: ClassVar[int] = 502
    """What the client gets when nothing better can be served."""

    no_head: ClassVar[bool] = True
    """No response head came: for RFC 9111 §4.2.4 the cache is disconnected from that upstream."""

    node_failed: ClassVar[bool] = True
    """The peer itself counts as failed (refused, reset, connect time-out, malformed answer)."""

    retry_elsewhere: ClassVar[bool] = True
    """Another upstream may be asked if the request has no content and nothing was sent down."""

    def __init__(self, endpoint: str, detail: str) -> None:
        super().__init__(f"{endpoint}: {detail}")
        self.endpoint = endpoint
        self.detail = detail


class ConnectRefused(UpstreamError):
    """Nothing listens there, or the network says it cannot be reached."""

    proxy_error = "connection_refused"
    told = "the upstream refused the connection"


class NameNotResolved(UpstreamError):
    """The host name has no address."""

    proxy_error = "dns_error"
    told = "the upstream's name has no address"


class ConnectTimeout(UpstreamError):
    """No connection (TCP or TLS) within the deadline."""

    proxy_error = "connection_timeout"
    told = "the upstream took too long to accept the connection"
    status = 504


class TlsFailed(UpstreamError):
    """The TLS handshake failed."""

    proxy_error = "tls_protocol_error"
    told = "no secure connection to the upstream"


class CertificateRefused(TlsFailed):
    """The peer's certificate is not trusted, or not for this name."""

    proxy_error = "tls_certificate_error"


class FirstByteTimeout(UpstreamError):
    """Connected, asked, and no response head within the deadline. Slow is not dead: no retry."""

    proxy_error = "http_response_timeout"
    told = "the upstream took too long to answer"
    status = 504
    node_failed = False
    retry_elsewhere = False


class ClosedBeforeHead(UpstreamError):
    """The connection was closed or reset before a whole response head."""

    proxy_error = "connection_terminated"
    told = "the upstream closed the connection without an answer"


class MalformedResponse(UpstreamError):
    """What came is not an HTTP/1 response that can be framed safely (RFC 9112 §6.3)."""

    proxy_error = "http_protocol_error"
    told = "the upstream's answer is not valid HTTP"


class BodyCutShort(UpstreamError):
    """The head came, the content ended before its framing said so (RFC 9112 §8)."""

    proxy_error = "http_response_incomplete"
    told = "the upstream's answer ended before its time"
    no_head = False


class IdleTimeout(BodyCutShort):
    """The head came, then no byte of content within the idle deadline."""

    proxy_error = "connection_read_timeout"
    told = "the upstream's answer stopped coming"
    status = 504


class NoUpstreamLeft(UpstreamError):
    """Every upstream that could be asked is out of service just now."""

    proxy_error = "destination_unavailable"
    told = "every upstream is out of service"
    status = 503
    node_failed = False
    retry_elsewhere = False


class RequestContentFailed(UpstreamError):
    """The client's own request content ended early: nobody upstream is to blame."""

    proxy_error = "http_request_error"
    told = "the request's content ended before its time"
    status = 400
    no_head = False
    node_failed = False
    retry_elsewhere = False
