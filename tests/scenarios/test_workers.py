"""Several workers behind one address: one origin request, one voice, and nobody notices an upgrade.

Strategy: real processes (`tests.scenarios.workers`). `CDN_UPGRADES=20` plays the whole of what CI
plays a part of.
"""

import asyncio
import json
import os
import signal
import time

import pytest

from tests.kit import Gate, Pattern, RawClient, Reply, ScriptedOrigin, get
from tests.kit.cdn_nodes import node_process
from tests.scenarios.numbered import content_of
from tests.scenarios.running import ask_admin, cdn_command, ended_well, metric
from tests.scenarios.workers import (
    FRESH,
    Workers,
    alive,
    all_gone,
    both,
    children,
    connections,
    hang_up,
    left_behind,
    load,
    more,
    refused,
    running,
    spread,
    stopped,
    until,
)

pytestmark = pytest.mark.usefixtures("unmeasured")

UPGRADES = int(os.environ.get("CDN_UPGRADES", "4"))
RATE = 500 if UPGRADES >= 20 else 300
"""New connections a second."""


@pytest.fixture
async def origin():
    async with ScriptedOrigin() as origin:
        origin.on("/a", Reply(fields=FRESH, content=b"what there is"))
        origin.on("/n", lambda request: Reply(fields=FRESH, content=content_of(request.target)))
        yield origin


@pytest.fixture(autouse=True)
async def _hang_up():
    yield
    await hang_up()


# -- one owner for every key


async def test_a_crowd_over_two_workers_costs_the_origin_one_request(origin, tmp_path):
    gate = Gate(after=1)
    origin.on("/crowd", Reply(fields=FRESH, content=Pattern(3 << 20), gate=gate))
    async with running(origin, tmp_path) as node:
        clients = await both(node, 200)
        for client in clients:
            await client.send_request("/crowd")
        heads = await asyncio.gather(*(client.read_head() for client in clients))
        assert origin.count("/crowd") == 1  # while all of them wait for the rest
        gate.open()
        for got in await asyncio.gather(*(head.read() for head in heads)):
            assert (got.complete, len(got.content)) == (True, 3 << 20)
        assert origin.count("/crowd") == 1
        # Both workers had a part in it, and the hop between them is in no field and no count.
        assert 0 < await metric(node.admin, "cdn_owner_forwarded_total") < len(clients)
        assert await metric(node.admin, "cdn_requests_total") == len(clients)
        assert {head.field("Via") for head in heads} == {"1.1 edge-a"}
        members = [head.field("Cache-Status").split("; ")[0] for head in heads]
        assert set(members) == {"edge-a"}
        assert not [name for name, _ in heads[0].fields if "worker" in name.lower()]
        for client in clients:
            client.close()


async def test_the_hop_between_workers_changes_no_request_and_no_answer(origin, tmp_path):
    log = tmp_path / "access.log"
    origin.on(
        "/x", lambda r: Reply(status=201, fields=[("X-Got", "yes")], content=bytes(r.content))
    )
    async with running(origin, tmp_path, "--access-log", str(log)) as node:
        for n in range(8):
            sent = [("Host", f"h{n}.Example"), ("X-Mine", "kept"), ("CDN-Worker-Asked", "forged")]
            got = await get(f"{node.url}/x?{n}", sent, method="PUT", content=b"c" * n)
            assert (got.status, got.field("X-Got"), got.content) == (201, "yes", b"c" * n)
            asked = origin.requests[-1]
            assert (asked.target, asked.field("host")) == (f"/x?{n}", f"h{n}.Example")
            assert asked.field("x-mine") == "kept"
            assert asked.field("via") == "1.1 edge-a"
            assert asked.field("cdn-loop") == "iij-cdn;node=edge-a"
            head = await get(f"{node.url}/n?{n}", method="HEAD")
            assert (head.status, head.field("Content-Length")) == (
                200,
                str(len(content_of(f"/n?{n}"))),
            )
        assert await metric(node.admin, "cdn_owner_forwarded_total") > 0
        assert await metric(node.admin, "cdn_owner_lost_total") == 0
    # One line a request, with the viewer's address.
    lines = log.read_text().splitlines()
    assert len(lines) == 16
    assert all(line.startswith("127.0.0.1 - - [") and " default" in line for line in lines)


# -- one voice


async def test_purge_reload_status_and_metrics_are_of_all_workers(origin, tmp_path):
    async with running(origin, tmp_path) as node:
        targets = [f"/n?{n}" for n in range(20)]
        for target in targets * 3:
            await get(node.url + target)
        assert origin.count("/n") == 20
        status = await node.status()
        assert (status["workers"], status["store"]["objects"], status["requests"]) == (2, 20, 60)
        assert await metric(node.admin, "cdn_requests_total", cache="hit") == 40
        assert await metric(node.admin, "cdn_store_objects") == 20
        assert await metric(node.admin, "cdn_workers") == 2
        assert await metric(node.admin, "cdn_store_capacity_bytes") == 1 << 30

        for target in targets:
            content = json.dumps({"url": node.url + target}).encode()
            purged = await ask_admin(node.admin, "/v1/purge", method="POST", content=content)
            assert json.loads(purged.content) == {"removed": 1}
            await asyncio.gather(*(get(node.url + target) for _ in range(4)))
        assert origin.count("/n") == 40
        refused = await cdn_command("purge", "/a", "--admin", node.admin)
        assert (refused.code, len(refused.err.splitlines())) == (1, 1)

        reloaded = await cdn_command("reload", "--admin", node.admin)
        assert (reloaded.code, reloaded.out) == (0, "reloaded\n")
        assert [line for line in node.node.lines if "reload: ok" in line and "/0 " in line]
        assert [line for line in node.node.lines if "reload: ok" in line and "/1 " in line]
        assert (await node.status())["reloads"] == {"ok": 1, "failed": 0}


async def test_what_an_unsafe_method_outdates_is_gone_from_every_worker(origin, tmp_path):
    origin.on("/form", lambda r: Reply(fields=[("Location", f"/n?{r.target.split('?')[1]}")]))
    async with running(origin, tmp_path) as node:
        for n in range(12):
            for _ in range(2):
                await get(f"{node.url}/n?{n}")
            assert origin.count("/n") == 2 * n + 1
            await get(f"{node.url}/form?{n}", method="POST", content=b"new")
            clients = await spread(node.url, 4)
            answers = await asyncio.gather(*(client.get(f"/n?{n}") for client in clients))
            assert {answer.content for answer in answers} == {content_of(f"/n?{n}")}
            assert origin.count("/n") == 2 * n + 2
        assert await metric(node.admin, "cdn_invalidated_total") == 12


@pytest.mark.parametrize("ends", ["purge", "unsafe method"])
async def test_what_every_worker_gives_again_ends_in_all_of_them_at_once(origin, tmp_path, ends):
    """Both workers read the shared store and answer from what they gave before."""
    version = iter(range(1000))
    origin.on("/hot", lambda _: Reply(fields=FRESH, content=f"version {next(version)}".encode()))
    origin.on("/form", Reply(fields=[("Location", "/hot")]))
    store = ("--store", str(tmp_path / "store"), "--disk", "1GiB")
    async with running(origin, tmp_path, *store) as node:
        clients = await both(node, 8)
        await clients[0].get("/hot")
        for n in range(1, 6):
            for _ in range(4):
                answers = [await client.get("/hot") for client in clients]
                now = {answer.content for answer in answers}
                assert now == {f"version {n - 1}".encode()}
            if ends == "purge":
                content = json.dumps({"url": f"{node.url}/hot"}).encode()
                told = await ask_admin(node.admin, "/v1/purge", method="POST", content=content)
                assert json.loads(told.content)["removed"] == 1
            else:
                await get(f"{node.url}/form", method="POST", content=b"new")
            first = await asyncio.gather(*(client.get("/hot") for client in clients))
            assert {answer.content for answer in first} == {f"version {n}".encode()}
        assert await metric(node.admin, "cdn_hot_answers_total") > 0


async def test_a_file_edited_and_hung_up_holds_in_every_worker_also_in_the_next_one(
    origin, tmp_path
):
    (tmp_path / "services").mkdir()
    service = tmp_path / "services" / "site.yaml"
    file = tmp_path / "edge.yaml"

    def write(host: str) -> None:
        service.write_text(f"name: site\nhosts: [{host}]\norigins: ['{origin.url}']\n")

    async def answers(node, host: str) -> set[int]:
        clients = await spread(node.url, 8)
        got = await asyncio.gather(*(client.get("/a", [("Host", host)]) for client in clients))
        return {one.status for one in got}

    write("old.example")
    file.write_text(
        "role: edge\nname: edge-a\nlisten: 127.0.0.1:0\ndirect_to_origin: true\nworkers: 2\n"
        f"services: services/*.yaml\nadmin: {{listen: 'unix:{tmp_path}/a.sock'}}\n"
    )
    async with node_process("edge", "-c", str(file), TMPDIR=str(tmp_path)) as process:
        node = Workers(process, f"unix:{tmp_path}/a.sock")
        assert await answers(node, "old.example") == {200}
        write("new.example")
        process.signal(signal.SIGHUP)
        for worker in ("edge-a/0", "edge-a/1"):
            await process.told(f"{worker} info reload: ok")
        assert await answers(node, "new.example") == {200}
        assert await answers(node, "old.example") == {421}

        service.write_text("name: site\nhosts: broken")
        process.signal(signal.SIGHUP)
        line = await process.told("reload: nothing changed")
        assert "site.yaml:" in line
        assert (await ask_admin(node.admin, "/v1/reload", method="POST")).status == 409
        # A worker that comes while the files are broken has what was good last.
        before = node.pids()
        os.kill(before[0], signal.SIGKILL)
        await until(lambda: len(node.pids()) == 3 and before[0] not in node.pids())
        assert await answers(node, "new.example") == {200}
        assert await ended_well(process)


# -- load that notices everything


@pytest.mark.parametrize("flags", [(), ("--store", "store", "--disk", "1GiB")], ids=["", "store"])
async def test_upgrades_under_load_refuse_and_reset_nobody(origin, tmp_path, flags):
    flags = [str(tmp_path / flag) if flag == "store" else flag for flag in flags]
    async with running(origin, tmp_path, *flags) as node:
        old = [node.supervisor, *node.pids()]
        async with load(node.url, RATE) as clients:
            began = time.monotonic()
            await more(clients, RATE // 4)
            for _ in range(UPGRADES):
                await node.upgrade()
                await more(clients, RATE // 4)
            print(f"{clients.done / (time.monotonic() - began):.0f} new connections a second")
        assert clients.errors == []
        assert clients.done > UPGRADES * RATE // 4
        await all_gone(old)
        status = await node.status()
        assert status["workers"] >= 2
        # What has taken over answers operators, too: the socket's file has stayed.
        assert (await cdn_command("reload", "--admin", node.admin)).code == 0


async def test_who_has_connected_to_the_old_program_is_heard_by_it(origin, tmp_path):
    async with running(origin, tmp_path) as node:
        clients = await spread(node.url, 8)
        await node.upgrade()
        for client in clients:
            assert (await client.get("/a")).content == b"what there is"


async def test_an_upgrade_from_four_workers_to_two(origin, tmp_path):
    (tmp_path / "site.yaml").write_text(f"name: s\nhosts: ['*']\norigins: ['{origin.url}']\n")
    file = tmp_path / "edge.yaml"

    def write(workers: int) -> None:
        file.write_text(
            "role: edge\nname: edge-a\nlisten: 127.0.0.1:0\ndirect_to_origin: true\n"
            f"services: site.yaml\nworkers: {workers}\n"
        )

    write(4)
    async with node_process("edge", "-c", str(file), TMPDIR=str(tmp_path)) as process:
        node = Workers(process, "")
        old = node.pids()
        assert len(old) == 4
        async with load(node.url, 200) as clients:
            await more(clients, 100)
            write(2)
            await node.upgrade()
            await all_gone(old)
            await more(clients, 100)
        assert clients.errors == []
        assert len(node.pids()) == 2
        os.kill(node.supervisor, signal.SIGTERM)
        await all_gone([node.supervisor])


async def test_a_transfer_outlives_the_upgrade(origin, tmp_path):
    gate = Gate(after=1_000)
    origin.on("/slow", Reply(fields=FRESH, content=b"x" * 2_000, gate=gate))
    async with running(origin, tmp_path) as node:
        (client,) = await spread(node.url, 1)
        await client.send_request("/slow")
        answer = await client.read_head()
        await gate.reached()
        old = node.supervisor
        await node.upgrade()
        assert alive(old)
        gate.open()
        got = await answer.read()
        assert (got.complete, len(got.content)) == (True, 2_000)
        await all_gone([old])


async def test_a_new_program_that_does_not_start_leaves_the_old_one_alone(origin, tmp_path):
    (tmp_path / "site.yaml").write_text(f"name: s\nhosts: ['*']\norigins: ['{origin.url}']\n")
    file = tmp_path / "edge.yaml"
    good = (
        "role: edge\nname: edge-a\nlisten: 127.0.0.1:0\ndirect_to_origin: true\n"
        "services: site.yaml\nworkers: 2\n"
    )
    file.write_text(good)
    async with node_process("edge", "-c", str(file), TMPDIR=str(tmp_path)) as process:
        pids = children(process.process.pid)
        file.write_text(good + "nonsense: 1\n")
        process.signal(signal.SIGUSR2)
        await process.told("upgrade: the new program ended with exit code 1: this one goes on")
        assert children(process.process.pid) == pids
        assert (await get(f"{process.url}/a")).status == 200
        assert await ended_well(process)


async def test_a_killed_worker_takes_only_its_own_connections_along(origin, tmp_path):
    async with running(origin, tmp_path) as node:
        idle = await both(node, 40)
        for client in idle:
            assert (await client.get("/a")).status == 200
        held = {pid: connections(pid, node.url, 1) for pid in node.pids()[:2]}
        assert sum(held.values()) == len(idle)
        victim = min(held, key=held.get)
        async with load(node.url, 200) as clients:
            await more(clients, 100)
            async with stopped(node.supervisor):  # nobody takes the dead one's place yet
                in_flight, killed_at = clients.in_flight, time.monotonic()
                os.kill(victim, signal.SIGKILL)
                # Whoever comes after it waits for no other: half of the keys were the victim's.
                await until(lambda: sum(at >= killed_at for at, _ in clients.answered) >= 100)
            await node.node.told("was ended by signal 9: another is started")
            await until(lambda: len(node.pids()) == 3)
            await more(clients, 100)
        # A connection under way may have been the victim's own; none that came after it.
        assert len(clients.errors) <= in_flight, clients.errors
        assert all("Incomplete" in error or "Reset" in error for error in clients.errors)
        assert victim not in node.pids()
        lost = 0
        for client in idle:
            try:
                assert (await client.get("/a")).content == b"what there is"
            except ConnectionError:
                lost += 1
        assert lost == held[victim]
        assert await metric(node.admin, "cdn_worker_restarts_total") == 1
        # What the dead one had counted stays counted, as far as it was asked.
        counted = await metric(node.admin, "cdn_requests_total")
        os.kill(next(pid for pid in node.pids()), signal.SIGKILL)
        await until(lambda: sum("signal 9" in line for line in node.node.lines) == 2)
        assert await metric(node.admin, "cdn_requests_total") >= counted


async def test_a_transfer_from_an_owner_that_is_killed_goes_on(origin, tmp_path):
    gate = Gate(after=600_000)
    big = Pattern(1 << 20)
    origin.on("/big", Reply(fields=FRESH, content=big, gate=gate, honours_ranges=True))
    async with running(origin, tmp_path) as node:
        clients = await both(node, 16)
        for client in clients:
            await client.send_request("/big")
        heads = await asyncio.gather(*(client.read_head() for client in clients))
        await gate.reached()
        forwarded = await metric(node.admin, "cdn_owner_forwarded_total")
        assert 0 < forwarded < len(clients)
        # The owner is the one that is connected to the origin.
        owner = next(pid for pid in node.pids() if connections(pid, origin.url, 2))
        os.kill(owner, signal.SIGKILL)
        gate.open()
        whole = 0
        for got in await asyncio.gather(*(head.read() for head in heads)):
            if got.complete:
                assert got.content == big.read(0, 1 << 20)
                whole += 1
        assert whole == forwarded


# -- the end


async def test_sigterm_drains_all_and_says_so(origin, tmp_path):
    gate = Gate(after=1_000)
    origin.on("/slow", Reply(fields=FRESH, content=b"x" * 2_000, gate=gate))
    async with running(origin, tmp_path) as node:
        clients = await spread(node.url, 8)
        for client in clients:
            await client.send_request("/slow")
        heads = await asyncio.gather(*(client.read_head() for client in clients))
        await gate.reached()
        pids = node.pids()
        node.node.signal(signal.SIGTERM)
        await node.node.told("draining")
        await refused(node.url)
        health = await ask_admin(node.admin, "/healthz")
        assert (health.status, health.content) == (503, b"draining\n")
        gate.open()
        for got in await asyncio.gather(*(head.read() for head in heads)):
            assert (got.complete, len(got.content)) == (True, 2_000)
        assert await node.node.ended() == 0
        assert not any(map(alive, pids))
        assert not (tmp_path / "edge.sock").exists()


async def test_a_second_signal_ends_all_at_once(origin, tmp_path):
    gate = Gate()
    origin.on("/slow", Reply(gate=gate))
    async with running(origin, tmp_path) as node, await RawClient.connect(node.url) as client:
        await client.send_request("/slow")
        await gate.reached()
        pids = node.pids()
        node.node.signal(signal.SIGINT)
        await node.node.told("draining")
        node.node.signal(signal.SIGINT)
        assert await node.node.ended() == -signal.SIGINT
        await all_gone(pids)


async def test_workers_do_not_outlive_a_supervisor_that_is_killed(origin, tmp_path):
    async with running(origin, tmp_path) as node:
        clients = await spread(node.url, 8)
        for client in clients:
            await client.get("/a")
        pids = node.pids()
        assert len(pids) == 3
        node.node.signal(signal.SIGKILL)
        await all_gone(pids)


async def test_what_keeps_a_worker_from_starting_keeps_the_node_from_starting(origin, tmp_path):
    finished = await cdn_command(
        "edge", "--listen", "127.0.0.1:0", "--origin", origin.url, "--workers", "2",
        "--access-log", f"{tmp_path}/missing/log", TMPDIR=str(tmp_path),
    )  # fmt: skip
    assert finished.code == 1
    assert "access log" in finished.err
    assert "Traceback" not in finished.err
    assert left_behind(tmp_path) == []
