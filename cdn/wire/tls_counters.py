"""What became of TLS handshakes, in plain numbers for metrics: OpenSSL's words put into ours."""

from __future__ import annotations

import ssl
from collections import Counter
from dataclasses import dataclass, field

_REASONS = {
    "HTTP_REQUEST": "not-tls",
    "WRONG_VERSION_NUMBER": "not-tls",
    "UNSUPPORTED_PROTOCOL": "version",
    "TLSV1_ALERT_PROTOCOL_VERSION": "version",
    "NO_SHARED_CIPHER": "cipher",
    "NO_SHARED_GROUPS": "cipher",
    "NO_SUITABLE_KEY_SHARE": "cipher",
    "NO_SUITABLE_SIGNATURE_ALGORITHM": "cipher",
    "NO_SHARED_SIGNATURE_ALGORITHMS": "cipher",
}
"""OpenSSL's words, and those of our counter."""


@dataclass(slots=True)
class TlsCounters:
    """`handshakes` by protocol version and "full" or "resumed"; `failures` by reason: closed,
    timeout, not-tls, version, cipher, certificate (the client refused it), other."""

    handshakes: Counter[tuple[str, str]] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)

    def count(self, handshake: ssl.SSLObject) -> None:
        """One that is done."""
        kind = "resumed" if handshake.session_reused else "full"
        self.handshakes[handshake.version() or "", kind] += 1


def reason_of(error: ssl.SSLError) -> str:
    """Why a handshake failed, as `TlsCounters.failures` has it."""
    told = error.reason or ""
    if "ALERT" in told and ("CERTIFICATE" in told or "UNKNOWN_CA" in told):
        return "certificate"
    return _REASONS.get(told, "other")
