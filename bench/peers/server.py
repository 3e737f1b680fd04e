"""A running server: started and warmed, asked what it cost and counted, ended.

Strategy: servers are launched together and waited for one by one, so that their starts overlap.
"""

from __future__ import annotations

import contextlib
import http.client
import re
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bench.peers.contenders import CONTENDERS, HOST, OURS, ROOT, Certificate, Place
from bench.peers.processes import Unusable, cpu_seconds, last_words, memory, process

START_LIMIT = 60.0
"""Seconds until a server answers: Varnish compiles its rules, Traffic Server lays out its cache."""


@dataclass
class Server:
    """`behind` is the shield of an edge, or what another program has in its place: its cost counts
    too, its answers do not. `most` are the requests of its busiest round."""

    name: str
    place: Place
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    behind: Server | None = None
    most: int = 0

    @property
    def url(self) -> str:
        return f"{'https' if self.place.certificate else 'http'}://{HOST}:{self.place.port}"

    @property
    def roots(self) -> list[int]:
        own = [running.pid for running in self.processes]
        return own + (self.behind.roots if self.behind else [])

    def cpu(self) -> dict[str, float]:
        """Seconds of user + system so far, by program."""
        return cpu_seconds(self.roots)

    def memory(self, name: str = "VmRSS") -> int:
        return memory(self.roots, name)

    def get(self, path: str) -> tuple[int, dict[str, str], int]:
        """Status, fields in lower case, and length of the content."""
        where = (HOST, self.place.port)
        if self.place.certificate:
            trust = ssl.create_default_context(cafile=str(self.place.certificate.cert))
            trust.check_hostname = False
            link: http.client.HTTPConnection = http.client.HTTPSConnection(
                *where, timeout=60, context=trust
            )
        else:
            link = http.client.HTTPConnection(*where, timeout=60)
        with contextlib.closing(link):
            link.request("GET", path, headers={"Host": "www.example.net"})
            answer = link.getresponse()
            fields = {name.lower(): value for name, value in answer.getheaders()}
            length = 0
            while piece := answer.read(1 << 20):
                length += len(piece)
            return answer.status, fields, length

    def answers(self, path: str) -> None:
        """Waits until `path` is answered. Raises Unusable."""
        until = time.monotonic() + START_LIMIT
        while time.monotonic() < until:
            for running in self.processes:
                if running.poll() is not None:
                    said = last_words(self.place.folder / "output")
                    raise Unusable(f"{self.name} ended at its start: {said}")
            with contextlib.suppress(OSError, http.client.HTTPException):
                if self.get(path)[0] == 200:
                    return
            time.sleep(0.05)
        raise Unusable(f"{self.name} did not answer within {START_LIMIT:.0f} s")

    def log_lines(self) -> int:
        """Lines of the access log so far; what is buffered is not in it."""
        if not self.place.log.exists():
            return 0
        with self.place.log.open("rb") as file:
            return sum(piece.count(b"\n") for piece in iter(lambda: file.read(1 << 20), b""))

    def counted(self) -> int:
        """Requests by our own edge's counters."""
        with socket.socket(socket.AF_UNIX) as link:
            link.settimeout(30)
            link.connect(str(self.place.admin))
            link.sendall(b"GET /metrics HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n")
            text = b"".join(iter(lambda: link.recv(1 << 16), b"")).decode()
        return sum_of(text, "cdn_requests_total")


def sum_of(metrics: str, name: str) -> int:
    """All samples of the counter `name` in Prometheus text."""
    samples = re.findall(rf"^{name}(?:\{{.*\}})? (\S+)", metrics, re.MULTILINE)
    return int(sum(map(float, samples)))


@contextlib.contextmanager
def launched(
    name: str,
    folder: Path,
    upstream: str,
    core: int,
    *,
    content: int = 1024,
    certificate: Certificate | None = None,
    behind: Server | None = None,
    shield: bool = False,
) -> Iterator[Server]:
    """Starts `name`, before the shield `behind` if there is one; does not wait until it answers."""
    folder.mkdir()
    place = Place(
        folder=folder,
        port=free_port(),
        upstream=behind.url if behind else upstream,
        chained=behind is not None,
        shield=shield,
        content=content,
        certificate=certificate,
    )
    server = Server(name, place, behind=behind)
    env: Mapping[str, str] = {"PYTHONPATH": str(ROOT)} if name == OURS else {}
    with contextlib.ExitStack() as running:
        for command in CONTENDERS[name].commands(place):
            server.processes.append(
                running.enter_context(
                    process(command, folder / "output", core, env=env, cwd=folder)
                )
            )
        yield server


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])
