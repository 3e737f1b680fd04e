"""Answers that are the node's own: errors, told shortly and with the mend (RFC 9209 Proxy-Status).

Strategy: one constructor; nobody else writes an error. None is ever stored, here or downstream.
"""

from __future__ import annotations

from cdn.gateway.exchange import Answer, Outcome
from cdn.semantics.http_date import format_http_date
from cdn.semantics.message import Fields, Response

_REASONS = {
    400: "Bad Request",
    421: "Misdirected Request",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Timeout",
    508: "Loop Detected",
}


def own_error(
    node: str,
    status: int,
    words: str,
    now: float,
    *,
    error: str = "",
    method: str = "GET",
    retry_after: int | None = None,
    source: str = "",
) -> Answer:
    """`words` go to the client as they are; `error` is a Proxy-Status error type; `retry_after`
    in seconds."""
    # RFC 8941 §3.3.3: a string is printable ASCII; words may quote a peer or a library.
    printable = "".join(c if " " <= c <= "~" else "?" for c in words)
    content = f"{printable}\n".encode()
    detail = printable.replace("\\", "\\\\").replace('"', '\\"')
    proxy_status = node + (f"; error={error}" if error else "") + f'; details="{detail}"'
    lines = [
        ("Date", format_http_date(now)),
        ("Content-Type", "text/plain; charset=utf-8"),
        ("Cache-Control", "no-store"),
        ("Proxy-Status", proxy_status),
    ]
    if retry_after is not None:
        lines.append(("Retry-After", str(retry_after)))
    head = Response(status, Fields(lines), _REASONS.get(status, ""))
    pieces = () if method == "HEAD" else (content,)
    outcome = Outcome(error=error or "own", source=source)
    return Answer(head, pieces, len(content), outcome)
