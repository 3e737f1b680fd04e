"""What goes through: broken transfers, interim answers, fields that are one client's alone."""

import pytest

from tests.gateway.gateway_kit import ETAG, FRESH, HOST, MIB, site, storable, tiers
from tests.kit import Gate, Pattern, Reply

HINTS = (103, [("Link", "</a.css>; rel=preload")])


# -- transfers that break


@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("fields", [[FRESH, ETAG], [("Cache-Control", "private")]])
async def test_what_breaks_upstream_breaks_downstream_and_is_not_stored(framing, fields):
    async with site() as cdn:
        whole = Reply(fields=fields, content=b"x" * 1000, framing=framing)
        broken = Reply(fields=fields, content=b"x" * 1000, framing=framing, cut_after=500)
        cdn.origin.on("/a", [broken, whole])
        answer = await cdn.get("/a")
        assert not answer.complete
        assert answer.content == b"x" * 500
        assert cdn.stored() == ()
        assert (await cdn.get("/a")).complete
        assert cdn.origin.count() == 2
        assert cdn.edge.log[0].complete is False


async def test_everyone_who_waits_sees_the_break():
    gate = Gate(after=500)
    async with tiers() as cdn:
        cdn.origin.on("/a", storable(b"x" * 1000, cut_after=500, gate=gate))
        clients = [await cdn.ask("/a") for _ in range(4)]
        await cdn.all_joined(4)
        gate.open()
        answers = [await client.read_response() for client in clients]
        assert [(one.complete, len(one.content)) for one in answers] == [(False, 500)] * 4
        filling = cdn.edge.node.gateway.filling
        assert (filling.counters.cut_short, filling.counters.abandoned) == (1, 0)
        for client in clients:
            client.close()


async def test_more_than_was_promised_is_cut_off_and_never_the_next_answer():
    async with site() as cdn:
        cdn.origin.on("/a", storable(b"0123456789", declared_length=4))
        answer = await cdn.get("/a")
        assert (answer.content, answer.complete) == (b"0123", True)
        assert (await cdn.get("/a")).content == b"0123"


# -- interim answers and trailers


async def test_interim_answers_are_relayed_and_never_stored():
    async with tiers() as cdn:
        cdn.origin.on("/a", storable(b"content", interim=[HINTS]))
        first = await cdn.get("/a")
        assert first.interim == [HINTS]
        assert (first.status, first.content) == (200, b"content")
        again = await cdn.get("/a")
        assert (again.interim, again.content) == ([], b"content")


async def test_interim_answers_reach_those_who_go_alone():
    async with site() as cdn:
        cdn.origin.on("/a", Reply(interim=[HINTS]))
        answer = await cdn.get("/a", method="POST", content=b"x")
        assert answer.interim == [HINTS]


async def test_a_204_and_an_empty_200_have_no_content():
    async with site() as cdn:
        cdn.origin.on("/204", Reply(204, [FRESH]))
        cdn.origin.on("/empty", storable(b""))
        for status, target in ((204, "/204"), (200, "/empty")):
            for _ in range(2):
                answer = await cdn.get(target)
                assert (answer.status, answer.content, answer.complete) == (status, b"", True)
            assert cdn.origin.count(target) == 1


# -- fields


async def test_a_cookie_is_shared_only_with_explicit_freshness():
    cookie = ("Set-Cookie", "a=1")
    modified = ("Last-Modified", "Mon, 01 Dec 2025 00:00:00 GMT")
    async with site() as cdn:
        cdn.origin.on("/explicit", Reply(fields=[FRESH, cookie]))
        cdn.origin.on("/heuristic", Reply(fields=[cookie, modified]))
        for target, count in (("/explicit", 1), ("/heuristic", 2)):
            for _ in range(2):
                assert (await cdn.get(target)).field("set-cookie") == "a=1"
            assert cdn.origin.count(target) == count


@pytest.mark.parametrize("directive", ["private", "no-cache"])
async def test_fields_that_are_one_clients_go_to_that_client_alone(directive):
    gate = Gate()
    fields = [
        ("Cache-Control", f'max-age=300, {directive}="X-Mine, Set-Cookie"'),
        ("X-Mine", "1"),
        ("Set-Cookie", "a=1"),
        ETAG,
    ]
    async with site() as cdn:
        cdn.origin.on("/a", Reply(fields=fields, content=b"content", gate=gate))
        leader = await cdn.ask("/a")
        await gate.reached()
        follower = await cdn.ask("/a")
        await cdn.all_joined(2)
        gate.open()
        first, second = await leader.read_response(), await follower.read_response()
        third = await cdn.get("/a")
        assert (first.field("x-mine"), first.field("set-cookie")) == ("1", "a=1")
        for other in (second, third):
            assert other.content == b"content"
            assert (other.field("x-mine"), other.field("set-cookie")) == (None, None)
        assert second.field("age") == "0"  # it was not made for this request
        assert cdn.origin.count() == 1
        leader.close()
        follower.close()


async def test_hop_by_hop_fields_end_here():
    async with site() as cdn:
        fields = [("Connection", "X-Hop"), ("X-Hop", "1"), ("Keep-Alive", "5"), ("X-End", "1")]
        cdn.origin.on("/a", storable(b"content", *fields))
        for _ in range(2):
            answer = await cdn.get("/a", ("Connection", "X-Up"), ("X-Up", "1"), ("TE", "trailers"))
            names = {name.lower() for name, _ in answer.fields}
            assert not names & {"x-hop", "keep-alive", "connection"}
            assert answer.field("x-end") == "1"
        asked = {name.lower() for name, _ in cdn.origin.requests[0].fields}
        assert not asked & {"x-up", "te", "connection"}


@pytest.mark.parametrize("relayed", [True, False])
async def test_a_targeted_field_governs_and_is_relayed_or_not(relayed):
    async with site(cache={"relay_cdn_cache_control": relayed}) as cdn:
        targeted = ("CDN-Cache-Control", "max-age=600")
        cdn.origin.on("/a", Reply(fields=[("Cache-Control", "no-store"), targeted]))
        cdn.origin.on("/b", Reply(fields=[FRESH, ("CDN-Cache-Control", "no-store")]))
        answers = [await cdn.get("/a"), await cdn.get("/a"), await cdn.get("/b")]
        answers.append(await cdn.get("/b", method="POST", content=b""))
        assert answers[1].field("cache-status") == "edge-a; hit; ttl=600"
        assert answers[2].field("cache-status") == "edge-a; fwd=uri-miss; detail=no-store"
        for answer in answers:
            assert (answer.field("cdn-cache-control") is not None) == relayed


async def test_a_response_without_a_date_gets_one():
    async with site() as cdn:
        cdn.origin.on("/a", storable())
        cdn.origin.on("/b", Reply())
        for method, target in (("GET", "/a"), ("GET", "/b"), ("POST", "/b")):
            answer = await cdn.get(
                target, method=method, content=b"x" if method == "POST" else None
            )
            assert answer.field("date") == "Thu, 01 Jan 2026 00:00:00 GMT"


async def test_many_large_bodies_come_through_two_tiers_unharmed():
    async with tiers() as cdn:
        for n in range(3):
            cdn.origin.on(f"/{n}", storable(Pattern(3 * MIB + n, seed=n)))
        for n in (0, 1, 2, 0):
            answer = await cdn.get(f"/{n}")
            assert answer.content == Pattern(3 * MIB + n, seed=n).read(0, 3 * MIB + n)
        assert cdn.origin.count() == 3
        assert HOST[1] == cdn.origin.requests[0].field("host")
