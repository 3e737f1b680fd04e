"""The caches that are compared, each set up for speed by somebody who knows it.

Strategy: a contender turns a `Place` (a folder, a port, what is upstream) into the commands to run
there. All have one core, the same bound of RAM, a shared memory file system where they
keep files, keep-alive both ways without a limit of requests, and a buffered access log. What the
floor answers needs no upstream and no log.
"""

from __future__ import annotations

import os
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from bench.peers.processes import Unusable

HOST = "127.0.0.1"
ROOT = Path(__file__).parents[2]
OURS, FLOOR = "edge", "floor"
MEMORY = 4 << 30
"""For what they store: a bound, not what they use. Our RAM store keeps no object over an eighth."""
IDLE = 120
"""Seconds that a connection may be idle, where that can be said."""


@dataclass(frozen=True, slots=True)
class Certificate:
    cert: Path
    key: Path


@dataclass(frozen=True, slots=True)
class Place:
    """`upstream` is an origin's URL, or with `chained` that of the same program as a shield.
    `content` is what the floor answers, in bytes."""

    folder: Path
    port: int
    upstream: str
    chained: bool
    shield: bool
    content: int
    certificate: Certificate | None

    @property
    def log(self) -> Path:
        return self.folder / "access.log"

    @property
    def admin(self) -> Path:
        return self.folder / "admin.sock"


@dataclass(frozen=True, slots=True)
class Contender:
    """`packages` are Debian's, by the program that is looked for; `version` says which it is."""

    packages: dict[str, str]
    commands: Callable[[Place], Sequence[Sequence[str]]]
    version: Sequence[str]
    tls: bool = True
    logs: bool = True


def _nginx(place: Place) -> list[list[str]]:
    folder, tls = place.folder, place.certificate
    # Without tcp_nopush: on loopback it doubles the cost of 64 KiB and adds 40 ms to them.
    listen = f"listen {HOST}:{place.port} backlog=4096" + (" ssl" if tls else "") + ";"
    if tls:
        listen += f"\n    ssl_certificate {tls.cert}; ssl_certificate_key {tls.key};"
        listen += " ssl_protocols TLSv1.3; ssl_session_cache shared:tls:8m;"
    # What is kept open counts against the same limit as connections, and 500 is what comes of it.
    descriptors = min(1 << 17, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    (folder / "nginx.conf").write_text(
        f"""
daemon off; pid {folder}/pid; error_log {folder}/error.log; worker_processes 1;
{"user root;" if os.getuid() == 0 else ""}
events {{ worker_connections {descriptors // 4}; multi_accept on; }}
http {{
  log_format timed '$remote_addr - $remote_user [$time_local] "$request" $status '
    '$body_bytes_sent "$http_referer" "$http_user_agent" "$upstream_cache_status" $request_time';
  access_log {place.log} timed buffer=64k flush=1s;
  sendfile on; tcp_nodelay on;
  open_file_cache max={descriptors // 2} inactive=10m; open_file_cache_valid 10m;
  keepalive_timeout {IDLE}; keepalive_requests 1000000000;
  proxy_cache_path {folder}/cache levels=1:2 keys_zone=cache:64m inactive=1h max_size=4g
    use_temp_path=off;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/temp;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  upstream up {{
    server {urlsplit(place.upstream).netloc};
    keepalive 256; keepalive_requests 1000000000;
  }}
  server {{
    {listen}
    location / {{
      proxy_pass http://up;
      proxy_http_version 1.1;
      proxy_set_header Host $http_host;
      proxy_set_header Connection "";
      proxy_cache cache;
      proxy_cache_lock on;
      proxy_cache_revalidate on;
      proxy_cache_use_stale error timeout;
      add_header X-Cache $upstream_cache_status;
    }}
  }}
}}
"""
    )
    return [["nginx", "-p", str(folder), "-c", str(folder / "nginx.conf")]]


def _varnish(place: Place) -> list[list[str]]:
    upstream = urlsplit(place.upstream)
    # Its built-in rules pass every request with a Cookie; all others here cache them.
    (place.folder / "default.vcl").write_text(
        f"""
vcl 4.1;
backend default {{ .host = "{upstream.hostname}"; .port = "{upstream.port}"; }}
sub vcl_recv {{ unset req.http.Cookie; }}
sub vcl_deliver {{
  if (obj.hits > 0) {{ set resp.http.X-Cache = "HIT"; }} else {{ set resp.http.X-Cache = "MISS"; }}
}}
"""
    )
    work = str(place.folder / "work")
    storage = f"malloc,{MEMORY}"
    run = ["varnishd", "-F", "-n", work, "-a", f"{HOST}:{place.port}", "-s", storage]
    run += ["-p", f"timeout_idle={IDLE}", "-p", "listen_depth=4096"]
    run += ["-f", str(place.folder / "default.vcl")]
    line = '%h %l %u %t "%r" %s %b "%{Referer}i" "%{User-agent}i" %{Varnish:handling}x %D'
    # Its log is a program of its own, which reads what the server leaves in shared memory.
    log = ["varnishncsa", "-n", work, "-t", "30", "-w", str(place.log), "-F", line]
    return [run, log]


def _trafficserver(place: Place) -> list[list[str]]:
    folder, tls = place.folder, place.certificate
    for name in ("etc", "var", "cache"):
        (folder / name).mkdir()
    for shipped in Path("/etc/trafficserver").iterdir():
        if shipped.is_file():
            shutil.copy(shipped, folder / "etc" / shipped.name)
    ports = f"{place.port}:ip-in={HOST}" + (":ssl" if tls else "")
    program = Path(shutil.which("traffic_server") or "")
    settings = {
        "admin.user_id": "STRING #-1",
        "bin_path": f"STRING {program.parent}",
        "local_state_dir": f"STRING {folder}/var",
        "exec_thread.autoconfig": "INT 0",
        "exec_thread.limit": "INT 1",
        "net.connections_throttle": "INT 30000",
        "net.listen_backlog": "INT 4096",
        # Else the first rounds of range pay for what is not in RAM yet.
        "cache.ram_cache.use_seen_filter": "INT 0",
        "cache.ram_cache.size": f"INT {MEMORY}",
        "cache.ram_cache_cutoff": f"INT {MEMORY}",
        "http.server_ports": f"STRING {ports}",
        "http.wait_for_cache": "INT 1",
        "http.insert_age_in_response": "INT 1",
        "http.insert_response_via_str": "INT 1",
        "http.keep_alive_no_activity_timeout_in": f"INT {IDLE}",
        "http.transaction_no_activity_timeout_in": f"INT {IDLE}",
        "url_remap.pristine_host_hdr": "INT 1",
        "url_remap.remap_required": "INT 1",
        "log.logging_enabled": "INT 3",
        "log.logfile_dir": f"STRING {folder}",
        "log.log_buffer_size": "INT 65536",
        "log.max_secs_per_buffer": "INT 1",
    }
    etc = folder / "etc"
    if tls:
        settings["ssl.server.cert.path"] = f"STRING {tls.cert.parent}"
        settings["ssl.server.private_key.path"] = f"STRING {tls.key.parent}"
        line = f"dest_ip=* ssl_cert_name={tls.cert.name} ssl_key_name={tls.key.name}\n"
        (etc / "ssl_multicert.config").write_text(line)
    lines = [f"CONFIG proxy.config.{name} {value}\n" for name, value in settings.items()]
    (etc / "records.config").write_text("".join(lines))
    (etc / "remap.config").write_text(f"map / {place.upstream}/\n")
    (etc / "storage.config").write_text(f"{folder}/cache 4G\n")
    (etc / "runroot.yaml").write_text("")
    (etc / "logging.yaml").write_text(
        """
logging:
  formats:
    - name: timed
      format: '%<chi> - %<caun> [%<cqtn>] "%<cqtx>" %<pssc> %<pscl> "%<{Referer}cqh>" "%<{User-Agent}cqh>" %<crc> %<ttms>'
  logs:
    - filename: access
      format: timed
      mode: ascii
"""  # noqa: E501
    )
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o777)  # it gives root up
    return [["env", f"TS_ROOT={folder}", f"PROXY_CONFIG_CONFIG_DIR={etc}", "traffic_server"]]


def _edge(place: Place) -> list[list[str]]:
    run = [sys.executable, "-m", "cdn", "shield" if place.shield else "edge"]
    run += ["--shield" if place.chained else "--origin", place.upstream]
    listen = "--tls-listen" if place.certificate else "--listen"
    run += [listen, f"{HOST}:{place.port}", "--admin", f"unix:{place.admin}"]
    run += ["--access-log", str(place.log), "--memory", f"{MEMORY >> 30}GiB"]
    if place.certificate:
        run += ["--tls-cert", str(place.certificate.cert)]
        run += ["--tls-key", str(place.certificate.key)]
    return [run]


def _floor(place: Place) -> list[list[str]]:
    program = place.folder / "floor"
    source = Path(__file__).with_name("floor.c")
    subprocess.run(["gcc", "-O2", "-o", str(program), str(source)], check=True)
    return [[str(program), str(place.port), str(place.content)]]


CONTENDERS = {
    OURS: Contender({}, _edge, [sys.executable, "-VV"]),
    "nginx": Contender({"nginx": "nginx"}, _nginx, ["nginx", "-v"]),
    "varnish": Contender(
        {"varnishd": "varnish", "varnishncsa": "varnish"}, _varnish, ["varnishd", "-V"], tls=False
    ),
    "trafficserver": Contender(
        {"traffic_server": "trafficserver"}, _trafficserver, ["traffic_server", "-V"]
    ),
    FLOOR: Contender({"gcc": "gcc"}, _floor, ["gcc", "--version"], tls=False, logs=False),
}
PEERS = tuple(name for name in CONTENDERS if name not in (OURS, FLOOR))


def require(names: Sequence[str]) -> None:
    """Raises Unusable where `names` cannot be compared before apt-get has brought something."""
    wanted = {"wrk": "wrk", "nginx": "nginx"}  # the load, and the origin
    for name in names:
        wanted |= CONTENDERS[name].packages
    missing = {package for program, package in wanted.items() if shutil.which(program) is None}
    if missing:
        raise Unusable(f"not installed: apt-get install {' '.join(sorted(missing))}")


def version(name: str) -> str:
    """The first number with dots that the program says of itself; for the edge and the floor it is
    that of what runs or made them."""
    said = subprocess.run(CONTENDERS[name].version, capture_output=True, text=True, check=False)
    found = re.search(r"\d+\.\d+[\w.]*", said.stdout + said.stderr)
    return {OURS: "on Python ", FLOOR: "by gcc "}.get(name, "") + (found[0] if found else "?")


def edge_has_tls() -> bool:
    """Whether our edge takes --tls-cert yet."""
    command = [sys.executable, "-m", "cdn", "edge", "--help"]
    said = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    return "--tls-cert" in said.stdout
