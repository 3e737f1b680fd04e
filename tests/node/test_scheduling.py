"""Processes of a node that share a core take turns by batches, unless told otherwise."""

import io
import os
from pathlib import Path

import pytest

from cdn.node.scheduling import run_in_batches
from cdn.observe.events import EventLog
from tests.kit.cdn_nodes import node_process


def loop_and_others(pid):
    """The policies of a process's main thread, which is its loop's, and of its other threads."""
    threads = {int(name) for name in os.listdir(f"/proc/{pid}/task")} - {pid}
    return os.sched_getscheduler(pid), {os.sched_getscheduler(thread) for thread in threads}


def children(pid):
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


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
    ("before", "after"),
    [
        (os.SCHED_OTHER, os.SCHED_BATCH),
        (os.SCHED_BATCH, os.SCHED_BATCH),
        (os.SCHED_IDLE, os.SCHED_IDLE),
        (os.SCHED_RR, os.SCHED_RR),
    ],
)
def test_what_an_operator_has_chosen_stays(now, told, before, after):
    now.append(before)
    run_in_batches(EventLog("e", lambda: 0.0, told))
    assert now[-1] == after
    assert told.getvalue() == ""


def test_where_it_is_not_allowed_the_node_runs_as_it_is(monkeypatch, now, told):
    def refused(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "sched_setscheduler", refused)
    run_in_batches(EventLog("e", lambda: 0.0, told))
    (line,) = told.getvalue().splitlines()
    assert "warning scheduling: Operation not permitted: the node runs as it was started" in line


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_loops_run_in_batches_and_what_must_keep_up_with_them_does_not(workers, tmp_path):
    flags = ("--listen", "127.0.0.1:0", "--workers", workers, "--access-log", f"{tmp_path}/log")
    async with node_process("edge", "--origin", "http://127.0.0.1:9", *flags) as node:
        pid = node.process.pid
        for worker in children(pid) or [pid]:
            assert loop_and_others(worker) == (os.SCHED_BATCH, {os.SCHED_OTHER})
        if workers == "2":
            assert os.sched_getscheduler(pid) == os.SCHED_OTHER


async def test_an_operator_may_write_normal(tmp_path):
    (tmp_path / "site.yaml").write_text("name: s\nhosts: ['*']\norigins: ['http://127.0.0.1:9']\n")
    file = tmp_path / "edge.yaml"
    file.write_text(
        "role: edge\nname: edge-a\nlisten: 127.0.0.1:0\ndirect_to_origin: true\nworkers: 1\n"
        "services: site.yaml\nscheduling: normal\n"
    )
    async with node_process("edge", "-c", str(file)) as node:
        assert os.sched_getscheduler(node.process.pid) == os.SCHED_OTHER
