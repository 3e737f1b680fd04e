"""The demo's viewers: each object twice through each edge, and what Cache-Status says of it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import aiohttp

from cdn.demo.origin import DemoOrigin

SITE = "demo.example"
"""The name that viewers ask for: it is what objects are keyed by, whichever edge they ask."""


@dataclass(slots=True)
class Visit:
    """One object through one edge. `there` is what the shield found, `origin_fetches` how often the
    origin was asked for this object in all; `last` ends an object's group."""

    path: str
    edge: str
    first: str = ""
    shield: str = ""
    there: str = ""
    second: str = ""
    origin_fetches: int = 0
    digest: str = ""
    expected_there: str = ""
    last: bool = False

    def row(self) -> dict[str, str | int]:
        """For people, and for --json."""
        return {
            "object": self.path,
            "edge": self.edge,
            "first_fetch": self.first,
            "through": self.shield,
            "there": self.there,
            "second_fetch": self.second,
            "origin_fetches": self.origin_fetches,
        }


async def visit_all(
    edges: Mapping[str, str], paths: Sequence[str], origin: DemoOrigin
) -> list[Visit]:
    """Fetches every path twice through each edge, one after the other."""
    visits = []
    async with aiohttp.ClientSession() as session:
        for path in paths:
            group = [
                await _visit(session, Visit(path, edge, expected_there=there), url)
                for (edge, url), there in zip(edges.items(), ("miss", "hit"), strict=True)
            ]
            for visit in group:
                visit.origin_fetches = origin.counts[path]
            group[-1].last = True
            visits += group
    return visits


async def _visit(session: aiohttp.ClientSession, visit: Visit, url: str) -> Visit:
    members, visit.digest = await _fetch(session, url + visit.path)
    visit.shield, visit.there = members[0] if len(members) > 1 else ("", "")
    visit.first = members[-1][1]
    members, digest = await _fetch(session, url + visit.path)
    visit.second = members[-1][1] if digest == visit.digest else "other bytes"
    return visit


async def _fetch(session: aiohttp.ClientSession, url: str) -> tuple[list[tuple[str, str]], str]:
    """Each cache's name with "hit" or "miss", farthest first; and a digest of the content."""
    async with session.get(url, headers={"Host": SITE}) as response:
        content = await response.read()
        status = response.headers.get("Cache-Status", "")
    members = []
    for member in filter(None, (part.strip() for part in status.split(","))):
        name, *parameters = (part.strip() for part in member.split(";"))
        members.append((name, "hit" if "hit" in parameters else "miss"))
    return members or [("", "no Cache-Status")], hashlib.sha256(content).hexdigest()


def failures(visits: Sequence[Visit]) -> list[str]:
    """What did not happen as it should, one line each."""
    lines = []
    digests: dict[str, str] = {}
    for visit in visits:
        where = f"{visit.path} through {visit.edge}"
        if (visit.first, visit.there, visit.second) != ("miss", visit.expected_there, "hit"):
            found = f"{visit.first}, at the shield {visit.there}, then {visit.second}"
            lines.append(f"{where}: {found}; want miss, {visit.expected_there}, hit")
        if visit.origin_fetches != 1:
            lines.append(f"{visit.path}: the origin was asked {visit.origin_fetches} times")
        if digests.setdefault(visit.path, visit.digest) != visit.digest:
            lines.append(f"{where}: other bytes than through the other edge")
    return lines
