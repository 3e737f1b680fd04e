"""One fill, whatever the order in which clients join, read, stop, leave, and upstream gives.

Strategy: no sockets and no time. Upstream gives what the script says; a client reads a piece when
it is let; after each step the loop runs until nothing moves. In the end every client that stayed
has every byte or knows that it has not, and nothing is left behind.
"""

import asyncio
import contextlib
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdn.gateway import fill as fill_module
from cdn.gateway.exchange import ContentCutShort
from cdn.gateway.fill import Arrived, Failed, Fill, FillCounters
from cdn.semantics.message import Fields, Response
from cdn.semantics.stored_response import make_stored_response
from cdn.semantics.storing import NotStoredReason
from cdn.storage.memory import MemoryStore
from cdn.upstream.errors import BodyCutShort, ConnectRefused

KEY = b"http://www.example.com/a"
CONTENT = bytes(range(256)) * 40
SLICE = 512
SIZES = {"WINDOW": 2048, "READ_AHEAD": 256, "JOINABLE": 1024}
ROOMY, NARROW = 1 << 20, 8 * 4000


async def still():
    """Lets the loop run until nothing moves that is not waiting for the script."""
    for _ in range(12):
        await asyncio.sleep(0)


class Upstream:
    """An `UpstreamResponse` that gives what it is fed."""

    def __init__(self, length):
        self.head = Response(200, Fields([("Cache-Control", "max-age=60"), ("ETag", '"v1"')]))
        self.length = length
        self.source = "origin"
        self.fed = asyncio.Queue()
        self.ended = False

    def feed(self, item):
        self.fed.put_nowait(item)

    async def read(self):
        item = await self.fed.get()
        if isinstance(item, Exception):
            self.ended = True
            raise item
        self.ended = self.ended or not item
        return item

    def abort(self):
        self.ended = True


class Rest:
    """What one who goes alone gets."""

    def __init__(self, content):
        self.content = content

    async def read(self):
        piece, self.content = self.content[:300], self.content[300:]
        return piece

    def abort(self):
        self.content = b""


class Client:
    """Reads one piece for each permit, and checks it."""

    def __init__(self, fill):
        self.seat = fill.take_seat()
        self.permits = asyncio.Semaphore(0)
        self.hurries = False
        self.got = b""
        self.ended = ""
        self.task = asyncio.ensure_future(self.run())

    async def run(self):
        try:
            head = await self.seat.head()
            if isinstance(head, Failed):
                self.ended = "failed"
                return
            while True:
                if not self.hurries:
                    await self.permits.acquire()
                piece = await self.seat.read()
                if not piece:
                    self.ended = "whole"
                    return
                self.got += piece
                assert CONTENT.startswith(self.got)
        except ContentCutShort:
            self.ended = "cut"
        finally:
            self.seat.abort()

    def hurry(self):
        self.hurries = True
        self.permits.release()

    def leave(self):
        self.task.cancel()
        self.seat.abort()  # a task that never began has no end to do it in


class Errand:
    """What the fill asks of the gateway, out of a stage's hands."""

    def __init__(self, stage):
        self.counters = FillCounters()
        self.fetch = stage.fetch
        self.on_head = stage.judge
        self.landed = stage.land
        self.go_on_alone = stage.alone
        self.cut_short = lambda error: None


class Stage:
    """A fill with its store, and the flight that others would join."""

    def __init__(self, size, declared, capacity, reason=None):
        self.content = CONTENT[:size]
        self.store = MemoryStore(capacity)
        self.upstream = Upstream(size if declared else None)
        self.gate = asyncio.Event()
        self.refused = False
        self.reason = reason
        self.landed = Counter()
        self.sent = 0
        self.clients = []
        self.errand = Errand(self)
        self.fill = Fill(self.errand)
        self.join()
        self.task = asyncio.ensure_future(self.fill.run())
        self.fill.started_by(self.task)

    async def fetch(self):
        await self.gate.wait()
        if self.refused:
            raise ConnectRefused("http://origin", "cannot connect")
        return self.upstream, 0.0

    def judge(self, response, asked_at, disowned):
        stored = make_stored_response(
            primary_key=KEY, variant=(), response=response.head, fields=response.head.fields,
            request_time=asked_at, response_time=0.0, length=response.length, slice_size=SLICE,
        )  # fmt: skip
        if self.reason is not None:
            return Arrived(response.head, stored, self.reason, None)
        writer = self.store.open_writer(stored)
        reason = None if writer is not None else NotStoredReason.TOO_LARGE
        return Arrived(response.head, stored, reason, writer)

    def land(self, fill):
        self.landed[fill] += 1

    async def alone(self, fill, position, stop):
        await asyncio.sleep(0)
        return Rest(self.content[position:stop])

    def join(self):
        """What `Filling.join` does: who comes when all can still be had."""
        if self.fill.joinable and not self.landed:
            self.clients.append(Client(self.fill))

    def feed(self, size):
        piece = self.content[self.sent : self.sent + size]
        if piece:
            self.sent += len(piece)
            self.upstream.feed(piece)

    async def finish(self, cut=False):
        """Upstream ends, everyone reads all there is."""
        self.gate.set()
        if cut:
            self.upstream.feed(BodyCutShort("origin", "closed"))
        else:
            self.feed(len(self.content))
            self.upstream.feed(b"")
        for client in self.clients:
            client.hurry()
        async with asyncio.timeout(1):
            with contextlib.suppress(asyncio.CancelledError):
                await self.task
            await asyncio.gather(*(one.task for one in self.clients), return_exceptions=True)

    def check(self):
        """While it runs: nothing that a seat still wants has been let go, but the store has it."""
        content, stored = self.fill.content, self.fill.storing
        assert all(stored or content.base <= seat.position for seat in self.fill._seats)
        assert len(self.fill._seats) <= len(self.clients)

    def check_end(self):
        fill = self.fill
        assert not fill._seats
        assert not fill._news
        assert fill.complete or fill.error is not None
        assert self.landed
        assert self.store._reserved == 0
        assert (
            self.upstream.ended or not self.gate.is_set() or self.refused or self.task.cancelled()
        )
        found = self.store.lookup(KEY)
        if found:
            assert fill.complete
            assert not fill.disowned
            assert b"".join(found[0].slices) == self.content


@pytest.fixture(autouse=True, scope="module")
def small_sizes():
    with pytest.MonkeyPatch.context() as patch:
        for name, size in SIZES.items():
            patch.setattr(fill_module, name, size)
        patch.setattr(fill_module, "WORTH_FINISHING", 700)
        patch.setattr(fill_module, "PATIENCE", 0.0)
        yield


STEPS = st.one_of(
    st.tuples(st.just("feed"), st.integers(1, 900)),
    st.tuples(st.just("read"), st.integers(0, 5)),
    st.tuples(st.just("hurry"), st.integers(0, 5)),
    st.tuples(st.just("leave"), st.integers(0, 5)),
    st.tuples(st.sampled_from(["join", "open", "disown", "still"]), st.just(0)),
)


@settings(max_examples=150, deadline=None)
@given(
    size=st.integers(0, 9000),
    declared=st.booleans(),
    capacity=st.sampled_from([ROOMY, NARROW]),
    steps=st.lists(STEPS, max_size=25),
    cut=st.booleans(),
)
def test_every_reader_has_every_byte_or_knows_it(size, declared, capacity, steps, cut):
    async def play():
        stage = Stage(size, declared, capacity)
        left = set()
        for word, number in steps:
            who = stage.clients[number % len(stage.clients)]
            match word:
                case "feed":
                    stage.feed(number)
                case "read":
                    who.permits.release()
                case "hurry":
                    who.hurry()
                case "leave":
                    who.leave()
                    left.add(who)
                case "join":
                    stage.join()
                case "open":
                    stage.gate.set()
                case "disown":
                    if not stage.fill.complete:  # else the store itself is told
                        stage.fill.disown()
                case "still":
                    await still()
            stage.check()
        await stage.finish(cut)
        for client in set(stage.clients) - left:
            assert client.task.exception() is None
            if client.ended == "whole":
                assert client.got == stage.content
            else:
                # Only what has been cut; who had gone alone by then has all of it.
                assert client.ended == "cut"
                assert cut
        stage.check_end()

    asyncio.run(play())


@pytest.mark.parametrize("capacity", [ROOMY, NARROW])
@pytest.mark.parametrize("declared", [True, False])
async def test_a_reader_that_holds_the_others_up_is_dropped_and_still_gets_all(capacity, declared):
    stage = Stage(9000, declared, capacity)
    stage.join()
    slow, fast = stage.clients
    stage.gate.set()
    slow.permits.release()
    fast.hurry()
    for _ in range(90):
        stage.feed(100)
    await still()
    async with asyncio.timeout(5):
        while len(fast.got) < 9000:
            await asyncio.sleep(0)
    assert slow.seat.dropped == (capacity == NARROW)
    await stage.finish()
    assert slow.got == fast.got == stage.content
    assert bool(stage.store.lookup(KEY)) == (capacity == ROOMY)
    stage.check_end()


async def test_a_lone_reader_is_waited_for_as_long_as_it_takes():
    stage = Stage(9000, True, NARROW)
    stage.gate.set()
    for _ in range(90):
        stage.feed(100)
    await still()
    here = stage.fill.content.end
    assert here <= SIZES["READ_AHEAD"] + 100
    stage.clients[0].permits.release()
    await still()
    assert here < stage.fill.content.end <= here + 200
    await stage.finish()
    assert stage.clients[0].got == stage.content


@pytest.mark.parametrize(
    ("missing", "declared", "reason", "finished"),
    [
        (699, True, None, True),
        (700, True, None, False),
        (699, False, None, False),
        (699, True, NotStoredReason.PRIVATE, False),
    ],
)
async def test_what_nobody_waits_for_is_finished_only_for_the_store(
    missing, declared, reason, finished
):
    stage = Stage(3000, declared, ROOMY, reason)
    stage.gate.set()
    stage.clients[0].hurry()
    stage.feed(3000 - missing)
    await still()
    stage.clients[0].leave()
    await still()
    assert stage.task.done() != finished
    await stage.finish()
    assert bool(stage.store.lookup(KEY)) == finished
    stage.check_end()


async def test_one_who_leaves_before_anything_has_begun_leaves_nothing():
    stage = Stage(10, True, ROOMY)
    stage.clients[0].leave()
    with pytest.raises(asyncio.CancelledError):
        await stage.task
    assert stage.landed
    assert stage.errand.counters.abandoned == 1


async def test_a_refusal_is_everyones_answer():
    stage = Stage(10, True, ROOMY)
    stage.join()
    stage.refused = True
    await stage.finish()
    assert [client.ended for client in stage.clients] == ["failed", "failed"]
    counters = stage.errand.counters
    assert (counters.begun, counters.cut_short, counters.abandoned) == (1, 0, 0)
    stage.check_end()


async def test_content_that_is_not_as_long_as_was_said_is_cut_short():
    stage = Stage(1000, True, ROOMY)
    stage.feed(999)
    stage.upstream.feed(b"")
    stage.sent = 1000
    await stage.finish()
    assert stage.clients[0].ended == "cut"
    assert stage.fill.error == "origin: 999 of 1000 bytes came"
    stage.check_end()


async def test_the_store_and_its_readers_share_one_copy():
    stage = Stage(1024, True, ROOMY)
    stage.gate.set()
    for _ in range(8):
        stage.feed(128)
    await still()
    stage.clients[0].leave()
    late = stage.fill.take_seat()
    await late.head()
    assert await late.read() is stage.fill.content.at(0)
    stage.upstream.feed(b"")
    await stage.task
    (found,) = stage.store.lookup(KEY)
    assert found.slices[0] is stage.fill.content.at(0)
    late.leave()


async def test_what_only_its_head_says_to_be_whole_is_read_to_its_end():
    """A chunked slice: all that Content-Range promised has come, and then comes more."""
    stage = Stage(20, False, ROOMY)
    stage.errand.on_head = lambda *told: replace(stage.judge(*told), stop=10)
    stage.gate.set()
    stage.feed(10)
    await still()
    assert not stage.fill.complete
    stage.feed(10)
    await stage.task
    assert stage.fill.error is not None
    assert not stage.fill.complete
    assert not stage.store.lookup(KEY)
    stage.clients[0].leave()


async def test_a_bug_in_judging_is_a_failure_for_those_who_wait():
    stage = Stage(10, True, ROOMY)

    def broken(response, asked_at, disowned):
        raise KeyError("bug")

    stage.errand.on_head = broken
    stage.gate.set()
    with pytest.raises(KeyError):
        await stage.task
    await still()
    assert stage.clients[0].ended == "failed"
    assert stage.upstream.ended
