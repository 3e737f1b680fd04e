"""Answers that may be given again without the pipeline, and what takes that back.

Strategy: a hit on what is wholly stored follows from the responses stored under one key, from those
fields of the request that they nominate or that narrow an answer, from the rules of the node, and
from the time. Such an answer bears a `Repeatable`; a rim may give it again until it is told that
the key has changed, or that the rules have.

What holds: whatever this worker stores, replaces, freshens or removes is told before the call that
does it returns, and so is a reload. A purge and an unsafe method reach every worker before they are
answered (`owners`, `control.workers`); a worker that might still see the owner's copy in a shared
store repeats nothing of that key for `BARRED` seconds. What another worker has replaced or
freshened is repeated no longer than its own freshness lasts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cdn.gateway.judging import Judge
from cdn.gateway.workers import Tag
from cdn.semantics.groups import group_tags
from cdn.semantics.stored_response import StoredResponse
from cdn.storage.store import Store, StoredObject

BARRED = 60.0
"""Seconds: longer than any worker is waited for until a purge is answered."""

MOST_BARRED = 65_536
"""Keys barred one by one; where there are more, nothing is repeated until the oldest is due."""

LARGEST = 128 * 1024
"""Bytes of content: what is longer is sent piece by piece anyway."""


@dataclass(slots=True, eq=False)
class Repeatable:
    """What an answer was made of. It is fresh while `lifetime` seconds exceed the current age of
    `response`; `nominated` are the request fields that select among what is stored, `tags` its
    groups."""

    key: bytes
    stored: StoredObject
    response: StoredResponse
    lifetime: float
    nominated: tuple[str, ...]
    tags: Sequence[Tag]
    service: str


class Repeats:
    """Where a rim asks and is told. `alone`: this is the node's only worker; `clock` gives seconds
    since 1970."""

    def __init__(
        self, store: Store, judge: Judge, clock: Callable[[], float], *, alone: bool
    ) -> None:
        self._store = store
        self.judge = judge
        self._clock = clock
        self._alone = alone
        self._barred: dict[bytes, float] = {}
        self._all_barred = 0.0
        self._forget: list[Callable[[bytes], None]] = []
        self._forget_all: list[Callable[[], None]] = []
        store.on_change = self.changed

    def tell(self, forget: Callable[[bytes], None], forget_all: Callable[[], None]) -> None:
        """From now on `forget` hears of every key whose answers must not be repeated, `forget_all`
        when that is true of all."""
        self._forget.append(forget)
        self._forget_all.append(forget_all)

    def changed(self, key: bytes) -> None:
        """What is stored under `key` is another now."""
        for forget in self._forget:
            forget(key)

    def all_changed(self) -> None:
        """The rules are others now."""
        for forget_all in self._forget_all:
            forget_all()

    def bar(self, key: bytes) -> None:
        """The key's responses are being removed, in all workers."""
        self.changed(key)
        if self._alone:
            return
        now = self._clock()
        if len(self._barred) >= MOST_BARRED:
            self._barred = {key: until for key, until in self._barred.items() if until > now}
        if len(self._barred) >= MOST_BARRED:
            self._all_barred = now + BARRED
            self._barred.clear()
            self.all_changed()
        self._barred[key] = now + BARRED

    def made_of(
        self,
        key: bytes,
        found: StoredObject,
        variants: Sequence[StoredObject],
        lifetime: float,
        service: str,
    ) -> Repeatable | None:
        """What a hit was made of; None where it may not be repeated."""
        response = found.response
        if response.present is not None or (response.length or 0) > LARGEST:
            return None
        if response.length is None or self.judge.names(key) != (key,):
            return None
        if (self._barred or self._all_barred) and self._is_barred(key):
            return None
        nominated: tuple[str, ...] = ()
        if response.variant or len(variants) > 1:
            names = {name for variant in variants for name, _ in variant.variant}
            nominated = tuple(sorted(names))
        tags = group_tags(key, response.groups) if response.groups else ()
        return Repeatable(key, found, response, lifetime, nominated, tags, service)

    def _is_barred(self, key: bytes) -> bool:
        now = self._clock()
        return self._all_barred > now or self._barred.get(key, 0.0) > now

    def hold(self, of: Repeatable) -> bool:
        """Whether nothing has come up that only a look tells: a purge of its group, by whatever
        worker, or a rule that has the key looked up under another name. To be asked of what has
        `tags`, and of all once `judge.has_rules`."""
        if self.judge.has_rules and self.judge.names(of.key) != (of.key,):
            return False
        return not of.tags or not self._store.epochs.outdated(of.tags, of.response.stamp)

    def touch(self, of: Repeatable, uses: int) -> None:
        """It was given again so many times."""
        self._store.touch(of.stored, uses)
