"""The fast path and the full path give the same answers: every byte, and every log record.

Strategy: two nodes of one name, one with the fast path and one without, before one origin and by
one clock: edges, and shields that believe who knows a secret. Both are sent the same bytes over a
connection that stays open; what comes back is compared as bytes. The origin answers by what is
asked of it and by a version that the test sets.
"""

import asyncio
import contextlib
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cdn.semantics.http_date import format_http_date
from tests.conformance.player import _Answers, _lines, load_cases
from tests.kit import ManualClock, Pattern, Reply, ScriptedOrigin
from tests.kit.cdn_nodes import local_edge, local_shield

LIMIT = 5.0
CONTENT = bytes(range(256)) * 4


async def one_answer(reader: asyncio.StreamReader, method: str) -> bytes:
    """The bytes of one final answer and of the 1xx before it."""
    received = head = await reader.readuntil(b"\r\n\r\n")
    while head.startswith(b"HTTP/1.1 1"):
        head = await reader.readuntil(b"\r\n\r\n")
        received += head
    lines = head.lower().split(b"\r\n")
    if method == "HEAD" or lines[0][9:12] in (b"204", b"304"):
        return received
    for line in lines:
        if line.startswith(b"content-length:"):
            return received + await reader.readexactly(int(line.partition(b":")[2]))
        if line == b"transfer-encoding: chunked":
            piece = b""
            while piece != b"0\r\n":
                piece = await reader.readline()
                received += piece + await reader.readexactly(int(piece, 16) + 2)
            return received
    raise AssertionError(f"an answer without an end: {head!r}")


@dataclass
class Pair:
    """The same node twice, with the fast path and without."""

    origin: ScriptedOrigin
    clock: ManualClock
    nodes: list
    streams: list = field(default_factory=list)

    async def ask(self, raw: bytes, *methods: str) -> bytes:
        """Sends `raw`, which is a request for each of `methods`; the answers, which are alike."""
        got = []
        for reader, writer in self.streams:
            writer.write(raw)
            async with asyncio.timeout(LIMIT):
                got.append([await one_answer(reader, method) for method in methods])
        for node in self.nodes:
            await node.settled()
        assert got[0] == got[1]
        return b"".join(got[0])

    async def get(self, target="/a", *fields: str, method="GET") -> bytes:
        lines = [f"{method} {target} HTTP/1.1", "Host: site.example", *fields, "", ""]
        return await self.ask("\r\n".join(lines).encode("latin-1"), method)

    async def purge(self, target="/a") -> None:
        removed = [await node.node.purge(f"http://site.example{target}") for node in self.nodes]
        assert removed[0] == removed[1]

    @property
    def fast_answers(self) -> int:
        return self.nodes[0].node.server.fast_answers

    def same_logs(self) -> None:
        fast, full = (node.log for node in self.nodes)
        assert fast == full
        metrics = [node.node.declared.render() for node in self.nodes]
        told = [
            [line for line in text.decode().splitlines() if line.startswith("cdn_re")]
            for text in metrics
        ]
        assert told[0] == told[1]


@contextlib.asynccontextmanager
async def pair(node=local_edge, disk=None, **keys):
    clock = ManualClock()
    stores = [{"store": str(disk / name), "disk": "256MiB"} if disk else {} for name in "ab"]
    async with (
        ScriptedOrigin() as origin,
        node(origin.url, clock=clock, **stores[0], **keys) as fast,
        node(origin.url, clock=clock, fast=False, **stores[1], **keys) as full,
    ):
        both = Pair(origin, clock, [fast, full])
        for node in both.nodes:
            host, port = node.node.server.addresses[0]
            both.streams.append(await asyncio.open_connection(host, port))
        try:
            yield both
        finally:
            for _, writer in both.streams:
                writer.transport.abort()
        both.same_logs()


def storable(**more) -> Reply:
    fields = [("Cache-Control", "max-age=300"), ("ETag", '"v1"'), *more.pop("fields", ())]
    return Reply(fields=fields, content=CONTENT, **more)


async def test_a_hot_answer_ages_as_any_other_does():
    async with pair() as both:
        both.origin.on("/a", storable())
        for _ in range(4):
            await both.get()
        assert both.fast_answers >= 2
        for step in (0.25, 0.5, 0.25, 1, 0.999, 0.001, 100, -3, 3):
            both.clock.advance(step)
            assert b"; hit; ttl=" in await both.get()
        before = both.fast_answers
        both.clock.advance(300)
        assert b"fwd=stale" in await both.get()
        assert both.fast_answers == before


@pytest.mark.parametrize("on_disk", [False, True])
async def test_ranges_of_what_is_large(tmp_path, on_disk):
    size = (3 << 20) + 5
    fields = [("Cache-Control", "max-age=300"), ("ETag", '"v1"')]
    async with pair(disk=tmp_path if on_disk else None) as both:
        both.origin.on("/film", Reply(fields=fields, content=Pattern(size)))
        await both.get("/film")
        for number, asked in enumerate(
            [
                "0-0",
                "0-65535",
                "1000000-1065535",
                "1048576-1179647",
                "1048576-1179648",
                f"{size - 70_000}-",
                f"{size - 70_000}-{size + 5}",
                f"{size}-",
                "9-3",
                "0-70000,1048000-1049000",
                "-70000",
                "",
            ]
        ):
            before = both.fast_answers
            for _ in range(3):
                got = await both.get("/film", f"Range: bytes={asked}")
                assert b"; hit; ttl=" in got or number > 6
            if 0 < number < 4 and not on_disk:
                assert both.fast_answers == before + 3
            both.clock.advance(1)
        await both.get("/film", method="HEAD")
        await both.get("/film", 'If-None-Match: "v1"')
        await both.get("/film", 'If-Range: "v1"', "Range: bytes=5-70000")
        await both.get("/film", 'If-Range: "v2"', "Range: bytes=5-70000")
        await both.get("/film")


async def test_conditions_and_ranges_of_a_hot_answer():
    async with pair() as both:
        modified = format_http_date(both.clock.now() - 3600)
        both.origin.on("/a", storable(fields=[("Last-Modified", modified)]))
        await both.get()
        asked = [
            (),
            ('If-None-Match: "v1"',),
            ('If-None-Match: W/"v1", "other"',),
            ('If-None-Match: "v2"',),
            ("If-None-Match: *",),
            (f"If-Modified-Since: {modified}",),
            (f"If-Modified-Since: {format_http_date(both.clock.now() - 7200)}",),
            ('If-Match: "v2"',),
            (f"If-Unmodified-Since: {format_http_date(0)}",),
            ("Range: bytes=0-0",),
            ("Range: bytes=100-",),
            ("Range: bytes=1000-5000",),
            ("Range: bytes=1024-",),
            ("Range: bytes=9-3",),
            ("Range: bytes=-10",),
            ("Range: bytes=0-1,900-901",),
            ("Range: ",),
            ("Range: part",),
            ("Range: bytes=5-9", 'If-Range: "v1"'),
            ("Range: bytes=7-8", 'If-Range: "v1"'),
            ("Range: bytes=5-9", 'If-Range: "v2"'),
            ("Range: bytes=5-6", 'If-None-Match: "v1"'),
            ("Cache-Control: x-unknown",),
            ("Connection: keep-alive",),
            ("Cookie: a=b", "Cookie: c=d"),
            ('Surrogate-Capability: a="Surrogate/1.0"',),
            ("CDN-Loop: other; a=b",),
            ("CDN-Loop: iij-cdn;node=edge-a",),
            ("Accept-Encoding: gzip", 'User-Agent: quote " and \\ and \xe9', "Referer: /x"),
        ]
        for _ in range(3):
            for fields in asked:
                for method in ("GET", "HEAD"):
                    await both.get("/a", *fields, method=method)
            both.clock.advance(0.75)
        assert both.fast_answers > 80
        for value in ("no-cache", "max-age=0", "no-store", "only-if-cached", "min-fresh=400"):
            for _ in range(2):
                await both.get("/a", f"Cache-Control: {value}")
                await both.get()


async def test_requests_in_one_read_are_answered_in_order():
    async with pair() as both:
        both.origin.on("/a", storable())
        both.origin.on("/b", Reply(fields=[("Cache-Control", "no-store")], content=b"b"))
        await both.get()
        await both.get()
        a, b = (f"GET /{x} HTTP/1.1\r\nHost: site.example\r\n\r\n".encode() for x in "ab")
        head = a.replace(b"GET", b"HEAD")
        for _ in range(3):
            await both.ask(a + a + head + b + a, "GET", "GET", "HEAD", "GET", "GET")
        assert both.fast_answers > 6


async def play(both: Pair, step: dict, times: int) -> None:
    """One step of a conformance case, its request sent so many times."""
    both.origin.on(step.get("target", "/"), _Answers(step.get("origin"), both.clock))
    host = f"Host: {step.get('host', 'site.example')}"
    lines = [f"{name}: {value}" for name, value in _lines(step.get("request", {}))]
    method = step.get("method", "GET")
    line = f"{method} {step.get('target', '/')} HTTP/1.1"
    raw = "\r\n".join([line, host, *lines, "", ""]).encode("latin-1")
    for _ in range(times):
        await both.ask(raw, method)


CLAIMS = (
    (),
    ("Forwarded: for=192.0.2.7;proto=http",),
    ("Forwarded: for=192.0.2.8;proto=http",),
    ("Forwarded: for=192.0.2.7;proto=https",),
    ("forwarded: for=192.0.2.9", "Forwarded: for=192.0.2.7;proto=https"),
    ('Forwarded: for="";proto=https', 'Surrogate-Capability: e="Surrogate/1.0"'),
    ("Forwarded: nonsense, =", "CDN-Loop: iij-cdn;node=edge-a"),
    ("CDN-Loop: iij-cdn;node=shield-yokohama",),
    ("CDN-Loop: iij-cdn;node=SHIELD-Yokohama", "Forwarded: for=192.0.2.7;proto=http"),
    ("CDN-Loop: a, iij-cdn;node=b", "Via: 1.1 b", 'Surrogate-Capability: b="Surrogate/1.0"'),
    ('Surrogate-Capability: e="Surrogate/1.0"', "Forwarded: for=192.0.2.7;proto=http"),
)
SECRET = "CDN-Edge-Secret: open-sesame"


def shield(tmp_path):
    """What makes a shield that believes who knows the secret."""
    file = tmp_path / "secret"
    file.write_text("open-sesame\n")
    file.chmod(0o600)
    return {"node": local_shield, "edges": {"secret_file": str(file)}}


async def test_what_an_edge_says_is_believed_of_an_edge_alone(tmp_path):
    async with pair(**shield(tmp_path)) as both:
        fields = [("Surrogate-Control", 'max-age=300, content="ESI/1.0"')]
        both.origin.on("/a", storable(fields=fields))
        both.origin.on("/b", storable(fields=[*fields, ("Vary", "Surrogate-Capability, Via")]))
        for _ in range(3):
            for claims in CLAIMS:
                for told in (claims, (*claims, SECRET), (SECRET, *claims, "Cookie: a=b")):
                    for method in ("GET", "HEAD"):
                        await both.get("/a", *told, method=method)
                        await both.get("/b", *told, method=method)
                    await both.get("/a", *told, 'If-None-Match: "v1"')
                    await both.get("/a", *told, "Range: bytes=3-9")
            both.clock.advance(0.75)
        clients = {record.client for record in both.nodes[0].log}
        assert {"127.0.0.1", "192.0.2.7", "192.0.2.8"} <= clients
        assert both.fast_answers > 350
        for node in both.nodes:
            node.node.gateway.trusts = lambda _: False
        for claims in CLAIMS:
            await both.get("/a", *claims, SECRET)


@pytest.mark.parametrize("times", [1, 4])
@pytest.mark.parametrize("case", load_cases(), ids=lambda case: case.id)
async def test_every_conformance_case(case, times):
    """As it stands, and with every request sent often enough to be answered again."""
    async with pair(cache=case.cache) as both:
        for step in case.steps:
            if "advance" in step:
                both.clock.advance(step["advance"])
            else:
                await play(both, step, times)


async def test_conformance_cases_are_answered_again_where_they_can_be():
    """What is stored and fresh is asked for often enough to come from the fast path at all."""
    again = 0
    for case in load_cases():
        async with pair(cache=case.cache) as both:
            for step in case.steps:
                if "advance" in step:
                    both.clock.advance(step["advance"])
                else:
                    await play(both, step, 4)
            again += both.fast_answers > 0
    assert again > len(load_cases()) / 2


FIELDS = st.sampled_from(
    [
        (),
        ("Accept-Language: ja",),
        ("Accept-Language: en, ja;q=0.5",),
        ("Accept-Encoding: gzip",),
        ('If-None-Match: "0"',),
        ('If-None-Match: "1"',),
        ("Range: bytes=3-9",),
        ("Range: bytes=900-",),
        ('If-Range: "1"', "Range: bytes=0-1"),
        ("Cache-Control: no-cache",),
        ("Cache-Control: max-stale=20",),
        ("Cookie: session=1",),
        ("Cookie: session=2", "Referer: http://site.example/"),
        ("Range: bytes=-5",),
        ("Range: bytes=0-1,8-9",),
        ('If-None-Match: W/"0", "x"',),
        ("If-Modified-Since: Thu, 01 Jan 2026 00:00:00 GMT",),
        ("Pragma: no-cache",),
        ("Range: bytes=5000-",),
        ("range: bytes=3-9",),
        (f"Cookie: session={'1' * 2000}",),
        ("Referer: http://site.example/a",),
    ]
)
PATHS = ("/plain", "/vary", "/own", "/short", "/groups", "/search")
TARGETS = st.sampled_from([*PATHS[:-1], "/search?a=1", "/search?a=2"])
FIELDS_OF_EDGES = st.tuples(FIELDS, st.sampled_from(CLAIMS), st.sampled_from([(), (SECRET,)])).map(
    lambda parts: sum(parts, ())
)


def steps_with(fields):
    return st.one_of(
        st.tuples(st.sampled_from(["GET", "GET", "GET", "HEAD", "POST"]), TARGETS, fields),
        st.tuples(st.just("burst"), TARGETS, fields, st.integers(2, 5)),
        st.tuples(st.just("purge"), TARGETS),
        st.tuples(st.just("advance"), st.sampled_from([0.0, 0.3, 1.0, 7.5, 40.0])),
        st.tuples(st.just("new version")),
        st.tuples(st.just("reload")),
    )


class Versions:
    """What the origin answers: by target and by a version that changes."""

    def __init__(self) -> None:
        self.version = 0

    def __call__(self, request) -> Reply:
        path = request.target.partition("?")[0]
        language = request.field("accept-language") or ""
        extra = {
            "/plain": [("Cache-Control", "max-age=60")],
            "/vary": [("Cache-Control", "max-age=60"), ("Vary", "Accept-Language")],
            "/own": [("Cache-Control", "max-age=60"), ("Vary", "Cookie, Referer")],
            "/short": [("Cache-Control", "max-age=2, stale-while-revalidate=5")],
            "/groups": [("Cache-Control", "max-age=60"), ("Cache-Groups", '"g"')],
            "/search": [("Cache-Control", "max-age=60"), ("No-Vary-Search", 'params=("a")')],
        }[path]
        if path == "/search" and self.version == 0:
            extra = extra[:1]
        if request.method == "POST":
            groups = [("Cache-Group-Invalidation", '"g"')] if path == "/plain" else []
            return Reply(fields=groups, content=b"done")
        own = (request.field("cookie") or "", request.field("referer") or "")
        said = f"{path} {self.version} {language} {own if path == '/own' else ''}"
        content = said.encode() + CONTENT
        fields = [("ETag", f'"{self.version}"'), ("X-Version", f"{self.version}"), *extra]
        return Reply(fields=fields, content=content, honours_conditions=True, honours_ranges=True)


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(steps=st.lists(steps_with(FIELDS), min_size=5, max_size=60))
def test_random_traffic(steps):
    play_at_random(steps)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(steps=st.lists(steps_with(FIELDS_OF_EDGES), min_size=5, max_size=60))
def test_random_traffic_of_edges_and_others(steps, tmp_path):
    play_at_random(steps, **shield(tmp_path))


def play_at_random(steps, **keys) -> None:
    async def run() -> None:
        async with pair(**keys) as both:
            versions = Versions()
            for path in PATHS:
                both.origin.on(path, versions)
            for step in steps:
                match step:
                    case ("purge", target):
                        await both.purge(target)
                    case ("advance", seconds):
                        both.clock.advance(seconds)
                    case ("new version",):
                        versions.version += 1
                    case ("reload",):
                        for node in both.nodes:
                            await node.node.reload()
                    case ("burst", target, fields, times):
                        lines = [f"GET {target} HTTP/1.1", "Host: site.example", *fields, "", ""]
                        raw = "\r\n".join(lines).encode()
                        await both.ask(raw * times, *["GET"] * times)
                    case ("POST", target, _):
                        line = f"POST {target} HTTP/1.1\r\nHost: site.example\r\n"
                        await both.ask(f"{line}Content-Length: 0\r\n\r\n".encode(), "POST")
                    case (method, target, fields):
                        await both.get(target, *fields, method=method)

    import uvloop

    uvloop.run(run())
