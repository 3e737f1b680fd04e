"""Shields: the ring, what is passed over, retries, the way past them, and what they are told."""

import asyncio

import pytest

from cdn.hashing.ring import HashRing
from cdn.semantics.message import Fields, Request
from cdn.upstream.errors import (
    BodyCutShort,
    ClosedBeforeHead,
    ConnectRefused,
    FirstByteTimeout,
    NoUpstreamLeft,
)
from cdn.upstream.exchange import Deadlines
from cdn.upstream.health import HealthTracker
from cdn.upstream.shield_router import ShieldRouter, forwarded
from tests.upstream.scripted import (
    Answer,
    Clock,
    Hanging,
    ScriptedFetcher,
    endpoint,
    get,
    one_piece,
    read_all,
)

NAMES = ("yokohama", "saitama", "tokyo")
KEY = b"key"
FIRST, SECOND, THIRD = HashRing(dict.fromkeys(NAMES, 1)).owners(KEY)
"""The names in the order in which they own `KEY`."""


class ToOrigin:
    """The way past the shields."""

    def __init__(self):
        self.answer = Answer(source="origin")
        self.requests = []

    async def fetch(self, primary_key, request):
        assert primary_key == KEY
        self.requests.append(request)
        return self.answer


@pytest.fixture
def health():
    return HealthTracker(Clock())


def router(fetcher, health, **rest):
    shields = {name: endpoint(name) for name in NAMES}
    return ShieldRouter(fetcher, shields, dict.fromkeys(NAMES, 1), health, **rest)


def refused(name):
    return ConnectRefused(f"http://{name}:8080", "refused")


def script(**lines):
    """Lines for `first`, `second` and `third` owner of KEY."""
    order = {"first": FIRST, "second": SECOND, "third": THIRD}
    return ScriptedFetcher(**{order[place]: answers for place, answers in lines.items()})


def put_out(health, *names):
    for name in names:
        for _ in range(3):
            health.failed(name)


async def test_the_owner_answers_and_is_the_source(health):
    fetcher = script(first=[Answer(pieces=[b"a", b"b"], length=2)])
    routed = router(fetcher, health)
    response = await routed.fetch(KEY, get())
    assert response.source == FIRST
    assert response.length == 2
    assert response.head.status == 200
    assert await read_all(response) == b"ab"
    assert fetcher.asked == [FIRST]
    assert fetcher.deadlines == [Deadlines(connect=3, first_byte=40, idle=30)]


async def test_a_shield_that_is_out_is_passed_over(health):
    put_out(health, FIRST)
    fetcher = script(second=[Answer()])
    await router(fetcher, health).fetch(KEY, get())
    assert fetcher.asked == [SECOND]


async def test_a_failed_shield_is_followed_by_the_next_once(health):
    fetcher = script(first=[refused(FIRST)], second=[refused(SECOND)], third=[Answer()])
    routed = router(fetcher, health)
    with pytest.raises(ConnectRefused, match=SECOND):
        await routed.fetch(KEY, get())
    assert fetcher.asked == [FIRST, SECOND]
    assert routed.counters.retries == 1
    assert routed.counters.failures == {FIRST: 1, SECOND: 1}
    assert routed.in_flight.total() == 0


async def test_three_failures_take_a_shield_out_of_the_ring(health):
    fetcher = script(first=[refused(FIRST)], second=[Answer()])
    routed = router(fetcher, health)
    for _ in range(4):
        response = await routed.fetch(KEY, get())
        assert response.source == SECOND
    assert fetcher.asked == [FIRST, SECOND] * 3 + [SECOND]


async def test_no_retry_after_a_first_byte_time_out_nor_past_the_shields(health):
    fetcher = script(first=[FirstByteTimeout(FIRST, "40 s")])
    past = ToOrigin()
    with pytest.raises(FirstByteTimeout):
        await router(fetcher, health, fallback=past).fetch(KEY, get())
    assert fetcher.asked == [FIRST]
    assert past.requests == []


@pytest.mark.parametrize("request_", [get(content=one_piece()), get(method="POST")])
async def test_no_retry_with_content_or_of_what_is_not_idempotent(health, request_):
    fetcher = script(first=[ClosedBeforeHead(FIRST, "reset")])
    past = ToOrigin()
    with pytest.raises(ClosedBeforeHead):
        await router(fetcher, health, fallback=past).fetch(KEY, request_)
    assert fetcher.asked == [FIRST]
    assert past.requests == []


async def test_when_two_shields_have_failed_the_origin_is_asked(health):
    fetcher = script(first=[refused(FIRST)], second=[refused(SECOND)])
    past = ToOrigin()
    routed = router(fetcher, health, fallback=past)
    assert await routed.fetch(KEY, get()) is past.answer
    assert routed.counters.fallbacks == 1


async def test_when_the_last_shield_has_failed_the_origin_is_asked(health):
    put_out(health, SECOND, THIRD)
    past = ToOrigin()
    routed = router(script(first=[refused(FIRST)]), health, fallback=past)
    assert await routed.fetch(KEY, get()) is past.answer


async def test_a_slow_second_shield_is_not_gone_past(health):
    fetcher = script(first=[refused(FIRST)], second=[FirstByteTimeout(SECOND, "40 s")])
    with pytest.raises(FirstByteTimeout):
        await router(fetcher, health, fallback=ToOrigin()).fetch(KEY, get())


async def test_the_way_past_is_not_told_what_shields_are(health):
    put_out(health, *NAMES)
    past = ToOrigin()
    request = get(content=one_piece(), client="192.0.2.1")
    routed = router(script(), health, fields=[("Secret", "s")], fallback=past)
    await routed.fetch(KEY, request)
    assert past.requests == [request]
    assert "secret" not in past.requests[0].head.fields


async def test_when_all_shields_are_out_nobody_is_left(health):
    put_out(health, *NAMES)
    fetcher = script()
    with pytest.raises(NoUpstreamLeft, match="every shield is out of service"):
        await router(fetcher, health).fetch(KEY, get())
    assert fetcher.asked == []


async def test_when_no_shield_is_left_to_ask_every_one_is_lost(health):
    put_out(health, SECOND, THIRD)
    with pytest.raises(NoUpstreamLeft, match=r"no shield answers; the last: .*refused"):
        await router(script(first=[refused(FIRST)]), health).fetch(KEY, get())


# Overload


async def test_only_an_overloaded_owner_is_passed_over(health):
    fetcher = script(first=[Answer(pieces=[b"..."])], second=[Answer()])
    routed = router(fetcher, health)
    for _ in range(257):
        await routed.fetch(KEY, get())
    assert set(fetcher.asked) == {FIRST}
    assert routed.in_flight == {FIRST: 257}
    assert (await routed.fetch(KEY, get())).source == SECOND


async def test_when_all_are_overloaded_or_out_overload_is_ignored(health):
    put_out(health, SECOND, THIRD)
    routed = router(script(first=[Answer(pieces=[b"..."])]), health)
    routed.in_flight[FIRST] = 300
    assert (await routed.fetch(KEY, get())).source == FIRST


async def test_a_shield_that_sheds_load_is_followed_by_the_next(health):
    refusal = Answer(status=503, fields=[("Retry-After", "5")], pieces=[b"busy"])
    routed = router(script(first=[refusal], second=[Answer(pieces=[b"content"])]), health)
    response = await routed.fetch(KEY, get())
    assert await read_all(response) == b"content"
    assert refusal.aborted
    assert routed.in_flight.total() == 0
    assert routed.counters.retries == 1
    assert routed.counters.failures == {}


@pytest.mark.parametrize(
    "field", [("Cache-Status", "shield-a; fwd=uri-miss"), ("Proxy-Status", "a; error=dns_error")]
)
async def test_a_503_from_beyond_the_shield_is_relayed(health, field):
    fetcher = script(first=[Answer(status=503, fields=[field])])
    assert (await router(fetcher, health).fetch(KEY, get())).head.status == 503
    assert fetcher.asked == [FIRST]


async def test_a_503_is_relayed_when_the_next_fails(health):
    refusal = Answer(status=503, pieces=[b"busy"])
    routed = router(script(first=[refusal], second=[refused(SECOND)]), health)
    response = await routed.fetch(KEY, get())
    assert (response.head.status, await read_all(response)) == (503, b"busy")
    assert routed.in_flight.total() == 0


async def test_a_503_is_relayed_when_there_is_no_next_or_the_content_is_spent(health):
    fetcher = script(first=[Answer(status=503)])
    routed = router(fetcher, health)
    assert (await routed.fetch(KEY, get(content=one_piece()))).head.status == 503
    put_out(health, SECOND, THIRD)
    assert (await routed.fetch(KEY, get())).head.status == 503
    assert set(fetcher.asked) == {FIRST}


async def test_a_client_that_goes_while_the_next_is_asked_leaves_nothing_open(health):
    refusal, hanging = Answer(status=503, pieces=[b"busy"]), Hanging()
    routed = router(script(first=[refusal], second=[hanging]), health)
    task = asyncio.create_task(routed.fetch(KEY, get()))
    await hanging.reached.wait()
    assert routed.in_flight == {FIRST: 1, SECOND: 1}
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert refusal.aborted
    assert routed.in_flight.total() == 0


# In flight


async def test_a_request_is_in_flight_until_its_content_has_ended(health):
    routed = router(script(first=[Answer(pieces=[b"a"])]), health)
    response = await routed.fetch(KEY, get())
    assert await response.read() == b"a"
    assert routed.in_flight[FIRST] == 1
    assert await response.read() == b""
    response.abort()
    assert routed.in_flight[FIRST] == 0


async def test_a_request_is_in_flight_until_it_is_aborted(health):
    answer = Answer(pieces=[b"a"])
    routed = router(script(first=[answer]), health)
    response = await routed.fetch(KEY, get())
    response.abort()
    response.abort()
    assert answer.aborted
    assert routed.in_flight[FIRST] == 0


async def test_a_request_is_in_flight_until_its_content_is_cut_short(health):
    routed = router(script(first=[Answer(pieces=[BodyCutShort(FIRST, "closed")])]), health)
    response = await routed.fetch(KEY, get())
    with pytest.raises(BodyCutShort):
        await response.read()
    assert routed.in_flight[FIRST] == 0


@pytest.mark.parametrize(
    ("method", "answer"),
    [("HEAD", Answer(length=9)), ("GET", Answer(status=304)), ("GET", Answer(length=0))],
)
async def test_where_no_content_will_come_nobody_need_read(health, method, answer):
    routed = router(script(first=[answer]), health)
    await routed.fetch(KEY, get(method=method))
    assert routed.in_flight[FIRST] == 0


# What shields are told


async def test_shields_are_told_who_asks_and_nobody_else_s_word_counts(health):
    fetcher = script(first=[Answer()])
    request = get(
        ("Forwarded", "for=evil"), ("secret", "guess"), client="192.0.2.1", tls_name="origin"
    )
    await router(fetcher, health, fields=[("Secret", "s")]).fetch(KEY, request)
    asked = fetcher.requests[0]
    assert asked.head.fields.lines == (
        ("Host", "www.example.com"),
        ("Secret", "s"),
        ("Forwarded", "for=192.0.2.1;proto=https;host=www.example.com"),
    )
    assert asked.tls_name is None


@pytest.mark.parametrize(
    ("client", "authority", "expected"),
    [
        ("192.0.2.1", "a.example", "for=192.0.2.1;proto=http;host=a.example"),
        ("192.0.2.1", "a.example:81", 'for=192.0.2.1;proto=http;host="a.example:81"'),
        ("2001:db8::1", "[::1]:81", 'for="[2001:db8::1]";proto=http;host="[::1]:81"'),
        ("fe80::1%eth0", "a", 'for="[fe80::1]";proto=http;host=a'),
        ("unix", "a", "for=unknown;proto=http;host=a"),
        (None, 'a"\\', 'for=unknown;proto=http;host="a\\"\\\\"'),
    ],
)
def test_forwarded_follows_the_grammar_of_rfc_7239(client, authority, expected):
    assert forwarded(Request("GET", "http", authority, "/", Fields()), client) == expected


def test_shields_and_weights_must_name_the_same_nodes(health):
    with pytest.raises(ValueError, match="shields: b: give each shield both"):
        ShieldRouter(ScriptedFetcher(), {"a": endpoint("a")}, {"a": 1, "b": 1}, health)
