"""Where a run takes place: its folder, its cores, its certificate, and how it is ended."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from bench.peers.contenders import Certificate
from bench.peers.processes import end_descendants

SHARED_MEMORY = Path("/dev/shm")
ROOM = 4 << 30
"""Bytes that the caches' files may need."""


@contextlib.contextmanager
def workplace() -> Iterator[Path]:
    """A folder in shared memory where there is room, so that no disk is measured."""
    roomy = False
    if SHARED_MEMORY.is_dir():
        told = os.statvfs(SHARED_MEMORY)
        roomy = told.f_bavail * told.f_frsize >= ROOM
    where = SHARED_MEMORY if roomy else None
    with tempfile.TemporaryDirectory(
        prefix="peers-", dir=where, ignore_cleanup_errors=True
    ) as name:
        folder = Path(name)
        folder.chmod(0o755)  # some of them give root up
        try:
            yield folder
        finally:
            end_descendants()


DESCRIPTORS = 1 << 17
"""As many connections as idle opens, and the files that nginx keeps open besides."""


def begin() -> None:
    """What a bench's process needs, and hands on: daemons in its PATH, where an ordinary user's
    does not look; descriptors; and an end by SIGTERM that is like Ctrl-C, so that what was started
    is ended on the way out."""

    def leave(_number: int, _frame: FrameType | None) -> None:
        sys.exit(128 + signal.SIGTERM)

    signal.signal(signal.SIGTERM, leave)
    os.environ["PATH"] = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with contextlib.suppress(ValueError, OSError):  # only root may have more
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(DESCRIPTORS, hard),) * 2)


def make_certificate(folder: Path) -> Certificate:
    made = Certificate(folder / "cert.pem", folder / "key.pem")
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-nodes", "-days", "2", "-subj", "/CN=www.example.net"]
    command += ["-keyout", str(made.key), "-out", str(made.cert)]
    subprocess.run(command, check=True, capture_output=True)
    made.key.chmod(0o644)
    return made


def cores() -> tuple[int, int]:
    """For the caches, and for origin and load; the same one where there is no other."""
    usable = sorted(os.sched_getaffinity(0))
    return usable[0], usable[-1]
