"""The first answer out of the store, in one look, is byte for byte what all the rules make."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdn.gateway.hot import Repeats
from cdn.gateway.services import DeliveryService, ServiceTable
from cdn.semantics.message import Fields, Response
from cdn.semantics.policy import CachePolicy
from cdn.semantics.stored_response import make_stored_response
from cdn.storage.memory import MemoryStore
from cdn.wire.field_block import FieldMemory
from cdn.wire.hot_responses import HotResponses
from cdn.wire.response_head import choose_framing, encode_head

NOW = 1_767_225_600.0
KEY = b"http://films.example/a"
LINE = b"GET /a HTTP/1.1"
LINES = st.sampled_from(
    [
        ("Age", "7"),
        ("Age", "1, 2"),
        ("age", "0"),
        ("Via", "1.1 shield-a"),
        ("VIA", "1.0 fred, 1.1 p.example (Apache/1.1)"),
        ("Cache-Status", "shield-a; hit; ttl=30"),
        ("Cache-Status", 'shield-a; fwd=uri-miss; detail="; ttl=5"'),
        ("Cache-Control", "max-age=60"),
        ("Cache-Control", "no-cache, max-age=60"),
        ("Cache-Control", "private, max-age=60"),
        ("CDN-Cache-Control", "max-age=60"),
        ("Surrogate-Control", "max-age=60"),
        ("Accept-Ranges", "none"),
        ("Content-Length", "5"),
        ("Content-Range", "bytes 0-1/2"),
        ("ETag", '"v1"'),
        ("Content-Type", "text/plain"),
        ("X-A", "\xe9"),
    ]
)


class Names:
    has_rules = False

    def names(self, key: bytes) -> tuple[bytes, ...]:
        return (key,)


def anyone(_exchange) -> bool:
    """Whom the node believes for whom he asks."""
    return True


def desk(lines, content, policy=None, age=0.0, status=200):
    """The rim's memory of hot responses, the node's rules behind it, and a request's fields."""
    fields = Fields(lines)
    stored = make_stored_response(
        primary_key=KEY, variant=(), response=Response(status, fields, ""), fields=fields,
        request_time=NOW - age, response_time=NOW - age, length=len(content),
    )  # fmt: skip
    store = MemoryStore(64 << 20)
    assert store.put(stored, content)
    service = DeliveryService("films", ("films.example",), policy or CachePolicy(), None)
    repeats = Repeats(
        "edge-a", ServiceTable([service]), store, Names(), lambda: NOW, trusts=anyone, alone=True
    )
    hot = HotResponses(repeats, 8 << 20, store, lambda: NOW)
    return hot, repeats, FieldMemory().block(b"Host: films.example\r\n\r\n")


def by_all_rules(repeats):
    answer = repeats.first(KEY, "films.example", Fields, NOW)
    if answer is None:
        return None
    return encode_head(answer.head, choose_framing(answer, None, "GET", 1), None)


@given(
    lines=st.lists(LINES, max_size=8),
    content=st.sampled_from([b"", b"x", bytes(5000)]),
    relays=st.booleans(),
    age=st.sampled_from([0.0, 12.75, 59.9, 60.0, 9e9]),
    status=st.sampled_from([200, 200, 200, 404]),
)
def test_it_is_what_all_the_rules_say(lines, content, relays, age, status):
    policy = CachePolicy(relay_cdn_cache_control=relays)
    hot, repeats, block = desk(lines, content, policy, age, status)
    told = by_all_rules(repeats)
    made = hot.make(block, hot.way(block, "http", ""), LINE, "http", KEY, NOW)
    assert (made and made.head + made.rest) == (told and told + content)


@pytest.mark.parametrize(
    ("before", "member"),
    [
        ([], "edge-a; hit; ttl="),
        (
            [("Age", "3"), ("Via", "1.1 shield-a"), ("Cache-Status", "shield-a; fwd=uri-miss")],
            "shield-a; fwd=uri-miss, edge-a; hit; ttl=",
        ),
    ],
)
def test_what_came_through_a_shield_needs_no_other_look(before, member, monkeypatch):
    lines = [("Cache-Control", "max-age=60"), ("ETag", '"v1"'), *before]
    hot, repeats, block = desk(lines, b"content")
    monkeypatch.setattr(repeats, "first", None)
    made = hot.make(block, hot.way(block, "http", ""), LINE, "http", KEY, NOW)
    assert made.member == member
    assert made.head.endswith(b"\r\nContent-Length: 7\r\n\r\ncontent")


def test_what_a_node_of_ours_asks_for_is_kept_when_it_is_asked_for_again():
    hot, _, _ = desk([("Cache-Control", "max-age=60")], b"content")
    raw = b"Host: films.example\r\nSurrogate-Capability: edge-b=Surrogate/1.0\r\n\r\n"
    block = FieldMemory().block(raw)
    way = hot.way(block, "http", "192.0.2.1")
    assert way.told.startswith("\nsurrogate")
    kept = []
    for _ in range(2):
        made = hot.make(block, way, LINE, "http", KEY, NOW)
        assert made.head.endswith(b"\r\n\r\ncontent")
        kept.append(hot.find(block, way.told, "GET", KEY, NOW))
    assert kept == [None, made]
