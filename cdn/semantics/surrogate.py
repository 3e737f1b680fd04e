"""Surrogate-Control and Surrogate-Capability (W3C Edge Architecture Specification, 2001).

Strategy: an elder sibling of CDN-Cache-Control that origins still send. It rules over both other
fields; a directive may be meant for one surrogate by name, and then nobody else obeys it.
"""

from __future__ import annotations

from cdn.semantics.message import FieldLine, Fields

_KNOWN = ("max-age", "no-store", "no-store-remote")


def capability(fields: Fields, node: str) -> FieldLine:
    """Surrogate-Capability with this node after those before it (§2.2)."""
    own = f'{node}="Surrogate/1.0"'
    before = fields.get("surrogate-capability")
    return ("Surrogate-Capability", own if before is None else f"{before}, {own}")


def for_all(value: str) -> str | None:
    """The directives that are meant for every surrogate, as Cache-Control would say them; None
    where there is none that we know (§2.3)."""
    directives = []
    for member in value.split(","):
        directive, targeted, _ = member.strip(" \t").partition(";")
        name = directive.partition("=")[0].strip(" \t").lower()
        if targeted or name not in _KNOWN:
            continue
        # "max-age=60+30": for so long it may be used beyond; "remote" is all but next to the origin
        directives.append(directive.partition("+")[0].replace("-remote", ""))
    return ", ".join(directives) or None


def received_by(fields: Fields, node: str) -> Fields:
    """`fields` with what is meant for this node by name turned to what is meant for all."""
    value = fields.get("surrogate-control")
    if value is None or ";" not in value:
        return fields
    members = []
    for member in value.split(","):
        directive, _, target = member.partition(";")
        members.append(directive if target.strip(" \t") == node else member)
    return fields.replacing("Surrogate-Control", ",".join(members))
