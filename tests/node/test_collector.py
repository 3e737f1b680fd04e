"""The collector of a serving process; what freezes for good is tried in a process of its own."""

import subprocess
import sys

import pytest

from cdn.node.collector import QUIET, SHARE, SUSPECT, SUSPECTED, TRUSTED, Collector

SCRIPT = """
import asyncio, gc, weakref
from cdn.node import collector
from cdn.node.collector import YOUNG, settle

async def serve():
    settle()
    assert gc.isenabled()
    assert gc.get_freeze_count() > 1000, gc.get_freeze_count()
    assert gc.get_threshold()[0] == YOUNG
    generations = []
    gc.callbacks.append(lambda phase, info: generations.append(info["generation"]))

    class Stored:
        pass

    kept = [Stored() for _ in range(30 * YOUNG)]
    assert set(generations) == {0}, "what lives is walked once"
    assert len(generations) > 40
    assert sum(map(len, map(gc.get_objects, (0, 1, 2)))) < 3 * YOUNG
    first = weakref.ref(kept[0])
    kept.clear()
    assert first() is None, "what is frozen is freed by its count"

    own = [one for one in gc.callbacks if hasattr(one, "__self__")][0].__self__
    assert own.found == 0
    for _ in range(4 * YOUNG):
        lost = Stored()
        lost.itself = lost
    assert own.found > YOUNG, "cycles that die young are counted"

    cycle = Stored()
    cycle.itself = cycle
    seen = weakref.ref(cycle)
    young = [Stored() for _ in range(2 * YOUNG)]
    del cycle
    young += [Stored() for _ in range(30 * YOUNG)]
    assert seen() is not None, "a cycle that was frozen waits"
    own.walk(0.0)
    assert seen() is None, "for the walk over everything"

asyncio.run(serve())
"""


def test_what_outlives_its_first_walk_is_walked_no_more_and_freed_all_the_same():
    subprocess.run([sys.executable, "-c", SCRIPT], check=True)


class Walks(Collector):
    """One that has frozen something since its last walk, which `took` so many seconds, and has
    found so many objects in cycles."""

    def __init__(self, found: int = SUSPECT, took: float = 0.0) -> None:
        super().__init__(0.0, 0.0)
        self.frozen = True
        self.found = found
        self._took = took


CASES = pytest.mark.parametrize(
    ("found", "soonest", "latest"), [(SUSPECT - 1, *TRUSTED), (SUSPECT, *SUSPECTED)]
)


@CASES
def test_everything_is_walked_when_the_process_is_quiet(found, soonest, latest):
    walks = Walks(found)
    assert not walks.is_time(soonest, 2 * QUIET * soonest)
    assert walks.is_time(soonest + 10, 2 * QUIET * soonest + QUIET * 9)


@CASES
def test_it_is_walked_at_last_where_the_process_is_never_quiet(found, soonest, latest):
    walks = Walks(found)
    assert not walks.is_time(latest - 1, latest)
    assert walks.is_time(latest, 2 * latest)


@CASES
def test_it_is_not_walked_soon_again(found, soonest, latest):
    assert not Walks(found).is_time(soonest - 1, 0.0)


def test_a_long_walk_is_not_done_as_often():
    took = 2 * SUSPECTED[0] * SHARE
    assert not Walks(took=took).is_time(2 * SUSPECTED[0] - 1, 0.0)
    assert Walks(took=took).is_time(2 * SUSPECTED[0], 0.0)


def test_it_is_not_walked_where_nothing_was_frozen():
    walks = Walks()
    walks.frozen = False
    assert not walks.is_time(TRUSTED[1], 0.0)
