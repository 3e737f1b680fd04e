"""Purge epochs that outlive the node and that all its processes share (see `purge_epochs`).

Strategy: an LMDB environment of its own, synced at every purge, so that it is believed after
anything. The count is asked at every look-up; while it stands still, what was read of tags still
holds. A tag is named by its digest: where two had the same, a purge would only outdate too much.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from pathlib import Path

import lmdb

from cdn.hashing.digest import key_digest
from cdn.storage.index import IndexFailed, translated
from cdn.storage.purge_epochs import MOST_TAGS

Tag = tuple[bytes, str]

_COUNT = struct.Struct("<Q")
_LENGTH = struct.Struct("<I")
_NOW = b"now"
_FORGOTTEN = b"forgotten"
_MAP_SIZE = 64 << 20
_MOST_READERS = 512
_MOST_KNOWN = 4096
"""Tags of which a process remembers what it read."""


class DiskEpochs:
    """The epochs of the store in `directory`; `report` hears of a purge that could not be written.
    Raises IndexFailed, but for `purge`. May be used from any thread."""

    def __init__(
        self,
        directory: Path,
        most_tags: int = MOST_TAGS,
        report: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._most_tags = most_tags
        self._report = report
        self._unwritten: dict[Tag, int] = {}
        self._known_at = -1
        self._known: dict[Tag, int] = {}
        with translated():
            self._env = lmdb.open(
                str(directory / "epochs"),
                map_size=_MAP_SIZE,
                subdir=False,
                max_dbs=2,
                max_readers=_MOST_READERS,
                max_spare_txns=4,
                mode=0o600,
            )
            self._counts = self._env.open_db(b"counts")
            self._purged = self._env.open_db(b"purged")
            self._env.reader_check()

    def close(self) -> None:
        self._env.close()

    @property
    def now(self) -> int:
        with translated(), self._env.begin(db=self._counts) as txn:
            return _count(txn.get(_NOW))

    def purge(self, tags: Iterable[Tag]) -> None:
        """Waits for the device: when this returns, no loss of power undoes it. A device that takes
        nothing undoes no purge either: this process knows of it, and writes it with the next one.
        """
        wanted = [*self._unwritten, *tags]
        if not wanted:
            return
        try:
            self._write(wanted)
        except IndexFailed as error:
            now = self.now
            self._unwritten.update(dict.fromkeys(wanted, now))
            self._report(
                f"a purge of {len(wanted)} groups holds, but not over a restart: {error}; see that "
                "the store's disk has room, and purge again"
            )
        else:
            self._unwritten.clear()

    def _write(self, tags: Iterable[Tag]) -> None:
        with translated(), self._env.begin(write=True) as txn:
            now = _count(txn.get(_NOW, db=self._counts))
            for tag in tags:
                now += 1
                txn.put(_name(tag), _COUNT.pack(now), db=self._purged)
            txn.put(_NOW, _COUNT.pack(now), db=self._counts)
            surplus = txn.stat(self._purged)["entries"] - self._most_tags
            if surplus > 0:
                self._forget(txn, surplus + self._most_tags // 8)

    def outdated(self, tags: Iterable[Tag], stamp: int) -> bool:
        if self._unwritten:
            tags = list(tags)
            if any(self._unwritten.get(tag, -1) >= stamp for tag in tags):
                return True
        now = self.now
        if stamp >= now:
            return False
        if now != self._known_at or len(self._known) > _MOST_KNOWN:
            self._known, self._known_at = {}, now
        known = self._known
        for tag in tags:
            epoch = known.get(tag)
            if epoch is None:
                epoch = known[tag] = self._epoch(tag)
            if epoch > stamp:
                return True
        return False

    def _epoch(self, tag: Tag) -> int:
        with translated(), self._env.begin(db=self._purged) as txn:
            epoch = txn.get(_name(tag))
            return _count(epoch if epoch else txn.get(_FORGOTTEN, db=self._counts))

    def _forget(self, txn: lmdb.Transaction[bytes], count: int) -> None:
        # Many at once: finding the oldest means reading all.
        with txn.cursor(self._purged) as cursor:
            oldest = sorted((_count(epoch), bytes(name)) for name, epoch in cursor)[:count]
        for _, name in oldest:
            txn.delete(name, db=self._purged)
        txn.put(_FORGOTTEN, _COUNT.pack(oldest[-1][0]), db=self._counts)


def _name(tag: Tag) -> bytes:
    space, name = tag
    return key_digest(_LENGTH.pack(len(space)) + space + name.encode("utf-8", "surrogatepass"))


def _count(value: bytes | None) -> int:
    return 0 if value is None else int(_COUNT.unpack(value)[0])
