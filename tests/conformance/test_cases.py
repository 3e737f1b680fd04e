"""The project's own conformance cases: what is newer than the public suite, or finer."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import pytest

from tests.conformance.player import Case, load_cases, play
from tests.kit import ManualClock, ScriptedOrigin
from tests.kit.cdn_nodes import LocalNode, local_edge, local_shield


@contextlib.asynccontextmanager
async def edge_alone(origin: str, case: Case, clock: ManualClock) -> AsyncIterator[list[LocalNode]]:
    async with local_edge(origin, clock=clock, cache=case.cache) as edge:
        yield [edge]


@contextlib.asynccontextmanager
async def edge_and_shield(
    origin: str, case: Case, clock: ManualClock
) -> AsyncIterator[list[LocalNode]]:
    async with (
        local_shield(origin, clock=clock, cache=case.cache) as shield,
        local_edge(shields={"yokohama": shield.url}, clock=clock, cache=case.cache) as edge,
    ):
        yield [edge, shield]


@pytest.mark.parametrize("topology", [edge_alone, edge_and_shield])
@pytest.mark.parametrize("case", load_cases(), ids=lambda case: case.id)
async def test_case(case, topology):
    clock = ManualClock()
    async with (
        ScriptedOrigin() as origin,
        topology(origin.url, case, clock) as nodes,
    ):

        async def settled() -> None:
            for node in nodes:
                await node.settled()

        await play(case, nodes[0].url, origin, clock, settled)


def test_every_case_has_a_name_of_its_own():
    names = [case.id for case in load_cases()]
    assert len(names) == len(set(names))
