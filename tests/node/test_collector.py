"""The collector of a serving process; what freezes for good is tried in a process of its own."""

import subprocess
import sys

from cdn.node.collector import LATEST, QUIET, SHARE, SOONEST, Collector

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

    cycle = Stored()
    cycle.itself = cycle
    seen = weakref.ref(cycle)
    young = [Stored() for _ in range(2 * YOUNG)]
    del cycle
    young += [Stored() for _ in range(30 * YOUNG)]
    assert seen() is not None, "a cycle that was frozen waits"
    bound = [one for one in gc.callbacks if hasattr(one, "__self__")]
    bound[0].__self__.walk(0.0)
    assert seen() is None, "for the walk over everything"

asyncio.run(serve())
"""


def test_what_outlives_its_first_walk_is_walked_no_more_and_freed_all_the_same():
    subprocess.run([sys.executable, "-c", SCRIPT], check=True)


class Walks(Collector):
    """One that has frozen something, `took` seconds at its last walk."""

    def __init__(self, took: float = 0.0) -> None:
        super().__init__(0.0, 0.0)
        self.frozen = True
        self._took = took


def test_everything_is_walked_when_the_process_is_quiet():
    walks = Walks()
    assert not walks.is_time(SOONEST, 2 * QUIET * SOONEST)
    assert walks.is_time(SOONEST + 10, 2 * QUIET * SOONEST + QUIET * 9)


def test_it_is_walked_at_last_where_the_process_is_never_quiet():
    walks = Walks()
    assert not walks.is_time(LATEST - 1, LATEST)
    assert walks.is_time(LATEST, 2 * LATEST)


def test_it_is_not_walked_soon_again():
    assert not Walks().is_time(SOONEST - 1, 0.0)
    assert Walks(took=1.0).is_time(1 / SHARE, 0.0)
    assert not Walks(took=1.0).is_time(1 / SHARE - 1, 0.0)


def test_it_is_not_walked_where_nothing_was_frozen():
    walks = Walks()
    walks.frozen = False
    assert not walks.is_time(LATEST, 0.0)
