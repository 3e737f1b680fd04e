"""A real origin and a real client: nginx over the files of /usr/share/doc, and wget."""

import asyncio
import contextlib
import os
import shutil
import signal
import socket
from pathlib import Path

from tests.kit import get, need
from tests.scenarios.running import run

DOCUMENTS = Path("/usr/share/doc")
MOST_FILES = 5_000

CONFIGURATION = """
{user}
daemon off;
worker_processes 1;
pid {directory}/nginx.pid;
error_log {directory}/error.log;
events {{ worker_connections 512; }}
http {{
    log_format asked '$request "$http_range" $status $body_bytes_sent';
    access_log {directory}/access.log asked;
    client_body_temp_path {directory}/client_body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    keepalive_requests 1000000;
    server {{
        listen 127.0.0.1:{port};
        root {directory}/site;
        autoindex on;
        # Documents link to files that are not there: such answers count as fresh, too.
        add_header Cache-Control max-age=3600 always;
        # Or /dir would lead wget to /dir/ here, past the CDN.
        absolute_redirect off;
        location = /all-is-logged {{ access_log off; return 204; }}
    }}
}}
"""


def copy_documents(site: Path) -> list[Path]:
    """Copies real files, links resolved, without index.html (wget gives listings that name);
    returns their paths below `site`."""
    copied = []
    # Links between packages make no circles; those that lead nowhere are not files.
    for folder, folders, names in os.walk(DOCUMENTS, followlinks=True):
        folders.sort()
        for source in (Path(folder, name) for name in sorted(names)):
            if source.name == "index.html" or not source.is_file():
                continue
            path = source.relative_to(DOCUMENTS)
            (site / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, site / path)
            copied.append(path)
            if len(copied) == MOST_FILES:
                return copied
    return copied


@contextlib.asynccontextmanager
async def nginx(directory: Path):
    """Serves `directory`/site; yields the URL. The socket is ours and inherited, as at an upgrade
    of nginx: so it can be asked at once, and its port is nobody else's."""
    with socket.create_server(("127.0.0.1", 0), backlog=511) as listener:
        port = listener.getsockname()[1]
        user = "user root;" if os.geteuid() == 0 else ""
        file = directory / "nginx.conf"
        file.write_text(CONFIGURATION.format(directory=directory, port=port, user=user))
        command = [need("nginx"), "-p", str(directory), "-c", str(file)]
        command += ["-e", str(directory / "error.log")]
        fd = listener.fileno()
        process = await asyncio.create_subprocess_exec(
            *command, pass_fds=[fd], env=os.environ | {"NGINX": f"{fd};"}
        )
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGTERM)
        await process.wait()


async def requests_logged(origin: str, directory: Path) -> int:
    # One worker: whatever it was asked before this is in its log by now.
    assert (await get(f"{origin}/all-is-logged")).status == 204
    return len((directory / "access.log").read_text().splitlines())


async def mirror(url: str, target: Path) -> None:
    # -l inf: some documents lie deeper than wget's five levels. 8: "an answer was an error",
    # as dead links in documents are.
    command = [need("wget"), "-r", "-l", "inf", "-np", "-nH", "-e", "robots=off", "-nv"]
    finished = await run(*command, "-P", str(target), f"{url}/", limit=180)
    assert finished.code in (0, 8), finished.err[-2000:]
    assert "ERROR 5" not in finished.err


def differing(copied: list[Path], site: Path, mirrored: Path) -> list[Path]:
    return [
        path
        for path in copied
        if not (mirrored / path).is_file()
        or (mirrored / path).read_bytes() != (site / path).read_bytes()
    ]
