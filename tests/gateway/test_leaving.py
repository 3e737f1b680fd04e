"""Clients that go away, at every stage: the others notice nothing, and nothing is left behind."""

import asyncio

import pytest

from cdn.gateway import fill as fill_module
from cdn.gateway.exchange import Exchange
from cdn.semantics.message import Fields, Request
from cdn.semantics.slices import PresentSlices
from tests.gateway.gateway_kit import ETAG, FRESH, MIB, site, storable
from tests.kit import Gate, Pattern, Reply

PRIVATE = [("Cache-Control", "private")]


async def given_up(cdn, turn=0):
    """Until the origin has seen that its answer is not wanted any more."""
    async with asyncio.timeout(5):
        await cdn.origin.requests[turn].over.wait()
    assert not cdn.origin.requests[turn].finished


async def left(cdn, n):
    """Until only `n` seats are held."""
    async with asyncio.timeout(5):
        while cdn.joined() > n:
            await asyncio.sleep(0)


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
async def test_alone_before_the_head(method):
    async with site() as cdn:
        gate = Gate()
        cdn.origin.on("/a", storable(gate=gate))
        client = await cdn.ask("/a", method=method, content=b"x" if method == "POST" else None)
        await gate.reached()
        client.close()
        await given_up(cdn)


@pytest.mark.parametrize("who", [0, 1])
async def test_one_of_several_before_the_head(who):
    async with site() as cdn:
        gate = Gate()
        cdn.origin.on("/a", storable(b"content", gate=gate))
        clients = [await cdn.ask("/a"), await cdn.ask("/a"), await cdn.ask("/a")]
        await cdn.all_joined(3)
        clients.pop(who).close()
        await left(cdn, 2)
        gate.open()
        for client in clients:
            assert (await client.read_response()).content == b"content"
            client.close()
        assert cdn.origin.count() == 1
        assert cdn.stored_content() == b"content"


@pytest.mark.parametrize("memory", [2**30, 16 * MIB], ids=["storable", "too large"])
@pytest.mark.parametrize("who", [0, 1])
async def test_one_of_several_in_the_content(memory, who):
    async with site(memory=memory) as cdn:
        content, gate = Pattern(3 * MIB), Gate(after=100_000)
        cdn.origin.on("/a", storable(content, gate=gate))
        clients = [await cdn.ask("/a"), await cdn.ask("/a")]
        answers = [await client.read_head() for client in clients]
        clients.pop(who).close()
        answers.pop(who)
        await left(cdn, 1)
        gate.open()
        assert (await answers[0].read()).content == content.read(0, 3 * MIB)
        assert cdn.origin.count() == 1
        clients[0].close()


@pytest.mark.parametrize(
    ("fields", "missing", "finished"),
    [
        ([FRESH, ETAG], MIB - 1, True),
        ([FRESH, ETAG], MIB, False),
        (PRIVATE, MIB - 1, False),
    ],
    ids=["little is missing", "much is missing", "not to be stored"],
)
async def test_the_last_one_in_the_content(fields, missing, finished):
    async with site() as cdn:
        content, gate = Pattern(2 * MIB), Gate(after=2 * MIB - missing)
        cdn.origin.on("/a", Reply(fields=fields, content=content, gate=gate))
        client = await cdn.ask("/a")
        answer, got = await client.read_head(), 0
        async for piece in answer:
            got += len(piece)
            if got == 2 * MIB - missing:
                break
        client.close()
        if finished:
            await left(cdn, 0)
            gate.open()
            assert (await cdn.get("/a")).content == content.read(0, 2 * MIB)
            assert cdn.origin.count() == 1
        else:
            await given_up(cdn)
            kept = [stored.response.present for stored in cdn.stored()]
            assert kept == ([PresentSlices(1)] if fields is not PRIVATE else [])
        abandoned = cdn.edge.node.gateway.filling.counters.abandoned
        assert abandoned == (0 if finished else 1)


async def test_while_going_on_alone(monkeypatch):
    monkeypatch.setattr(fill_module, "PATIENCE", 0.02)
    async with site(memory=16 * MIB) as cdn:
        content, gate = Pattern(24 * MIB), Gate()
        first = Reply(fields=[FRESH, ETAG], content=content)
        cdn.origin.on("/a", [first, Reply(fields=[FRESH, ETAG], content=content, gate=gate)])
        slow, fast = await cdn.ask("/a"), await cdn.ask("/a")
        await cdn.all_joined(2)
        answer = await slow.read_head()
        assert (await fast.read_response()).complete

        async def drain():
            async for _ in answer:
                pass

        draining = asyncio.ensure_future(drain())
        await gate.reached()
        slow.close()
        await given_up(cdn, turn=1)
        await draining
        fast.close()


async def test_in_the_middle_of_sending_its_own_content():
    async with site() as cdn:
        cdn.origin.on("/a", Reply())
        async with await cdn.open() as client:
            await client.send(b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\n12345")
            await cdn.origin.seen(1)
        await given_up(cdn)


async def test_a_revalidation_goes_on_without_the_one_who_began_it():
    swr = ("Cache-Control", "max-age=300, stale-while-revalidate=60")
    async with site() as cdn:
        gate = Gate()
        new = Reply(fields=[swr, ("ETag", '"v2"')], content=b"new", gate=gate)
        cdn.origin.on("/a", [Reply(fields=[swr, ETAG], content=b"old"), new])
        await cdn.get("/a")
        cdn.clock.advance(330)
        async with await cdn.ask("/a") as client:
            assert (await client.read_response()).content == b"old"
        await gate.reached()
        gate.open()
        tasks = cdn.edge.node.background._tasks
        async with asyncio.timeout(5):
            while tasks:
                await asyncio.sleep(0)
        assert (await cdn.get("/a")).content == b"new"


async def test_a_node_that_stops_ends_what_is_under_way():
    async with site() as cdn:
        gate = Gate()
        cdn.origin.on("/a", storable(gate=gate))
        client = await cdn.ask("/a")
        await gate.reached()
        await cdn.edge.node.stop(limit=0.01)
        await given_up(cdn)
        assert await client.read_to_close() == b""
        client.close()


@pytest.mark.parametrize("reply", ["storable", "private", "304", "refused", "5xx"])
@pytest.mark.parametrize("others", [0, 1])
async def test_at_every_single_step(reply, others):
    """A request's task is cancelled after 1, 2, 3 … turns of the loop, through to its end."""
    again = {
        "storable": storable(b"x" * 100, ("Vary", "Accept")),
        "private": Reply(fields=PRIVATE, content=b"x" * 100),
        "304": storable(b"old", honours_conditions=True),
        "refused": Reply(disconnect=True),
        "5xx": Reply(503, [("Cache-Control", "max-age=9")], content=b"sorry"),
    }[reply]
    async with site() as cdn:
        gateway = cdn.edge.node.gateway
        cdn.origin.on("/a", [storable(b"old"), again])
        await cdn.get("/a")
        turns, ended = 0, False
        while not ended:
            cdn.clock.advance(400)
            turns += 1
            tasks = [asyncio.ensure_future(_whole(gateway, cdn)) for _ in range(1 + others)]
            for _ in range(turns):
                await asyncio.sleep(0)
            ended = tasks[0].done() or turns > 60
            tasks[0].cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            assert not any(task.exception() for task in tasks if not task.cancelled())
            assert all(task.result() for task in tasks[1:])
        assert turns > 2


async def _whole(gateway, cdn):
    """What the rim does with one request, without its sockets: the status of a whole answer."""
    host = ("Host", "www.example.com")
    request = Request("GET", "http", "www.example.com", "/a", Fields([host]))
    answer = await gateway.answer(Exchange(request, "127.0.0.1", cdn.clock.now()))
    if hasattr(answer.content, "read"):
        try:
            while await answer.content.read():
                pass
        finally:
            answer.content.abort()
    return answer.head.status
