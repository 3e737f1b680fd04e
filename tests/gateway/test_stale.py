"""Stale responses: while revalidating, on errors, when disconnected; and what clients ask for."""

import asyncio

import pytest

from tests.gateway.gateway_kit import ETAG, FRESH, MIB, site, storable, tiers
from tests.kit import Gate, Pattern, Reply

SWR = ("Cache-Control", "max-age=300, stale-while-revalidate=60")


def fresh(directives, content=b"old"):
    return Reply(fields=[("Cache-Control", directives), ETAG], content=content)


async def revalidated(cdn):
    """Until the background has nothing to do."""
    async with asyncio.timeout(5):
        while tasks := cdn.edge.node.background._tasks:
            await asyncio.wait(set(tasks))


# -- stale-while-revalidate (RFC 5861 §3)


async def test_many_get_the_stale_response_and_one_request_goes_up():
    gate = Gate()
    async with site() as cdn:
        new = Reply(fields=[SWR, ("ETag", '"v2"')], content=b"new", gate=gate)
        cdn.origin.on("/a", [Reply(fields=[SWR, ETAG], content=b"old"), new])
        await cdn.get("/a")
        cdn.clock.advance(330)
        for _ in range(5):
            answer = await cdn.get("/a")
            assert answer.content == b"old"
            assert answer.field("cache-status") == "edge-a; hit; ttl=-30"
            assert answer.field("age") == "330"
        await gate.reached()
        assert cdn.origin.count() == 2
        assert cdn.origin.requests[1].field("if-none-match") == '"v1"'
        gate.open()
        await revalidated(cdn)
        assert (await cdn.get("/a")).content == b"new"
        assert cdn.edge.outcomes() == ["uri-miss"] + ["stale"] * 5 + ["hit"]


async def test_outside_the_window_everyone_waits():
    async with site() as cdn:
        cdn.origin.on("/a", [Reply(fields=[SWR, ETAG], content=b"old"), storable(b"new")])
        await cdn.get("/a")
        cdn.clock.advance(361)
        assert (await cdn.get("/a")).content == b"new"


@pytest.mark.parametrize(
    "broken",
    [
        Reply(503, content=b"sorry"),
        Reply(fields=[SWR], content=b"x" * 100, cut_after=50),
        Reply(disconnect=True),
    ],
    ids=["503", "cut short", "no answer"],
)
async def test_a_revalidation_that_fails_changes_nothing_and_is_no_bug(broken):
    async with site() as cdn:
        cdn.origin.on("/a", [Reply(fields=[SWR, ETAG], content=b"old"), broken])
        await cdn.get("/a")
        cdn.clock.advance(330)
        assert (await cdn.get("/a")).content == b"old"
        await revalidated(cdn)
        assert (await cdn.get("/a")).content == b"old"
        assert "bug" not in cdn.edge.events.getvalue()


async def test_what_has_become_private_is_not_served_stale_any_more():
    async with site() as cdn:
        private = Reply(fields=[("Cache-Control", "private")], content=b"mine")
        cdn.origin.on("/a", [Reply(fields=[SWR, ETAG], content=b"old"), private])
        await cdn.get("/a")
        cdn.clock.advance(330)
        assert (await cdn.get("/a")).content == b"old"
        await revalidated(cdn)
        assert cdn.stored() == ()
        assert (await cdn.get("/a")).content == b"mine"


async def test_a_reload_that_gets_something_private_leaves_what_is_fresh():
    async with site() as cdn:
        private = Reply(fields=[("Cache-Control", "private")], content=b"mine")
        cdn.origin.on("/a", [storable(b"all's"), private])
        await cdn.get("/a")
        assert (await cdn.get("/a", ("Cache-Control", "no-cache"))).content == b"mine"
        assert (await cdn.get("/a")).content == b"all's"


async def test_a_revalidation_that_brings_nothing_to_store_is_not_read_to_its_end():
    async with site(memory=16 * MIB) as cdn:
        huge = Reply(fields=[SWR, ("ETag", '"v2"')], content=Pattern(64 * MIB))
        cdn.origin.on("/a", [Reply(fields=[SWR, ETAG], content=b"old"), huge])
        await cdn.get("/a")
        cdn.clock.advance(330)
        await cdn.get("/a")
        await revalidated(cdn)
        async with asyncio.timeout(5):
            await cdn.origin.requests[1].over.wait()
        assert not cdn.origin.requests[1].finished


# -- stale-if-error (RFC 5861 §4)


@pytest.mark.parametrize("status", [500, 502, 503, 504])
async def test_an_error_that_came_is_replaced_where_allowed(status):
    async with site() as cdn:
        cdn.origin.on("/a", [fresh("max-age=300, stale-if-error=60"), Reply(status)])
        await cdn.get("/a")
        cdn.clock.advance(330)
        answer = await cdn.get("/a")
        assert (answer.status, answer.content) == (200, b"old")
        assert answer.field("cache-status") == (
            f"edge-a; fwd=stale; fwd-status={status}; ttl=-30; detail=stale-if-error"
        )
        assert answer.field("age") == "330"
        cdn.clock.advance(40)
        assert (await cdn.get("/a")).status == status


async def test_an_error_that_could_be_stored_does_not_take_the_place_of_what_replaces_it():
    async with site() as cdn:
        error = Reply(503, [FRESH], content=b"sorry")
        cdn.origin.on("/a", [fresh("max-age=300, stale-if-error=60"), error])
        await cdn.get("/a")
        cdn.clock.advance(330)
        assert (await cdn.get("/a")).content == b"old"
        assert (await cdn.get("/a")).content == b"old"
        assert cdn.stored_content() == b"old"


async def test_other_errors_are_passed_on():
    async with site() as cdn:
        cdn.origin.on("/a", [fresh("max-age=300, stale-if-error=60"), Reply(404)])
        await cdn.get("/a")
        cdn.clock.advance(330)
        assert (await cdn.get("/a")).status == 404


# -- disconnected (RFC 9111 §4.2.4)


async def test_without_an_upstream_the_stale_response_is_served_for_a_day():
    async with site() as cdn:
        cdn.origin.on("/a", fresh("max-age=300"))
        await cdn.get("/a")
        await cdn.origin.close()
        cdn.clock.advance(86_400)
        answer = await cdn.get("/a")
        assert (answer.status, answer.content) == (200, b"old")
        assert answer.field("cache-status") == (
            "edge-a; fwd=stale; ttl=-86100; detail=connection_refused"
        )
        cdn.clock.advance(300)
        answer = await cdn.get("/a")
        assert answer.status == 502
        assert "error=connection_refused" in answer.field("proxy-status")
        assert answer.field("cache-status") is None


@pytest.mark.parametrize("forbids", ["must-revalidate", "proxy-revalidate", "s-maxage=300"])
async def test_the_response_may_forbid_it(forbids):
    async with site() as cdn:
        cdn.origin.on("/a", fresh(f"max-age=300, {forbids}"))
        await cdn.get("/a")
        await cdn.origin.close()
        assert (await cdn.get("/a")).content == b"old"
        cdn.clock.advance(301)
        assert (await cdn.get("/a")).status == 502


async def test_no_cache_is_never_served_without_asking():
    async with site() as cdn:
        cdn.origin.on("/a", fresh("no-cache, max-age=300"))
        await cdn.get("/a")
        await cdn.origin.close()
        assert (await cdn.get("/a")).status == 502


async def test_a_shield_that_is_disconnected_makes_its_edge_disconnected():
    keys = {"cache": {"stale_when_disconnected": "0s"}}
    async with tiers(shield=keys) as cdn:
        cdn.origin.on("/a", fresh("max-age=300"))
        await cdn.get("/a")
        await cdn.origin.close()
        cdn.clock.advance(301)
        answer = await cdn.get("/a")
        assert (answer.status, answer.content) == (200, b"old")
        assert "fwd-status=502" in answer.field("cache-status")


async def test_a_head_gets_the_stale_response_too():
    async with site() as cdn:
        cdn.origin.on("/a", fresh("max-age=300"))
        await cdn.get("/a")
        await cdn.origin.close()
        cdn.clock.advance(301)
        answer = await cdn.get("/a", method="HEAD")
        assert (answer.status, answer.field("content-length")) == (200, "3")


# -- what the client asks for (RFC 9111 §5.2.1)


@pytest.mark.parametrize(
    ("directive", "age", "outcome"),
    [
        ("no-cache", 10, "request"),
        ("no-store", 10, "request"),
        ("max-age=5", 10, "request"),
        ("max-age=10", 10, "hit"),
        ("min-fresh=290", 10, "hit"),
        ("min-fresh=291", 10, "request"),
        ("max-stale", 400, "stale"),
        ("max-stale=100", 400, "stale"),
        ("max-stale=99", 400, "stale!"),
        ("only-if-cached", 10, "hit"),
    ],
)
async def test_the_client_narrows_or_widens_what_it_takes(directive, age, outcome):
    async with site() as cdn:
        cdn.origin.on("/a", [storable(b"old"), storable(b"new")])
        await cdn.get("/a")
        cdn.clock.advance(age)
        answer = await cdn.get("/a", ("Cache-Control", directive))
        goes_up = outcome in ("request", "stale!")
        assert answer.content == (b"new" if goes_up else b"old")
        assert cdn.origin.count() == (2 if goes_up else 1)
        assert cdn.edge.outcomes()[1] == outcome.rstrip("!")


async def test_only_if_cached_never_goes_up():
    async with site() as cdn:
        cdn.origin.on("/a", storable())
        answer = await cdn.get("/a", ("Cache-Control", "only-if-cached"))
        assert answer.status == 504
        assert answer.field("cache-status") is None
        assert answer.field("proxy-status").startswith("edge-a; details=")
        assert cdn.origin.count() == 0
        assert cdn.edge.log[0].service == "site"


@pytest.mark.parametrize("directive", ["no-cache", "no-store", "max-age=0", "only-if-cached"])
async def test_a_service_may_not_obey_clients(directive):
    async with site(cache={"request_directives": False}) as cdn:
        cdn.origin.on("/a", storable(b"old"))
        first = await cdn.get("/a", ("Cache-Control", directive))
        assert first.field("cache-status") == "edge-a; fwd=uri-miss; stored"
        cdn.clock.advance(10)
        again = await cdn.get("/a", ("Cache-Control", directive))
        assert again.field("cache-status") == "edge-a; hit; ttl=290"
