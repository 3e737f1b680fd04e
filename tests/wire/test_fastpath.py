"""Hot answers: who keeps being one, what ends it, what they cost."""

import asyncio
import gc
import random
import tracemalloc
from urllib.parse import urlsplit

import pytest

from cdn.gateway.bars import BARRED
from cdn.gateway.exchange import Answer, Outcome
from cdn.gateway.hot import Repeatable, Repeats
from cdn.gateway.services import ServiceTable
from cdn.observe.hits import Said
from cdn.observe.log_lines import LineFormat
from cdn.semantics.message import Fields, Request, Response
from cdn.semantics.ranges import ByteRange
from cdn.storage.memory import MemoryStore
from cdn.wire import fastpath
from cdn.wire.field_block import MOST_RECENT, FieldMemory
from cdn.wire.hot_answer import LARGEST, MOST_SIZES, HotAnswer
from cdn.wire.hot_responses import MOST_ANSWERS, HotResponses
from tests.gateway.gateway_kit import HOST, site, storable
from tests.kit import Reply
from tests.storage.disk_kit import NOW, content_of, key_of, opened, put, response
from tests.wire.rim_kit import until

BLOCK = b"Host: example.com\r\nUser-Agent: a\r\n\r\n"


def fast_answers(at) -> int:
    return at.edge.node.server.fast_answers


async def hot(at, target="/a", *fields) -> None:
    """Until the answer is given again."""
    for _ in range(3):
        before = fast_answers(at)
        await at.get(target, *fields)
    assert fast_answers(at) == before + 1


async def next_is_not_fast(at, target="/a", *fields):
    before = fast_answers(at)
    got = await at.get(target, *fields)
    assert fast_answers(at) == before
    return got


# --- what ends it -------------------------------------------------------------------------------


async def test_a_purge_ends_it():
    async with site() as at:
        at.origin.on("/a", [storable(b"one"), storable(b"two")])
        await hot(at)
        assert await at.edge.node.purge(f"http://{HOST[1]}/a") == 1
        assert (await next_is_not_fast(at)).content == b"two"


async def test_an_unsafe_method_ends_it_and_what_its_answer_names():
    async with site() as at:
        at.origin.on("/a", storable(b"one"))
        at.origin.on("/b", storable(b"one"))
        await hot(at)
        await hot(at, "/b")
        at.origin.on("/a", Reply(fields=[("Location", f"http://{HOST[1]}/b")]))
        at.origin.on("/b", storable(b"two"))
        await at.get("/a", method="POST", content=b"x")
        assert (await next_is_not_fast(at, "/b")).content == b"two"


async def test_its_age_ends_it_to_the_second():
    async with site() as at:
        at.origin.on("/a", Reply(fields=[("Cache-Control", "max-age=10")], content=b"one"))
        await hot(at)
        at.clock.advance(9.75)
        before = fast_answers(at)
        got = await at.get()
        assert fast_answers(at) == before + 1
        assert (got.field("age"), got.field("cache-status")) == ("9", "edge-a; hit; ttl=0")
        at.clock.advance(0.25)
        assert "fwd=stale" in (await next_is_not_fast(at)).field("cache-status")


async def test_validation_ends_it():
    async with site() as at:
        news = storable(b"one", ("X-News", "2"), honours_conditions=True)
        at.origin.on("/a", [storable(b"one"), news])
        await hot(at)
        await at.get("/a", ("Cache-Control", "no-cache"))
        assert not len(at.edge.node.server._fast.hot)
        assert (await at.get()).field("x-news") == "2"


async def test_another_variant_ends_it():
    async with site() as at:
        vary = ("Vary", "Accept-Language")
        at.origin.on("/a", lambda asked: storable(asked.field("accept-language").encode(), vary))
        japanese, english = ("Accept-Language", "ja"), ("Accept-Language", "en")
        await hot(at, "/a", japanese)
        assert (await next_is_not_fast(at, "/a", english)).content == b"en"
        await hot(at, "/a", english)
        await hot(at, "/a", japanese)


async def test_a_reload_and_a_change_of_trust_end_it():
    async with site() as at:
        at.origin.on("/a", storable())
        kept = at.edge.node.server._fast.hot
        await hot(at)
        assert (await at.edge.node.reload()).ok
        assert not len(kept)
        told = ("Forwarded", "for=192.0.2.7")
        await hot(at, "/a", told)
        assert at.edge.log[-1].client == "127.0.0.1"
        at.edge.node.gateway.trusts = lambda exchange: exchange.client == "127.0.0.1"
        assert not len(kept)
        await hot(at, "/a", told)  # who is believed may speak for another
        assert at.edge.log[-1].client == "192.0.2.7"


async def test_what_is_stored_and_fresh_is_hot_from_its_first_hit():
    async with site() as at:
        at.origin.on("/a", storable(b"one"))
        at.origin.on("/b", storable(b"two", ("Vary", "Accept-Language")))
        for target, content in (("/a", b"one"), ("/b", b"two")):
            await at.get(target)
            before = fast_answers(at)
            assert (await at.get(target)).content == content
            assert fast_answers(at) == before + 1


async def test_a_group_that_is_invalidated_ends_it():
    async with site() as at:
        at.origin.on("/a", storable(b"one", ("Cache-Groups", '"g"')))
        await hot(at)
        at.origin.on("/b", Reply(fields=[("Cache-Group-Invalidation", '"g"')]))
        await at.get("/b", method="POST", content=b"")
        assert "hit" not in (await next_is_not_fast(at)).field("cache-status")


async def test_a_rule_for_queries_ends_it():
    async with site() as at:
        at.origin.on("/a", storable(b"one"))
        await hot(at, "/a?x=1")
        at.origin.on("/a", storable(b"two", ("No-Vary-Search", 'params=("x")')))
        await at.get("/a?x=2")
        assert (await next_is_not_fast(at, "/a?x=1")).content == b"two"


# --- who stays ----------------------------------------------------------------------------------


async def test_unsafe_requests_leave_hits_fast():
    """A hundred a second beside ten thousand others, by Zipf's law."""
    draw = random.Random(1)
    async with site() as at:
        weights = [1 / rank**0.9 for rank in range(1, 201)]
        for number in range(200):
            at.origin.on(f"/{number}", storable(b"content of %d" % number))
        async with await at.open() as client:

            async def ask(number: int, method="GET") -> None:
                content = b"" if method == "POST" else None
                await client.get(f"/{number}", [HOST], method=method, content=content)

            for number in range(200):
                await ask(number)
                await ask(number)
            before, asked = fast_answers(at), len(at.edge.log)
            for number in range(4000):
                if number % 100 == 0:
                    await ask(draw.randrange(200), "POST")
                await ask(draw.choices(range(200), weights)[0])
            hits = at.edge.outcomes()[asked:].count("hit")
            assert (fast_answers(at) - before) / hits >= 0.95


async def test_heads_of_one_size_are_told_apart():
    """The one met last is compared with, not taken for granted."""
    async with site() as at:
        vary = ("Vary", "X-Tint")
        at.origin.on("/a", lambda asked: storable(asked.field("x-tint").encode(), vary))
        async with await at.open() as client:
            for tint in ("red", "tan", "red", "red", "tan", "sky") * 4:
                got = await client.get("/a", [HOST, ("X-Tint", tint)])
                assert got.content == tint.encode()
        assert fast_answers(at) == 24 - 3
        assert len(at.edge.node.server._rim.memory.recent) == 1


def test_of_few_sizes_the_block_met_last_is_kept():
    memory = FieldMemory()
    for number in range(2 * MOST_RECENT):
        block = memory.block(b"Host: example.com\r\nX: %b\r\n\r\n" % (b"x" * number))
        memory.met(block)
        assert memory.recent[len(block.raw)] is block
        assert len(memory.recent) <= MOST_RECENT


async def test_a_flood_of_new_heads_leaves_what_is_hot():
    async with site(memory="16MiB") as at:
        at.origin.on("/a", storable())
        await hot(at)
        before = fast_answers(at)
        for number in range(300):
            await at.get("/a", ("Cookie", f"session={number}"), ("X-New", f"{number}"))
        assert fast_answers(at) == before + 300
        at.origin.on("/a", storable(b"", ("Vary", "X-New")))
        await at.edge.node.purge(f"http://{HOST[1]}/a")
        for number in range(300):
            await at.get("/a", ("X-New", f"{number}"))
            await at.get("/a", ("X-New", f"{number}"))
        fast = at.edge.node.server._fast.hot
        assert len(fast) == 1
        assert fast.size < 1 << 20


async def test_uses_are_told_in_time_though_not_at_once(monkeypatch):
    """What leaves for others is asked first: neither what is stored nor its answer goes unheard."""
    monkeypatch.setattr(fastpath, "TELL_EVERY", 3600.0)
    async with site(memory="8MiB") as at:
        for name in ("/hot", "/cold"):
            at.origin.on(name, storable(b"c" * 100_000))
            await at.get(name)
        async with await at.open() as client:
            for _ in range(20):
                await client.get("/hot", [HOST])
        rows = at.edge.node._requests._rows
        assert ("site", "hit", 2) not in rows
        for number in range(160):  # twice what it holds
            at.origin.on(f"/{number}", storable(b"c" * 100_000))
            await at.get(f"/{number}")
        assert at.edge.node._store.counters.evictions > 40
        assert at.stored("/hot")
        assert not at.stored("/cold")
        assert rows["site", "hit", 2].requests == 20  # for the policies and for metrics at once
        assert (
            at.edge.node._store._policy.entry(at.stored("/hot")[0].response.primary_key).uses > 20
        )


async def test_uses_that_were_asked_for_are_told_once(monkeypatch):
    monkeypatch.setattr(fastpath, "TELL_EVERY", 3600.0)
    async with site() as at:
        at.origin.on("/a", storable())
        await at.get()
        async with await at.open() as client:
            for _ in range(3):
                await client.get("/a", [HOST])
                at.edge.node._store.on_last_look(f"http://{HOST[1]}/a".encode())
            await client.get("/a", [HOST])
        at.edge.node.server.settle()
        assert at.edge.node._requests._rows["site", "hit", 2].requests == 4


async def test_uses_are_told_by_themselves(monkeypatch):
    monkeypatch.setattr(fastpath, "TELL_EVERY", 0.0)
    monkeypatch.setattr(fastpath, "BATCH", 2)
    async with site() as at:
        for number in range(5):
            at.origin.on(f"/{number}", storable())
            await at.get(f"/{number}")
        async with await at.open() as client:
            for number in (0, 1, 2, 3, 4, 4):
                await client.get(f"/{number}", [HOST])
        rows = at.edge.node._requests._rows
        await until(lambda: ("site", "hit", 2) in rows and rows["site", "hit", 2].requests == 6)
        assert rows["site", "hit", 2].content_bytes == 6 * len(b"content")


async def test_served_only_hot_it_survives_a_turn_of_the_log(tmp_path):
    """What is told of hot answers keeps their object in the store."""
    with opened(tmp_path) as store:
        repeats = repeats_of(store)
        for name in ("hot", "cold"):
            content = content_of(name, 1000)
            assert put(store, response(name, length=1000), content)
        await store.flush()
        (found,) = await store.lookup_soon(key_of("hot"))
        of = repeats.made_of(key_of("hot"), found, [found], 60.0, "site")
        for number in range(12_000):  # one and a half times what it holds
            assert put(store, response(f"{number}", length=2000), content_of(f"{number}", 2000))
            if number % 100 == 0:
                await store.flush()
                repeats.touch(of.stored, 100)
        assert len(await store.lookup_soon(key_of("hot"))) == 1
        assert not await store.lookup_soon(key_of("cold"))


# --- what they cost -----------------------------------------------------------------------------


class _Names:
    """A judge that knows no rules."""

    has_rules = False

    def names(self, key: bytes) -> tuple[bytes, ...]:
        return (key,)


def repeats_of(store, clock=lambda: NOW, alone=True) -> Repeats:
    return Repeats("edge-a", ServiceTable(()), store, _Names(), clock, alone=alone)


def kept(
    hot: HotResponses,
    store: MemoryStore,
    repeats: Repeats,
    name: str,
    size: int,
    asked: bytes = b"",
) -> None:
    """Has the answer to a GET of `name` kept, as the full path would have it."""
    head = response(name, length=size, slice_size=1 << 20)
    if not store.lookup(head.primary_key):
        writer = store.open_writer(head)
        writer.write(0, content_of(name, size))
        writer.commit(head)
    (found,) = store.lookup(head.primary_key)
    of = repeats.made_of(head.primary_key, found, [found], 60.0, "site")
    own = (("Age", "0"), ("Via", "1.1 edge-a"), ("Cache-Status", "edge-a; hit; ttl=60"))
    partial = asked.startswith(b"Range: ")
    answer = Answer(
        Response(206 if partial else 200, Fields((*head.fields.lines, *own))),
        found.ready([ByteRange(0, size)]),
        size,
        Outcome(),
        repeatable=of,
    )
    raw = b"HTTP/1.1 200 OK\r\n" + b"".join(
        f"{name}: {value}\r\n".encode() for name, value in answer.head.fields.lines
    )
    block = FieldMemory().block(asked + BLOCK)
    request = Request("GET", "http", "example.com", f"/{name}", block.fields)
    end = b"Content-Range: bytes 0-0/%d\r\nContent-Length: 1\r\n\r\n" % size
    if not partial:
        end = b"Content-Length: %d\r\n\r\n" % size
    hot.take(block, request, "192.0.2.1", answer, raw + end)


def made(capacity: int, most: int) -> tuple[MemoryStore, Repeats, HotResponses]:
    store = MemoryStore(capacity)
    repeats = repeats_of(store)
    return store, repeats, HotResponses(repeats, most, store, lambda: NOW)


def test_they_keep_to_their_bytes_and_are_part_of_the_store():
    store, repeats, hot = made(64 << 20, 1 << 20)
    for number in range(2000):
        kept(hot, store, repeats, f"{number}", 1000)
        assert hot.size <= 1 << 20
        assert store._reserved == hot.size
    assert 100 < len(hot) < 2000
    hot.forget_all()
    assert (len(hot), hot.size, store._reserved) == (0, 0, 0)


def test_a_hot_answer_costs_no_more_than_is_accounted_for():
    store, repeats, hot = made(256 << 20, 64 << 20)
    for number in range(2000):
        kept(hot, store, repeats, f"{number}", 100)
    hot.forget_all()
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for number in range(2000):
            kept(hot, store, repeats, f"{number}", 100)
        used = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert 0.4 * hot.size < used < 1.1 * hot.size


@pytest.mark.parametrize("letter", ["a", '"'])
@pytest.mark.parametrize("asked", [b"", b"Range: bytes=0-0\r\n"])
def test_long_targets_and_their_parts_are_accounted_for(letter, asked):
    store, repeats, hot = made(256 << 20, 64 << 20)

    def fill() -> None:
        lines = LineFormat("edge-a", "")
        for number in range(200):
            kept(hot, store, repeats, f"{number:05}" + letter * 6000, 1000, asked)
        for answer in named(hot):
            given = [answer]
            if asked:
                assert answer.ranged
                given += [answer.part((0, last), LARGEST)[2] for last in range(2 * MOST_SIZES)]
            for served in given:
                lines.hits([(served, Said("", ""), "192.0.2.1", NOW, 0.0, 60)])

    fill()
    hot.forget_all()
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        fill()
        used = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert 0.3 * hot.size < used < 1.1 * hot.size


def test_content_is_held_once():
    store, repeats, hot = made(64 << 20, 8 << 20)
    kept(hot, store, repeats, "a", 100_000)
    assert hot.size < 10_000
    (found,) = store.lookup(key_of("a"))
    answer = hot.find(FieldMemory().block(BLOCK), "", "GET", key_of("a"), NOW)
    assert answer.body is found.slices[0]


def test_what_leaves_the_store_is_hot_no_more():
    store, repeats, hot = made(2 << 20, 1 << 20)
    for number in range(200):
        kept(hot, store, repeats, f"{number}", 20_000)
    assert hot._keys.keys() <= store._variants.keys()


def named(hot: HotResponses) -> list[HotAnswer]:
    """All that are found by their names; each is one that its key has."""
    answers = [answer for key in hot._keys.values() for answer in key.answers.values()]
    assert all(hot._named[answer.name] is answer for answer in answers if answer.name)
    assert len(hot._named) == sum(bool(answer.name) for answer in answers)
    return list(hot._named.values())


def test_a_name_goes_with_its_answer():
    store, repeats, hot = made(64 << 20, 1 << 20)
    block = FieldMemory().block(BLOCK)
    line = hot.way(block, "http", "192.0.2.1").named + b"GET /1 HTTP/1.1"
    kept(hot, store, repeats, "1", 1000)
    assert [hot.named(line)] == named(hot)
    hot.forget(key_of("1"))
    assert named(hot) == []
    for number in range(2000):  # most are victims of others
        kept(hot, store, repeats, f"{number}", 1000)
    assert 100 < len(named(hot)) == len(hot) < 2000
    for shape in range(3 * MOST_ANSWERS):  # the first of them go
        kept(hot, store, repeats, "1999", 1000, b"If-None-Match: %d\r\n" % shape)
    assert len(named(hot)) >= MOST_ANSWERS
    hot.forget_all()
    assert named(hot) == []


async def test_what_vary_or_a_group_has_a_say_in_has_no_name():
    async with site() as at:
        at.origin.on("/a", storable(b"one", ("Vary", "Accept-Language")))
        at.origin.on("/b", storable(b"one", ("Cache-Groups", '"g"')))
        at.origin.on("/c", storable(b"one"))
        for target in ("/a", "/b", "/c"):
            await hot(at, target)
        (only,) = named(at.edge.node.server._fast.hot)
        assert only.of.key.endswith(b"/c")


async def test_lines_of_ones_own_are_no_part_of_what_is_looked_up():
    async with site() as at:
        at.origin.on("/a", storable(b"one"))
        await hot(at)
        memory = at.edge.node.server._rim.memory
        for number in range(3):
            own = (("Referer", f"http://a/{number}"), ("Cookie", f"n={number}"))
            before = fast_answers(at)
            await at.get("/a", *own)
            assert fast_answers(at) == before + 1
            assert at.edge.log[-1].referer == f"http://a/{number}"
            assert len(memory.blocks._young) == 1
        for _ in range(2):
            await at.get("/a", *own)  # they are repeated
        assert len(memory.blocks._young) == 2
        assert at.edge.log[-1].referer == "http://a/2"


@pytest.mark.parametrize("name", ["Cookie", "Referer"])
async def test_lines_of_ones_own_select_where_vary_says_so(name):
    def seen(asked) -> bytes:
        return (asked.field(name) or "").encode()

    async with site() as at:
        at.origin.on("/a", lambda asked: storable(seen(asked), ("Vary", name)))
        at.origin.on("/b", storable(b"one"))
        await hot(at, "/b")
        await hot(at, "/a", (name, ""))
        for number in range(3):
            assert (await at.get("/a", (name, f"n{number}"))).content == b"n%d" % number
        for _ in range(3):
            assert (await at.get("/a")).content == b""
            assert (await at.get("/a", (name, "n1"))).content == b"n1"


@pytest.mark.parametrize("size", [1000, 1030, 4000, 4200, 7000])
@pytest.mark.parametrize("name", ["Cookie", "Referer", "Forwarded"])
async def test_lines_of_ones_own_may_be_long(name, size):
    async with site() as at:
        at.origin.on("/a", storable(b"one"))
        at.origin.on("/b", storable(b"two", ("Vary", "Accept-Language")))
        await hot(at)
        own = (name, "for=" + "a" * size)
        async with await at.open() as client:
            for target, content in (("/a", b"one"), ("/b", b"two"), ("/a", b"one")):
                assert (await client.get(target, [HOST, own])).content == content
            got = await client.get("/a", [HOST, own], method="POST", content=b"x")
            assert got.status == 200
            got = await client.get("/a", [HOST, own, ("If-None-Match", '"v"')])
            assert got.content == b"one"


def test_what_is_being_removed_everywhere_is_not_repeated_until_it_is():
    now = [NOW]
    store = MemoryStore(1 << 20)
    repeats = repeats_of(store, lambda: now[0], alone=False)
    head = response("a", length=0)
    store.open_writer(head).commit(head)
    (found,) = store.lookup(key_of("a"))

    def repeatable() -> Repeatable | None:
        return repeats.made_of(key_of("a"), found, [found], 60.0, "site")

    assert repeatable() is not None
    repeats.bar(key_of("a"), "one")
    assert repeatable() is None
    repeats.lift(key_of("a"), "one")
    assert repeatable() is not None
    repeats.bar(key_of("a"), "two")
    assert repeatable() is None
    now[0] += BARRED
    assert repeatable() is not None


async def test_what_is_large_stays_in_the_store_and_is_sent_out_of_it(monkeypatch):
    content = random.Random(1).randbytes(LARGEST + 1)
    async with site() as at:
        at.origin.on("/a", storable(content, ("ETag", '"v1"')))
        await hot(at)
        monkeypatch.setattr(at.edge.node.server._rim, "handler", None)
        for _ in range(2):
            assert (await at.get()).content == content
        assert at.edge.log[-1].content_bytes == len(content)
        monkeypatch.undo()
        await hot(at, "/a", ("Range", "bytes=0-0"))
        for first, last in ((0, LARGEST), (7, 70_000), (LARGEST, LARGEST)):
            before = fast_answers(at)
            got = await at.get("/a", ("Range", f"bytes={first}-{last}"))
            assert got.content == content[first : last + 1]
            assert got.field("content-range") == f"bytes {first}-{last}/{len(content)}"
            assert fast_answers(at) == before + 1
        assert at.edge.node.server.hot_bytes < 10_000


async def test_more_than_is_sent_at_once_is_the_full_paths(monkeypatch):
    monkeypatch.setattr(fastpath, "MOST_SENT", LARGEST)
    content = random.Random(1).randbytes(LARGEST + 1)
    async with site() as at:
        at.origin.on("/a", storable(content, ("ETag", '"v1"')))
        for _ in range(3):
            assert (await next_is_not_fast(at)).content == content
        await hot(at, "/a", ("Range", f"bytes=1-{LARGEST}"))
        got = await next_is_not_fast(at, "/a", ("Range", "bytes=0-"))
        assert got.content == content


async def test_a_hot_answer_leaves_no_garbage():
    async with site() as at:
        at.origin.on("/a", storable())
        await hot(at)
        async with await at.open() as client:

            async def ask() -> None:
                await client.get("/a", [HOST])

            for _ in range(10):
                await ask()
            gc.collect()
            gc.disable()
            try:
                for _ in range(100):
                    await ask()
                ours = gc.collect()
            finally:
                gc.enable()
        assert ours < 100  # less than one of each: none is the node's own


async def test_a_part_is_logged_as_whole_only_if_all_of_it_has_left():
    content = random.Random(1).randbytes(1 << 20)
    asked = f"GET /a HTTP/1.1\r\nHost: {HOST[1]}\r\nRange: bytes=1-{LARGEST}\r\n\r\n".encode()
    async with site() as at:
        at.origin.on("/a", storable(content, ("ETag", '"v1"')))
        await hot(at, "/a", ("Range", "bytes=0-0"))
        before, server = len(at.edge.log), at.edge.node.server
        url = urlsplit(at.edge.url)
        _, writer = await asyncio.open_connection(url.hostname, url.port)
        writer.transport.pause_reading()
        writer.write(asked * 200)
        await until(lambda: any(one.room is not None for one in server._rim.connections))
        writer.transport.abort()
        await until(lambda: not any(one.room for one in server._rim.connections))
        records = at.edge.log[before:]
        assert [one.complete for one in records] == [True] * (len(records) - 1) + [False]
        assert {one.content_bytes for one in records[:-1]} == {LARGEST}
        assert 0 <= records[-1].content_bytes < LARGEST
        assert records[-1].outcome == "hit"
        assert "; hit; ttl=" in records[-1].cache_status
        assert server.counters.requests >= len(records)


async def stuck(at, asked: bytes) -> list:
    """The records of a client that asks all this, reads nothing, and goes away once it is waited
    for."""
    before, server = len(at.edge.log), at.edge.node.server
    url = urlsplit(at.edge.url)
    _, writer = await asyncio.open_connection(url.hostname, url.port)
    writer.transport.pause_reading()
    writer.write(asked)
    await until(lambda: any(one.room is not None for one in server._rim.connections))
    writer.transport.abort()
    await until(lambda: not server._rim.connections)
    assert server.counters.requests >= len(at.edge.log) - before
    return at.edge.log[before:]


@pytest.mark.parametrize("lines", ["", "Range: bytes=0-\r\n"])
async def test_a_small_one_too(lines):
    content = random.Random(1).randbytes(100_000)
    assert len(content) < LARGEST
    async with site() as at:
        at.origin.on("/a", storable(content))
        await hot(at)
        await hot(at, "/a", ("Range", "bytes=0-0"))
        fast = fast_answers(at)
        asked = f"GET /a HTTP/1.1\r\nHost: {HOST[1]}\r\n{lines}\r\n".encode()
        records = await stuck(at, asked * 1000)
        assert fast_answers(at) == fast + len(records) - 1
        assert [one.complete for one in records] == [True] * (len(records) - 1) + [False]
        assert {one.content_bytes for one in records[:-1]} == {len(content)}
        assert 0 <= records[-1].content_bytes < len(content)
        assert (records[-1].outcome, records[-1].status) == ("hit", 206 if lines else 200)


async def test_a_plain_miss_too():
    content = random.Random(1).randbytes(60_000)
    async with site() as at:
        most = 200
        for number in range(most):
            at.origin.on(f"/{number}", storable(content))
        line = "GET /%d HTTP/1.1\r\nHost: %s\r\n\r\n"
        asked = "".join(line % (number, HOST[1]) for number in range(most)).encode()
        records = await stuck(at, asked)
        assert 1 < len(records) < most
        assert [one.complete for one in records] == [True] * (len(records) - 1) + [False]
        assert {one.content_bytes for one in records[:-1]} == {len(content)}
        assert 0 <= records[-1].content_bytes < len(content)
        assert {(one.outcome, one.source, one.status) for one in records} == {
            ("uri-miss", records[0].source, 200)
        }
        assert records[0].source


async def test_what_leaves_late_but_whole_is_a_hit_like_others():
    content = random.Random(1).randbytes(4 << 20)
    async with site() as at:
        at.origin.on("/a", storable(content))
        await hot(at)
        server, times = at.edge.node.server, 3
        before, asked, fast = server.counters.requests, len(at.edge.log), fast_answers(at)
        async with await at.open() as client:
            for _ in range(times):
                await client.send_request("/a", [HOST])
                await until(lambda: any(one.turn is not None for one in server._rim.connections))
                assert (await client.read_response()).content == content
                await until(lambda: all(one.turn is None for one in server._rim.connections))
        records = at.edge.log[asked:]
        assert fast_answers(at) == fast + times
        assert server.counters.requests == before + times
        assert [(one.complete, one.outcome, one.content_bytes) for one in records] == [
            (True, "hit", len(content))
        ] * times
