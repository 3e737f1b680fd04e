"""No-Vary-Search: parts of a query that make no difference to the response.

Strategy: a valid field is a rule; under a rule a target has a looser name, with the keys that do
not matter taken out and the rest in order. The rule is part of the name, so names under different
rules never meet.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import parse_qsl, urlencode

import http_sf

LONGEST_RULE = 1024
"""Characters; a longer field is taken for invalid."""


@dataclass(frozen=True, slots=True)
class SearchRule:
    """`ignored` keys do not matter; None: none does but those `excepted`. With `any_order` the
    order of keys does not matter either."""

    ignored: frozenset[str] | None
    excepted: frozenset[str]
    any_order: bool


def parse_no_vary_search(value: str | None) -> SearchRule | None:
    """The rule of a No-Vary-Search field, None where it says nothing or nothing valid."""
    return None if value is None or len(value) > LONGEST_RULE else _parse(value)


@lru_cache(maxsize=1024)
def _parse(value: str) -> SearchRule | None:
    try:
        members = http_sf.parse(value.encode("latin-1"), tltype="dictionary")
    except ValueError:
        return None
    assert isinstance(members, dict)
    order, params, kept = (_item(members, key) for key in ("key-order", "params", "except"))
    if not isinstance(order, bool | None):
        return None
    if isinstance(params, bool | None):
        names = _strings(kept) if kept is not None else frozenset[str]()
        if names is None or (kept is not None and not params):
            return None
        rule = SearchRule(None if params else frozenset(), names, bool(order))
    else:
        names = _strings(params)
        if names is None or kept is not None:
            return None
        rule = SearchRule(names, frozenset(), bool(order))
    says_nothing = rule.ignored == frozenset() and not rule.any_order
    return None if says_nothing else rule


def _item(members: Mapping[str, object], key: str) -> object:
    member = members.get(key)
    return member[0] if isinstance(member, tuple) else member


def _strings(inner_list: object) -> frozenset[str] | None:
    if not isinstance(inner_list, list):
        return None
    items = [member[0] if isinstance(member, tuple) else member for member in inner_list]
    return frozenset(items) if all(isinstance(item, str) for item in items) else None


def path_key(primary_key: bytes) -> bytes:
    """What all targets that differ in their query only have in common."""
    return primary_key.partition(b"?")[0]


def loose_key(primary_key: bytes, rule: SearchRule) -> bytes:
    """The name of a primary key under `rule`: a "#" keeps it apart from all targets."""
    path, _, query = primary_key.partition(b"?")
    pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True, encoding="latin-1")
    if rule.ignored is None:
        pairs = [pair for pair in pairs if pair[0] in rule.excepted]
    else:
        pairs = [pair for pair in pairs if pair[0] not in rule.ignored]
    if rule.any_order:
        pairs.sort(key=lambda pair: pair[0])
    ignored = "*" if rule.ignored is None else ",".join(sorted(rule.ignored))
    told = (ignored, ",".join(sorted(rule.excepted)), str(rule.any_order), urlencode(pairs))
    return path + b"#" + "#".join(told).encode()
