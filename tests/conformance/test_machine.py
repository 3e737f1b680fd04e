"""A second opinion: random origins, random clients and passing time against real nodes.

Strategy: hypothesis draws a story (what the origin has, who asks for it and how, what fails, what
is purged, how time goes); the nodes live it on real sockets; every answer is judged by
`machine_rules`, which knows what the origin said and nothing of the cache. Steps run one after
another on an event loop of the story's own, and each ends when no node does anything any more, so
that a story can be told again, and shrunk. HYPOTHESIS_PROFILE=long tells far more of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import Counter
from collections.abc import Coroutine
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    rule,
    run_state_machine_as_test,
)

from tests.conformance.machine_draws import (
    Change,
    Wish,
    crowds,
    delays,
    failures,
    holds,
    lines_of,
    meantimes,
    paths,
    plans,
    upsets,
    wishes,
)
from tests.conformance.machine_origin import Author, Plan, Weather
from tests.conformance.machine_reading import Asking
from tests.conformance.machine_rules import Judge
from tests.kit import Gate, ManualClock, NoResponse, RawClient, Received, ScriptedOrigin
from tests.kit.cdn_nodes import LocalNode, local_edge, local_shield
from tests.kit.reply import FieldLine

HOST = "site.example"
TARGETS = ("/a", "/b")

LONG = os.environ.get("HYPOTHESIS_PROFILE") == "long"
STORIES = settings(
    max_examples=1_500 if LONG else 250,
    stateful_step_count=40 if LONG else 30,
    derandomize=not LONG,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


class Machine(RuleBasedStateMachine):
    """One story. `seen` sums up what all stories have shown."""

    behind_shield = False
    seen: ClassVar[Counter[str]] = Counter()

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.clock = ManualClock()
        self.author = Author(self.clock.now)
        self.judge = Judge(self.author, self.behind_shield)
        self.asked = 0
        self.nodes: list[LocalNode] = []
        self.running = contextlib.AsyncExitStack()
        self.runner.run(self._start())

    async def _start(self) -> None:
        enter = self.running.enter_async_context
        origin = await enter(ScriptedOrigin())
        for target in TARGETS:
            origin.on(target, self.author.answer)
        if self.behind_shield:
            shield = await enter(local_shield(origin.url, clock=self.clock))
            edge = await enter(local_edge(shields={"yokohama": shield.url}, clock=self.clock))
            self.nodes = [edge, shield]
        else:
            self.nodes = [await enter(local_edge(origin.url, clock=self.clock))]

    def teardown(self) -> None:
        try:
            self.runner.run(self.running.aclose())
        finally:
            self.runner.close()
            self.seen.update(self.judge.seen)

    @initialize(a=plans, b=plans)
    def begin(self, a: Plan, b: Plan) -> None:
        self.author.publish("/a", a)
        self.author.publish("/b", b)

    # -- what may happen

    @rule(path=paths, wish=wishes, kind=failures)
    def ask(self, path: str, wish: Wish, kind: str) -> None:
        self._step(Weather(kind), self._crowd(path, [wish]))

    @rule(path=paths, wish=wishes, seconds=delays, kind=failures)
    def come_again(self, path: str, wish: Wish, seconds: int, kind: str) -> None:
        """Somebody asks plainly, time passes, and then: is it fresh, may it be stale, does it
        validate?"""
        plain = Wish(choice=wish.choice, cookie=wish.cookie, authorized=wish.authorized)
        self._step(Weather(), self._crowd(path, [plain]))
        self._wait(seconds)
        self._step(Weather(kind), self._crowd(path, [wish]))

    @rule(
        path=paths,
        wished=crowds,
        kind=failures,
        held=holds,
        meanwhile=meantimes,
    )
    def ask_at_once(
        self, path: str, wished: list[Wish], kind: str, held: int | None, meanwhile: str
    ) -> None:
        """Several at once, the origin held up before its head or within its content; meanwhile the
        target is purged, or the first client goes away."""
        weather = Weather(kind, Gate(held))
        self._step(weather, self._crowd(path, wished, weather.gate, meanwhile))

    @rule(seconds=delays)
    def wait(self, seconds: int) -> None:
        self._wait(seconds)

    @rule(path=paths, what=upsets)
    def upset(self, path: str, what: Plan | Change | str) -> None:
        """The target gets something new, is purged, or is changed by an unsafe method."""
        match what:
            case Plan():
                self.author.publish(path, what)
            case Change(status=status, fields=fields, kind=kind):
                weather = Weather(kind, unsafe=(status, fields))
                self._step(weather, self._change(path, what))
            case _:
                self._step(Weather(), self._purge(path))

    # -- how it happens

    def _wait(self, seconds: int) -> None:
        self.clock.advance(seconds)
        if seconds < 0:
            self.judge.step_back()

    def _step(self, weather: Weather, doing: Coroutine[None, None, None]) -> None:
        self.author.weather = weather
        self.runner.run(self._to_its_end(doing))

    async def _to_its_end(self, doing: Coroutine[None, None, None]) -> None:
        await doing
        for node in self.nodes:  # an edge's revalidation keeps its shield busy
            await node.settled()

    async def _crowd(
        self,
        target: str,
        wished: list[Wish],
        gate: Gate | None = None,
        meanwhile: str = "nothing",
    ) -> None:
        clients = [asyncio.create_task(self._client(target, wish)) for wish in wished]
        everyone = asyncio.gather(*clients, return_exceptions=True)
        if gate is not None:
            held_up = asyncio.create_task(gate.reached())
            await asyncio.wait({held_up, everyone}, return_when=asyncio.FIRST_COMPLETED)
            held_up.cancel()
            for _ in range(30):  # turns of the loop, for the others to come in as well
                await asyncio.sleep(0)
            if meanwhile == "purge":
                await self._purge(target)
            elif meanwhile == "leave":
                clients[0].cancel()
            gate.open()
        for outcome in await everyone:
            if isinstance(outcome, asyncio.CancelledError):
                continue
            if isinstance(outcome, BaseException):
                raise outcome
            self.judge.judge(*outcome)

    async def _client(self, target: str, wish: Wish) -> tuple[Asking, Received]:
        lines = lines_of(wish, self.author.of(target), self.clock.now())
        return await self._exchange(target, wish.method, lines)

    async def _exchange(
        self, target: str, method: str, lines: list[FieldLine], content: bytes | None = None
    ) -> tuple[Asking, Received]:
        self.asked += 1
        asking = Asking(self.asked, target, method, lines, self.author.tick())
        fields = [("Host", HOST), ("X-Ask", str(asking.number)), *lines]
        async with await RawClient.connect(self.nodes[0].url) as client:
            try:
                got = await client.get(target, fields, method=method, content=content)
            except NoResponse:
                raise AssertionError(f"no answer at all to {asking}") from None
        if "only-if-cached" in asking.directives and got.status == 504:
            assert asking.number not in self.author.asks, "RFC 9111 §5.2.1.7: it was forwarded"
        return asking, got

    async def _change(self, target: str, change: Change) -> None:
        content = None if change.method == "DELETE" else b"news"
        asking, got = await self._exchange(target, change.method, [], content)
        self.judge.judge(asking, got)
        if got.status == change.status < 400:  # RFC 9111 §4.4, RFC 9875 §3: a success
            for gone in (target, *(value for _, value in change.fields)):
                self.judge.gone[gone] = self.author.tick()

    async def _purge(self, target: str) -> None:
        for node in reversed(self.nodes):  # the shield before its edges
            await node.node.purge(f"http://{HOST}{target}")
        self.judge.gone[target] = self.author.tick()


class EdgeAlone(Machine):
    """An edge before the origin."""


class EdgeAndShield(Machine):
    """An edge before a shield before the origin."""

    behind_shield = True


# A story that never reaches the store breaks no rule either: all this has to have been judged.
SEEN = {
    *("fresh", "validated", "while revalidated", "stale on failure", "cut"),
    *("304", "206", "head", "only-if-cached"),
}


@pytest.mark.parametrize("topology", [EdgeAlone, EdgeAndShield])
def test_no_story_breaks_the_rules(topology):
    topology.seen.clear()
    run_state_machine_as_test(topology, settings=STORIES)
    missed = SEEN - topology.seen.keys()
    assert not missed, f"never happened: {missed}; make the draws likelier (machine_draws.py)"
