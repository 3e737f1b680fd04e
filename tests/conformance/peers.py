"""nginx, Varnish, Traffic Server and Squid from Debian, set up as a competent operator would.

Strategy: each is started in the foreground out of a folder of its own, as a caching reverse proxy
before the suite's origin on loopback, with its defaults for what RFC 9111 leaves open and its own
switches on for what they call caching best practice (revalidation, stale on error).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

from tests.conformance.suite import SuiteUnusable

HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Peer:
    """`command` makes the peer's files in a folder and gives what to run there."""

    package: str
    program: str
    command: Callable[[Path, int, str], list[str]]


def _nginx(folder: Path, port: int, origin: str) -> list[str]:
    (folder / "nginx.conf").write_text(
        f"""
daemon off; pid {folder}/pid; error_log {folder}/error.log; worker_processes 1; user root;
events {{}}
http {{
  access_log off;
  proxy_cache_path {folder}/cache keys_zone=cache:10m inactive=1h max_size=1g;
  proxy_temp_path {folder}/temp; client_body_temp_path {folder}/body;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  server {{
    listen {HOST}:{port};
    location / {{
      proxy_pass {origin};
      proxy_http_version 1.1;
      proxy_set_header Host $http_host;
      proxy_set_header Connection "";
      proxy_cache cache;
      proxy_cache_revalidate on;
      proxy_cache_lock on;
      proxy_cache_use_stale error timeout;
      add_header X-Cache $upstream_cache_status always;
    }}
  }}
}}
"""
    )
    return ["nginx", "-p", str(folder), "-c", str(folder / "nginx.conf")]


def _varnish(folder: Path, port: int, origin: str) -> list[str]:
    upstream = urlsplit(origin)
    (folder / "default.vcl").write_text(
        f"""
vcl 4.1;
backend default {{ .host = "{upstream.hostname}"; .port = "{upstream.port}"; }}
sub vcl_backend_response {{ set beresp.keep = 1h; }}
"""
    )
    listen = f"{HOST}:{port}"
    # By default it keeps for two minutes what says nothing about freshness.
    options = ["-s", "malloc,256m", "-p", "default_ttl=0", "-f", str(folder / "default.vcl")]
    return ["varnishd", "-F", "-n", str(folder / "work"), "-a", listen, *options]


def _trafficserver(folder: Path, port: int, origin: str) -> list[str]:
    for name in ("etc", "var", "log", "cache"):
        (folder / name).mkdir()
    for shipped in Path("/etc/trafficserver").iterdir():
        if shipped.is_file():
            shutil.copy(shipped, folder / "etc" / shipped.name)
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o777)
    settings = {
        "server_ports STRING": f"{port}:ip-in={HOST}",
        "url_remap.remap_required INT": "1",
        "url_remap.pristine_host_hdr INT": "1",
        "insert_age_in_response INT": "1",
        "insert_response_via_str INT": "1",
        "negative_caching_enabled INT": "0",
    }
    records = [f"CONFIG proxy.config.http.{name} {value}" for name, value in settings.items()]
    records += [
        f"CONFIG proxy.config.bin_path STRING {Path(shutil.which('traffic_server') or '').parent}",
        f"CONFIG proxy.config.local_state_dir STRING {folder}/var",
        f"CONFIG proxy.config.log.logfile_dir STRING {folder}/log",
        "CONFIG proxy.config.exec_thread.autoconfig INT 0",
        "CONFIG proxy.config.exec_thread.limit INT 1",
        "CONFIG proxy.config.admin.user_id STRING #-1",
    ]
    (folder / "etc" / "records.config").write_text("\n".join(records) + "\n")
    (folder / "etc" / "remap.config").write_text(f"map / {origin}/\n")
    (folder / "etc" / "storage.config").write_text(f"{folder}/cache 256M\n")
    (folder / "etc" / "runroot.yaml").write_text("")
    return ["env", f"TS_ROOT={folder}", f"PROXY_CONFIG_CONFIG_DIR={folder}/etc", "traffic_server"]


def _squid(folder: Path, port: int, origin: str) -> list[str]:
    upstream = urlsplit(origin)
    (folder / "squid.conf").write_text(
        f"""
http_port {HOST}:{port} accel defaultsite={HOST} no-vhost
cache_peer {upstream.hostname} parent {upstream.port} 0 no-query originserver name=origin
cache_mem 256 MB
memory_cache_shared off
http_access allow all
pid_filename {folder}/pid
cache_log {folder}/cache.log
access_log none
coredump_dir {folder}
visible_hostname squid
shutdown_lifetime 0 seconds
"""
    )
    return ["squid", "-N", "-n", f"port{port}", "-f", str(folder / "squid.conf")]


PEERS = {
    "nginx": Peer("nginx", "nginx", _nginx),
    "varnish": Peer("varnish", "varnishd", _varnish),
    "trafficserver": Peer("trafficserver", "traffic_server", _trafficserver),
    "squid": Peer("squid", "squid", _squid),
}


@contextlib.asynccontextmanager
async def running(name: str, origin: str) -> AsyncIterator[str]:
    """The peer `name` before `origin`; yields its URL. Raises SuiteUnusable."""
    peer = PEERS[name]
    if shutil.which(peer.program) is None:
        raise SuiteUnusable(f"{peer.program} is not installed: apt-get install {peer.package}")
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port = probe.getsockname()[1]
    with TemporaryDirectory(prefix=f"{name}-", ignore_cleanup_errors=True) as folder:
        os.chmod(folder, 0o777)  # most of them give root up at once
        process = await asyncio.create_subprocess_exec(
            *peer.command(Path(folder), port, origin),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            await _answers(name, port, process)
            yield f"http://{HOST}:{port}"
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            await process.wait()


async def _answers(name: str, port: int, process: asyncio.subprocess.Process) -> None:
    """Waits until somebody listens on `port`."""
    for _ in range(200):
        if process.returncode is not None:
            raise SuiteUnusable(f"{name} ended at its start with {process.returncode}")
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection(HOST, port)
            writer.close()
            return
        await asyncio.sleep(0.1)
    raise SuiteUnusable(f"{name} did not listen on port {port} within 20 s")
