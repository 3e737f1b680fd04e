"""An edge over TLS: what curl and OpenSSL see, from two workers, through reloads and an upgrade.

Strategy: a real node of two workers with certificates of the kit; clients are curl, Python's `ssl`
(which keeps sessions) and the kit's.
"""

import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import ssl
from pathlib import Path

import pytest

from tests.kit import Counter, RawClient, Reply, ScriptedOrigin, need, tls_contexts
from tests.kit.cdn_nodes import local_edge, local_shield
from tests.scenarios.running import ask_admin, cdn_command, metric, run, service_file
from tests.scenarios.workers import FRESH, Workers, all_gone, children, node_process, until

pytestmark = pytest.mark.usefixtures("unmeasured")

GET = b"GET /a HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n"


@pytest.fixture
async def origin():
    async with ScriptedOrigin() as origin:
        origin.on("/a", Reply(fields=FRESH, content=b"what there is"))
        yield origin


class Edge(Workers):
    """`port` is the one for TLS; `made` has the certificates."""

    def __init__(self, node, admin: str, directory: Path) -> None:
        super().__init__(node, admin)
        self.made = directory
        told = next(line for line in node.lines if "listening on " in line)
        self.port = int(re.search(r":(\d+) \(TLS\)", told)[1])

    def trusting(self, *names: str) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self.made / names[0] / "cert.pem")
        for name in names[1:]:
            context.load_verify_locations(self.made / name / "cert.pem")
        return context


@pytest.fixture
async def edge(origin, tmp_path):
    """Of two workers, with certificates for a.example and *.b.example."""
    tls_contexts(tmp_path / "a", "a.example")
    tls_contexts(tmp_path / "b", "*.b.example")
    (tmp_path / "site.yaml").write_text(service_file(origin.url))
    file = tmp_path / "edge.yaml"
    file.write_text(
        "role: edge\nname: edge-a\nlisten: 127.0.0.1:0\nworkers: 2\ndirect_to_origin: true\n"
        f"admin: {{listen: 'unix:{tmp_path}/edge.sock'}}\nservices: site.yaml\n"
        "tls:\n  listen: 127.0.0.1:0\n  certificates:\n"
        "    - {cert: a/cert.pem, key: a/key.pem}\n    - {cert: b/cert.pem, key: b/key.pem}\n"
    )
    async with node_process("edge", "-c", str(file), TMPDIR=str(tmp_path)) as node:
        edge = Edge(node, f"unix:{tmp_path}/edge.sock", tmp_path)
        try:
            yield edge
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(edge.supervisor, signal.SIGTERM)
            await all_gone([edge.supervisor])
            print(*node.lines, sep="\n")  # pytest shows it where a test fails
        assert not [line for line in node.lines if "bug" in line or "Traceback" in line]


async def curl(edge: Edge, name: str, whose: str, *flags: str) -> tuple[str, str]:
    """What curl says of an exchange, and its content."""
    done = await run(
        need("curl"), "-sv", *flags, "--cacert", str(edge.made / whose / "cert.pem"),
        "--resolve", f"{name}:{edge.port}:127.0.0.1", f"https://{name}:{edge.port}/a",
    )  # fmt: skip
    assert done.code == 0, done.err
    return done.err, done.out


@pytest.mark.debian
@pytest.mark.parametrize("version", ["1.2", "1.3"])
async def test_curl_over_either_version_and_by_server_name(edge, version):
    flags = (f"--tlsv{version}", "--tls-max", version)
    said, content = await curl(edge, "a.example", "a", *flags)
    assert f"SSL connection using TLSv{version} " in said
    assert "server accepted http/1.1" in said
    assert content == "what there is"
    said, content = await curl(edge, "www.b.example", "b", *flags)
    assert "subject: CN=*.b.example" in said
    assert content == "what there is"


def ask(port: int, context: ssl.SSLContext, session=None) -> tuple[bool, ssl.SSLSession, bytes]:
    """A request on a connection of its own: whether `session` was resumed, the one to resume next,
    and the certificate that was shown last in full. Blocks."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
        with context.wrap_socket(sock, server_hostname="a.example", session=session) as secure:
            secure.sendall(GET)
            answer = b"".join(iter(lambda: secure.recv(65_536), b""))
            assert answer.startswith(b"HTTP/1.1 200 ")
            assert answer.endswith(b"\r\n\r\nwhat there is")
            return secure.session_reused, secure.session, secure.getpeercert(binary_form=True)


async def asked(edge: Edge, context: ssl.SSLContext, session=None):
    return await asyncio.to_thread(ask, edge.port, context, session)


async def resumed_by_both(edge: Edge, context: ssl.SSLContext, session) -> None:
    """Resumes, in bursts, until each worker has resumed; none may want a full handshake."""
    for _ in range(50):
        burst = await asyncio.gather(*(asked(edge, context, session) for _ in range(8)))
        assert all(resumed for resumed, _, _ in burst)
        each = [
            (await ask_admin(f"unix:{path}", "/metrics")).content.decode()
            for path in edge.made.glob("cdn-*/*.admin")
        ]
        if sum('kind="resumed"' in told for told in each) == 2:
            return
    raise AssertionError("one worker takes all connections")


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
async def test_a_session_is_resumed_at_either_worker_and_by_their_successors(edge, version):
    context = edge.trusting("a")
    context.maximum_version = ssl.TLSVersion[version]
    resumed, session, _ = await asked(edge, context)
    assert not resumed
    await resumed_by_both(edge, context, session)

    os.kill(edge.supervisor, signal.SIGHUP)
    for place in (0, 1):
        await edge.node.told(f"edge-a/{place} info reload: ok")
    assert (await asked(edge, context, session))[0]

    old = edge.pids()[:2]
    for pid in old:
        os.kill(pid, signal.SIGKILL)
    await all_gone(old)
    # They begin anew with the reloaded configuration and the keys of before.
    await until(lambda: len(children(edge.supervisor)) == 3)
    assert (await asked(edge, context, session))[0]
    assert await metric(edge.admin, "cdn_tls_handshakes_total", kind="resumed") > 0


@pytest.mark.debian
async def test_openssl_resumes_five_times_in_a_row(edge):
    server = ("-connect", f"127.0.0.1:{edge.port}", "-servername", "a.example")
    done = await run(need("openssl"), "s_client", *server, "-tls1_2", "-reconnect")
    assert re.findall(r"^(New|Reused), TLS", done.out, re.MULTILINE) == ["New"] + ["Reused"] * 5


async def test_certificates_change_under_load_and_a_broken_one_changes_nothing(edge):
    shutil.copytree(edge.made / "a", edge.made / "before")
    tls_contexts(edge.made / "new", "a.example")
    both = edge.trusting("before", "new")
    answers, over = Counter("answers"), asyncio.Event()

    async def kept() -> None:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", edge.port, ssl=both, server_hostname="a.example"
        )
        async with RawClient(reader, writer, "a.example") as client:
            while not over.is_set():
                got = await client.get("/a")
                assert (got.status, got.complete) == (200, True)
                answers.add()

    async def fresh() -> None:
        while not over.is_set():
            await asked(edge, both)
            answers.add()

    async def shown() -> bytes:
        return (await asked(edge, both))[2]

    def der(name: str) -> bytes:
        return ssl.PEM_cert_to_DER_cert((edge.made / name / "cert.pem").read_text())

    async with asyncio.TaskGroup() as viewers:
        for _ in range(3):
            viewers.create_task(kept())
            viewers.create_task(fresh())
        try:
            await answers.reached(100)
            assert await shown() == der("before")
            for name in ("cert.pem", "key.pem"):
                shutil.copy(edge.made / "new" / name, edge.made / "a" / name)
            done = await cdn_command("reload", "--admin", edge.admin)
            assert done.out.endswith("reloaded\n")
            await answers.reached(answers.value + 100)
            assert {await shown() for _ in range(20)} == {der("new")}

            shutil.copy(edge.made / "before" / "key.pem", edge.made / "a" / "key.pem")
            before = len(edge.node.lines)
            os.kill(edge.supervisor, signal.SIGHUP)
            line = await edge.node.told("reload: nothing changed", after=before)
            assert "edge.yaml:11: tls.certificates[0].key: " in line
            assert "is not the key of" in line
            await answers.reached(answers.value + 100)
            assert edge.node.lines[before:] == [line]
            assert {await shown() for _ in range(20)} == {der("new")}
        finally:
            over.set()


async def test_an_upgrade_keeps_the_port_and_asks_for_one_full_handshake(edge):
    context = edge.trusting("a")
    _, session, _ = await asked(edge, context)
    await edge.upgrade()
    for _ in range(4):
        await asked(edge, context, session)  # answered, whichever generation has it
    await until(lambda: len(children(edge.supervisor)) == 3)
    resumed, session, _ = await asked(edge, context)
    assert not resumed
    assert (await asked(edge, context, session))[0]


async def test_status_and_metrics_name_the_certificates(edge):
    told = json.loads((await ask_admin(edge.admin, "/v1/status")).content)["tls"]
    assert told["listen"] == [f"127.0.0.1:{edge.port}"]
    first, second = told["certificates"]
    assert (first["name"], first["names"]) == (f"{edge.made}/a/cert.pem", ["a.example"])
    assert second["names"] == ["*.b.example"]
    assert first["warning"] == f"expires on {first['expires']}"  # the kit's last two days
    assert len([line for line in edge.node.lines if "expires on" in line]) == 2
    assert await metric(edge.admin, "cdn_tls_certificate_expiry_seconds") > 2 * 1.7e9


async def test_http_and_https_are_two_resources_and_shields_are_told_which(tmp_path, origin):
    _, trusting = tls_contexts(tmp_path / "a", "127.0.0.1", "a.example")
    files = {"cert": str(tmp_path / "a/cert.pem"), "key": str(tmp_path / "a/key.pem")}
    tls = {"listen": ["127.0.0.1:0"], "certificates": [files]}
    async with (
        local_shield(origin.url) as shield,
        local_edge(shields={"shield-yokohama": shield.url}, tls=tls) as edge,
    ):
        host, port = edge.node.server.tls_addresses[0]
        reader, writer = await asyncio.open_connection(
            host, port, ssl=trusting, server_hostname="a.example"
        )
        field = [("Host", "a.example")]
        async with (
            RawClient(reader, writer, "a.example") as secure,
            await RawClient.connect(edge.url) as plain,
        ):
            for client in (secure, plain, secure):
                assert (await client.get("/a", field)).content == b"what there is"
        assert [record.scheme for record in edge.log] == ["https", "http", "https"]
        assert edge.outcomes() == ["uri-miss", "uri-miss", "hit"]
        # The shield keyed them apart, though both came to it over plain HTTP.
        assert shield.outcomes() == ["uri-miss", "uri-miss"]
        assert origin.count("/a") == 2
