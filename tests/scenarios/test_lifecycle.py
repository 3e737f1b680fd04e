"""A node's life as its operator sees it: start, questions, log rotation, and the end."""

import json
import signal
import socket

import pytest

from tests.kit import Gate, NoResponse, RawClient, Reply, ScriptedOrigin, get
from tests.kit.cdn_nodes import node_process
from tests.scenarios.running import (
    ROOT,
    ask_admin,
    cdn_command,
    ended_well,
    free_port,
    metric,
    small_cdn,
)

FRESH = [("Cache-Control", "max-age=3600")]
ANY_PORT = ("--listen", "127.0.0.1:0")
TOKEN = "correct-horse-battery"


@pytest.fixture
async def origin():
    async with ScriptedOrigin() as origin:
        origin.on("/a", Reply(fields=FRESH, content=b"what there is"))
        yield origin


# -- from nothing to a running node


async def test_flags_alone_make_a_caching_proxy_for_any_host(origin):
    async with node_process("edge", *ANY_PORT, "--origin", origin.url) as edge:
        for host in ("films.example", "other.example:8080", "192.0.2.1"):
            for _ in range(2):
                got = await get(f"{edge.url}/a", [("Host", host)])
                assert (got.status, got.content) == (200, b"what there is")
            assert "; hit" in got.field("Cache-Status")
        hosts = [request.field("host") for request in origin.requests]
        assert hosts == ["films.example", "other.example:8080", "192.0.2.1"]
        assert await ended_well(edge)


async def test_flags_alone_put_a_shield_between(origin):
    async with (
        node_process("shield", *ANY_PORT, "--origin", origin.url, "--name", "shield-x") as shield,
        node_process(
            "edge", *ANY_PORT, "--origin", origin.url, "--shield", shield.url, "--name", "edge-x"
        ) as edge,
    ):
        got = await get(f"{edge.url}/a")
        assert got.content == b"what there is"
        names = [member.split(";")[0] for member in got.field("Cache-Status").split(", ")]
        assert names == ["shield-x", "edge-x"]
        assert await ended_well(edge)
        assert await ended_well(shield)


async def test_an_ipv6_listener(origin):
    listen = ("--listen", "[::1]:0", "--listen", "127.0.0.1:0")
    async with node_process("edge", *listen, "--origin", origin.url) as edge:
        assert edge.url.startswith("http://[::1]:")
        got = await get(f"{edge.url}/a")
        assert (got.status, got.content) == (200, b"what there is")
        assert await ended_well(edge)


@pytest.mark.parametrize("taken", ["--listen", "--admin"])
async def test_a_port_in_use_is_one_line_and_exit_code_1(origin, taken):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        flags = {"--listen": "127.0.0.1:0", "--origin": origin.url, taken: f"127.0.0.1:{port}"}
        words = [word for pair in flags.items() for word in pair]
        finished = await cdn_command("edge", *words, CDN_ADMIN_TOKEN=TOKEN)
    assert (finished.code, finished.out) == (1, "")
    (line,) = finished.err.splitlines()
    assert f"127.0.0.1:{port}: Address already in use" in line


# -- questions


async def ask_as_operator(admin: str, url: str, *flags: str, **environ: str) -> None:
    """Every command of `cdn` against a node that has stored `url`."""
    told = await cdn_command("status", "--admin", admin, "--json", *flags, **environ)
    assert told.code == 0, told
    status = json.loads(told.out)
    assert (status["node"], status["store"]["objects"]) == ("edge-a", 1)
    table = await cdn_command("status", "--admin", admin, *flags, **environ)
    assert (table.code, "edge edge-a" in table.out) == (0, True)

    for words in ("1 stored response removed", "0 stored responses removed"):
        purged = await cdn_command("purge", url, "--admin", admin, *flags, **environ)
        assert (purged.code, purged.out) == (0, f"{url}: {words}\n")
    refused = await cdn_command("purge", "/a", "--admin", admin, *flags, **environ)
    assert refused.code == 1
    assert len(refused.err.splitlines()) == 1

    reloaded = await cdn_command("reload", "--admin", admin, *flags, **environ)
    assert (reloaded.code, reloaded.out) == (0, "reloaded\n")


async def test_the_commands_on_a_unix_socket(origin, tmp_path):
    async with small_cdn(tmp_path, origin.url, shields=()) as cdn:
        url, admin = f"{cdn.edge.url}/a", cdn.admin("edge-a")
        await get(url)
        assert (await ask_admin(admin, "/healthz")).content == b"ok\n"
        # On the viewers' port it is a path like any other, for the origin to answer.
        assert (await get(f"{cdn.edge.url}/healthz")).status == 404
        await ask_as_operator(admin, url)
        assert origin.count("/a") == 1
        await get(url)
        assert origin.count("/a") == 2


async def test_the_commands_on_tcp_need_the_token(origin, tmp_path):
    admin, token_file = f"127.0.0.1:{free_port()}", tmp_path / "token"
    token_file.write_text(f"{TOKEN}\n")
    flags = (*ANY_PORT, "--origin", origin.url, "--name", "edge-a", "--admin", admin)
    async with node_process("edge", *flags, CDN_ADMIN_TOKEN=TOKEN) as edge:
        await get(f"{edge.url}/a")
        assert (await ask_admin(admin, "/healthz")).status == 200
        for token in ("", "wrong"):
            for method, target in (
                ("GET", "/v1/status"),
                ("GET", "/metrics"),
                ("POST", "/v1/reload"),
            ):
                assert (await ask_admin(admin, target, method=method, token=token)).status == 401
        wrong = await cdn_command("status", "--admin", admin, CDN_ADMIN_TOKEN="wrong")
        assert wrong.code == 1
        assert len(wrong.err.splitlines()) == 1
        await ask_as_operator(admin, f"{edge.url}/a", CDN_ADMIN_TOKEN=TOKEN)
        told = await cdn_command("status", "--admin", admin, "--token-file", str(token_file))
        assert told.code == 0, told
        assert await ended_well(edge)


async def test_metrics_are_prometheus_text_that_counts(origin, tmp_path):
    async with small_cdn(tmp_path, origin.url, shields=()) as cdn:
        for _ in range(3):
            await get(f"{cdn.edge.url}/a")
        admin = cdn.admin("edge-a")
        assert await metric(admin, "cdn_requests_total") == 3
        assert await metric(admin, "cdn_requests_total", cache="hit") == 2
        assert await metric(admin, "cdn_store_objects") == 1
        assert await metric(admin, "cdn_upstream_requests_total", tier="origins") == 1


async def test_the_access_log_follows_its_path_at_sighup(origin, tmp_path):
    log, moved = tmp_path / "access.log", tmp_path / "access.log.1"
    flags = (*ANY_PORT, "--origin", origin.url, "--access-log", str(log), "--name", "edge-a")
    async with node_process("edge", *flags) as edge:
        await get(f"{edge.url}/a?before", [("User-Agent", 'a "quoted" one')])
        log.rename(moved)
        edge.signal(signal.SIGHUP)
        await edge.told("reload: ok")
        await get(f"{edge.url}/a?after")
        assert await ended_well(edge)
    # Written in batches: the line before may follow its file or the path, none may be lost.
    old, new = moved.read_text(), log.read_text()
    assert "/a?after" not in old
    (line,) = [line for line in (old + new).splitlines() if "/a?before" in line]
    assert line.startswith("127.0.0.1 - - [")
    assert ' "GET /a?before HTTP/1.1" 200 13 "-" "a \\x22quoted\\x22 one" "edge-a; fwd=' in line
    (line,) = [line for line in new.splitlines() if "/a?after" in line]
    assert "fwd=uri-miss" in line


# -- configuration


async def test_the_configuration_that_comes_along_is_fine():
    checked = await cdn_command("check", "configs/")
    assert (checked.code, checked.err) == (0, "")
    assert checked.out.endswith("2 edges, 2 shields, 2 services: fine\n")


async def test_a_broken_file_is_told_with_its_line(tmp_path):
    for file in sorted(ROOT.glob("configs/**/*.yaml")):
        copy = tmp_path / file.relative_to(ROOT / "configs")
        copy.parent.mkdir(exist_ok=True)
        copy.write_text(file.read_text())
    edge = tmp_path / "edge.yaml"
    lines = edge.read_text().splitlines()
    number = next(n for n, line in enumerate(lines) if "url: http://127.0.0.1:8180" in line)
    lines[number] = lines[number].replace("http:", "ftp:")
    edge.write_text("\n".join(lines))
    checked = await cdn_command("check", str(tmp_path))
    assert checked.code == 1
    problem, summary = checked.out.splitlines()
    assert problem.startswith(f"{edge}:{number + 1}: shields[0].url: ")
    assert summary.endswith("1 problem")
    started = await cdn_command("edge", "-c", str(edge))
    assert (started.code, started.err) == (1, f"cdn: {problem}\n")


# -- the end


async def test_sigterm_lets_what_is_in_flight_finish(origin, tmp_path):
    gate = Gate(after=1_000)
    origin.on("/slow", Reply(fields=FRESH, content=b"x" * 2_000, gate=gate))
    flags = (*ANY_PORT, "--origin", origin.url, "--admin", f"unix:{tmp_path}/edge.sock")
    async with (
        node_process("edge", *flags) as edge,
        await RawClient.connect(edge.url) as idle,
        await RawClient.connect(edge.url) as client,
    ):
        await idle.get("/a")
        await client.send_request("/slow")
        answer = await client.read_head()
        await gate.reached()

        edge.signal(signal.SIGTERM)
        await edge.told("draining")
        assert await idle.read_to_close() == b""
        with pytest.raises((ConnectionError, NoResponse)):
            await get(f"{edge.url}/a")
        health = await ask_admin(f"unix:{tmp_path}/edge.sock", "/healthz")
        assert (health.status, health.content) == (503, b"draining\n")
        assert edge.process.returncode is None

        gate.open()
        got = await answer.read()
        assert (got.complete, got.content) == (True, b"x" * 2_000)
        assert await client.read_to_close() == b""
        assert await edge.ended() == 0
    assert not (tmp_path / "edge.sock").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_second_signal_ends_it_at_once(origin, number):
    gate = Gate()
    origin.on("/slow", Reply(gate=gate))
    async with (
        node_process("edge", *ANY_PORT, "--origin", origin.url) as edge,
        await RawClient.connect(edge.url) as client,
    ):
        await client.send_request("/slow")
        await gate.reached()
        edge.signal(number)
        await edge.told("draining")
        edge.signal(number)
        # Not what is in flight, nor its limit: the gate stays shut.
        assert await edge.ended() == -number
        assert "draining" in edge.lines[-1], edge.lines
