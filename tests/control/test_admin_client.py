"""What the command line uses, against a real server in a thread and against what is no node."""

import asyncio
import io
import socket
import threading

import pytest

from cdn.control import client as client_module
from cdn.control.api import AdminServer, ReloadReport
from cdn.control.client import AdminClient, AdminError, read_token
from cdn.observe.events import EventLog


class FakeNode:
    report = ReloadReport(True, [])

    async def status(self):
        return {"node": "edge-a"}

    async def metrics(self):
        return b""

    async def purge(self, url, invalidation=""):
        if url == "nonsense":
            raise ValueError("nonsense: no URL")
        return 3

    async def reload(self):
        return self.report


@pytest.fixture
async def serve():
    """Starts a node's admin server on this loop; the client is called in a thread."""
    servers = []

    async def start(listen, token="t0ken"):
        server = AdminServer(token=token, events=EventLog("edge-a", lambda: 0.0, io.StringIO()))
        servers.append(server)
        return await server.start(FakeNode(), listen)

    yield start
    for server in servers:
        await server.stop()


@pytest.mark.parametrize("form", ["127.0.0.1:{}", "http://127.0.0.1:{}", "http://localhost:{}/"])
async def test_all_it_asks_over_tcp(serve, form):
    _, port = await serve(("127.0.0.1", 0))
    client = AdminClient(form.format(port), "t0ken")
    assert await asyncio.to_thread(client.status) == {"node": "edge-a"}
    assert await asyncio.to_thread(client.purge, "http://a/") == 3
    assert await asyncio.to_thread(client.reload) == ReloadReport(True, [])


async def test_ipv6(serve):
    _, port = await serve(("::1", 0))
    client = AdminClient(f"[::1]:{port}", "t0ken")
    assert await asyncio.to_thread(client.status) == {"node": "edge-a"}


async def test_over_a_unix_socket_no_token(serve, tmp_path):
    await serve(str(tmp_path / "admin"), token=None)
    client = AdminClient(f"unix:{tmp_path}/admin")
    assert await asyncio.to_thread(client.status) == {"node": "edge-a"}


async def test_a_reload_that_changed_nothing_is_a_report(serve, monkeypatch):
    report = ReloadReport(False, ["configs/edge.yaml:3: nam: unknown key"])
    monkeypatch.setattr(FakeNode, "report", report)
    _, port = await serve(("127.0.0.1", 0))
    assert await asyncio.to_thread(AdminClient(f"127.0.0.1:{port}", "t0ken").reload) == report


async def test_a_refusal_is_one_line_with_its_mend(serve):
    _, port = await serve(("127.0.0.1", 0))
    admin = f"127.0.0.1:{port}"
    with pytest.raises(AdminError, match=f"{admin}: nonsense: no URL: give the URL as viewers ask"):
        await asyncio.to_thread(AdminClient(admin, "t0ken").purge, "nonsense")
    with pytest.raises(AdminError, match=f"{admin}: no valid token: send Authorization: Bearer"):
        await asyncio.to_thread(AdminClient(admin).status)


def test_no_node_there(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    for admin in (f"127.0.0.1:{port}", f"unix:{tmp_path}/admin"):
        with pytest.raises(AdminError) as told:
            AdminClient(admin).status()
        assert str(told.value) == (
            f"no node answers at {admin}: is it running, and is admin: set in its file?"
        )


class Impostor:
    """Listens, and answers one purge with `answer` (None: nothing, ever)."""

    def __init__(self, answer: bytes | None) -> None:
        self._answer = answer
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> str:
        self._thread.start()
        return f"127.0.0.1:{self._listener.getsockname()[1]}"

    def __exit__(self, *_) -> None:
        self._over.set()
        self._thread.join(5)
        self._listener.close()

    def _serve(self) -> None:
        connection, _ = self._listener.accept()
        with connection:
            if self._answer is None:
                self._over.wait(5)
                return
            # The whole purge: closing on unread bytes is a reset.
            while (asked := connection.recv(65536)) and not asked.endswith(b"}"):
                pass
            connection.sendall(self._answer)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "is this the viewers' port"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]", "is this the viewers' port"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", "is this the viewers' port"),
        (b"HTTP/1.1 404 No\r\nContent-Length: 2\r\n\r\n{}", "is this the viewers' port"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}", "IncompleteRead"),
        (b"SSH-2.0-OpenSSH\r\n", "BadStatusLine"),
        (b"", "is this a node's admin listener"),
    ],
)
def test_something_else_answers(answer, says):
    with Impostor(answer) as admin, pytest.raises(AdminError, match=says):
        AdminClient(admin).purge("http://a/")


def test_a_node_that_hangs(monkeypatch):
    monkeypatch.setattr(client_module, "TIMEOUT", 0.05)
    with Impostor(None) as admin, pytest.raises(AdminError, match="did not answer within"):
        AdminClient(admin).status()


@pytest.mark.parametrize(
    ("raised", "says"),
    [(PermissionError(13, "no"), "the node's user"), (socket.gaierror(-2, "no"), "no address")],
)
def test_what_the_system_refuses(monkeypatch, raised, says):
    def connect(*_, **__):
        raise raised

    monkeypatch.setattr(socket, "create_connection", connect)
    with pytest.raises(AdminError, match=says):
        AdminClient("node.example:9180").status()


@pytest.mark.parametrize(
    "admin",
    ["", "9180", "host", "host:0", "host:x", "host:99999", "https://host:1", "http://host:1/v1",
     "unix:admin", "[::1:9180", "host:"],
)  # fmt: skip
def test_an_address_that_is_none(admin):
    with pytest.raises(AdminError, match="write HOST:PORT"):
        AdminClient(admin)


def test_where_the_token_comes_from(tmp_path):
    path = tmp_path / "token"
    path.write_text("from-file\n")
    environ = {"CDN_ADMIN_TOKEN": "from-environment"}
    assert read_token(str(path), environ) == "from-file"
    assert read_token(None, environ) == "from-environment"
    assert read_token(None, {}) is None


@pytest.mark.parametrize("content", [b"", b" \n", b"two words", b"two\nlines", b"\xff", b"a\x00"])
def test_a_token_that_is_none(tmp_path, content):
    path = tmp_path / "token"
    path.write_bytes(content)
    with pytest.raises(AdminError, match="no token: write one word"):
        read_token(str(path), {})


def test_a_token_file_that_is_not_there(tmp_path):
    with pytest.raises(AdminError, match="No such file or directory: name a readable file"):
        read_token(str(tmp_path / "token"), {})
