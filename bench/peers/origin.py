"""The origin: nginx without a cache, whose files are in shared memory and which counts requests.

Strategy: many URLs, few files. Sizes are the quantiles of a log-normal law, a file each; the class
in a URL picks one. What says `new` is one file under every name.
"""

from __future__ import annotations

import contextlib
import math
import os
import random
import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from statistics import NormalDist

from bench.peers.contenders import HOST
from bench.peers.processes import process
from bench.peers.server import free_port

CLASSES = 200
MEDIAN, SIGMA = 8192, 1.0
"""Of the log-normal sizes; the mean is MEDIAN × e^(SIGMA² / 2), about 13.5 KB."""

SMALL, BIG, FILM = 1024, 10 << 20, 256 << 20
SIZES = [
    max(1, int(MEDIAN * math.exp(SIGMA * NormalDist().inv_cdf((number + 0.5) / CLASSES))))
    for number in range(CLASSES)
]


class Origin:
    def __init__(self, url: str) -> None:
        self.url = url

    def requests(self) -> int:
        """Answered so far, this question included."""
        with urllib.request.urlopen(f"{self.url}/count", timeout=30) as answer:
            return parse_stub_status(answer.read().decode())


def parse_stub_status(text: str) -> int:
    """nginx's third number is of requests."""
    return int(re.findall(r"\d+", text)[3])


@contextlib.contextmanager
def origin(folder: Path, core: int) -> Iterator[Origin]:
    """Runs it out of `folder`."""
    files = folder / "files"
    files.mkdir(parents=True)
    noise = random.Random(1).randbytes(1 << 20)
    for number, size in enumerate(SIZES):
        (files / f"{number}.bin").write_bytes((noise * (size // len(noise) + 1))[:size])
    (files / "small.bin").write_bytes(noise[:SMALL])
    for name, size in (("big", BIG), ("film", FILM)):
        with (files / f"{name}.bin").open("wb") as file:
            for _ in range(size // len(noise)):
                file.write(noise)
    port = free_port()
    (folder / "nginx.conf").write_text(
        f"""
daemon off; pid {folder}/pid; error_log {folder}/error.log; worker_processes 1;
{"user root;" if os.getuid() == 0 else ""}
events {{ worker_connections 16384; }}
http {{
  access_log off; sendfile on; tcp_nopush on; tcp_nodelay on;
  open_file_cache max=1000 inactive=10m; open_file_cache_valid 10m;
  keepalive_timeout 600; keepalive_requests 1000000000;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/temp;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  default_type application/octet-stream;
  server {{
    listen {HOST}:{port} backlog=4096;
    root {files};
    add_header Cache-Control "public, max-age=86400";
    location = /count {{ stub_status; }}
    location = /hot {{ rewrite ^ /small.bin break; }}
    location /miss/ {{ rewrite ^ /small.bin break; }}
    location /zipf/ {{ rewrite ^/zipf/(\\d+)/ /$1.bin break; }}
    location = /big {{ rewrite ^ /big.bin break; }}
    location = /film {{ rewrite ^ /film.bin break; }}
  }}
}}
"""
    )
    command = ["nginx", "-p", str(folder), "-c", str(folder / "nginx.conf")]
    with process(command, folder / "output", core):
        yield Origin(f"http://{HOST}:{port}")
