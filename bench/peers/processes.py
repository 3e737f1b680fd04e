"""Processes that the bench starts and ends, and what they cost.

Strategy: each gets a session of its own, so that Ctrl-C reaches the bench alone and the bench ends
its whole group. Costs are read from /proc over the process and all its descendants; the time of a
child that was waited for is in its parent's account, so a sum never loses any.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

TICKS = os.sysconf("SC_CLK_TCK")
PATIENCE = 10.0
"""Seconds between SIGTERM and SIGKILL."""


class Unusable(Exception):
    """The measurement cannot go on: one line for whoever runs it, with the mend."""


class Stat(NamedTuple):
    """Of /proc/PID/stat; `ticks` is user + system, with the children that were waited for."""

    pid: int
    program: str
    parent: int
    ticks: int


def parse_stat(text: str) -> Stat:
    # proc(5): the name stands in parentheses and may hold any character, parentheses too.
    head, _, tail = text.rpartition(")")
    pid, _, program = head.partition(" (")
    fields = tail.split()
    return Stat(int(pid), program, int(fields[1]), sum(map(int, fields[11:15])))


def parse_status(text: str, name: str) -> int:
    """Bytes of the field `name` of /proc/PID/status; 0 where it has none (a zombie)."""
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key == name:
            return int(value.split()[0]) * 1024
    return 0


def tree(root: int) -> list[Stat]:
    """`root` and all its descendants, as they are now."""
    stats = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                stats.append(parse_stat((entry / "stat").read_text()))
    family = {root}
    while more := {stat.pid for stat in stats if stat.parent in family} - family:
        family |= more
    return [stat for stat in stats if stat.pid in family]


def end_descendants() -> None:
    """Ends all that this process has started: what a signal has left between start and `try`."""
    for stat in tree(os.getpid()):
        if stat.pid != os.getpid():
            with contextlib.suppress(ProcessLookupError):
                os.kill(stat.pid, signal.SIGKILL)


def cpu_seconds(roots: Sequence[int]) -> dict[str, float]:
    """User + system so far, by program."""
    seconds: dict[str, float] = {}
    for root in roots:
        for stat in tree(root):
            seconds[stat.program] = seconds.get(stat.program, 0.0) + stat.ticks / TICKS
    return seconds


def memory(roots: Sequence[int], name: str) -> int:
    """The sum of VmRSS (now) or VmHWM (the peak) in bytes."""
    total = 0
    for root in roots:
        for stat in tree(root):
            with contextlib.suppress(OSError):
                total += parse_status(Path(f"/proc/{stat.pid}/status").read_text(), name)
    return total


def pinned(command: Sequence[str], core: int) -> list[str]:
    """`command` as it runs on `core`; taskset (util-linux) becomes it, so its PID stays."""
    return ["taskset", "-c", str(core), *command]


@contextlib.contextmanager
def process(
    command: Sequence[str],
    output: Path,
    core: int,
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """Runs `command` on `core`; its whole group is ended at the end."""
    with output.open("ab") as sink:
        running = subprocess.Popen(
            pinned(command, core),
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
            start_new_session=True,
            env={**os.environ, **(env or {})},
            cwd=cwd,
        )
    try:
        yield running
    finally:
        running.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            running.wait(PATIENCE)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(running.pid, signal.SIGKILL)
        running.wait()


def last_words(output: Path) -> str:
    """The last line that a process wrote."""
    lines = output.read_text(errors="replace").strip().splitlines() if output.exists() else []
    return lines[-1] if lines else "it said nothing"
