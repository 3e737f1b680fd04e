"""One workload after the other: everybody prepared, then in turn, round by round.

Strategy: all contenders of a workload run at the same time, but only one is asked at a time. What
could make a figure a lie ends the run: an error that wrk met, another share of misses than the
table says, a request of ours that was not counted or not logged, an answer without its fields.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.peers.contenders import CONTENDERS, FLOOR, OURS, Certificate
from bench.peers.idle import bytes_per_connection, connections_possible
from bench.peers.load import Load, parse_figures, run_wrk, sweep
from bench.peers.origin import Origin
from bench.peers.processes import Unusable
from bench.peers.results import Sample
from bench.peers.server import Server, launched
from bench.peers.workloads import Workload

OUR_FIELDS = ("age", "via", "etag", "cache-status")
SETTLE = 10.0
"""Seconds that a log may take until it holds what was counted."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is the same in all workloads. A `quick` one is for looking, not for telling."""

    names: Sequence[str]
    rounds: int
    seconds: int
    quick: bool
    cache_core: int
    load_core: int
    certificate: Certificate | None

    @property
    def objects(self) -> int:
        """Of the zipf set."""
        return 2_000 if self.quick else 20_000

    @property
    def idle(self) -> int:
        """Connections that are opened and left alone."""
        return 1_000 if self.quick else 10_000


def contenders_of(workload: Workload, plan: Plan) -> list[str]:
    """Who can take part: over TLS only those who speak it, and the floor keeps nothing of a
    connection that could be measured."""
    return [
        name
        for name in plan.names
        if (CONTENDERS[name].tls or not workload.tls) and (name != FLOOR or not workload.is_idle)
    ]


def play(
    workload: Workload, plan: Plan, folder: Path, origin: Origin, step: Callable[[str], None]
) -> Iterator[Sample]:
    """All rounds of `workload` in `folder`; `step` hears what begins. A round before the first is
    not told unless the plan is quick: memory grows to its size there. Raises Unusable."""
    folder.mkdir()
    names = contenders_of(workload, plan)
    if workload.is_idle:
        yield from _play_idle(workload, plan, names, folder, origin, step)
        return
    with ExitStack() as running:
        step("starting")
        servers = [
            running.enter_context(launch(name, workload, plan, folder, origin)) for name in names
        ]
        for server in servers:
            step(f"preparing {server.name}")
            prepare(server, workload, plan)
        for number in range(0 if plan.quick else -1, plan.rounds):
            for server in servers:
                step(f"round {number + 1}, {server.name}")
                sample = _sample(server, workload, plan, number, origin)
                if number >= 0:
                    yield sample
        for server in servers:
            if server.name not in (OURS, FLOOR):
                _has_logged(server)


@contextmanager
def launch(
    name: str, workload: Workload, plan: Plan, folder: Path, origin: Origin
) -> Iterator[Server]:
    """Starts `name` for `workload`, with its shield where there are two tiers."""
    with ExitStack() as running:
        behind = None
        if workload.two_tier and name != FLOOR:
            there = folder / f"{name}-shield"
            behind = running.enter_context(
                launched(name, there, origin.url, plan.cache_core, shield=True)
            )
        yield running.enter_context(
            launched(
                name,
                folder / name,
                origin.url,
                plan.cache_core,
                content=workload.content,
                certificate=plan.certificate if workload.tls else None,
                behind=behind,
            )
        )


def prepare(server: Server, workload: Workload, plan: Plan) -> None:
    """Waits until `server` answers, and fills it with what the workload asks for."""
    if server.behind:
        server.behind.answers("/hot")
    for path in (*workload.prepare, *workload.prepare):
        server.answers(path)
    if workload.is_zipf and server.name != FLOOR:
        words = {"play": "each_zipf", "objects": plan.objects, **workload.words}
        sweep(server.url, plan.load_core, plan.objects, words)


def words_of(server: Server, workload: Workload, plan: Plan, number: int) -> dict[str, object]:
    """What load.lua is told; a run's name makes its new URLs its own."""
    words: dict[str, object] = {"play": workload.play, **workload.words, "seed": number + 1}
    words["run"] = f"{server.name}-{number}"
    if workload.is_zipf:
        words["objects"] = plan.objects
    if workload.play == "cond":
        words["etag"] = server.get("/hot")[1]["etag"]
    return words


def _sample(server: Server, workload: Workload, plan: Plan, number: int, origin: Origin) -> Sample:
    words = words_of(server, workload, plan, number)
    if server.behind:
        fill_shield(server, plan, words)
    counted = _settled(server) if server.name == OURS else 0
    asked, before = origin.requests(), server.cpu()
    out = run_wrk(server.url, plan.load_core, workload.connections, plan.seconds, words)
    try:
        load = parse_figures(out)
    except Unusable as error:
        raise Unusable(f"{workload.name}, {server.name}: {error}") from None
    after = server.cpu()
    server.most = max(server.most, load.requests)
    reached = origin.requests() - asked - 1
    if server.name == OURS:
        _counts_agree(server, counted, load, workload)
        _has_fields(server, workload)
    if server.name != FLOOR:
        _is_the_workload(server, workload, reached, load)
    programs = {
        name: (seconds - before.get(name, 0.0)) * 1e6 / load.requests
        for name, seconds in after.items()
    }
    return Sample(
        workload.name,
        number,
        server.name,
        cost=sum(programs.values()),
        requests=load.requests,
        rate=load.requests / load.seconds,
        p50=load.p50,
        p99=load.p99,
        memory=server.memory("VmHWM"),
        origin=reached / load.requests,
        programs=programs,
    )


def fill_shield(server: Server, plan: Plan, words: dict[str, object]) -> None:
    """Puts more of the round's new objects into the shield of `server` than the round can ask for:
    twice those of the busiest so far. In the first, as many as the pair can answer when the shield
    has to ask the origin too, and half as many again for each second. (So many in each round would
    fill a shield, which then lets new ones go.)"""
    shield, count = server.behind, 2 * server.most
    assert shield is not None
    if not count:
        pilot = run_wrk(
            server.url, plan.load_core, 64, 1, {**words, "run": f"pilot-{words['run']}"}
        )
        count = int(parse_figures(pilot).requests * 2.5 * (plan.seconds + 1))
    sweep(shield.url, plan.load_core, count, {**words, "play": "each_new", "count": count})


def _settled(server: Server) -> int:
    """Requests that our edge has counted, when its log holds as many lines. Raises Unusable."""
    until = time.monotonic() + SETTLE
    while (counted := server.counted()) != (lines := server.log_lines()):
        if time.monotonic() > until:
            raise Unusable(
                f"our edge has counted {counted} requests and logged {lines}: they must be equal"
            )
        time.sleep(0.02)
    return counted


def _counts_agree(server: Server, before: int, load: Load, workload: Workload) -> None:
    """Every answer that wrk got was counted and logged. Raises Unusable."""
    counted = _settled(server) - before
    # wrk hangs up with up to one request under way on each connection.
    if not load.requests <= counted <= load.requests + workload.connections:
        raise Unusable(
            f"{workload.name}: wrk got {load.requests} answers, our edge counted {counted}"
        )


def _is_the_workload(server: Server, workload: Workload, reached: int, load: Load) -> None:
    """As many requests reached the origin as make this workload. Raises Unusable."""
    low, high = workload.origin
    if not low * load.requests <= reached <= high * load.requests + workload.connections:
        raise Unusable(
            f"{workload.name}: {reached} of {server.name}'s {load.requests} requests reached the "
            f"origin, where {low:.0%} to {high:.0%} make the workload"
        )


def _has_fields(server: Server, workload: Workload) -> None:
    path = workload.prepare[0]
    status, fields, _ = server.get(path)
    missing = [name for name in OUR_FIELDS if name not in fields]
    if status != 200 or missing:
        raise Unusable(f"our answer to {path} ({status}) lacks {', '.join(missing)}")
    if "; hit" not in fields["cache-status"]:
        raise Unusable(f"our answer to {path} is no hit: {fields['cache-status']}")


def _has_logged(server: Server) -> None:
    """A contender whose log is empty has not done the work. Raises Unusable."""
    until = time.monotonic() + SETTLE
    while not server.log_lines():
        if time.monotonic() > until:
            raise Unusable(f"{server.name} has logged nothing in {server.place.log}")
        time.sleep(0.1)


def _play_idle(
    workload: Workload,
    plan: Plan,
    names: Sequence[str],
    folder: Path,
    origin: Origin,
    step: Callable[[str], None],
) -> Iterator[Sample]:
    """Afresh for every round: what a server has freed, it has not given back."""
    number = connections_possible(plan.idle)
    if number < plan.idle:
        raise Unusable(
            f"{plan.idle} idle connections need more descriptors than the {number} that ulimit -n "
            "allows: raise its hard limit"
        )
    for at in range(plan.rounds):
        for name in names:
            step(f"round {at + 1}, {name}")
            here = folder / str(at)
            here.mkdir(exist_ok=True)
            with launch(name, workload, plan, here, origin) as server:
                prepare(server, workload, plan)
                each = bytes_per_connection(server, number)
                yield Sample(workload.name, at, name, each, memory=server.memory("VmHWM"))
