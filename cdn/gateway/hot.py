"""Answers that may be given again without the pipeline, and what takes that back.

Strategy: a hit on what is wholly stored follows from the responses stored under one key, from those
fields of the request that they nominate or that narrow an answer, from the rules of the node, and
from the time. Such an answer bears a `Repeatable`; a rim may give it again until it is told that
the key has changed, or that the rules have.

What holds: whatever this worker stores, replaces, freshens or removes is told before the call that
does it returns, and so is a reload. What another worker has replaced or freshened is repeated no
longer than its own freshness lasts.

An unsafe method and a purge reach every worker before they are answered, in two rounds (`passing`,
`control.workers`). In the first each disowns the fills that are on their way, removes the key from
the store and bars it. Until the key's owner has done so a fill of its own may put the old response
into a store that all read: what others find meanwhile they may answer with, but not repeat. When
all have answered, nothing older than the invalidation is stored or will be; so in the second round
each forgets the key again (a worker that was started between the rounds heard only this one) and
takes the bar down: what is found from here on is newer. A look-up and the `Repeatable` made of it
are one step of the loop, so no older look-up becomes one later. Where not all have answered there
is no second round, and the bars fall when they are due; so they do where the originator has died.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cdn.gateway.answers import from_store
from cdn.gateway.asked import heard, nobody
from cdn.gateway.bars import Bars
from cdn.gateway.exchange import Answer, Exchange
from cdn.gateway.judging import ANYONE, Judge
from cdn.gateway.services import ServiceTable
from cdn.gateway.workers import Tag
from cdn.semantics.delivery import Segment
from cdn.semantics.forwarded import is_loop
from cdn.semantics.freshness import freshness_lifetime
from cdn.semantics.groups import group_tags
from cdn.semantics.message import Fields, Request
from cdn.semantics.reuse import Hit, decide
from cdn.semantics.stored_response import StoredResponse
from cdn.semantics.value import value
from cdn.semantics.vary import select
from cdn.storage.eviction.greedy_dual import Entry
from cdn.storage.store import Store, StoredObject

A_SURROGATE = ANYONE.with_fields(Fields((("Surrogate-Capability", ""),)))
"""The same of a downstream node of this CDN."""


@value(frozen=True, slots=True)
class Standing:
    """How this node takes one peer's requests with one block of fields: their primary keys begin
    with `origin`, `client` asks them, `fields` are what is believed of the block. It is so while
    `rules` are the node's; `scheme` and `peer` are the connection's."""

    rules: int
    scheme: str
    peer: str
    origin: bytes
    client: str
    fields: Fields

    @property
    def surrogate(self) -> bool:
        """Whether it is one of our own nodes that asks."""
        return "surrogate-capability" in self.fields


@dataclass(slots=True, eq=False)
class Repeatable:
    """What an answer was made of. It is fresh while `lifetime` seconds exceed the current age of
    `response`; `nominated` are the request fields that select among what is stored, `tags` its
    groups; `entry` is what the rim's replacement knows its key by."""

    key: bytes
    stored: StoredObject
    response: StoredResponse
    lifetime: float
    nominated: tuple[str, ...]
    tags: Sequence[Tag]
    service: str
    entry: Entry[bytes] | None = None


class Repeats:
    """Where a rim asks and is told. `name` is the node's, `services` are whose content it answers
    with, `trusts` tells which peers speak for others; `rules` counts how often these have changed.
    `alone`: this is the node's only worker; `clock` gives seconds since 1970."""

    def __init__(
        self,
        name: str,
        services: ServiceTable,
        store: Store,
        judge: Judge,
        clock: Callable[[], float],
        *,
        trusts: Callable[[Exchange], bool] = nobody,
        alone: bool,
    ) -> None:
        self.services = services
        self.trusts = trusts
        self.rules = 0
        self.node = name
        self._store = store
        self.touch = store.touch
        """To be told what was given again, and how often."""
        self.judge = judge
        self._clock = clock
        self._alone = alone
        self.bars = Bars(clock)
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
        self.rules += 1
        for forget_all in self._forget_all:
            forget_all()

    def bar(self, key: bytes, invalidation: str) -> None:
        """The key's responses are being removed, in all workers."""
        self.changed(key)
        if not self._alone and not self.bars.put_up(key, invalidation):
            self.all_changed()

    def lift(self, key: bytes, invalidation: str) -> None:
        """All workers have removed them."""
        self.changed(key)
        self.bars.take_down(key, invalidation)

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
        if response.present is not None or response.length is None:
            return None
        if self.judge.has_rules and self.judge.names(key) != (key,):
            return None
        if self.bars.stand(key):
            return None
        nominated: tuple[str, ...] = ()
        if response.variant or len(variants) > 1:
            names = {name for variant in variants for name, _ in variant.variant}
            nominated = tuple(sorted(names))
        tags = group_tags(key, response.groups) if response.groups else ()
        return Repeatable(key, found, response, lifetime, nominated, tags, service)

    def standing(self, request: Request, peer: str) -> Standing | None:
        """How requests like this one from `peer` are taken; None where that is not for a rim."""
        exchange = heard(Exchange(request, peer, 0.0), self.trusts)
        told = exchange.request
        if is_loop(told.fields, self.node):
            return None
        origin = f"{told.scheme}://{told.authority}".encode("latin-1")
        return Standing(
            self.rules, request.scheme, peer, origin, exchange.client or peer, told.fields
        )

    def plain(self, key: bytes, authority: str) -> Repeatable | None:
        """What a hit of `key` is made of, where nothing of the request matters; None where that
        takes more than a look. Whether it is fresh is not asked."""
        variants = self._store.lookup(key)
        if not variants or len(variants) > 1:
            return None
        found = variants[0]
        response, service = found.response, self.services.match(authority)
        if response.variant or response.groups or service is None:
            return None
        lifetime = freshness_lifetime(response, service.policy)
        return self.made_of(key, found, variants, lifetime, service.name)

    def first(
        self,
        key: bytes,
        authority: str,
        fields: Callable[[], Fields],
        now: float,
        *,
        surrogate: bool = False,
    ) -> Answer | None:
        """The answer to a GET of `key` in whose `fields` nothing matters but what variants are told
        apart by, without its content; None where that takes more than what is stored, whole and
        fresh. `surrogate`: to one of our own nodes."""
        variants = self._store.lookup(key)
        if not variants or (service := self.services.match(authority)) is None:
            return None
        found: StoredObject | None = variants[0]
        if len(variants) > 1 or variants[0].variant:
            found = select(variants, fields(), service.policy.normalize_vary)
        # What a group's purge has outdated is not selected among.
        if found is None or any(variant.response.groups for variant in variants):
            return None
        response, policy = found.response, service.policy
        lifetime = freshness_lifetime(response, policy)
        of = self.made_of(key, found, variants, lifetime, service.name)
        if of is None or not isinstance(use := decide(ANYONE, response, policy, now), Hit):
            return None
        request = A_SURROGATE if surrogate else ANYONE
        answer = from_store(self.node, request, _no_content, use, policy, now)
        if answer is not None:
            answer.repeatable = of
        return answer

    def hold(self, of: Repeatable) -> bool:
        """Whether nothing has come up that only a look tells: a purge of its group, by whatever
        worker, or a rule that has the key looked up under another name. To be asked of what has
        `tags`, and of all once `judge.has_rules`."""
        if self.judge.has_rules and self.judge.names(of.key) != (of.key,):
            return False
        return not of.tags or not self._store.epochs.outdated(of.tags, of.response.stamp)


def _no_content(_: Sequence[Segment]) -> tuple[()]:
    return ()
