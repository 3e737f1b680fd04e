"""The public HTTP cache tests: fetched from npm, run as they are.

Strategy: the package is installed into a build folder that is never committed. Its server is the
origin, its client asks through whatever cache is given; the tests' own descriptions are read out of
the package by node, so that kinds and dependencies are the suite's and not ours.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path

PACKAGE = "http-cache-tests"
VERSION = "0.4.5"
BUILD = Path(__file__).parents[2] / "build" / "conformance"

_DESCRIBE = """
import tests from './tests/index.mjs'
import surrogate from './tests/surrogate-control.mjs'
const all = tests.concat([surrogate])
console.log(JSON.stringify(all.flatMap(group => group.tests.map(test => ({
  id: test.id, group: group.id, name: test.name, kind: test.kind || 'required',
  depends_on: test.depends_on || [], browser_only: test.browser_only === true
})))))
"""


class SuiteUnusable(Exception):
    """The suite cannot be run here: one line, with the mend."""


def install() -> Path:
    """The package's folder, installed if it is not there yet. Raises SuiteUnusable."""
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            raise SuiteUnusable(f"{program} is not installed: apt-get install nodejs npm")
    package = BUILD / "node_modules" / PACKAGE
    if not (package / "cli.mjs").exists():
        BUILD.mkdir(parents=True, exist_ok=True)
        command = ["npm", "install", "--no-audit", "--no-fund", "--loglevel=error", "--prefix"]
        done = _run([*command, str(BUILD), f"{PACKAGE}@{VERSION}"], BUILD)
        if done.returncode:
            raise SuiteUnusable(f"npm could not install {PACKAGE}@{VERSION}: {done.stderr.strip()}")
    return package


def _run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def describe(package: Path) -> list[dict[str, object]]:
    """Every test: id, group, name, kind, depends_on, browser_only."""
    done = _run(["node", "--no-warnings", "--input-type=module", "-e", _DESCRIBE], package)
    if done.returncode:
        raise SuiteUnusable(f"node cannot read the suite: {done.stderr.strip()}")
    return json.loads(done.stdout)


@contextlib.asynccontextmanager
async def origin(package: Path, port: int = 0) -> AsyncIterator[str]:
    """The suite's server on `port`, 0 for any; yields its URL."""
    port = port or _free_port()
    environ = {"protocol": "http", "port": str(port), "pidfile": str(BUILD / "server.pid")}
    process = await asyncio.create_subprocess_exec(
        "node",
        "server/server.mjs",
        cwd=package,
        env=os.environ | {f"npm_config_{name}": value for name, value in environ.items()},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert process.stdout is not None
    drained: asyncio.Task[bytes] | None = None
    try:
        line = await asyncio.wait_for(process.stdout.readline(), 20)
        if not line.startswith(b"Listening"):
            raise SuiteUnusable(f"the suite's server did not start: {line.decode().strip()}")
        drained = asyncio.create_task(process.stdout.read())
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        await process.wait()
        if drained is not None:
            await drained


async def play(package: Path, base: str, tick: Callable[[], None]) -> dict[str, object]:
    """Runs every test through the cache at `base`: id to True, or [kind of error, message].
    `tick` is called about once a second."""
    environ = {
        "npm_config_base": base.rstrip("/"),
        "npm_config_id": "",
        "npm_package_config_id": "",
    }
    process = await asyncio.create_subprocess_exec(
        "node",
        "--no-warnings",
        "cli.mjs",
        cwd=package,
        env=os.environ | environ,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    told = asyncio.create_task(process.communicate())
    while not (await asyncio.wait({told}, timeout=1))[0]:
        tick()
    out, errors = await told
    start = out.find(b"{")
    if process.returncode or start < 0:
        raise SuiteUnusable(f"the suite's client failed: {errors.decode().strip()[-500:]}")
    return json.loads(out[start:])


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
