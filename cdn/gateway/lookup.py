"""Looking up and deciding: what is stored for a request, and what is to become of it.

Strategy: `reuse.decide` is asked of the variant that `vary.select` names. A store that would have
to wait for its device is waited for once, and asked again, because meanwhile others went on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from cdn.gateway.asked import Asked
from cdn.gateway.flights import FlightKey
from cdn.gateway.judging import Judge
from cdn.semantics.groups import group_tags
from cdn.semantics.reuse import Decision, decide
from cdn.semantics.vary import select, variant_key
from cdn.storage.store import Store, StoredObject


class Looked(NamedTuple):
    """A decision, what was found for it, and all that is stored under the URL."""

    decision: Decision
    found: StoredObject | None
    variants: Sequence[StoredObject]


class Lookup:
    """`clock` gives seconds since 1970."""

    def __init__(self, store: Store, judge: Judge, clock: Callable[[], float]) -> None:
        self._store = store
        self._judge = judge
        self._clock = clock

    def now(self, asked: Asked) -> Looked | None:
        """Without waiting; None where that is not possible."""
        variants: Sequence[StoredObject] | None = ()
        for name in self._judge.names(asked.key):
            variants = self._store.lookup(name)
            if variants is None:
                return None
            if variants := self._current(variants):
                break
        return self._decided(asked, variants or ())

    async def soon(self, asked: Asked) -> Looked:
        """The same with as much waiting as it takes."""
        looked = self.now(asked)
        if looked is not None:
            return looked
        variants: Sequence[StoredObject] = ()
        for name in self._judge.names(asked.key):
            if variants := self._current(await self._store.lookup_soon(name)):
                break
        return self.now(asked) or self._decided(asked, variants)

    def _current(self, variants: Sequence[StoredObject]) -> Sequence[StoredObject]:
        if any(variant.response.groups for variant in variants):
            return [variant for variant in variants if not self._outdated(variant)]
        return variants

    def _outdated(self, stored: StoredObject) -> bool:
        response = stored.response
        tags = group_tags(response.primary_key, response.groups)
        return self._store.epochs.outdated(tags, response.stamp)

    def _decided(self, asked: Asked, variants: Sequence[StoredObject]) -> Looked:
        policy = asked.service.policy
        found = select(variants, asked.request.fields, policy.normalize_vary)
        stored = None if found is None else found.response
        decision = decide(asked.request, stored, policy, self._clock(), bool(variants))
        return Looked(decision, found, variants)

    def flight(
        self, asked: Asked, looked: Looked, nominated: tuple[str, ...] | None = None
    ) -> FlightKey:
        """By what an answer could be shared: `nominated` is what it varies on, where that is known
        better than from what is stored."""
        if nominated is None and looked.variants:
            latest = looked.found or max(looked.variants, key=lambda variant: variant.response_time)
            nominated = tuple(name for name, _ in latest.variant)
        fields = asked.request.fields
        normalize = asked.service.policy.normalize_vary
        variant = None if nominated is None else variant_key(nominated, fields, normalize)
        name = self._judge.names(asked.key)[0]
        return FlightKey(name, variant, "authorization" in fields)
