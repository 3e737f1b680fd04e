"""A certificate with its key, read once and ready for use.

Strategy: OpenSSL reads the files and says whether they belong together; what it does not say in
words that help, we look for ourselves first. What the certificate says (names, dates) comes out of
a handshake in memory, since the standard library tells it of a peer only; so it has also been seen
to work. Dates refuse nothing here: an old certificate is told about, and serves.
"""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cdn.config.problems import BadValue

SOON = 14 * 86_400.0
"""Seconds before its end from which a certificate is warned about."""

_NO_CHECK_TIME = 0x200000
"""X509_V_FLAG_NO_CHECK_TIME, which the ssl module has no name for."""

_LEAF = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)
_KEY = re.compile(r"-----BEGIN ((?:[A-Z]+ )?)PRIVATE KEY-----(\s*Proc-Type: 4,ENCRYPTED)?")


@dataclass(frozen=True, slots=True)
class ServerCertificate:
    """`names` are its DNS names, in lower case; the dates are seconds of wall time."""

    cert: Path
    key: Path
    names: tuple[str, ...]
    not_before: float
    not_after: float
    context: ssl.SSLContext = field(compare=False, repr=False)

    def expires(self) -> str:
        """The date of its end: `2026-11-22`."""
        return _date(self.not_after)

    def trouble(self, now: float) -> str:
        """What its dates are warned about with; "" while they are fine."""
        if now >= self.not_after:
            return f"has expired on {self.expires()}"
        if now < self.not_before:
            return f"is not valid before {_date(self.not_before)}"
        return f"expires on {self.expires()}" if now >= self.not_after - SOON else ""

    def is_valid(self, now: float) -> bool:
        """Whether clients would take it, by its dates."""
        return self.not_before <= now < self.not_after


def read_pem(path: Path) -> str:
    """The text of a PEM file. Raises BadValue."""
    try:
        return path.read_text(encoding="latin-1")
    except OSError as error:
        what = f"{path} cannot be read: {error.strerror}"
        raise BadValue(what, "check the path, and let this user read it") from None


def check_certificates(path: Path) -> None:
    """Raises BadValue for a file that holds no certificate."""
    if not _LEAF.search(read_pem(path)):
        mend = "name a PEM file with the server's certificate first, then those that signed it"
        raise BadValue(f"{path} holds no certificate", mend)


def load_certificate(cert: Path, key: Path) -> ServerCertificate:
    """The two together, `cert` being `check_certificates`' already. Raises BadValue."""
    _check_key(key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(cert, key, password="")  # never asked for on a terminal
    except OSError as error:  # SSLError is one
        raise _why_unusable(cert, key, error) from None
    leaf = _said_of_itself(cert, context)
    names = (name.lower() for kind, name in leaf.get("subjectAltName", ()) if kind == "DNS")
    return ServerCertificate(
        cert,
        key,
        tuple(names),
        ssl.cert_time_to_seconds(leaf["notBefore"]),
        ssl.cert_time_to_seconds(leaf["notAfter"]),
        context,
    )


def _check_key(path: Path) -> None:
    found = _KEY.search(read_pem(path))
    if found is None:
        mend = "name the PEM file with the private key of the certificate"
        raise BadValue(f"{path} holds no private key", mend)
    if found[1] == "ENCRYPTED " or found[2]:
        mend = f"write it without: openssl pkey -in {path} -out KEY; and guard KEY by its mode"
        raise BadValue(f"the key in {path} is locked by a passphrase", mend)


def _why_unusable(cert: Path, key: Path, error: OSError) -> BadValue:
    reason = getattr(error, "reason", None) or str(error)
    if reason == "KEY_VALUES_MISMATCH":
        mend = "name the key that the first certificate in that file was made with"
        return BadValue(f"{key} is not the key of {cert}", mend)
    if reason in ("EE_KEY_TOO_SMALL", "CA_MD_TOO_WEAK"):
        mend = "have it made anew, with an EC key or one of RSA of 2048 bits"
        return BadValue(f"{cert} is too weak for clients of today", mend)
    what = f"{cert} with {key} cannot be used: OpenSSL says {reason.lower().replace('_', ' ')}"
    return BadValue(what, "check both with openssl x509 and openssl pkey")


def _said_of_itself(cert: Path, context: ssl.SSLContext) -> dict[str, Any]:
    reader = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    reader.check_hostname = False
    reader.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | _NO_CHECK_TIME
    leaf = _LEAF.search(read_pem(cert))
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = reader.wrap_bio(down, up)
    server = context.wrap_bio(up, down, server_side=True)
    try:
        reader.load_verify_locations(cadata=leaf[0] if leaf else "")
        for end in (client, server, client, server):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
        told = client.getpeercert()
    except (OSError, ValueError) as error:
        why = getattr(error, "verify_message", None) or getattr(error, "reason", None) or error
        what = f"clients would not take {cert}: {str(why).lower().replace('_', ' ')}"
        raise BadValue(what, "name a certificate that was made for a server") from None
    assert told
    return dict(told)


def _date(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).date().isoformat()
