"""wrk: its command, its figures.

Strategy: load.lua makes the requests and prints the figures as JSON, so nothing is read out of text
meant for people.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.peers.processes import Unusable, pinned

SCRIPT = Path(__file__).with_name("load.lua")
SWEEP_LIMIT = 900
"""Seconds that a preparation may take."""


@dataclass(frozen=True, slots=True)
class Load:
    """Latencies in microseconds, from a request written to its answer read (closed loop)."""

    requests: int
    seconds: float
    p50: float
    p99: float


def parse_figures(output: str) -> Load:
    """The last line of `output`. Raises Unusable where a request was not answered as it should."""
    line = output.strip().rpartition("\n")[2]
    try:
        told = json.loads(line)
    except ValueError:
        raise Unusable(f"wrk gave no figures, but: {line or 'nothing'}") from None
    wrong = {
        kind: told[kind] for kind in ("connect", "read", "write", "status", "timeout") if told[kind]
    }
    if wrong:
        kinds = ", ".join(f"{count} {kind}" for kind, count in wrong.items())
        raise Unusable(f"wrk met errors ({kinds}): such a round measures something else")
    if not told["requests"]:
        raise Unusable("wrk got no answer at all: give it longer with --seconds")
    return Load(told["requests"], told["microseconds"] / 1e6, told["p50"], told["p99"])


def run_wrk(
    url: str, core: int, connections: int, seconds: int, words: Mapping[str, object]
) -> str:
    """Its standard output. With the word `answers` it ends when it has got as many."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "30s"]
    command += ["-s", str(SCRIPT), url, "--", *(f"{name}={word}" for name, word in words.items())]
    running = subprocess.Popen(
        pinned(command, core),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        out, err = running.communicate()
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(running.pid, signal.SIGKILL)
        running.communicate()
        raise
    if running.returncode:
        said = (err or out).strip().splitlines()
        raise Unusable(f"wrk ended with {running.returncode}: {said[-1] if said else 'no word'}")
    return out


def sweep(url: str, core: int, answers: int, words: Mapping[str, object]) -> None:
    """Asks until `answers` have come; every one of them must be a 200."""
    connections = 16
    # The first request of a script is taken by wrk to look at, and up to one a connection is still
    # under way when the last answer comes.
    asked = {**words, "answers": answers + connections + 1}
    run_wrk(url, core, connections, SWEEP_LIMIT, asked)
