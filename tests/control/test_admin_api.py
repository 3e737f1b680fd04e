"""The admin API over real sockets: who may ask, what is answered, and what errors say."""

import asyncio
import io
import json
import os
import socket
import stat

import aiohttp
import pytest
import uvloop

from cdn.control.api import AdminServer, AdminUnusable, ReloadReport
from cdn.observe.events import EventLog

TOKEN = "s3cret"
WITH_TOKEN = {"Authorization": f"Bearer {TOKEN}"}


class FakeNode:
    def __init__(self) -> None:
        self.purged: list[str] = []
        self.report = ReloadReport(True, ["configs/edge.yaml ok"])

    async def status(self):
        return {"node": "edge-a", "operator": "東"}

    async def metrics(self):
        return b"# HELP cdn_x X.\ncdn_x 1\n"

    async def purge(self, url, invalidation=""):
        if "unknown" in url:
            raise ValueError("no delivery service names the host unknown.example")
        self.purged.append(url)
        return 2

    async def reload(self):
        return self.report


class Running:
    """A started server, its node, and what its event log told."""

    def __init__(self) -> None:
        self.node = FakeNode()
        self.told = io.StringIO()
        self.server = AdminServer(token=TOKEN, events=EventLog("edge-a", lambda: 0.0, self.told))
        self.url = ""

    async def __aenter__(self):
        host, port = await self.server.start(self.node, ("127.0.0.1", 0))
        self.url = f"http://{host}:{port}"
        return self

    async def __aexit__(self, *_):
        await self.server.stop()

    async def ask(self, method, path, fields=WITH_TOKEN, **content):
        async with aiohttp.ClientSession() as session:
            async with session.request(method, self.url + path, headers=fields, **content) as got:
                text = await got.text()
                is_json = got.content_type == "application/json"
                return got.status, json.loads(text) if is_json else text, got.headers


@pytest.fixture
async def running():
    async with Running() as running:
        yield running


async def test_health_needs_no_token_and_says_when_draining(running):
    assert (await running.ask("GET", "/healthz", {}))[:2] == (200, "ok\n")
    running.server.draining = True
    assert (await running.ask("GET", "/healthz", {}))[:2] == (503, "draining\n")


async def test_status_and_metrics(running):
    status, answer, _ = await running.ask("GET", "/v1/status")
    assert (status, answer) == (200, {"node": "edge-a", "operator": "東"})
    status, text, fields = await running.ask("GET", "/metrics")
    assert (status, text) == (200, "# HELP cdn_x X.\ncdn_x 1\n")
    assert fields["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"


async def test_purge(running):
    url = "https://www.example.com/a?b"
    status, answer, _ = await running.ask("POST", "/v1/purge", json={"url": url})
    assert (status, answer) == (200, {"removed": 2})
    assert running.node.purged == [url]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff\xfe\xfd", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "not an object"),
        (b'{"url": "http://a/", "soft": true}', "not an object"),
        (b'{"url": 7}', "not a string"),
        (b'{"url": "http://unknown.example/"}', "no delivery service names the host"),
    ],
)
async def test_a_purge_that_cannot_be(running, content, says):
    status, answer, _ = await running.ask("POST", "/v1/purge", data=content)
    assert status == 400
    assert says in answer["error"]
    assert answer["mend"]
    assert running.node.purged == []


async def test_reload_reports_file_and_line(running):
    status, answer, _ = await running.ask("POST", "/v1/reload")
    assert (status, answer) == (200, {"ok": True, "messages": ["configs/edge.yaml ok"]})
    running.node.report = ReloadReport(False, ["configs/x.yaml:3: nam: unknown key"])
    status, answer, _ = await running.ask("POST", "/v1/reload")
    assert (status, answer) == (
        409,
        {"ok": False, "messages": ["configs/x.yaml:3: nam: unknown key"]},
    )


@pytest.mark.parametrize(
    "value", ["", "Bearer", "Bearer s3cre", "Bearer s3cret2", "Basic s3cret", "Bearer é"]
)
@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/v1/status"), ("POST", "/v1/reload"), ("GET", "/elsewhere")]
)
async def test_without_the_token_nothing_is_told(running, method, path, value):
    status, answer, fields = await running.ask(method, path, {"Authorization": value})
    assert (status, answer["error"]) == (401, "no valid token")
    assert fields["WWW-Authenticate"] == "Bearer"
    assert TOKEN not in str(answer)


async def test_the_scheme_is_case_insensitive(running):
    status, _, _ = await running.ask("GET", "/v1/status", {"Authorization": f"bearer {TOKEN}"})
    assert status == 200


async def test_what_is_not_there(running):
    status, answer, _ = await running.ask("GET", "/v2/status")
    assert status == 404
    assert "/v2/status" in answer["error"]
    assert "/v1/status" in answer["mend"]
    status, answer, fields = await running.ask("GET", "/v1/purge")
    assert (status, fields["Allow"]) == (405, "POST")
    assert "Allow" in answer["mend"]


async def test_content_is_bounded(running):
    content = json.dumps({"url": "http://a/" + "a" * (1 << 20)}).encode()
    status, answer, _ = await running.ask("POST", "/v1/purge", data=io.BytesIO(content))
    assert status == 413
    assert "1048576" in answer["mend"]
    assert running.node.purged == []


async def test_a_fault_of_the_node_is_one_line_and_no_traceback(running, capfd):
    running.node.status = lambda: {"loop": object()}
    status, answer, _ = await running.ask("GET", "/v1/status")
    assert status == 500
    assert "TypeError" in answer["error"]
    (line,) = running.told.getvalue().splitlines()
    assert "admin: GET /v1/status: TypeError" in line
    assert capfd.readouterr() == ("", "")


def new_server(token=TOKEN) -> AdminServer:
    return AdminServer(token=token, events=EventLog("edge-a", lambda: 0.0, io.StringIO()))


@pytest.mark.parametrize("token", [None, ""])
async def test_tcp_without_a_token_is_refused(token):
    with pytest.raises(AdminUnusable, match="no token: give one"):
        await new_server(token).start(FakeNode(), ("127.0.0.1", 0))


async def test_an_address_that_is_taken_is_refused(running):
    port = int(running.url.rsplit(":", 1)[1])
    with pytest.raises(AdminUnusable, match=f"admin 127.0.0.1:{port}: Address already in use: "):
        await new_server().start(FakeNode(), ("127.0.0.1", port))


async def test_ipv6():
    server = new_server()
    host, port = await server.start(FakeNode(), ("::1", 0))
    async with aiohttp.ClientSession() as session:
        async with session.get(f"http://[{host}]:{port}/healthz") as got:
            assert got.status == 200
    await server.stop()


async def ask_unix(path, method="GET", target="/v1/status"):
    async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(path))) as session:
        async with session.request(method, f"http://node{target}") as got:
            return got.status


async def serve_on_unix(path) -> None:
    server = new_server(None)
    assert await server.start(FakeNode(), str(path)) == str(path)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert await ask_unix(path) == 200
    await server.stop()
    assert not path.exists()


def test_a_unix_socket_needs_no_token_on_either_loop(tmp_path):
    asyncio.run(serve_on_unix(tmp_path / "admin"))
    uvloop.run(serve_on_unix(tmp_path / "admin"))


async def test_the_socket_file_of_the_dead_is_replaced(tmp_path):
    path = tmp_path / "admin"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
        dead.listen()
    await serve_on_unix(path)


async def test_the_socket_of_the_living_is_left_alone(tmp_path):
    path = tmp_path / "admin"
    first = new_server(None)
    await first.start(FakeNode(), str(path))
    with pytest.raises(AdminUnusable, match="a running node answers there"):
        await new_server(None).start(FakeNode(), str(path))
    assert await ask_unix(path) == 200
    await first.stop()


async def test_a_living_socket_that_is_busy_is_left_alone(tmp_path):
    path = tmp_path / "admin"
    with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as queued:
        busy.bind(str(path))
        busy.listen(0)
        queued.connect(str(path))
        with pytest.raises(AdminUnusable, match="a running node answers there"):
            await new_server(None).start(FakeNode(), str(path))
    assert path.exists()


async def test_a_file_that_is_no_socket_is_left_alone(tmp_path):
    path = tmp_path / "admin"
    path.write_text("precious")
    with pytest.raises(AdminUnusable, match="a file that is no socket"):
        await new_server(None).start(FakeNode(), str(path))
    assert path.read_text() == "precious"


async def test_a_path_below_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(AdminUnusable, match="Not a directory: name another path"):
        await new_server(None).start(FakeNode(), str(tmp_path / "file" / "admin"))


@pytest.mark.parametrize("path", ["missing/admin", "a" * 200])
async def test_a_path_that_cannot_be_bound_is_refused(tmp_path, path):
    with pytest.raises(AdminUnusable, match="name a path of at most 107 bytes"):
        await new_server(None).start(FakeNode(), str(tmp_path / path))


async def test_stopping_leaves_a_successors_socket(tmp_path):
    path = tmp_path / "admin"
    first, second = new_server(None), new_server(None)
    await first.start(FakeNode(), str(path))
    path.rename(tmp_path / "old")
    await second.start(FakeNode(), str(path))
    await first.stop()
    assert await ask_unix(path) == 200
    await second.stop()


async def test_stopping_what_was_never_started():
    await new_server().stop()
