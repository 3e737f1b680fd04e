"""What is stored outlives the process: kill -9, upgrades, restarts. A full disk stops no viewer.

Strategy: real processes on real directories. What is written is written behind the answers, so
before anything is killed the test waits until the node itself counts it among what it holds.
"""

import asyncio
import contextlib
import errno
import json
import os
import re
import resource
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit import Gate, Pattern, Reply, ScriptedOrigin, get, need
from tests.kit.cdn_nodes import NodeProcess, node_process
from tests.scenarios.mirroring import (
    DOCUMENTS,
    copy_documents,
    differing,
    mirror,
    nginx,
    requests_logged,
)
from tests.scenarios.numbered import content_of
from tests.scenarios.running import ask_admin, cdn_command, ended_well, free_port, metric
from tests.scenarios.workers import (
    FRESH,
    Workers,
    all_gone,
    children,
    hang_up,
    load,
    more,
    running,
    spread,
    until,
)

pytestmark = pytest.mark.usefixtures("unmeasured")

MIB = 1 << 20
TARGETS = [f"/n?{n}" for n in range(50)]
HOST = [("Host", "site.example")]
"""As `load` has it, whatever port a node has found."""


@pytest.fixture
async def origin():
    async with ScriptedOrigin() as origin:
        origin.on("/n", lambda request: Reply(fields=FRESH, content=content_of(request.target)))
        yield origin


@pytest.fixture(autouse=True)
async def _hang_up():
    yield
    await hang_up()


def kept(tmp_path: Path, disk: str = "1GiB") -> tuple[str, ...]:
    return ("--store", str(tmp_path / "store"), "--disk", disk)


def edge(origin: str, tmp_path: Path, *flags: str, port: int = 0):
    words = ("--listen", f"127.0.0.1:{port}", "--origin", origin, "--name", "edge-a")
    admin = f"unix:{tmp_path}/edge.sock"
    return node_process("edge", *words, "--admin", admin, *flags, TMPDIR=str(tmp_path))


def admin_of(tmp_path: Path) -> str:
    return f"unix:{tmp_path}/edge.sock"


async def counts(admin: str, name: str, least: float, limit: float = 30.0, **labels: str) -> None:
    """Waits until the node counts so many, or more; one without workers counts nothing."""
    async with asyncio.timeout(limit):
        while True:
            with contextlib.suppress(AssertionError):
                if await metric(admin, name, **labels) >= least:
                    return
            await asyncio.sleep(0.02)


async def store_status(admin: str) -> dict:
    return json.loads((await ask_admin(admin, "/v1/status")).content)["store"]


async def kill_all(node: NodeProcess) -> None:
    """The supervisor and every process that it has forked, all at once."""
    pids = [node.process.pid, *children(node.process.pid)]
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    await node.ended()
    await all_gone(pids)


async def fetch(url: str, targets: list[str] = TARGETS) -> None:
    for target in targets:
        assert (await get(url + target, HOST)).content == content_of(target)


# -- killed


@pytest.mark.debian
async def test_what_was_mirrored_is_served_after_kill_9_of_the_whole_node(tmp_path):
    need("wget")
    site = tmp_path / "site"
    site.mkdir()
    copied = copy_documents(site)
    assert copied, f"nothing in {DOCUMENTS}"
    flags, port = (*kept(tmp_path), "--workers", "2"), free_port()
    async with nginx(tmp_path) as origin:
        async with edge(origin, tmp_path, *flags, port=port) as node:
            await mirror(node.url, tmp_path / "first")
            asked = await requests_logged(origin, tmp_path)
            assert asked >= len(copied)
            await counts(admin_of(tmp_path), "cdn_store_objects", asked)
            await kill_all(node)
        async with edge(origin, tmp_path, *flags, port=port) as node:
            await mirror(node.url, tmp_path / "second")
            assert await requests_logged(origin, tmp_path) == asked
            assert not [line for line in node.lines if "rebuilding" in line]
            assert await ended_well(node)
    assert differing(copied, site, tmp_path / "first") == []
    assert differing(copied, site, tmp_path / "second") == []
    shutil.rmtree(tmp_path)


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_an_index_that_the_machine_went_down_with_is_rebuilt_before_anything_serves(
    origin, tmp_path, workers
):
    flags = (*kept(tmp_path), "--workers", workers)
    async with edge(origin.url, tmp_path, *flags) as node:
        await fetch(node.url)
        await counts(admin_of(tmp_path), "cdn_store_objects", len(TARGETS))
        await kill_all(node)
    state = tmp_path / "store" / "store.json"
    state.write_text(json.dumps(json.loads(state.read_text()) | {"boot_id": "another"}))
    for number in range(16):
        index = tmp_path / "store" / f"{number:02d}" / "index"
        index.write_bytes(os.urandom(index.stat().st_size))
    async with edge(origin.url, tmp_path, *flags) as node:
        told = [line for line in node.lines if "rebuilding its index" in line or "%" in line]
        assert told[0].endswith("the machine went down while it was in use: rebuilding its index")
        assert told[-1].endswith("rebuilding the index: 100 %")
        assert [line for line in node.lines if f"{len(TARGETS)} responses were found" in line]
        await fetch(node.url)
        assert origin.count("/n") == len(TARGETS)
        assert await ended_well(node)


async def test_a_killed_worker_loses_nothing_stored_and_its_successor_stores_on(origin, tmp_path):
    async with running(origin, tmp_path, *kept(tmp_path)) as node:
        await fetch(node.url)
        await counts(node.admin, "cdn_store_objects", len(TARGETS))
        for victim in node.pids()[:2]:
            os.kill(victim, signal.SIGKILL)
            await until(lambda gone=victim: len(node.pids()) == 3 and gone not in node.pids())
        await counts(node.admin, "cdn_workers", 2)
        await fetch(node.url)
        assert origin.count("/n") == len(TARGETS)
        new = [f"/n?new{n}" for n in range(30)]
        await fetch(node.url, new)
        await counts(node.admin, "cdn_store_objects", len(TARGETS) + len(new))
        await fetch(node.url, new)
        assert origin.count("/n") == len(TARGETS) + len(new)
        assert not [line for line in node.node.lines if "rebuilding" in line]


async def test_with_admission_by_reuse_the_disk_has_what_was_asked_for_twice(origin, tmp_path):
    flags = (*kept(tmp_path), "--workers", "2", "--admission", "reuse")
    async with edge(origin.url, tmp_path, *flags) as node:
        await fetch(node.url)
        assert await metric(admin_of(tmp_path), "cdn_store_objects") == 0
        async with asyncio.timeout(30):
            while await metric(admin_of(tmp_path), "cdn_store_objects") < len(TARGETS):
                await fetch(node.url)
        assert origin.count("/n") == len(TARGETS)
        await kill_all(node)
    async with edge(origin.url, tmp_path, *flags) as node:
        await fetch(node.url)
        assert origin.count("/n") == len(TARGETS)
        assert await ended_well(node)


# -- one directory, one node


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_a_second_node_on_the_directory_of_a_first_is_refused_in_one_line(
    origin, tmp_path, workers
):
    async with edge(origin.url, tmp_path, *kept(tmp_path)) as node:
        second = await cdn_command(
            "edge", "--listen", "127.0.0.1:0", "--origin", origin.url, *kept(tmp_path),
            "--workers", workers, TMPDIR=str(tmp_path),
        )  # fmt: skip
        assert (second.code, second.out) == (1, "")
        assert second.err == (
            f"cdn edge: {tmp_path}/store is in use by another node; stop that one, or give this "
            "one its own directory\n"
        )
        await fetch(node.url)
        assert await ended_well(node)


async def test_a_directory_that_is_no_store_is_left_alone(origin, tmp_path):
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "letter.txt").write_text("dear")
    for workers in ("1", "2"):
        refused = await cdn_command(
            "edge", "--listen", "127.0.0.1:0", "--origin", origin.url, *kept(tmp_path),
            "--workers", workers, TMPDIR=str(tmp_path),
        )  # fmt: skip
        assert refused.code == 1
        assert re.fullmatch(r"cdn edge: \S+/store is not a store, and not empty; .*\n", refused.err)
    assert os.listdir(tmp_path / "store") == ["letter.txt"]


# -- upgrades, reloads, restarts


async def test_upgrades_during_fills_lose_nothing_stored(origin, tmp_path):
    gate = Gate(after=MIB)
    origin.on("/slow", Reply(fields=FRESH, content=Pattern(3 * MIB), gate=gate))
    async with running(origin, tmp_path, *kept(tmp_path)) as node:
        await fetch(node.url)
        await counts(node.admin, "cdn_store_objects", len(TARGETS))
        (client,) = await spread(node.url, 1)
        await client.send_request("/slow")
        slow = await client.read_head()
        await gate.reached()
        async with load(node.url, 200, len(TARGETS)) as clients:
            for _ in range(2):
                await node.upgrade()
                await more(clients, 100)
        assert clients.errors == []
        assert origin.count("/n") == len(TARGETS)
        gate.open()
        got = await slow.read()
        assert (got.complete, got.content) == (True, Pattern(3 * MIB).read(0, 3 * MIB))
        # The new workers write what the old ones no longer do.
        new = [f"/n?new{n}" for n in range(30)]
        await written(node, new)
        before = origin.count("/n")
        await fetch(node.url, new)
        assert origin.count("/n") == before
        starts = json.loads((tmp_path / "store" / "store.json").read_text())["starts"]
        assert starts == 1


async def written(node: Workers, targets: list[str]) -> None:
    """Fetches `targets` until the store has them: while an old worker holds a shard nobody else
    writes to it."""
    held = await metric(node.admin, "cdn_store_objects")
    async with asyncio.timeout(30):
        while await metric(node.admin, "cdn_store_objects") < held + len(targets):
            await fetch(node.url, targets)


async def test_an_upgrade_from_four_workers_to_two_loses_nothing_stored(origin, tmp_path):
    (tmp_path / "site.yaml").write_text(f"name: s\nhosts: ['*']\norigins: ['{origin.url}']\n")
    file, admin = tmp_path / "edge.yaml", admin_of(tmp_path)

    def write(workers: int) -> None:
        file.write_text(
            "role: edge\nname: edge-a\nlisten: 127.0.0.1:0\ndirect_to_origin: true\n"
            f"services: site.yaml\nstore: store\ndisk: 1GiB\nworkers: {workers}\n"
            f"admin: {{listen: '{admin}'}}\n"
        )

    write(4)
    async with node_process("edge", "-c", str(file), TMPDIR=str(tmp_path)) as process:
        node = Workers(process, admin)
        old = node.pids()
        await fetch(node.url)
        await counts(admin, "cdn_store_objects", len(TARGETS))
        async with load(node.url, 200, len(TARGETS)) as clients:
            await more(clients, 50)
            write(2)
            await node.upgrade()
            await all_gone(old)
            await more(clients, 50)
        assert clients.errors == []
        assert origin.count("/n") == len(TARGETS)
        new = [f"/n?new{n}" for n in range(30)]
        await written(node, new)
        before = origin.count("/n")
        await fetch(node.url, new)
        assert origin.count("/n") == before
        assert (await store_status(admin))["objects"] == len(TARGETS) + len(new)
        os.kill(node.supervisor, signal.SIGTERM)
        await all_gone([node.supervisor])
    assert json.loads((tmp_path / "store" / "store.json").read_text())["clean"] is True


async def test_a_new_program_that_never_serves_leaves_store_and_workers_to_the_old_one(
    origin, tmp_path
):
    (tmp_path / "site.yaml").write_text(f"name: s\nhosts: ['*']\norigins: ['{origin.url}']\n")
    file, admin = tmp_path / "edge.yaml", admin_of(tmp_path)
    good = (
        "role: edge\nname: edge-a\nlisten: 127.0.0.1:0\ndirect_to_origin: true\nworkers: 2\n"
        f"services: site.yaml\nstore: store\ndisk: 1GiB\nadmin: {{listen: '{admin}'}}\n"
    )
    file.write_text(good)
    async with node_process("edge", "-c", str(file), TMPDIR=str(tmp_path)) as process:
        await fetch(process.url)
        file.write_text(good + "access_log: missing/log\n")
        process.signal(signal.SIGUSR2)
        await process.told("upgrade: the new program ended with exit code 1: this one goes on")
        assert json.loads((tmp_path / "store" / "store.json").read_text())["clean"] is False
        assert await metric(admin, "cdn_workers") == 2
        new = [f"/n?new{n}" for n in range(30)]
        for _ in range(2):
            await fetch(process.url, TARGETS + new)
        assert origin.count("/n") == len(TARGETS) + len(new)
        assert await metric(admin, "cdn_owner_lost_total") == 0
        assert await ended_well(process)


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_a_reload_a_drain_and_a_restart_keep_what_is_stored(origin, tmp_path, workers):
    gate = Gate(after=1_000)
    origin.on("/slow", Reply(fields=FRESH, content=b"x" * 2_000, gate=gate))
    flags = (*kept(tmp_path), "--workers", workers)
    state = tmp_path / "store" / "store.json"
    async with edge(origin.url, tmp_path, *flags) as node:
        await fetch(node.url)
        node.signal(signal.SIGHUP)
        await node.told("reload: ok")
        assert json.loads(state.read_text())["clean"] is False
        (client,) = await spread(node.url, 1)
        await client.send_request("/slow", HOST)
        slow = await client.read_head()
        await gate.reached()
        node.signal(signal.SIGTERM)
        await node.told("draining")
        gate.open()
        assert (await slow.read()).content == b"x" * 2_000
        assert await node.ended() == 0
    assert json.loads(state.read_text())["clean"] is True
    async with edge(origin.url, tmp_path, *flags) as node:
        await fetch(node.url)
        assert origin.count("/n") == len(TARGETS)
        # What came while the node drained was stored, too.
        assert (await get(f"{node.url}/slow", HOST)).content == b"x" * 2_000
        assert origin.count("/slow") == 1
        assert await ended_well(node)


async def test_a_purge_tells_the_true_count_and_holds_after_kill_9(origin, tmp_path):
    flags = (*kept(tmp_path), "--workers", "2")
    admin = admin_of(tmp_path)
    async with edge(origin.url, tmp_path, *flags) as node:
        await fetch(node.url)
        for target in TARGETS[:20]:
            content = json.dumps({"url": f"http://site.example{target}"}).encode()
            purged = await ask_admin(admin, "/v1/purge", method="POST", content=content)
            assert json.loads(purged.content) == {"removed": 1}
        await kill_all(node)
    async with edge(origin.url, tmp_path, *flags) as node:
        await fetch(node.url)
        assert origin.count("/n") == len(TARGETS) + 20
        assert await ended_well(node)


# -- a full disk


class FileSizes:
    """Where nobody may mount anything: no file of the node's may grow, by RLIMIT_FSIZE."""

    words = os.strerror(errno.EFBIG)

    def __init__(self, directory: Path) -> None:
        directory.mkdir()

    def fill(self, pids: list[int]) -> None:
        self._limit(pids, 4096)

    def make_room(self, pids: list[int]) -> None:
        self._limit(pids, resource.RLIM_INFINITY)

    def _limit(self, pids: list[int], size: int) -> None:
        for pid in pids:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    def end(self) -> None:
        pass


class SmallDisk:
    """A file system in RAM that becomes full by itself, and is enlarged."""

    words = os.strerror(errno.ENOSPC)

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir()
        self._mount("size=16m", "-t", "tmpfs", "tmpfs")

    def _mount(self, options: str, *what: str) -> None:
        command = ["mount", "-o", options, *what, str(self._directory)]
        subprocess.run(command, check=True, capture_output=True)

    def fill(self, pids: list[int]) -> None:
        pass

    def make_room(self, pids: list[int]) -> None:
        self._mount("remount,size=256m")

    def end(self) -> None:
        subprocess.run(["umount", "-l", str(self._directory)], check=True)

    @classmethod
    def is_possible(cls) -> bool:
        mounted = subprocess.run(
            ["unshare", "-m", "mount", "-t", "tmpfs", "tmpfs", "/mnt"],
            capture_output=True,
            check=False,
        )
        return mounted.returncode == 0


DISKS = [FileSizes, *([SmallDisk] if SmallDisk.is_possible() else [])]


@pytest.fixture(params=DISKS, ids=lambda kind: kind.__name__)
def disk(request, tmp_path) -> Iterator[FileSizes | SmallDisk]:
    disk = request.param(tmp_path / "store")
    with contextlib.closing(_Ending(disk)):
        yield disk


class _Ending:
    def __init__(self, disk) -> None:
        self.close = disk.end


async def test_a_full_disk_stops_no_viewer_and_is_written_to_again_when_it_has_room(
    origin, tmp_path, disk
):
    origin.on("/big", Reply(fields=FRESH, content=Pattern(MIB)))
    big = Pattern(MIB).read(0, MIB)
    async with running(origin, tmp_path, *kept(tmp_path)) as node:
        await fetch(node.url)
        await counts(node.admin, "cdn_store_objects", len(TARGETS))
        disk.fill(node.pids())
        async with asyncio.timeout(30):
            n = 0
            while not await metric(node.admin, "cdn_store_failing"):
                assert (await get(f"{node.url}/big?{n}")).content == big
                n += 1
        status = await store_status(node.admin)
        # Whichever was the first not to get through, log or index.
        assert re.fullmatch(
            rf"the disk takes no writes: (mdb_\w+: )?{disk.words}; serving goes on; "
            "tried again every 5 s",
            status["trouble"],
        )
        shown = await cdn_command("status", "--admin", node.admin, COLUMNS="300")
        assert status["trouble"] in shown.out
        assert await metric(node.admin, "cdn_store_write_failures_total") >= 1
        # What is there is served from there, what is not passes through.
        asked = origin.count("/n")
        await fetch(node.url)
        assert origin.count("/n") == asked
        assert (await get(f"{node.url}/big?new")).content == big

        disk.make_room(node.pids())
        async with asyncio.timeout(30):
            while await metric(node.admin, "cdn_store_failing"):
                assert (await get(f"{node.url}/big?{n}")).content == big
                n += 1
        assert (await store_status(node.admin))["trouble"] == ""
        new = [f"/n?new{n}" for n in range(30)]
        await written(node, new)
        before = origin.count("/n")
        await fetch(node.url, new)
        assert origin.count("/n") == before
        told = [line for line in node.node.lines if "takes what is stored again" in line]
        assert told
