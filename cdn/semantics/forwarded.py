"""Who asked, as one tier tells the next (Forwarded, RFC 7239), and loops (CDN-Loop, RFC 8586).

Strategy: only the last element of Forwarded is read, as only the nearest downstream is trusted;
elements before it are somebody else's word.
"""

from __future__ import annotations

import re

from cdn.semantics.message import FieldLine, Fields

CDN_ID = "iij-cdn"
"""This CDN's name in CDN-Loop."""

LONGEST_CHAIN = 4
"""This many of our nodes in one request's way is a loop, whatever their names."""

_PAIR = re.compile(r'([A-Za-z]+)=(?:"((?:[^"\\]|\\.)*)"|([^;,"\s]*))')
_BETWEEN = re.compile(r"[ \t]*([;,]|$)[ \t]*")


def last_forwarded(fields: Fields) -> dict[str, str]:
    """Parameters of the last Forwarded element (RFC 7239 §4), names in lower case; empty where
    there is none, or where the line it stands in cannot be read."""
    lines = fields.get_all("forwarded")
    text = lines[-1].strip(" \t") if lines else ""
    element: dict[str, str] = {}
    position, ends = 0, ","
    while position < len(text):
        if ends == ",":  # a comma in a quoted-string does not get here
            element = {}
        pair = _PAIR.match(text, position)
        between = _BETWEEN.match(text, pair.end()) if pair else None
        if pair is None or between is None:
            return {}
        quoted, bare = pair[2], pair[3]
        element[pair[1].lower()] = bare if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
        position, ends = between.end(), between[1]
    return element


def forwarded_client(node: str) -> str:
    """The address out of a `for` parameter: without port, an IPv6 one without brackets."""
    if node.startswith("["):
        return node[1:].partition("]")[0]
    return node.partition(":")[0]


def cdn_loop(fields: Fields, node: str) -> FieldLine:
    """CDN-Loop with this node after those before it (RFC 8586 §2)."""
    own = f"{CDN_ID};node={node}"
    before = fields.get("cdn-loop")
    return ("CDN-Loop", own if before is None else f"{before}, {own}")


def is_loop(fields: Fields, node: str) -> bool:
    """Whether the request has been here before, or has gone round among our nodes."""
    value = fields.get("cdn-loop")
    if value is None:
        return False
    # RFC 8586 §2: a parameter's value may be quoted; our names need no escapes.
    members = [member.strip().lower() for member in value.replace('"', "").split(",")]
    ours = [member for member in members if member.partition(";")[0].strip() == CDN_ID]
    own = f"node={node.lower()}"
    return len(ours) >= LONGEST_CHAIN or any(
        own in (parameter.strip() for parameter in member.split(";")[1:]) for member in ours
    )
