"""Where a store is measured: its directory, the node on it, its pages in and out of RAM.

Strategy: the node is the real command, alone on one core; whoever asks it has the other. What is
cold is made so by the kernel, and asserted: a read that may not wait must fail.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HOST = "site.example"
NOBODY = "http://127.0.0.1:9"
"""An origin that refuses: whatever is not stored is an error."""

BEFORE_OTHERS = -15
_PAGE = 4096
_SAMPLE = 1 << 20
_TRIES = 10
_PAUSE = 0.2
_PATIENCE = 120.0


@contextlib.contextmanager
def directory(given: Path | None, need: int) -> Iterator[Path]:
    """`given`, which stays, or one that goes again, with `need` bytes of room. Raises Unusable."""
    where = Path(given or "/var/tmp")
    where.mkdir(parents=True, exist_ok=True)
    told = os.statvfs(where)
    have = sum(one.stat().st_blocks * 512 for one in where.rglob("*")) if given else 0
    if told.f_bavail * told.f_frsize + have < need:
        raise Unusable(f"{where} has no room for {need >> 30} GiB: give another --directory")
    if given is not None:
        yield given
        return
    made = Path(tempfile.mkdtemp(prefix="cdn-bench-", dir=where))
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


def cores() -> tuple[int, int]:
    """For the node, and for who asks it; the same one where there is no other."""
    usable = sorted(os.sched_getaffinity(0))
    return usable[0], usable[-1]


class Unusable(Exception):
    """The measurement cannot go on: one line for whoever runs it, with the mend."""


def started(command: list[str], core: int, nice: int = 0, **more: Any) -> subprocess.Popen[Any]:
    """Runs `command` on `core`, for root before whatever else is on the machine, in order that the
    work of others is not taken for ours."""
    first = BEFORE_OTHERS if os.geteuid() == 0 else 0
    words = ["nice", "-n", str(first + nice), "taskset", "-c", str(core), *command]
    process = subprocess.Popen(words, start_new_session=True, **more)
    with contextlib.suppress(OSError):  # sched(7): a session has a nice of its own
        Path(f"/proc/{process.pid}/autogroup").write_text(str(first))
    return process


class Edge:
    """A running edge; `ready` is in seconds from its exec to its first answer."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, ready: float) -> None:
        self.process = process
        self.port = port
        self.ready = ready


@contextlib.contextmanager
def edge(store: Path, disk: int, core: int, target: str) -> Iterator[Edge]:
    """An edge of one worker on `core`, which has answered `target`. Raises Unusable."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = int(probe.getsockname()[1])
    flags = ["--listen", f"127.0.0.1:{port}", "--origin", NOBODY, "--name", "edge-bench"]
    flags += ["--store", str(store), "--disk", str(disk), "--workers", "1"]
    command = [sys.executable, "-m", "cdn", "edge", *flags]
    with tempfile.TemporaryFile() as told:
        began = time.monotonic()
        process = started(command, core, stderr=told)
        try:
            while not _answers(port, target):
                if process.poll() is not None or time.monotonic() > began + _PATIENCE:
                    told.seek(0)
                    raise Unusable(f"the edge does not answer: {told.read().decode()[-500:]}")
                time.sleep(0.001)
            yield Edge(process, port, time.monotonic() - began)
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(30)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _answers(port: int, target: str) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 5) as client:
        client.sendall(request(target, "Connection: close\r\n"))
        return client.recv(1 << 16).startswith(b"HTTP/1.1 ")
    return False


def request(target: str, more: str = "") -> bytes:
    return f"GET {target} HTTP/1.1\r\nHost: {HOST}\r\n{more}\r\n".encode()


def key(target: str) -> bytes:
    """Under which the edge stores it."""
    return f"http://{HOST}{target}".encode()


def drop(store: Path, suffixes: tuple[str, ...] = (".segment",)) -> int:
    """Takes files of a store out of RAM, asserts that they are, and returns their pages' bytes.
    Raises Unusable."""
    os.sync()
    total = 0
    for file in sorted(one for one in store.glob("*/*") if one.name.endswith(suffixes)):
        fd = os.open(file, os.O_RDONLY)
        try:
            total += (size := os.fstat(fd).st_size)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)  # or asking would read ahead
            for attempt in range(_TRIES):
                # What the edge was last reading it may still be at, for who has hung up.
                time.sleep(min(attempt, 1) * _PAUSE)
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
                still = [at for at in range(0, size, _SAMPLE) if _resident(fd, at)]
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)  # asking has begun to read
                if not still:
                    break
            else:
                raise Unusable(
                    f"{file} is still in RAM at byte {still[0]}: give a --directory on a disk, or "
                    "end what reads it"
                )
        finally:
            os.close(fd)
    return total


def _resident(fd: int, offset: int) -> bool:
    """Whether it can be read at once."""
    try:
        os.preadv(fd, [bytearray(_PAGE)], offset, os.RWF_NOWAIT)
    except BlockingIOError:
        return False
    except OSError:
        pass  # no such flag here: tmpfs
    return True


def memory(pid: int) -> dict[str, int]:
    """Bytes by the names of /proc/PID/smaps_rollup, and `Private`, which is the USS."""
    told: dict[str, int] = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, _, value = line.partition(":")
        told[name] = int(value.split()[0]) * 1024
    return told | {"Private": told["Private_Clean"] + told["Private_Dirty"]}
