"""A shield dies in the middle of a content, and the viewer sees nothing."""

import asyncio

import pytest

from cdn.hashing.ring import HashRing
from cdn.upstream.errors import BodyCutShort, ConnectRefused, IdleTimeout
from cdn.upstream.health import HealthTracker
from cdn.upstream.shield_router import ShieldRouter
from tests.upstream.scripted import Answer, Clock, Hanging, ScriptedFetcher, endpoint, get, read_all

KEY = b"key"
WEIGHTS = {"yokohama": 1.0, "saitama": 1.0}
FIRST, SECOND = HashRing(WEIGHTS).owners(KEY)
ETAG = ("ETag", '"v1"')
CUT = BodyCutShort(f"http://{FIRST}:8080", "closed after 4 of 10 bytes")


@pytest.fixture
def health():
    return HealthTracker(Clock())


def router(fetcher, health):
    return ShieldRouter(fetcher, {name: endpoint(name) for name in WEIGHTS}, WEIGHTS, health)


def script(first, *second):
    return ScriptedFetcher(**{FIRST: [first], SECOND: list(second)})


def broken(*pieces, status=200, fields=(ETAG,), length=10):
    return Answer(status, fields, pieces or (b"0123", CUT), length)


def rest(*pieces, status=206, etag='"v1"', content_range="bytes 4-9/10", length=6):
    fields = [("ETag", etag), ("Content-Range", content_range)]
    return Answer(status, fields, pieces or (b"456", b"789"), length)


async def test_the_next_shield_goes_on_where_the_first_was_cut(health):
    fetcher = script(broken(b"012", b"3", CUT), rest())
    routed = router(fetcher, health)
    interim = []
    request = get(("If-None-Match", '"v0"'), ("Accept-Encoding", "gzip"), on_interim=interim.append)
    response = await routed.fetch(KEY, request)
    assert await read_all(response) == b"0123456789"
    assert (response.head.status, response.length, response.source) == (200, 10, FIRST)

    assert fetcher.asked == [FIRST, SECOND]
    again = fetcher.requests[1]
    assert again.head.fields.get("range") == "bytes=4-9"
    assert again.head.fields.get("if-range") == '"v1"'
    assert "if-none-match" not in again.head.fields
    assert again.head.fields.get("accept-encoding") == "gzip"
    assert "forwarded" in again.head.fields
    assert again.on_interim is None, "the viewer has the head already"

    assert routed.counters.resumed == 1
    assert routed.counters.failures == {FIRST: 1}
    assert routed.in_flight.total() == 0


@pytest.mark.parametrize("error", [CUT, IdleTimeout(FIRST, "30 s")])
async def test_a_content_of_which_nothing_came_is_asked_whole(health, error):
    whole = rest(b"0123456789", content_range="bytes 0-9/10", length=10)
    fetcher = script(broken(error), whole)
    response = await router(fetcher, health).fetch(KEY, get())
    assert await read_all(response) == b"0123456789"
    assert fetcher.requests[1].head.fields.get("range") == "bytes=0-9"


@pytest.mark.parametrize(("told", "again"), [("900", "900"), ("*", "900"), ("900", "*")])
async def test_a_part_goes_on_within_the_representation(health, told, again):
    part = broken(status=206, fields=[ETAG, ("Content-Range", f"bytes 500-509/{told}")])
    fetcher = script(part, rest(content_range=f"bytes 504-509/{again}"))
    response = await router(fetcher, health).fetch(KEY, get(("Range", "bytes=500-509")))
    assert await read_all(response) == b"0123456789"
    assert response.head.status == 206
    assert fetcher.requests[1].head.fields.get_all("range") == ["bytes=504-509"]


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param({"status": 200, "length": 10}, id="the whole, since it changed"),
        pytest.param({"etag": '"v2"'}, id="another version"),
        pytest.param({"etag": 'W/"v1"'}, id="a weak validator"),
        pytest.param({"content_range": "bytes 3-9/10"}, id="other bytes"),
        pytest.param({"content_range": "bytes 4-8/10", "length": 5}, id="fewer bytes"),
        pytest.param({"content_range": "bytes 4-9/11"}, id="another whole length"),
        pytest.param({"content_range": "bytes 4-"}, id="no range to rely on"),
        pytest.param({"length": 7}, id="framing says otherwise"),
        pytest.param({"length": None}, id="framing promises nothing"),
    ],
)
async def test_anything_but_the_bytes_asked_for_is_refused(health, wrong):
    other = rest(**wrong)
    routed = router(script(broken(), other), health)
    response = await routed.fetch(KEY, get())
    assert await response.read() == b"0123"
    with pytest.raises(BodyCutShort) as caught:
        await response.read()
    assert caught.value is CUT
    assert other.aborted
    assert routed.counters.resumed == 0
    assert routed.in_flight.total() == 0


@pytest.mark.parametrize(
    ("method", "first"),
    [
        pytest.param("GET", broken(fields=[]), id="no validator"),
        pytest.param("GET", broken(fields=[("ETag", 'W/"v1"')]), id="weak ETag"),
        pytest.param(
            "GET", broken(fields=[("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")]), id="date"
        ),
        pytest.param("GET", broken(fields=[ETAG, ("ETag", '"v2"')]), id="two ETags"),
        pytest.param("GET", broken(length=None), id="unknown length"),
        pytest.param("GET", broken(status=206), id="206 of several parts"),
        pytest.param(
            "GET",
            broken(status=206, fields=[ETAG, ("Content-Range", "bytes 0-8/20")]),
            id="206 whose length and range differ",
        ),
        pytest.param("GET", broken(status=404), id="not the representation"),
        pytest.param("POST", broken(), id="POST"),
    ],
)
async def test_what_cannot_be_joined_safely_is_not_resumed(health, method, first):
    fetcher = script(first, rest())
    response = await router(fetcher, health).fetch(KEY, get(method=method))
    assert await response.read() == b"0123"
    with pytest.raises(BodyCutShort):
        await response.read()
    assert fetcher.asked == [FIRST]


async def test_a_second_cut_is_told(health):
    second_cut = BodyCutShort(SECOND, "closed")
    fetcher = script(broken(), rest(b"45", second_cut))
    response = await router(fetcher, health).fetch(KEY, get())
    with pytest.raises(BodyCutShort) as caught:
        await read_all(response)
    assert caught.value is second_cut
    assert fetcher.asked == [FIRST, SECOND]


async def test_the_first_error_is_told_when_the_next_shield_fails_too(health):
    fetcher = script(broken(), ConnectRefused(SECOND, "refused"))
    response = await router(fetcher, health).fetch(KEY, get())
    with pytest.raises(BodyCutShort) as caught:
        await read_all(response)
    assert caught.value is CUT


async def test_a_broken_origin_puts_no_shield_out(health):
    # Each shield cuts what its origin cuts, and the other can do no better.
    for _ in range(4):
        routed = router(script(broken(), Answer(status=502)), health)
        response = await routed.fetch(KEY, get())
        with pytest.raises(BodyCutShort):
            await read_all(response)
    assert health.usable(FIRST)
    assert health.usable(SECOND)


async def test_nobody_is_asked_when_the_others_are_out(health):
    for _ in range(3):
        health.failed(SECOND)
    fetcher = script(broken(), rest())
    response = await router(fetcher, health).fetch(KEY, get())
    with pytest.raises(BodyCutShort):
        await read_all(response)
    assert fetcher.asked == [FIRST]


async def test_what_we_aborted_is_not_resumed(health):
    first = broken()
    fetcher = script(first, rest())
    response = await router(fetcher, health).fetch(KEY, get())
    await response.read()
    response.abort()
    assert first.aborted
    with pytest.raises(BodyCutShort):
        await response.read()
    assert fetcher.asked == [FIRST]


async def test_a_reader_who_goes_while_the_next_is_asked_leaves_nothing_open(health):
    hanging = Hanging()
    routed = router(script(broken(), hanging), health)
    response = await routed.fetch(KEY, get())
    await response.read()
    reading = asyncio.create_task(response.read())
    await hanging.reached.wait()
    assert routed.in_flight == {FIRST: 0, SECOND: 1}
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    response.abort()
    assert routed.in_flight.total() == 0


async def test_an_answer_that_comes_after_the_abort_is_aborted_too(health):
    late = rest()

    class AbortsMeanwhile(ScriptedFetcher):
        async def fetch(self, endpoint, request, deadlines):
            if endpoint.host == SECOND:
                response.abort()
            return await super().fetch(endpoint, request, deadlines)

    routed = router(AbortsMeanwhile(**{FIRST: [broken()], SECOND: [late]}), health)
    response = await routed.fetch(KEY, get())
    with pytest.raises(BodyCutShort):
        await read_all(response)
    assert late.aborted
    assert routed.in_flight.total() == 0
