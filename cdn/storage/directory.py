"""The directory of a disk store: whose it is, what is in it, and whether its index may be believed.

Strategy: one flock'd descriptor says whose node it is; it can be inherited, so that workers take
part and an upgrade never lets go of it. `store.json` says how the store is laid out, under which
boot it was opened and whether it was closed cleanly; one process of a node is in charge of it, the
others read it. While the kernel lives, everything written lives; after another boot without the
clean mark the index is rebuilt from the segments.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

FORMAT = 1
"""Of the directory and everything in it."""

_STATE = "store.json"
_LOCK = "lock"
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

Report = Callable[[str], None]


class StoreUnusable(Exception):
    """The store cannot be opened; the message is one line that says what, where, and the mend."""


@dataclass(frozen=True, slots=True)
class StoreState:
    """What `store.json` holds. `starts` counts how often the store was opened by a node."""

    format: int
    shards: int
    boot_id: str
    clean: bool
    starts: int


def current_boot() -> str:
    """Names this run of the kernel. Raises StoreUnusable."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError as error:
        raise StoreUnusable(f"{_BOOT_ID}: {error.strerror}; mount /proc") from error


def shard_path(directory: Path, number: int) -> Path:
    return directory / f"{number:02d}"


def read_state(directory: Path) -> StoreState | None:
    """None where there is no store yet. Raises StoreUnusable where there is something else."""
    path = directory / _STATE
    try:
        found = json.loads(path.read_bytes())
        if found.get("format") != FORMAT:
            raise StoreUnusable(
                f"{directory} was written by another version (format {found.get('format')}, this "
                f"one reads {FORMAT}); run that version, or empty the directory"
            )
        return StoreState(**found)
    except FileNotFoundError:
        pass
    except (ValueError, TypeError, AttributeError) as error:
        raise StoreUnusable(
            f"{path} is damaged; write it as another store has it, or empty the directory"
        ) from error
    except OSError as error:
        raise _unusable(directory, error) from error
    with contextlib.suppress(FileNotFoundError):
        if set(os.listdir(directory)) - {_LOCK, _STATE + ".new", "lost+found"}:
            raise StoreUnusable(
                f"{directory} is not a store, and not empty; name an empty or a new directory"
            )
    return None


class StoreDirectory:
    """An owned directory, made if need be. `lock_fd` is another process's `lock_fd`, inherited,
    where this one belongs to its node. Nothing else of the store is opened; whoever is in charge of
    a node's store calls, in this order,

        directory = StoreDirectory(path, shards)
        if not directory.index_believed: recovery.rebuild(path, shards, size, progress)
        directory.begin()
        ... workers open it with `lock_fd`, work, and close it ...
        directory.mark_clean()

    Raises StoreUnusable."""

    def __init__(
        self,
        path: Path,
        shards: int,
        boot_id: str | None = None,
        lock_fd: int | None = None,
    ) -> None:
        self.path = path
        self._boot_id = boot_id or current_boot()
        self._own_lock = lock_fd is None
        state = read_state(path)
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.lock_fd = _lock(path) if lock_fd is None else lock_fd
        except OSError as error:
            raise _unusable(path, error) from error
        # Read again: only now nobody else writes it.
        state = read_state(path)
        self.is_new = state is None
        self.state = state or StoreState(FORMAT, shards, self._boot_id, True, 0)
        if self.state.shards != shards:
            self.close()
            raise StoreUnusable(
                f"{path} has {self.state.shards} shards, not {shards}; open it with these, or "
                "empty the directory"
            )

    @property
    def shards(self) -> list[Path]:
        return [shard_path(self.path, number) for number in range(self.state.shards)]

    @property
    def index_believed(self) -> bool:
        """Whether nothing that was written can have been lost."""
        return self.state.clean or self.state.boot_id == self._boot_id

    def begin(self) -> bool:
        """The store is in use from here on. True: the node that had it before was killed, and what
        it wrote may be in the page cache only: `os.sync` it. Raises StoreUnusable."""
        killed = not self.state.clean
        state = replace(
            self.state, boot_id=self._boot_id, clean=False, starts=self.state.starts + 1
        )
        self._write(state)
        return killed

    def mark_clean(self) -> None:
        """All has been synced: whatever happens to the machine now, the index holds. For when every
        process has closed it soundly (`DiskStore.close`); after one that did not, `os.sync` comes
        first. Raises StoreUnusable."""
        self._write(replace(self.state, clean=True))

    def close(self) -> None:
        """Lets go of the lock, unless it is another process's."""
        if self._own_lock:
            os.close(self.lock_fd)

    def _write(self, state: StoreState) -> None:
        path, new = self.path / _STATE, self.path / (_STATE + ".new")
        try:
            with new.open("w") as file:
                json.dump(asdict(state), file, indent=2)
                file.flush()
                os.fsync(file.fileno())
            new.replace(path)
            fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
        except OSError as error:
            raise _unusable(self.path, error) from error
        self.state = state


def _lock(path: Path) -> int:
    fd = os.open(path / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise StoreUnusable(
            f"{path} is in use by another node; stop that one, or give this one its own directory"
        ) from None
    return fd


def _unusable(path: Path, error: OSError) -> StoreUnusable:
    return StoreUnusable(
        f"{path} cannot be used: {error.strerror or error}; make it a directory on a disk with "
        "room, which the node's user may write to"
    )
