"""The disk store: what workers share, and what outlives them.

Strategy: a key's digest names its shard; a shard is two logs and an index. Look-ups take what the
index knows and lay over it what is still on its way. Everything is written behind the loop's back;
what the disk will not take is refused, and tried again later. RAM is the page cache.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from cdn.hashing.digest import SHARDS, key_digest
from cdn.semantics.ranges import SLICE_SIZE
from cdn.semantics.stored_response import StoredResponse
from cdn.storage.directory import Report, StoreDirectory, StoreUnusable
from cdn.storage.disk_epochs import DiskEpochs
from cdn.storage.disk_intake import Intake
from cdn.storage.disk_lookup import Lookups
from cdn.storage.disk_object import DiskObject
from cdn.storage.disk_writer import DiskWriter
from cdn.storage.eviction.two_logs import Admission, TwoLogs
from cdn.storage.incoming import Arrivals
from cdn.storage.index import IndexFailed
from cdn.storage.records import LARGEST_HEAD
from cdn.storage.recovery import Progress, rebuild
from cdn.storage.shard import DiskCounters, Shard, Shards
from cdn.storage.store import StoredObject
from cdn.storage.trouble import Trouble

SEGMENT_SIZE = 64 << 20
"""Bytes of a segment where the store has room for ten of them in every shard."""

LEAST_SEGMENTS = 10
"""In a shard: fewer, and a log is no queue."""

REUSE_MEMORY = 256 << 20
"""Bytes of RAM for what waits for its second use."""

_READERS = 2
"""Threads that wait for the device. Each competes with the loop for its core and the GIL: with four
a hit waited far longer, and no more was read (docs/PERFORMANCE.md)."""

_READERS_NICE = 5
"""Above the process's own. Not more: one that others keep from running may hold the GIL."""

Owns = Callable[[int], bool]
"""Whether this process is to write the shard with that number."""


class DiskStore:
    """A `Store`. Made by `open`; `counters` are plain counts.

    Of the processes of one node, each may read all of it, count uses and remove; a shard is written
    by the one that owns it, and no other as long as that one lives and has not stopped writing.
    """

    def __init__(
        self,
        directory: StoreDirectory,
        share: int,
        segment_size: int,
        largest_slice: int,
        owns: Owns,
        in_charge: bool,
        report: Report,
        admission: Admission,
        memory: int,
    ) -> None:
        self.counters = DiskCounters()
        self._directory = directory
        self.on_change: Callable[[bytes], None] = lambda _: None
        self._in_charge = in_charge
        self._report = report
        killed = directory.begin() if in_charge else False
        session = directory.state.starts
        self.epochs = DiskEpochs(directory.path, report=report)
        owned = [owns(number) for number in range(len(directory.shards))]
        # With `REUSE` it is in RAM: a tenth of what it is probation for, as it would be on disk.
        room = min(share * sum(owned) // 10, memory) if admission is Admission.REUSE else 0
        self._shards = Shards(
            Shard(
                path,
                share,
                segment_size,
                session,
                self.counters,
                report,
                owned[number],
                TwoLogs(share, admission, room or None),
            )
            for number, path in enumerate(directory.shards)
        )
        self._sound: bool | None = None
        arrivals = self._arrivals = Arrivals()
        trouble = self._trouble = Trouble(str(directory.path), report)
        readers = self._readers = ThreadPoolExecutor(_READERS, "store-reader", _give_way)
        self._lookups = Lookups(self._shards, arrivals, trouble, readers)
        # What a killed process wrote may be in the page cache only, and nobody knows where.
        self._catching_up = threading.Thread(target=os.sync, name="store-catching-up", daemon=True)
        if killed:
            self._catching_up.start()
        self._intake = Intake(
            self._shards,
            arrivals,
            self._lookups,
            trouble,
            self.counters,
            readers,
            largest_slice,
            room,
            self._changed,
        )

    @classmethod
    def open(
        cls,
        directory: Path,
        size: int,
        *,
        largest_slice: int = SLICE_SIZE,
        segment_size: int | None = None,
        shards: int = SHARDS,
        owns: Owns = lambda number: True,
        admission: Admission = Admission.ALL,
        memory: int = REUSE_MEMORY,
        boot_id: str | None = None,
        lock_fd: int | None = None,
        report: Report,
        progress: Progress | None = None,
    ) -> DiskStore:
        """The store of `size` bytes in `directory`, which is made if need be, for responses with
        slices of up to `largest_slice` bytes. With `Admission.REUSE` what came once waits in up to
        `memory` bytes of this process's RAM until it is used again. `lock_fd` is another process's
        (`lock_fd` of its store or StoreDirectory), inherited, where that one is in charge and this
        one takes part. Without, this one is in charge: after the machine went down without `close`
        the index is rebuilt first, and `progress` called. Raises StoreUnusable."""
        segment_size = segment_size_for(directory, size, largest_slice, segment_size, shards)
        owned = StoreDirectory(directory, shards, boot_id, lock_fd)
        try:
            with contextlib.ExitStack() as undo:
                undo.callback(owned.close)
                for path in owned.shards:
                    path.mkdir(mode=0o700, exist_ok=True)
                if lock_fd is None and not owned.index_believed:
                    _rebuild(owned, size, report, progress)
                share, in_charge = size // shards, lock_fd is None
                store = cls(
                    owned,
                    share,
                    segment_size,
                    largest_slice,
                    owns,
                    in_charge,
                    report,
                    admission,
                    memory,
                )
                undo.pop_all()
                return store
        except (OSError, IndexFailed) as error:
            raise StoreUnusable(
                f"{directory} cannot be used: {error}; see that its disk is sound and has room, "
                "or empty it"
            ) from error

    @property
    def lock_fd(self) -> int:
        """The descriptor that holds the directory's lock; make it inheritable to share it."""
        return self._directory.lock_fd

    # --- finding --------------------------------------------------------------------------------

    def lookup(self, key: bytes) -> Sequence[DiskObject] | None:
        """See `Store.lookup`. What is on its way is found in the process that writes it only."""
        return self._lookups.find(key, resident=True)

    async def lookup_soon(self, key: bytes) -> Sequence[DiskObject]:
        """See `Store.lookup_soon`."""
        found = self._lookups.find(key, resident=True)
        if found is None:
            loop = asyncio.get_running_loop()
            found = await loop.run_in_executor(self._readers, self._lookups.find, key, False)
        return found or ()

    def touch(self, stored: StoredObject, uses: int = 1) -> None:
        """See `Store.touch`. What is not on the disk yet has no uses."""
        assert isinstance(stored, DiskObject)
        try:
            stored.add_uses(uses)
        except (IndexFailed, OSError) as error:
            self._trouble.failed(str(error))

    # --- changing -------------------------------------------------------------------------------

    def open_writer(self, response: StoredResponse) -> DiskWriter | None:
        """See `Store.open_writer`. None also for what cannot be completed later and is larger than
        half of a shard's probation, and where another process writes the key's shard."""
        return self._intake.open(response)

    def put(self, response: StoredResponse, content: bytes) -> bool:
        """See `Store.put`."""
        writer = self._intake.open(response, counts=False)
        if writer is None:
            return False
        if not writer.write(0, content):
            writer.abort()
            return False
        writer.commit(response)
        return True

    def freshen(self, stored: StoredObject, response: StoredResponse) -> None:
        """See `Store.freshen`. No-op also in a process that does not write the key's shard."""
        assert isinstance(stored, DiskObject)
        for held in self._lookups.find(stored.response.primary_key, resident=False) or ():
            same_id = held.object_id is not None and held.object_id == stored.object_id
            if not same_id and (held.incoming is None or held.incoming is not stored.incoming):
                continue
            writer = self._intake.rejoin(held, response.length)
            if writer is not None:
                known = held.response
                writer.commit(replace(response, present=known.present, slice_size=known.slice_size))

    def remove(self, key: bytes) -> int:
        """See `Store.remove`. They do not come back if this process is killed; nor if the machine
        goes down, once `flush` is done. What is on its way in another process is removed by the
        `remove` of that one, so a purge asks them all."""
        digest = key_digest(key)
        arriving = self._arrivals.of(key)
        for incoming in arriving:
            self._arrivals.cancel(incoming)
        removed: set[int] = set()
        try:
            removed = self._shards.of(digest).remove(key, digest)
        except (IndexFailed, OSError) as error:
            self._trouble.failed(str(error))
            self._lookups.forget(digest)  # killed where they lie, though the index does not say so
        self.on_change(key)
        # What the index had is counted by the process that took it out, once.
        shown = [i for i in arriving if i.response and not i.headed]
        return len(removed) + len(shown)

    def _changed(self, key: bytes) -> None:
        self.on_change(key)

    # --- its life -------------------------------------------------------------------------------

    def status(self) -> dict[str, object]:
        """For operators: `state` is "ok" or "failing", `why` what the disk said; sizes in bytes.
        Asks the index of every shard."""
        objects = slices = 0
        for shard in self._shards:
            counts = shard.index.counts()
            objects, slices = objects + counts[0], slices + counts[1]
        return {
            "state": "ok" if self._trouble.why is None else "failing",
            "why": self._trouble.why or "",
            "objects": objects,
            "slices": slices,
            "bytes": sum(shard.size_by_index for shard in self._shards),
        }

    async def flush(self) -> None:
        """Until all that was accepted, and every removal, survives the loss of power too."""
        await asyncio.wrap_future(self._intake.flush())

    async def stop_writing(self) -> None:
        """Refuses everything from here on, running writers too; until what was accepted is durable
        and the shards are another process's to write. Reading goes on."""
        self._intake.stop()
        await self.flush()
        for shard in self._shards:
            shard.release()

    def close(self) -> bool:
        """Writes what has been accepted, lets go of everything, and marks the store clean if this
        process is in charge of it. Waits for the disk. False: something of it may not be durable,
        so it must not be marked clean by whoever is. Idempotent."""
        if self._sound is None:
            self._sound = self._close()
        return self._sound

    def _close(self) -> bool:
        self._intake.close()
        self._trouble.close()
        self._readers.shutdown()
        if self._catching_up.is_alive():
            self._catching_up.join()
        sound = self._trouble.why is None
        try:
            for shard in self._shards:
                shard.index.sync()
            if sound and self._in_charge:
                self._directory.mark_clean()
        except (IndexFailed, StoreUnusable) as error:
            self._report(f"{self._directory.path} could not be closed cleanly: {error}")
            sound = False
        for shard in self._shards:
            shard.close()
        self.epochs.close()
        self._directory.close()
        return sound


def _give_way() -> None:
    """A reader copies and checks what it has waited for while the loop has nothing to do."""
    with contextlib.suppress(OSError):
        nice = os.getpriority(os.PRIO_PROCESS, os.getpid()) + _READERS_NICE
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), nice)


def segment_size_for(
    directory: Path,
    size: int,
    largest_slice: int = SLICE_SIZE,
    segment_size: int | None = None,
    shards: int = SHARDS,
) -> int:
    """Bytes of a segment in a store of `size` bytes. Raises StoreUnusable where that is too small,
    with the least that works."""
    least = largest_slice + 2 * LARGEST_HEAD
    share = size // shards
    segment_size = segment_size or min(SEGMENT_SIZE, share // LEAST_SEGMENTS)
    if segment_size < least or share < LEAST_SEGMENTS * segment_size:
        enough = shards * LEAST_SEGMENTS * max(least, segment_size)
        raise StoreUnusable(
            f"{directory}: a store of {size} bytes is too small for {shards} shards of "
            f"{LEAST_SEGMENTS} segments with slices of {largest_slice}; give it {enough} or more"
        )
    return segment_size


def _rebuild(
    directory: StoreDirectory, size: int, report: Report, progress: Progress | None
) -> None:
    report(f"{directory.path}: the machine went down while it was in use: rebuilding its index")
    shards = directory.state.shards
    found = rebuild(directory.path, shards, size, progress or (lambda done, total: None))
    report(f"{directory.path}: the index is whole again, {found} responses were found")
