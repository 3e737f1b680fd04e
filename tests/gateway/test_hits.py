"""Answers out of the store, across tiers: Cache-Status, Age, Via, validation, preconditions."""

import asyncio

import pytest

from tests.gateway.gateway_kit import ETAG, FRESH, HOST, site, storable, tiers
from tests.kit import Gate, Reply, get
from tests.kit.cdn_nodes import local_edge

LAST_MODIFIED = ("Last-Modified", "Wed, 31 Dec 2025 00:00:00 GMT")


# -- tiers


async def test_a_shields_hit_seen_through_another_edge():
    async with tiers() as cdn:
        cdn.origin.on("/a", storable(b"content"))
        first = await cdn.get("/a")
        assert first.content == b"content"
        assert first.field("cache-status") == (
            "shield-yokohama; fwd=uri-miss; stored, edge-a; fwd=uri-miss; stored"
        )
        assert first.field("via") == "1.1 shield-yokohama, 1.1 edge-a"
        assert first.field("age") is None  # it comes from the origin just now
        cdn.clock.advance(5)
        shields = {"shield-yokohama": cdn.shield.url}
        async with local_edge(shields=shields, name="edge-b", clock=cdn.clock) as other:
            second = await get(f"{other.url}/a", [HOST])
        assert second.field("cache-status") == (
            "shield-yokohama; hit; ttl=295, edge-b; fwd=uri-miss; stored"
        )
        assert second.field("age") == "5"
        assert cdn.origin.count() == 1
        assert cdn.edge.node.gateway.filling.counters.stored == 1


async def test_freshness_goes_on_from_tier_to_tier():
    async with tiers() as cdn:
        cdn.origin.on("/a", storable(b"content", ("Age", "100")))
        assert (await cdn.get("/a")).field("age") == "100"
        cdn.clock.advance(150)
        hit = await cdn.get("/a")
        assert hit.field("age") == "250"
        assert hit.field("cache-status").endswith(
            "shield-yokohama; fwd=uri-miss; stored, edge-a; hit; ttl=50"
        )
        cdn.clock.advance(50)  # 300 of 300: not fresh any more, at either tier
        await cdn.get("/a")
        assert cdn.origin.count() == 2


async def test_loops_and_via_are_told_upwards():
    async with tiers() as cdn:
        cdn.origin.on("/a", storable())
        await cdn.get("/a", ("Via", "1.0 viewers-proxy"))
        (request,) = cdn.origin.requests
        assert request.field("via") == "1.0 viewers-proxy, 1.1 edge-a, 1.1 shield-yokohama"
        assert request.field("cdn-loop") == "iij-cdn;node=edge-a, iij-cdn;node=shield-yokohama"


def members(*nodes):
    return ("CDN-Loop", ", ".join(f"iij-cdn;node={node}" for node in nodes))


@pytest.mark.parametrize(
    ("loop", "status"),
    [
        (members("edge-a"), 508),
        (members("x", "EDGE-A", "y"), 508),
        (members("x", "y", "z"), 200),
        (members("x", "y", "z", "w"), 508),
        (("CDN-Loop", "other;node=edge-a, other, other, other"), 200),
    ],
)
async def test_a_request_that_comes_back_is_ended(loop, status):
    async with site() as cdn:
        cdn.origin.on("/a", storable())
        answer = await cdn.get("/a", loop)
        assert answer.status == status
        assert (answer.field("proxy-status") is not None) == (status == 508)
        assert (answer.field("cache-status") is None) == (status == 508)


# -- what the store answers by itself


async def test_conditions_are_answered_from_the_store():
    async with site() as cdn:
        cdn.origin.on("/a", storable(b"content", LAST_MODIFIED, ("Content-Type", "text/plain")))
        await cdn.get("/a")
        cdn.clock.advance(10)
        for condition in (
            ("If-None-Match", '"v0", W/"v1"'),
            ("If-Modified-Since", LAST_MODIFIED[1]),
        ):
            answer = await cdn.get("/a", condition)
            assert (answer.status, answer.content) == (304, b"")
            assert answer.field("etag") == '"v1"'
            assert answer.field("age") == "10"
            assert answer.field("cache-status") == "edge-a; hit; ttl=290"
            assert answer.field("via") == "1.1 edge-a"
        changed = await cdn.get("/a", ("If-None-Match", '"v0"'))
        assert (changed.status, changed.content) == (200, b"content")
        assert (await cdn.get("/a", ("If-Match", '"v0"'))).status == 412
        assert cdn.origin.count() == 1


async def test_head_is_answered_from_a_stored_get():
    async with site() as cdn:
        cdn.origin.on("/a", storable(b"content"))
        await cdn.get("/a")
        answer = await cdn.get("/a", method="HEAD")
        assert (answer.status, answer.content) == (200, b"")
        assert answer.field("content-length") == "7"
        assert answer.field("cache-status") == "edge-a; hit; ttl=300"
        assert cdn.origin.count() == 1


async def test_a_cold_head_is_passed_on_and_stores_nothing():
    async with site() as cdn:
        cdn.origin.on("/a", storable(b"content"))
        answer = await cdn.get("/a", method="HEAD")
        assert (answer.field("content-length"), answer.content) == ("7", b"")
        assert answer.field("cache-status") == "edge-a; fwd=uri-miss"
        assert cdn.stored() == ()
        assert [request.method for request in cdn.origin.requests] == ["HEAD"]


async def test_vary_keeps_variants_apart():
    async with site() as cdn:
        cdn.origin.on(
            "/a",
            lambda request: storable(
                (request.field("accept-language") or "none").encode(), ("Vary", "Accept-Language")
            ),
        )
        for language in ("ja", "en", "ja", "en"):
            answer = await cdn.get("/a", ("Accept-Language", language))
            assert answer.content == language.encode()
        assert cdn.edge.outcomes() == ["uri-miss", "vary-miss", "hit", "hit"]
        assert len(cdn.stored()) == 2


# -- validation


async def test_a_304_from_upstream_freshens():
    async with site() as cdn:
        cdn.origin.on("/a", storable(b"content", LAST_MODIFIED, honours_conditions=True))
        await cdn.get("/a")
        cdn.clock.advance(400)
        answer = await cdn.get("/a")
        assert (answer.status, answer.content) == (200, b"content")
        assert answer.field("cache-status") == "edge-a; fwd=stale; fwd-status=304; ttl=300"
        assert answer.field("age") == "0"
        validation = cdn.origin.requests[1]
        assert validation.field("if-none-match") == '"v1"'
        assert validation.field("if-modified-since") == LAST_MODIFIED[1]
        assert (await cdn.get("/a")).field("cache-status") == "edge-a; hit; ttl=300"
        assert cdn.origin.count() == 2


async def test_a_changed_response_takes_the_place_of_the_stale_one():
    async with site() as cdn:
        new = Reply(fields=[FRESH, ("ETag", '"v2"')], content=b"new", honours_conditions=True)
        cdn.origin.on("/a", [storable(b"old"), new])
        await cdn.get("/a")
        cdn.clock.advance(400)
        answer = await cdn.get("/a")
        assert (answer.content, answer.field("etag")) == (b"new", '"v2"')
        assert answer.field("cache-status") == "edge-a; fwd=stale; stored"
        assert cdn.stored_content() == b"new"


async def test_a_viewers_condition_never_decides_what_is_fetched():
    async with site() as cdn:
        cdn.origin.on("/a", storable(b"content", honours_conditions=True))
        answer = await cdn.get("/a", ("If-None-Match", '"v1"'))
        assert (answer.status, answer.content) == (304, b"")
        assert answer.field("cache-status") == "edge-a; fwd=uri-miss; fwd-status=200; stored"
        assert cdn.origin.requests[0].field("if-none-match") is None
        assert (await cdn.get("/a")).content == b"content"
        assert cdn.origin.count() == 1


async def test_a_304_about_something_else_is_not_believed():
    async with site() as cdn:
        cdn.origin.on("/a", [storable(b"old"), Reply(304, [("ETag", '"x"')]), storable(b"new")])
        await cdn.get("/a")
        cdn.clock.advance(400)
        assert (await cdn.get("/a")).content == b"new"
        assert cdn.origin.requests[1].field("if-none-match") == '"v1"'
        assert cdn.origin.requests[2].field("if-none-match") is None


async def test_a_304_to_no_condition_is_the_upstreams_fault():
    async with site() as cdn:
        cdn.origin.on("/a", Reply(304, [ETAG]))
        answer = await cdn.get("/a")
        assert answer.status == 502
        assert "error=http_protocol_error" in answer.field("proxy-status")


async def test_a_head_freshens_the_stored_response():
    async with site() as cdn:
        cdn.origin.on("/a", storable(b"content"))
        await cdn.get("/a")
        cdn.clock.advance(400)
        assert (await cdn.get("/a", method="HEAD")).field("cache-status") == "edge-a; fwd=stale"
        assert (await cdn.get("/a")).field("cache-status") == "edge-a; hit; ttl=300"


async def test_a_head_that_differs_outdates_the_stored_response():
    async with site() as cdn:
        other = Reply(fields=[FRESH, ("ETag", '"v2"')], content=b"newer content")
        cdn.origin.on("/a", [storable(b"content"), other])
        await cdn.get("/a")
        cdn.clock.advance(400)
        await cdn.get("/a", method="HEAD")
        assert cdn.stored() == ()
        assert (await cdn.get("/a")).content == b"newer content"


async def test_many_validate_at_once_by_one_request():
    gate = Gate()
    async with site() as cdn:
        again = storable(b"content", honours_conditions=True, gate=gate)
        cdn.origin.on("/a", [storable(b"content"), again])
        await cdn.get("/a")
        cdn.clock.advance(400)
        asked = [asyncio.ensure_future(cdn.get("/a")) for _ in range(5)]
        await cdn.all_joined(5)
        gate.open()
        answers = await asyncio.gather(*asked)
        assert {answer.content for answer in answers} == {b"content"}
        assert cdn.origin.count() == 2


async def test_what_needs_validation_each_time_is_not_validated_one_after_another():
    gates = [Gate(), Gate()]
    no_cache = [("Cache-Control", "no-cache"), ETAG]

    def script(request):
        if request.field("if-none-match") is None:
            return Reply(fields=no_cache, content=b"content")
        turn = 0 if cdn.origin.count("/a") == 2 else 1
        return Reply(fields=no_cache, honours_conditions=True, gate=gates[turn])

    async with site() as cdn:
        cdn.origin.on("/a", script)
        await cdn.get("/a")
        cdn.clock.advance(31)  # past the hit-for-miss mark of the first answer
        asked = [asyncio.ensure_future(cdn.get("/a")) for _ in range(5)]
        await cdn.all_joined(5)
        gates[0].open()
        await gates[1].reached(4)  # the four who followed are at the origin, all at once
        gates[1].open()
        assert {answer.content for answer in await asyncio.gather(*asked)} == {b"content"}
