"""Processes of a node that share a core take turns by batches, unless told otherwise."""

import io
import os

import pytest

from cdn.node.scheduling import schedule
from cdn.observe.events import EventLog
from tests.kit.cdn_nodes import node_process


def scheduled(pid):
    """The policies of all threads of a process and of its children."""
    threads = {os.sched_getscheduler(int(thread)) for thread in os.listdir(f"/proc/{pid}/task")}
    with open(f"/proc/{pid}/task/{pid}/children") as children:
        return threads.union(*(scheduled(int(child)) for child in children.read().split()))


@pytest.fixture
def now(monkeypatch):
    """What the kernel is told."""
    policy = [os.SCHED_OTHER]

    def scheduler(pid, wanted, parameters):
        assert (pid, parameters.sched_priority) == (0, 0)
        policy.append(wanted)

    monkeypatch.setattr(os, "sched_getscheduler", lambda _: policy[-1])
    monkeypatch.setattr(os, "sched_setscheduler", scheduler)
    return policy


@pytest.fixture
def told():
    return io.StringIO()


@pytest.mark.parametrize(
    ("batch", "inherited", "before", "after"),
    [
        (True, False, os.SCHED_OTHER, os.SCHED_BATCH),
        (True, True, os.SCHED_OTHER, os.SCHED_BATCH),
        (True, False, os.SCHED_IDLE, os.SCHED_IDLE),
        (True, False, os.SCHED_RR, os.SCHED_RR),
        (False, False, os.SCHED_OTHER, os.SCHED_OTHER),
        (False, False, os.SCHED_BATCH, os.SCHED_BATCH),  # as the operator has it
        (False, True, os.SCHED_BATCH, os.SCHED_OTHER),  # as the program before had it
    ],
)
def test_what_is_chosen(now, told, batch, inherited, before, after):
    now.append(before)
    schedule(batch, inherited, EventLog("e", lambda: 0.0, told))
    assert now[-1] == after
    assert told.getvalue() == ""


def test_where_it_is_not_allowed_the_node_runs_as_it_is(monkeypatch, now, told):
    def refused(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "sched_setscheduler", refused)
    schedule(True, False, EventLog("e", lambda: 0.0, told))
    (line,) = told.getvalue().splitlines()
    assert "warning scheduling: Operation not permitted: the node runs as it was started" in line


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_all_that_a_node_runs_is_scheduled_so(workers, tmp_path):
    flags = ("--listen", "127.0.0.1:0", "--workers", workers, "--access-log", f"{tmp_path}/log")
    async with node_process("edge", "--origin", "http://127.0.0.1:9", *flags) as node:
        assert scheduled(node.process.pid) == {os.SCHED_BATCH}
