"""Invalidations that other workers take part in: nothing outdated is repeated, before and after.

Strategy: one worker that others are played to. What the owner's fill and its removal do to the
store that they share, the test does. Whether an answer came from the fast path, which is to say
whether it was or may be repeated, is what the node's own counter says.
"""

import asyncio

import pytest

from cdn.gateway.bars import BARRED
from tests.gateway.gateway_kit import Site, site, storable
from tests.kit import Reply

KEY = b"http://www.example.com/a"


class Others:
    """The other workers: `asked` when they are told to forget, which they do once `done` is set;
    `answer` is whether all of them have."""

    def __init__(self) -> None:
        self.asked, self.done, self.answer = asyncio.Event(), asyncio.Event(), True
        self.begun: list[str] = []
        self.lifted: list[str] = []

    def mine(self, _: bytes) -> bool:
        return True

    def invalidation(self) -> str:
        self.begun.append(f"here-{len(self.begun)}")
        return self.begun[-1]

    async def forget(self, invalidation, keys, tags) -> bool:
        assert set(keys) == {KEY}
        self.asked.set()
        await self.done.wait()
        return self.answer

    async def lift(self, invalidation, keys) -> None:
        assert set(keys) == {KEY}
        self.lifted.append(invalidation)


def beside_others(at: Site) -> Others:
    """Makes the edge one of several workers."""
    others, gateway = Others(), at.edge.node.gateway
    gateway._passing._workers = others
    gateway.repeats._alone = False
    at.origin.on("/a", lambda r: Reply(200) if r.method == "POST" else storable(b"old"))
    return others


async def fast(at: Site) -> bool:
    """Whether the fast path answers the next request."""
    before = at.edge.node.server.fast_answers
    await at.get()
    return at.edge.node.server.fast_answers > before


def owner_commits(at: Site, response, content: bytes) -> None:
    writer = at.edge.node._store.open_writer(response)
    writer.write(0, content)
    writer.commit(response)


def owner_removes(at: Site) -> None:
    at.edge.node._store.remove(KEY)


async def stored_and_hot(at: Site):
    await at.get()
    assert await fast(at)
    (found,) = at.stored()
    return found.response


async def test_what_the_owner_commits_before_it_forgets_is_answered_but_not_repeated():
    async with site() as at:
        others = beside_others(at)
        old = await stored_and_hot(at)
        post = asyncio.create_task(at.get(method="POST", content=b"form"))
        await others.asked.wait()
        owner_commits(at, old, b"old")
        for _ in range(3):
            assert not await fast(at)
        assert at.origin.count("/a") == 2  # the first GET and the POST: the store has answered
        owner_removes(at)
        others.done.set()
        await post
        assert others.lifted == others.begun == ["here-0"]
        at.origin.on("/a", storable(b"new"))
        assert (await at.get()).content == b"new"
        assert await fast(at)
        assert (await at.get()).content == b"new"
        assert len(at.edge.node.gateway.repeats.bars) == 0


async def test_the_client_of_the_unsafe_method_goes_away_and_the_bar_is_taken_down_all_the_same():
    async with site() as at:
        others = beside_others(at)
        await stored_and_hot(at)
        client = await at.ask(method="POST", content=b"form")
        await others.asked.wait()
        client.close()
        others.done.set()
        async with asyncio.timeout(5):
            while not others.lifted:
                await asyncio.sleep(0)
        await at.get()
        assert await fast(at)


async def test_where_another_worker_does_not_answer_nothing_is_repeated_until_the_bar_is_due():
    async with site() as at:
        others = beside_others(at)
        others.answer = False
        others.done.set()
        await stored_and_hot(at)
        await at.get(method="POST", content=b"form")
        assert others.lifted == []
        await at.get()
        assert not await fast(at)
        at.clock.advance(BARRED)
        assert await fast(at)


async def test_told_by_another_that_dies_then_the_bar_falls_when_it_is_due():
    async with site() as at:
        beside_others(at)
        await stored_and_hot(at)
        await at.edge.node.gateway.forget("dead-1", [KEY], [])
        await at.get()
        assert not await fast(at)
        at.clock.advance(BARRED)
        assert await fast(at)


@pytest.mark.parametrize("first", ["there-1", "elsewhere-1"])
async def test_of_two_invalidations_that_overlap_neither_undoes_the_others_bar(first):
    second = {"there-1": "elsewhere-1", "elsewhere-1": "there-1"}[first]
    async with site() as at:
        beside_others(at)
        old = await stored_and_hot(at)
        gateway = at.edge.node.gateway
        await gateway.forget("there-1", [KEY], [])
        await gateway.forget("elsewhere-1", [KEY], [])
        gateway.lift(first, [KEY])
        owner_commits(at, old, b"old")
        assert not await fast(at)
        owner_removes(at)
        gateway.lift(second, [KEY])
        await at.get()
        assert await fast(at)


async def test_who_was_started_between_the_rounds_forgets_in_the_second():
    async with site() as at:
        beside_others(at)
        await stored_and_hot(at)
        repeats = at.edge.node.gateway.repeats
        told: list[bytes] = []
        repeats.tell(told.append, lambda: None)
        at.edge.node.gateway.lift("there-1", [KEY])
        assert told == [KEY]
        assert KEY not in at.edge.node.server._fast.hot._keys


async def test_an_invalidation_by_one_worker_alone_bars_nothing():
    async with site() as at:
        at.origin.on("/a", lambda r: Reply(200) if r.method == "POST" else storable(b"old"))
        await stored_and_hot(at)
        await at.get(method="POST", content=b"form")
        await at.get()
        assert await fast(at)


async def test_a_purge_bars_its_url_until_all_have_purged_it():
    async with site() as at:
        beside_others(at)
        old = await stored_and_hot(at)
        url = KEY.decode()
        assert await at.edge.node.purge(url, "admin-1") == 1
        assert await at.edge.node.purge(url, "admin-2") == 0
        owner_commits(at, old, b"old")
        await at.edge.node.purged(url, "admin-1")
        assert not await fast(at)
        owner_removes(at)
        await at.edge.node.purged(url, "admin-2")
        at.origin.on("/a", storable(b"new"))
        assert (await at.get()).content == b"new"
        assert await fast(at)
