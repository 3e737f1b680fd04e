"""The disk store's directory, held for all of a node's processes and handed to its successor.

Strategy: whoever starts the node takes the lock and settles the state before anything serves; the
workers inherit the lock's descriptor and never touch the state. What might meet a torn index (LMDB
maps its file, so that means SIGBUS) runs in a child, forked while there is no loop and no thread.
Clean means that every process of the node has ended well and that everything has been synced.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NoReturn

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from cdn.config.models import NodeConfig
from cdn.hashing.digest import SHARDS
from cdn.observe.events import EventLog
from cdn.storage.directory import StoreDirectory, StoreUnusable
from cdn.storage.disk import segment_size_for
from cdn.storage.inspect import clear_dead_readers
from cdn.storage.recovery import rebuild

Take = Callable[[str], int | None]
"""The descriptor of that name which the program before has handed over."""


class StoreKeeper:
    """Made by `take`; `name` is what the lock's descriptor is handed over as."""

    def __init__(self, directory: StoreDirectory, events: EventLog) -> None:
        self.name = store_name(directory.path)
        self._directory = directory
        self._events = events

    @classmethod
    def take(cls, config: NodeConfig, events: EventLog, handed: Take) -> StoreKeeper | None:
        """Locks the store's directory, unless that was handed over, and makes its index fit to be
        opened. None for a node without a disk store. Raises StoreUnusable."""
        if config.store is None or config.disk is None:
            return None
        segment_size_for(config.store, config.disk, config.largest_slice)
        lock_fd = handed(store_name(config.store))
        directory = StoreDirectory(config.store, SHARDS, lock_fd=lock_fd)
        if lock_fd is None:
            if not directory.index_believed:
                _rebuild(directory, config.disk, events)
            directory.begin()
        return cls(directory, events)

    @property
    def lock_fd(self) -> int:
        """For the node's other processes."""
        return self._directory.lock_fd

    def worker_died(self) -> None:
        """Frees what it held in the index; returns at once."""
        if os.fork() == 0:
            _end_after(lambda: clear_dead_readers(self._directory.path))

    def end(self, clean: bool) -> None:
        """All of the node's processes have ended; `clean`: and none has failed to close it."""
        try:
            if clean:
                os.sync()  # also what processes wrote that were killed
                self._directory.mark_clean()
        except StoreUnusable as error:
            self._events.error(str(error))
        self.let_go()

    def let_go(self) -> None:
        """Closes the lock's descriptor: a successor, or a worker, may hold it still."""
        os.close(self.lock_fd)


def store_name(path: Path) -> str:
    return f"store {path}"


def _rebuild(directory: StoreDirectory, size: int, events: EventLog) -> None:
    """In a child, whose words come over a pipe: it ends by itself when this process does."""
    path = directory.path
    events.warning(f"{path}: the machine went down while it was in use: rebuilding its index")
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        _end_after(lambda: _rebuild_and_tell(path, size, writer))
    os.close(writer)
    with open(reader) as lines:
        found = _shown(lines, f"{path}: rebuilding the index", events)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code != 0:
        why = found or (f"signal {-code}" if code < 0 else f"exit code {code}")
        raise StoreUnusable(
            f"{path}: rebuilding the index failed: {why}; see that its disk is sound and has "
            "room, or empty the directory"
        )
    events.info(f"{path}: the index is whole again, {found} responses were found")


def _rebuild_and_tell(path: Path, size: int, writer: int) -> None:
    def tell(done: int, total: int) -> None:
        os.write(writer, f"{done} {total}\n".encode())

    try:
        found = rebuild(path, SHARDS, size, tell)
    except Exception as error:
        os.write(writer, f"end {error}\n".encode())
        raise
    os.write(writer, f"end {found}\n".encode())


def _end_after(work: Callable[[], object]) -> NoReturn:
    """A child's end: nothing of what this process was about happens in it."""
    code = 1
    try:
        work()
        code = 0
    finally:
        os._exit(code)


def _shown(lines: Iterable[str], what: str, events: EventLog) -> str:
    """Shows the progress; returns what the child said at its end, or ""."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
    plain, last, told = not console.is_terminal, "", 0
    with Progress(
        *columns, TimeRemainingColumn(), console=console, transient=True, disable=plain
    ) as bar:
        task = bar.add_task(what, total=None)
        for line in lines:
            first, _, rest = line.rstrip("\n").partition(" ")
            if first == "end":
                last = rest
                continue
            done, total = int(first), int(rest)
            bar.update(task, completed=done, total=total)
            if plain and (tenths := 10 * done // total if total else 10) > told:
                told = tenths
                events.info(f"{what}: {10 * told} %")
    return last
