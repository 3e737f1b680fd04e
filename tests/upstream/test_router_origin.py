"""Origins: addresses in order, healthy first, one retry."""

import pytest

from cdn.upstream.errors import (
    ClosedBeforeHead,
    ConnectRefused,
    ConnectTimeout,
    FirstByteTimeout,
    RequestContentFailed,
    UpstreamError,
)
from cdn.upstream.exchange import Deadlines
from cdn.upstream.health import HealthTracker
from cdn.upstream.origin_router import OriginRouter
from tests.upstream.scripted import Answer, Clock, ScriptedFetcher, endpoint, get, one_piece

REFUSED = ConnectRefused("http://first:8080", "refused")


@pytest.fixture
def health():
    return HealthTracker(Clock())


def router(fetcher, health, *hosts, **rest):
    return OriginRouter(fetcher, [endpoint(host) for host in hosts], health, **rest)


async def test_the_first_address_is_asked(health):
    answer = Answer()
    fetcher = ScriptedFetcher(first=[answer])
    routed = router(fetcher, health, "first", "second")
    assert await routed.fetch(b"key", get()) is answer
    assert fetcher.asked == ["first"]
    assert fetcher.deadlines == [Deadlines(connect=3, first_byte=15, idle=30)]
    assert (routed.counters.requests, routed.counters.retries) == (1, 0)


async def test_the_second_address_is_asked_when_the_first_fails(health):
    answer = Answer()
    fetcher = ScriptedFetcher(first=[REFUSED], second=[answer])
    routed = router(fetcher, health, "first", "second", "third")
    assert await routed.fetch(b"key", get()) is answer
    assert fetcher.asked == ["first", "second"]
    assert routed.counters.retries == 1
    assert routed.counters.failures == {"http://first:8080": 1}


async def test_there_is_one_retry_and_its_error_is_told(health):
    last = ConnectTimeout("http://second:8080", "no connection in 3 s")
    fetcher = ScriptedFetcher(first=[REFUSED], second=[last])
    with pytest.raises(ConnectTimeout):
        await router(fetcher, health, "first", "second", "third").fetch(b"key", get())
    assert fetcher.asked == ["first", "second"]


async def test_a_single_address_is_not_asked_twice(health):
    fetcher = ScriptedFetcher(first=[REFUSED])
    with pytest.raises(ConnectRefused):
        await router(fetcher, health, "first").fetch(b"key", get())
    assert fetcher.asked == ["first"]


@pytest.mark.parametrize("kind", [FirstByteTimeout, RequestContentFailed])
async def test_some_failures_are_not_retried_and_do_not_count_against_the_node(health, kind):
    fetcher = ScriptedFetcher(first=[kind("http://first:8080", "…")])
    routed = router(fetcher, health, "first", "second")
    for _ in range(4):
        with pytest.raises(kind):
            await routed.fetch(b"key", get())
    assert set(fetcher.asked) == {"first"}
    assert routed.counters.failures == {}


async def test_content_is_not_sent_twice(health):
    fetcher = ScriptedFetcher(first=[ClosedBeforeHead("http://first:8080", "reset")])
    with pytest.raises(ClosedBeforeHead):
        await router(fetcher, health, "first", "second").fetch(b"key", get(content=one_piece()))
    assert fetcher.asked == ["first"]


async def test_healthy_addresses_come_first(health):
    fetcher = ScriptedFetcher(first=[REFUSED], second=[Answer()])
    routed = router(fetcher, health, "first", "second")
    for _ in range(4):
        await routed.fetch(b"key", get())
    assert fetcher.asked == ["first", "second"] * 3 + ["second"]


async def test_an_address_that_is_out_is_better_than_none_and_comes_back_by_answering(health):
    fetcher = ScriptedFetcher(first=[REFUSED, REFUSED, REFUSED, Answer()])
    routed = router(fetcher, health, "first")
    for _ in range(3):
        with pytest.raises(UpstreamError):
            await routed.fetch(b"key", get())
    assert not health.usable("http://first:8080")
    await routed.fetch(b"key", get())
    assert health.usable("http://first:8080")


async def test_a_relayed_5xx_is_no_failure(health):
    fetcher = ScriptedFetcher(first=[Answer(status=503)])
    routed = router(fetcher, health, "first", "second")
    for _ in range(4):
        assert (await routed.fetch(b"key", get())).head.status == 503
    assert set(fetcher.asked) == {"first"}


async def test_the_tls_name_is_the_service_s(health):
    fetcher = ScriptedFetcher(first=[Answer()])
    await router(fetcher, health, "first", host="origin.example").fetch(b"key", get())
    assert fetcher.requests[0].tls_name == "origin.example"


def test_an_origin_without_address_is_refused(health):
    with pytest.raises(ValueError, match="no addresses; give at least one"):
        router(ScriptedFetcher(), health)
