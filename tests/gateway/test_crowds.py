"""Collapsed forwarding: a crowd at one cold URL, and what it may and may not share."""

import asyncio

import pytest

from tests.gateway.gateway_kit import ETAG, FRESH, HOST, MIB, site, storable, tiers
from tests.kit import Gate, Pattern, Reply, get
from tests.kit.cdn_nodes import local_edge

PRIVATE = ("Cache-Control", "private")


async def crowd(cdn, n, *fields, target="/a"):
    """`n` clients that have asked and hold a seat each."""
    clients = [await cdn.ask(target, *fields) for _ in range(n)]
    await cdn.all_joined(n)
    return clients


def close(clients):
    for client in clients:
        client.close()


async def read_until(incoming, size):
    """The first `size` bytes or a few more."""
    pieces, got = aiter(incoming), b""
    while len(got) < size:
        got += await anext(pieces)
    return pieces, got


@pytest.mark.parametrize("memory", [2**30, 16 * MIB], ids=["storable", "too large"])
@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_one_request_and_everyone_streams_from_the_first_byte(memory, framing):
    gate, content = Gate(after=200_000), Pattern(3 * MIB)
    async with site(memory=memory) as cdn:
        cdn.origin.on("/a", storable(content, gate=gate, framing=framing))
        clients = [await cdn.ask() for _ in range(20)]
        answers = [await client.read_head() for client in clients]
        started = [await read_until(answer, 200_000) for answer in answers]
        assert all(content.verify(0, got) for _, got in started)
        assert not cdn.origin.requests[0].finished  # and all have all of it that there is
        late = await cdn.ask()
        _, begun = await read_until(await late.read_head(), 200_000)
        assert len(begun) == 200_000
        late.close()
        gate.open()

        async def rest(pieces, got):
            return got + b"".join([piece async for piece in pieces])

        whole = await asyncio.gather(*(rest(*one) for one in started))
        assert all(one == content.read(0, 3 * MIB) for one in whole)
        assert all(answer.complete for answer in answers)
        assert cdn.origin.count() == 1
        close(clients)
        statuses = sorted(answer.field("cache-status") for answer in answers)
        detail = "; detail=too-large" if memory < 2**30 and framing == "length" else ""
        stored = "" if detail else "; stored"
        assert statuses.count("edge-a; fwd=uri-miss" + stored + detail) == 1
        # Who came when the head had come already found some of it stored.
        reasons = {"uri-miss", "partial"} if framing == "length" and stored else {"uri-miss"}
        others = {f"edge-a; fwd={word}{stored}; collapsed{detail}" for word in reasons}
        assert sum(status in others for status in statuses) == 19


async def test_two_edges_cost_the_origin_one_request():
    gate = Gate()
    async with tiers() as cdn:
        cdn.origin.on("/a", storable(b"content", gate=gate))
        shields = {"shield-yokohama": cdn.shield.url}
        async with local_edge(shields=shields, name="edge-b", clock=cdn.clock) as other:
            asked = [
                asyncio.ensure_future(get(f"{url}/a", [HOST]))
                for url in (cdn.edge.url, other.url)
                for _ in range(10)
            ]
            await gate.reached()
            gate.open()
            answers = await asyncio.gather(*asked)
        assert {answer.content for answer in answers} == {b"content"}
        assert cdn.origin.count() == 1


async def test_a_follower_that_wants_another_variant_goes_again():
    gate = Gate()

    def script(request):
        language = request.field("accept-language")
        fields = ("Vary", "Accept-Language")
        return storable(language.encode(), fields, gate=gate if language == "ja" else None)

    async with site() as cdn:
        cdn.origin.on("/a", script)
        languages = ["ja"] * 4 + ["en"] * 4
        clients = [await cdn.ask("/a", ("Accept-Language", language)) for language in languages]
        await cdn.all_joined(8)
        gate.open()
        answers = [await client.read_response() for client in clients]
        assert [answer.content.decode() for answer in answers] == languages
        assert cdn.origin.count() == 2
        close(clients)


async def test_an_uncacheable_answer_releases_the_followers_at_once():
    middle = Gate(after=10)
    async with site() as cdn:
        cdn.origin.on("/a", Reply(fields=[PRIVATE], content=b"x" * 20, gate=middle))
        clients = [await cdn.ask() for _ in range(5)]
        await cdn.origin.seen(5)  # though the first answer has not ended
        middle.open()
        answers = [await client.read_response() for client in clients]
        assert all(answer.content == b"x" * 20 for answer in answers)
        assert [answer.field("cache-status") for answer in answers] == [
            "edge-a; fwd=uri-miss; detail=private"
        ] * 5
        close(clients)


async def queues(cdn, target="/a", *fields):
    """Whether a second request waits for a first that is on its way: it is not seen upstream."""
    gate = Gate()
    cdn.origin.on(target, Reply(fields=[PRIVATE], content=b"x", gate=gate))
    before = cdn.origin.count()
    clients = [await cdn.ask(target, *fields) for _ in range(2)]
    await cdn.all_joined(2)
    await gate.reached(1)
    filling = cdn.edge.node.gateway.filling
    waits = len(filling._alone) == 0
    if not waits:
        await gate.reached(2)
    assert cdn.origin.count() - before == (1 if waits else 2)
    gate.open()
    for client in clients:
        assert (await client.read_response()).content == b"x"
    close(clients)
    return waits


async def test_hit_for_miss_lasts_as_long_as_the_policy_says():
    async with site() as cdn:
        cdn.origin.on("/a", Reply(fields=[PRIVATE], content=b"x"))
        await cdn.get("/a")
        cdn.clock.advance(29)
        assert not await queues(cdn)  # which leaves the mark anew
        cdn.clock.advance(31)
        assert await queues(cdn)


async def test_a_storable_answer_ends_hit_for_miss():
    async with site() as cdn:
        cdn.origin.on("/a", [Reply(fields=[PRIVATE]), storable(b"content")])
        await cdn.get("/a")
        await cdn.get("/a")
        assert cdn.stored_content() == b"content"
        cdn.clock.advance(301)
        assert await queues(cdn)


@pytest.mark.parametrize(
    ("reply", "fields"),
    [
        (Reply(fields=[FRESH], content=b"x"), [("Authorization", "Basic eA==")]),
        (Reply(fields=[FRESH], content=b"x"), [("Cache-Control", "no-store")]),
        (Reply(500, [("Cache-Control", "no-store")], content=b"x"), []),
        (Reply(503, content=b"x"), []),
        (Reply(fields=[FRESH], content=b"x", honours_ranges=True), [("Range", "bytes=9000000-")]),
        (Reply(206, [FRESH, ("Content-Range", "bytes 0-0/9")], content=b"x"), []),
        (Reply(400, content=b"your head is too large"), [("X-Big", "a" * 9000)]),
        (Reply(403, [PRIVATE], content=b"not you"), []),
        (Reply(429, content=b"not so fast"), []),
    ],
    ids=["authorization", "no-store", "500", "503", "range", "206", "400", "403", "429"],
)
async def test_what_lies_in_the_request_leaves_no_mark(reply, fields):
    async with site() as cdn:
        cdn.origin.on("/a", reply)
        await cdn.get("/a", *fields)
        assert await queues(cdn)


async def test_a_client_that_provokes_an_error_drops_nothing_that_is_stored():
    """RFC 9111 §4.3.3 has a full answer replace what is stored, not one client's 400."""
    async with site() as cdn:
        cdn.origin.on("/a", [storable(b"content"), Reply(400), Reply(disconnect=True)])
        await cdn.get("/a")
        cdn.clock.advance(301)
        assert (await cdn.get("/a", ("X-Big", "a" * 9000))).status == 400
        stale = await cdn.get("/a")
        assert (stale.status, stale.content) == (200, b"content")


async def test_who_forbids_to_store_leads_nobody():
    gate = Gate()
    async with site() as cdn:
        cdn.origin.on("/a", [storable(b"mine", gate=gate), storable(b"theirs")])
        first = await cdn.ask("/a", ("Cache-Control", "no-store"))
        await gate.reached()
        assert (await cdn.get("/a")).content == b"theirs"
        gate.open()
        assert (await first.read_response()).content == b"mine"
        assert cdn.stored_content() == b"theirs"
        first.close()


async def test_answers_to_authorization_are_nobody_elses():
    gate = Gate()

    def script(request):
        return storable((request.field("authorization") or "nobody").encode(), gate=gate)

    async with site() as cdn:
        cdn.origin.on("/a", script)
        who = ["Basic alice", "Basic bob", "Basic alice"]
        clients = [await cdn.ask("/a", ("Authorization", name)) for name in who]
        await cdn.all_joined(3)
        gate.open()
        answers = [await client.read_response() for client in clients]
        assert [answer.content.decode() for answer in answers] == who
        assert cdn.stored() == ()
        assert (await cdn.get("/a")).content == b"nobody"
        # RFC 9111 §3.5 keeps answers to Authorization from others, not others' answers from it.
        assert (await cdn.get("/a", ("Authorization", who[0]))).content == b"nobody"
        close(clients)


@pytest.mark.parametrize("directive", ["public, max-age=300", "s-maxage=300", "must-revalidate"])
async def test_what_is_marked_for_all_is_shared_in_spite_of_authorization(directive):
    gate = Gate()
    async with site() as cdn:
        reply = Reply(fields=[("Cache-Control", f"max-age=300, {directive}"), ETAG], gate=gate)
        cdn.origin.on("/a", reply)
        clients = await crowd(cdn, 3, ("Authorization", "Basic alice"))
        gate.open()
        for client in clients:
            assert (await client.read_response()).status == 200
        assert cdn.origin.count() == 1
        close(clients)


async def test_cookies_neither_meet_nor_are_kept():
    async with site() as cdn:
        cdn.origin.on("/a", lambda request: Reply(content=(request.field("cookie") or "").encode()))
        for cookie in ("a=1", "b=2"):
            assert (await cdn.get("/a", ("Cookie", cookie))).content == cookie.encode()
        assert (await cdn.get("/a")).content == b""


async def test_a_refusal_is_shared_by_all_who_wait():
    gate = Gate()
    async with site() as cdn:
        cdn.origin.on("/a", Reply(gate=gate, disconnect=True))
        clients = await crowd(cdn, 5)
        gate.open()
        answers = [await client.read_response() for client in clients]
        assert [answer.status for answer in answers] == [502] * 5
        assert all("connection_terminated" in one.field("proxy-status") for one in answers)
        assert cdn.origin.count() == 1
        close(clients)


async def test_the_stale_response_is_shared_instead_where_it_may_be():
    gate = Gate()
    async with site() as cdn:
        cdn.origin.on("/a", [storable(b"old"), Reply(gate=gate, disconnect=True)])
        await cdn.get("/a")
        cdn.clock.advance(400)
        clients = await crowd(cdn, 5)
        gate.open()
        for client in clients:
            answer = await client.read_response()
            assert (answer.status, answer.content) == (200, b"old")
        # The third went on a new connection: the kept one may have been closed while it was idle.
        assert cdn.origin.count() == 3
        close(clients)
