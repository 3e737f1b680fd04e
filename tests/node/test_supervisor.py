"""What several workers agree on without talking, and what one supervisor hands to the next."""

import asyncio
import io
import os
import socket
import sys
import tempfile
from collections import Counter

import pytest

from cdn.control.api import AdminServer
from cdn.control.protocol import NoAnswer, ReloadReport
from cdn.control.workers import AllWorkers
from cdn.hashing.digest import SHARDS
from cdn.node.handover import VARIABLE, Handover, hand_over
from cdn.node.peers import Place
from cdn.observe.events import EventLog
from cdn.upstream.owner_router import owner_of, shards_of

KEYS = [f"http://www.example.com/{n}".encode() for n in range(8_000)]


@pytest.mark.parametrize("workers", [1, 2, 3, 4, 16, 20])
def test_every_key_has_one_owner_and_the_owner_the_memory_for_it(workers):
    owned = Counter(owner_of(key, workers) for key in KEYS)
    shares = [Place("", "", index, workers).share(1 << 30) for index in range(workers)]
    assert sum(shards_of(index, workers) for index in range(workers)) == SHARDS
    assert sum(shares) == 1 << 30
    for index in range(workers):
        assert owned[index] / len(KEYS) == pytest.approx(shares[index] / (1 << 30), abs=0.02)


def test_sockets_and_a_lock_go_from_one_program_to_the_next(tmp_path):
    told = tmp_path / "told"
    program = (
        "import os, socket, sys; from cdn.node.handover import *\n"
        "handover = Handover.received(os.environ)\n"
        f"assert {VARIABLE!r} not in os.environ\n"
        "first, second = (socket.socket(fileno=handover.take('listen a')) for _ in 'ab')\n"
        "assert handover.take('listen a') is None\n"
        "open(sys.argv[1], 'w').write(f'{first.getsockname()[1]} {second.getsockname()[1]}')\n"
        "assert os.fstat(handover.take('store /s')).st_ino == int(sys.argv[2])\n"
        "assert handover.directory == '/x' and len(handover.descriptors) == 1\n"
        "handover.complete()\n"
    )
    with (
        socket.create_server(("127.0.0.1", 0)) as first,
        socket.create_server(("127.0.0.1", 0)) as second,
        socket.create_server(("127.0.0.1", 0)) as unwanted,
        (tmp_path / "lock").open("w") as lock,
    ):
        names = ("listen a", "listen a", "listen b", "store /s")
        fds = [one.fileno() for one in (first, second, unwanted, lock)]
        words = [str(told), str(os.fstat(lock.fileno()).st_ino)]
        pid, pipe = hand_over(
            list(zip(names, fds, strict=True)), "/x", [sys.executable, "-c", program, *words]
        )
        with open(pipe, "rb") as ready:
            assert ready.read() == b"1"
        assert os.waitpid(pid, 0)[1] == 0
        assert told.read_text() == f"{first.getsockname()[1]} {second.getsockname()[1]}"
        assert not any(map(os.get_inheritable, fds))


def test_a_program_that_ends_before_it_began_is_the_pipes_end():
    pid, pipe = hand_over([], "/x", [sys.executable, "-c", "raise SystemExit(3)"])
    with open(pipe, "rb") as ready:
        assert ready.read() == b""
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3


def test_nothing_was_handed_over_where_nothing_is_said():
    assert Handover.received({}) is None


# -- all workers as one


class FakeWorker:
    def __init__(self, requests: int, usable: int) -> None:
        self.requests, self.usable = requests, usable
        self.report = ReloadReport(True, ["name: has changed, which needs a restart"])
        self.refusal: str | None = None
        self.barred: set[tuple[str, str]] = set()
        self.lifted: list[str] = []
        self.store: dict[str, object] = {}

    async def status(self):
        return ({"store": self.store} if self.store else {}) | {
            "node": "edge-a",
            "uptime_seconds": 1.5,
            "requests": self.requests,
            "listen": ["127.0.0.1:80"],
            "upstreams": [{"name": "o", "usable": bool(self.usable), "failures": 1}],
            "reloads": {"ok": 2, "failed": 0},
        }

    async def metrics(self):
        return (
            "# HELP cdn_r_total R.\n# TYPE cdn_r_total counter\n"
            f'cdn_r_total{{a="x\\"y"}} {self.requests}.0\n'
            "# HELP cdn_open O.\n# TYPE cdn_open gauge\n"
            f"cdn_open{{}} {self.requests}.0\n"
            "# HELP cdn_upstream_usable U.\n# TYPE cdn_upstream_usable gauge\n"
            f'cdn_upstream_usable{{peer="o"}} {self.usable}.0\n' + self._stored()
        ).encode()

    def _stored(self):
        if not self.store:
            return ""
        return (
            "# HELP cdn_store_objects O.\n# TYPE cdn_store_objects gauge\n"
            f"cdn_store_objects{{}} {self.store['objects']}.0\n"
            "# HELP cdn_store_refused_total R.\n# TYPE cdn_store_refused_total counter\n"
            f"cdn_store_refused_total{{}} {self.store['refused']}.0\n"
        )

    async def purge(self, url, invalidation=""):
        if self.refusal is not None:
            raise ValueError(self.refusal)
        self.barred.add((url, invalidation))
        return 1

    async def purged(self, url, invalidation):
        self.barred.remove((url, invalidation))
        self.lifted.append(invalidation)

    async def reload(self):
        return self.report


class Node:
    """Two fake workers behind their sockets, and whoever speaks for them."""

    async def __aenter__(self):
        # Not pytest's own directory: a Unix socket's path is short.
        self.directory = tempfile.TemporaryDirectory(prefix="w")
        self.reloads = 0
        self.all = AllWorkers(self.directory.name, "edge-a", "edge", self.count)
        self.workers = [FakeWorker(3, 1), FakeWorker(4, 0)]
        self.servers = []
        for index, worker in enumerate(self.workers):
            server = AdminServer(token=None, events=EventLog("w", lambda: 0.0, io.StringIO()))
            await server.start(worker, Place(self.directory.name, "7", index, 2).admin)
            self.servers.append(server)
        return self

    def count(self):
        self.reloads += 1

    async def lines(self) -> list[str]:
        return (await self.all.metrics()).decode().splitlines()

    async def __aexit__(self, *_):
        for server in self.servers:
            await server.stop()
        self.directory.cleanup()


async def test_status_and_metrics_add_up():
    async with Node() as node:
        status = await node.all.status()
        assert status == {
            "node": "edge-a",
            "role": "edge",
            "uptime_seconds": 1.5,
            "requests": 7,
            "listen": ["127.0.0.1:80"],
            "upstreams": [{"name": "o", "usable": False, "failures": 2}],
            "reloads": {"ok": 2, "failed": 0},
            "workers": 2,
        }
        lines = await node.lines()
        assert 'cdn_r_total{a="x\\"y"} 7.0' in lines
        assert "cdn_open{} 7.0" in lines
        assert 'cdn_upstream_usable{peer="o"} 0.0' in lines
        assert "# TYPE cdn_r_total counter" in lines


async def test_of_a_store_that_all_share_nothing_is_added_up_but_what_each_has_done():
    async with Node() as node:
        node.all = AllWorkers(node.directory.name, "edge-a", "edge", node.count, shared_store=True)
        behind = {"kind": "disk", "trouble": "", "objects": 40, "bytes": 900, "refused": 1}
        failing = {"kind": "disk", "trouble": "no room", "objects": 41, "bytes": 800, "refused": 2}
        node.workers[0].store, node.workers[1].store = behind, failing
        assert (await node.all.status())["store"] == {
            "kind": "disk", "trouble": "no room", "objects": 41, "bytes": 900, "refused": 3,
        }  # fmt: skip
        lines = await node.lines()
        assert "cdn_store_objects{} 41.0" in lines
        assert "cdn_store_refused_total{} 3.0" in lines
        assert "cdn_open{} 7.0" in lines


async def test_what_a_dead_worker_had_counted_stays_counted():
    async with Node() as node:
        await node.lines()
        await node.servers[1].stop()
        for _ in range(2):
            lines = await node.lines()
            assert 'cdn_r_total{a="x\\"y"} 7.0' in lines
            assert "cdn_open{} 3.0" in lines
        await node.servers[0].stop()
        assert (await node.all.status()) == {"node": "edge-a", "role": "edge", "workers": 0}


async def test_purge_and_reload_are_done_when_all_have_done_it():
    async with Node() as node:
        for _ in range(2):
            assert await node.all.purge("http://a/") == 2
        first, second = node.workers
        assert first.lifted == second.lifted
        assert (len(set(first.lifted)), first.barred, second.barred) == (2, set(), set())
        node.workers[1].refusal = "no delivery service"
        with pytest.raises(ValueError, match="no delivery service"):
            await node.all.purge("http://a/")
        assert (len(first.barred), len(first.lifted)) == (1, 2)  # not all have done it

        report = await node.all.reload()
        assert (report.ok, report.messages) == (True, ["name: has changed, which needs a restart"])
        assert node.reloads == 1
        node.workers[1].report = ReloadReport(False, ["site.yaml:3: broken"])
        report = await node.all.reload()
        assert (report.ok, len(report.messages)) == (False, 2)
        assert node.reloads == 1


@pytest.mark.parametrize("breaks", [1, 2])
async def test_a_worker_that_breaks_off_is_asked_again_and_not_taken_for_dead(breaks):
    asked = []

    async def third(reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        asked.append(head.split()[1].decode())
        if len(asked) > breaks:
            head = (
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 14\r\n\r\n"
            )
            writer.write(head + b'{"removed": 1}')
        writer.close()

    async with Node() as node:
        path = Place(node.directory.name, "7", 2, 3).admin
        async with await asyncio.start_unix_server(third, path):
            first = node.workers[0]
            if breaks == 1:
                assert await node.all.purge("http://a/") == 3
                assert asked == ["/v1/purge", "/v1/purge", "/v1/purged"]
                assert (len(first.lifted), first.barred) == (1, set())
            else:
                with pytest.raises(NoAnswer, match="broke off"):
                    await node.all.purge("http://a/")
                assert asked == ["/v1/purge", "/v1/purge"]
                assert (first.lifted, len(first.barred)) == ([], 1)
