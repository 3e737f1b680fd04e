"""A plain miss, asked and answered without a Task, is like any other: bytes, store, counts, log.

Strategy: two edges of one name, one with the short ways and one without, before one origin and by
one clock (`test_differential.pair`). Each scenario asks for URLs that nobody has asked for, after
one that leaves a connection to the origin behind. How many went the short way is counted, so that
none of this is true only because nothing went there.
"""

import asyncio
import contextlib
from itertools import chain

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cdn.gateway import plain
from cdn.gateway.plain import PlainMisses
from cdn.semantics.http_date import format_http_date
from cdn.upstream import connection
from tests.gateway.gateway_kit import settled, site, tiers
from tests.kit import Gate, NoResponse, RawClient, Reply
from tests.kit.clock import START
from tests.wire.rim_kit import until
from tests.wire.test_differential import Pair, pair

DATE = ("Date", format_http_date(START))
FRESH = ("Cache-Control", "max-age=300")
ETAG = ("ETag", '"v1"')
COUNTED = ("cdn_requests", "cdn_response", "cdn_fills", "cdn_upstream", "cdn_store_objects")


def dated(content=b"content", *fields, lines=(FRESH, ETAG), **more) -> Reply:
    return Reply(fields=[DATE, *lines, *fields], content=content, **more)


@pytest.fixture
def short(monkeypatch) -> list[bool]:
    """Of every answer that came for a plain miss, whether it was handed down at once."""
    ended: list[bool] = []
    finish = PlainMisses.finish

    def finishing(self, miss):
        done = finish(self, miss)
        ended.append(done is not None)
        return done

    monkeypatch.setattr(PlainMisses, "finish", finishing)
    return ended


def same(both: Pair) -> None:
    """What is stored and counted is alike."""
    objects, counts = [], []
    for node in both.nodes:
        held = chain.from_iterable(node.node._store._variants.values())
        # The fields of the one may have come before heads like it were known, those of the other
        # after.
        objects.append(
            {
                (one.response, tuple(one.slices), one.size - one.response.fields.weight)
                for one in held
            }
        )
        node.node.server.settle()
        text = node.node.declared.render().decode()
        counts.append([line for line in text.splitlines() if line.startswith(COUNTED)])
    assert objects[0] == objects[1]
    assert counts[0] == counts[1]


async def first(both: Pair) -> None:
    """Leaves a connection to the origin at each node."""
    both.origin.on("/first", dated())
    await both.get("/first")


ANSWERS = {
    "stored": dated(),
    "older": dated(b"x", ("Age", "7"), ("Last-Modified", format_http_date(START - 9e4))),
    "by another cache": dated(b"x", ("Via", "1.1 other"), ("Cache-Status", "other; hit; ttl=5")),
    "with ranges": dated(b"x", ("Accept-Ranges", "none")),
    "by heuristic": dated(lines=[("Last-Modified", format_http_date(START - 9e5))]),
    "by Expires": dated(lines=[("Expires", format_http_date(START + 60))]),
    "expired": dated(lines=[("Expires", "0"), ETAG]),
    "s-maxage": dated(lines=[("Cache-Control", "s-maxage=9, max-age=1")]),
    "stale": dated(b"x", ("Age", "301")),
    "of unknown age": dated(b"x", ("Age", "old")),
    "dated before": Reply(fields=[("Date", format_http_date(START - 100)), FRESH], content=b"x"),
    "not dated": Reply(fields=[FRESH, ETAG], content=b"x"),
    "badly dated": Reply(fields=[("Date", "today"), FRESH, ETAG], content=b"x"),
    "no-store": dated(lines=[("Cache-Control", "no-store")]),
    "private": dated(lines=[("Cache-Control", "private")]),
    "private field": dated(lines=[("Cache-Control", 'private="x-a", max-age=9'), ("X-A", "1")]),
    "no-cache": dated(lines=[("Cache-Control", "no-cache"), ETAG]),
    "must-understand": dated(lines=[("Cache-Control", "no-store, must-understand, max-age=9")]),
    "nothing said": dated(lines=[]),
    "cookie": dated(b"x", ("Set-Cookie", "a=b")),
    "varies": dated(b"x", ("Vary", "Accept-Encoding, X-None")),
    "varies on all": dated(b"x", ("Vary", "*")),
    "targeted": dated(b"x", ("CDN-Cache-Control", "max-age=3")),
    "surrogate": dated(b"x", ("Surrogate-Control", "max-age=3")),
    "groups": dated(b"x", ("Cache-Groups", '"g"')),
    "search": dated(b"x", ("No-Vary-Search", 'params=("a")')),
    "twice": dated(b"x", ("X-A", "1"), ("X-A", "2")),
    "of this hop": dated(b"x", ("Keep-Alive", "5"), ("Connection", "keep-alive, a"), ("A", "1")),
    "closing": dated(b"x", ("Connection", "close")),
    "odd lines": dated(b"x", ("X-Odd", "\xe9 \t "), ("ETAG", "a"), ("etag", "b")),
    "odd values": dated(lines=[("Cache-Control", "max-age=9 "), ("etag", "\xe9\t "), ("X", "")]),
    "empty": dated(b""),
    "long": dated(bytes(70_000)),
    "chunked": dated(framing="chunked"),
    "until closed": dated(framing="close"),
    "missing": dated(status=404),
    "failing": dated(status=503),
    "moved": dated(b"", ("Location", "/b"), status=301),
    "not modified": dated(b"", status=304),
    "part": dated(b"abc", ("Content-Range", "bytes 0-2/9"), status=206),
    "interim": dated(interim=[(103, [("Link", "</a.css>")])]),
}  # fmt: skip
AT_ONCE = {
    "stored", "older", "by another cache", "with ranges", "by heuristic", "by Expires", "s-maxage",
    "dated before", "varies", "odd values",
}  # fmt: skip


@pytest.mark.parametrize("name", ANSWERS)
async def test_whatever_comes(name, short):
    async with pair() as both:
        await first(both)
        both.origin.on("/a", ANSWERS[name])
        for fields in ((), (), ("X-None: 1",), ("Accept-Encoding: gzip",)):
            await both.get("/a", *fields)
            same(both)
        both.clock.advance(8)
        await both.get("/a")
        same(both)
        assert short[0] is (name in AT_ONCE)


@pytest.mark.parametrize(
    "fields",
    [
        ("Authorization: Basic x",),
        ("Cache-Control: no-cache",),
        ("Cache-Control: only-if-cached",),
        ('If-None-Match: "v1"',),
        ("Range: bytes=0-2",),
        ('Surrogate-Capability: a="Surrogate/1.0"',),
        ("CDN-Loop: other",),
        ("Connection: close",),
    ],
)
async def test_a_request_that_is_not_plain(fields, short):
    async with pair() as both:
        await first(both)
        both.origin.on("/a", dated())
        close = "Connection: close" in fields
        await both.get("/a", *fields)
        same(both)
        assert not short
        if not close:
            await both.get("/a")
            same(both)


async def test_what_the_origin_sees_is_the_same(short):
    async with pair() as both:
        await first(both)
        both.origin.on("/a", dated())
        asked = (
            "User-Agent: x",
            "X-Forwarded-For: 1.2.3.4",
            "Via: 1.0 a",
            "Cookie: a=b",
            "X: \xe9",
        )
        await both.get("/a?q=%20&r", *asked)
        one, other = both.origin.requests[-2:]
        assert (one.target, one.fields) == (other.target, other.fields)
        assert short == [True]


async def test_head_and_what_follows_in_one_read(short):
    async with pair() as both:
        await first(both)
        for name in "abcd":
            both.origin.on(f"/{name}", dated(name.encode()))
        await both.get("/a", method="HEAD")
        assert not short
        line = "GET /{} HTTP/1.1\r\nHost: site.example\r\n\r\n"
        await both.ask("".join(map(line.format, "bcd")).encode(), "GET", "GET", "GET")
        await both.get("/a")
        same(both)
        assert short[-1]


async def test_a_reload_is_obeyed_by_the_next_request(short):
    async with pair() as both:
        await first(both)
        for target in ("/a", "/b"):
            both.origin.on(target, dated())
        await both.get("/a")
        for node in both.nodes:
            await node.node.reload()
        await both.get("/b")
        same(both)
        assert short == [True, True]


STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(sorted(ANSWERS)), st.sampled_from(["", "?a=1", "?a=2"])),
        st.tuples(st.just("advance"), st.sampled_from([0.5, 5.0, 100.0])),
        st.tuples(st.just("purge"), st.sampled_from(sorted(ANSWERS))),
    ),
    min_size=4,
    max_size=30,
)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps=STEPS)
def test_random_traffic(steps):
    async def run() -> None:
        async with pair() as both:
            await first(both)
            for name, reply in ANSWERS.items():
                both.origin.on(f"/{name.replace(' ', '-')}", reply)
            for name, more in steps:
                if name == "advance":
                    both.clock.advance(more)
                elif name == "purge":
                    await both.purge(f"/{more.replace(' ', '-')}")
                elif name != "until closed":
                    await both.get(f"/{name.replace(' ', '-')}{more}")
                same(both)

    import uvloop

    uvloop.run(run())


# --- one edge: what happens while it is under way -------------------------------------------------


@contextlib.asynccontextmanager
async def warm(built=site, **keys):
    """A site of which a connection upstream is kept."""
    async with built(**keys) as cdn:
        cdn.origin.on("/first", dated())
        assert (await cdn.get("/first")).status == 200
        yield cdn


def under_way(cdn) -> int:
    return len(cdn.edge.node.gateway.filling.plain)


async def asked(cdn, target="/a", *fields) -> RawClient:
    """A client whose plain miss is on its way."""
    client = await cdn.ask(target, *fields)
    async with asyncio.timeout(5):
        while not under_way(cdn):
            await asyncio.sleep(0)
    return client


def fills(cdn) -> tuple[int, int, int]:
    counters = cdn.edge.node.gateway.filling.counters
    return counters.begun, counters.stored, counters.abandoned


@pytest.mark.parametrize("built", [site, tiers])
async def test_who_comes_meanwhile_joins(built, short):
    async with warm(built) as cdn:
        gate = Gate()
        cdn.origin.on("/a", dated(gate=gate))
        leader = await asked(cdn)
        others = [await cdn.ask("/a"), await cdn.ask("/a", ("User-Agent", "another"))]
        await cdn.all_joined(3)
        assert not under_way(cdn)
        gate.open()
        answers = [await one.read_response() for one in (leader, *others)]
        assert [one.content for one in answers] == [b"content"] * 3
        told = [one.field("cache-status").rpartition("edge-a; ")[2] for one in answers]
        assert told == ["fwd=uri-miss; stored", *["fwd=uri-miss; stored; collapsed"] * 2]
        for one in (leader, *others):
            one.close()
        assert cdn.stored_content() == b"content"
        assert fills(cdn) == (2, 2, 0)
        assert cdn.origin.count("/a") == 1


async def test_the_client_leaves_before_the_answer(short):
    async with warm() as cdn:
        gate = Gate()
        cdn.origin.on("/a", dated(gate=gate))
        client = await asked(cdn)
        await gate.reached()
        client.close()
        async with asyncio.timeout(5):
            await cdn.origin.requests[-1].over.wait()
        assert fills(cdn) == (2, 1, 1)
        assert not under_way(cdn)
        record = cdn.edge.log[-1]
        assert (record.target, record.status, record.complete) == ("/a", 499, False)
        gate.open()
        assert (await cdn.get("/a")).content == b"content"


async def test_the_first_of_two_leaves(short):
    async with warm() as cdn:
        gate = Gate()
        cdn.origin.on("/a", dated(gate=gate))
        leader = await asked(cdn)
        other = await cdn.ask("/a")
        await cdn.all_joined(2)
        leader.close()
        async with asyncio.timeout(5):
            while cdn.joined() > 1:
                await asyncio.sleep(0)
        gate.open()
        assert (await other.read_response()).content == b"content"
        other.close()
        assert cdn.origin.count("/a") == 1


async def test_both_leave_as_soon_as_they_are_two():
    async with warm() as cdn:
        gate = Gate()
        cdn.origin.on("/a", dated(gate=gate))
        leader, other = await asked(cdn), await cdn.open()
        miss = next(iter(cdn.edge.node.gateway.filling.plain.values()))
        connection = miss.asker
        miss.go_on()
        connection.abort()  # before the fill has begun to run
        leader.close()
        other.close()
        async with asyncio.timeout(5):
            await cdn.origin.requests[-1].over.wait()
        gate.open()


async def test_a_purge_on_the_way(short):
    async with warm() as cdn:
        gate = Gate()
        cdn.origin.on("/a", [dated(b"old", gate=gate), dated(b"new")])
        client = await asked(cdn)
        await gate.reached()
        assert await cdn.edge.node.purge("http://www.example.com/a") == 0
        assert not under_way(cdn)
        assert (await cdn.get("/a")).content == b"new"
        gate.open()
        assert (await client.read_response()).content == b"old"
        client.close()
        assert cdn.stored_content() == b"new"


@pytest.mark.parametrize("how", [Reply(disconnect=True), Reply(reset=True)], ids=["fin", "reset"])
async def test_a_kept_connection_that_ends_as_it_is_used(how, short):
    async with warm() as cdn:
        cdn.origin.on("/a", [how, dated()])
        answer = await cdn.get("/a")
        assert (answer.status, answer.content) == (200, b"content")
        assert cdn.origin.count("/a") == 2
        assert cdn.edge.node._upstreams.origins.requests == 2
        assert cdn.edge.node._upstreams.origins.retries == 0
        assert not cdn.edge.node._upstreams.origins.failures


async def test_an_origin_that_is_gone(short):
    async with warm() as cdn:
        cdn.origin.on("/a", Reply(disconnect=True))
        answer = await cdn.get("/a")
        assert answer.status == 502
        assert "connection_terminated" in answer.field("proxy-status")
        assert cdn.origin.count("/a") == 2  # on the kept connection, and on one of its own


@pytest.mark.parametrize("after", [0, 3])
async def test_content_in_several_reads(after, short):
    async with warm() as cdn:
        gate = Gate(after=after)
        cdn.origin.on("/a", dated(gate=gate))
        client = await asked(cdn)
        await gate.reached()
        head = await client.read_head()
        gate.open()
        answer = await head.read()
        assert (answer.content, answer.complete) == (b"content", True)
        client.close()
        await settled(cdn.edge)
        assert cdn.stored_content() == b"content"
        assert short == [False]


async def test_content_that_follows_soon_is_waited_for(short, monkeypatch):
    monkeypatch.setattr(connection, "HELD_FOR", 60.0)
    async with warm() as cdn:
        gate = Gate(after=3)
        cdn.origin.on("/a", dated(gate=gate))
        client = await asked(cdn)
        await gate.reached()
        (miss,) = cdn.edge.node.gateway.filling.plain.values()
        async with asyncio.timeout(5):
            while not miss.connection._held:
                await asyncio.sleep(0)
        assert not short
        gate.open()
        answer = await client.read_response()
        assert (answer.content, answer.complete) == (b"content", True)
        assert short == [True]
        client.close()


@pytest.mark.parametrize("how", [{}, {"reset": True}], ids=["fin", "reset"])
async def test_content_that_ends_while_it_is_waited_for(how, short, monkeypatch):
    monkeypatch.setattr(connection, "HELD_FOR", 60.0)
    async with warm() as cdn:
        cdn.origin.on("/a", dated(cut_after=3, **how))
        with contextlib.suppress(NoResponse):
            answer = await cdn.get("/a")
            assert not answer.complete
            assert answer.status == 200 or how
        await settled(cdn.edge)
        assert not cdn.stored()
        assert cdn.origin.count("/a") == 1 or how


async def test_more_content_than_was_said_while_it_is_waited_for(short, monkeypatch):
    monkeypatch.setattr(connection, "HELD_FOR", 60.0)
    async with warm() as cdn:
        cdn.origin.on("/a", dated(declared_length=5, gate=Gate(after=3)))
        client = await asked(cdn)
        await cdn.origin.seen(1, "/a")
        cdn.origin._scripts["/a"].gate.open()
        assert (await client.read_response()).content == b"conte"
        client.close()


async def test_content_that_is_cut_short(short):
    async with warm() as cdn:
        cdn.origin.on("/a", dated(cut_after=3))
        with contextlib.suppress(NoResponse):
            assert not (await cdn.get("/a")).complete
        await settled(cdn.edge)
        assert not cdn.stored()


async def test_interim_answers_come_before_and_after_somebody_joins():
    async with warm() as cdn:
        gate = Gate()
        links = [(103, [("Link", "</a>")])]
        cdn.origin.on("/a", dated(gate=gate, interim=links))
        client = await asked(cdn)
        await gate.reached()
        other = await cdn.ask("/a")
        await cdn.all_joined(2)
        gate.open()
        answers = [await one.read_response() for one in (client, other)]
        assert [len(answer.interim) for answer in answers] == [1, 0]
        for one in (client, other):
            one.close()


async def test_a_node_that_drains_meanwhile_ends_the_connection():
    async with warm() as cdn:
        gate = Gate()
        cdn.origin.on("/a", dated(gate=gate))
        client = await asked(cdn)
        await gate.reached()
        draining = asyncio.create_task(cdn.edge.node.server.drain(5))
        await asyncio.sleep(0)
        gate.open()
        answer = await client.read_response()
        assert (answer.content, answer.field("connection")) == (b"content", "close")
        await draining
        client.close()


async def test_what_a_store_cannot_take_is_shared(short):
    async with warm() as cdn:
        cdn.edge.node._store.largest_object = 20_000
        cdn.origin.on("/a", dated(bytes(20_000)))
        answer = await cdn.get("/a")
        assert "detail=too-large" in answer.field("cache-status")
        assert short == [False]


async def test_a_bug_is_told_and_is_nobody_elses(monkeypatch):
    def broken(**_):
        raise ZeroDivisionError("once")

    async with warm() as cdn:
        cdn.origin.on("/a", dated())
        with monkeypatch.context() as patched:
            patched.setattr(plain, "stored_plainly", broken)
            answer = await cdn.get("/a")
        assert answer.status == 500
        assert "ZeroDivisionError: once" in cdn.edge.events.getvalue()
        assert (await cdn.get("/a")).content == b"content"


async def test_a_bug_counts_once_where_its_client_takes_nothing_and_goes(monkeypatch):
    async with warm() as cdn:
        server, told = cdn.edge.node.server, cdn.edge.events

        def broken(**_):
            for connection in server._rim.connections:
                connection.pause_writing()
            raise ZeroDivisionError("once")

        monkeypatch.setattr(plain, "stored_plainly", broken)
        cdn.origin.on("/a", dated())
        requests, records = server.counters.requests, len(cdn.edge.log)
        client = await asked(cdn)
        await until(lambda: "ZeroDivisionError" in told.getvalue())
        client.close()
        await until(lambda: not server._rim.connections)
        assert server.counters.requests == requests + 1
        assert [record.status for record in cdn.edge.log[records:]] == [500]


async def test_a_shield_is_told_the_same(short):
    async with warm(tiers) as cdn:
        cdn.origin.on("/a", dated())
        answer = await cdn.get("/a")
        assert short == [False, True] or short == [True]
        assert "edge-a; fwd=uri-miss; stored" in answer.field("cache-status")
        assert answer.field("via").endswith(", 1.1 edge-a")
        assert cdn.shield.log[-1].client == "127.0.0.1"
        assert not any(cdn.edge.node._upstreams.in_flight.values())
