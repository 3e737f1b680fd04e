"""The judge: whether a client may be given this answer, by what the origin had said (RFC 9111).

Strategy: written anew from the RFC, so as to be wrong in other ways than the cache; nothing of
cdn.semantics is used. An answer names the origin's event that it comes from. If another request
brought that event about, the answer is reuse, and every rule of reuse must allow it. Ages are those
that one cache next to the origin would compute: any chain of caches is at least as conservative.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from tests.conformance.machine_origin import ETAG_OF_NOBODY, Author, Event, Version
from tests.conformance.machine_reading import (
    HEURISTICALLY,
    Asking,
    Directives,
    age_of,
    directives,
    governing,
    lifetime_of,
    parts_of,
    range_holds,
    requested,
    seconds,
    shut_out,
    unchanged,
)
from tests.kit import Received
from tests.kit.reply import FieldLine

DISCONNECTED = 86_400
"""Seconds past its freshness for which this CDN uses a response whose origin is gone (§4.2.4)."""

OUT = 300
"""Seconds for which an upstream that failed may be passed over without being asked."""


@dataclass
class Judge:
    """`gone`: the moment at which a target, or a group, was purged or invalidated. `seen` counts
    what answers turned out to be: a machine that never sees a hit has shown nothing."""

    author: Author
    behind_shield: bool
    gone: dict[str, int] = field(default_factory=dict)
    stepped_back: bool = False
    seen: Counter[str] = field(default_factory=Counter)
    _ages: dict[int, tuple[float, int]] = field(default_factory=dict)
    _shown: dict[int, list[FieldLine]] = field(default_factory=dict)

    def step_back(self) -> None:
        """The clock went backwards: ages seen before say nothing any more."""
        self.stepped_back = True
        self._ages.clear()

    def judge(self, asking: Asking, got: Received) -> None:
        """Raises AssertionError with the clause that the answer violates."""
        number = got.field("x-event")
        if number is None:
            self._own_answer(asking, got)
            return
        event = self.author.events[int(number)]
        version = event.version
        if event.field("etag") == ETAG_OF_NOBODY:
            assert event.ask == asking.number, "RFC 9111 §4.3.4: freshened by a 304 about another"
            return
        told = f"{event.method} event {event.number} at {event.time:.0f}, {event.fields}"
        assert version.target == asking.target, f"§4: another URI's response: {told}"
        assert got.field("x-version") == str(version.number), f"§4.3.4: mixed up with {told}"
        try:
            self._fields(event, asking, got)
            self._status(event, asking, got)
            self._content(event, asking, got)
            if event.ask == asking.number:
                validated = event.status == 304 and got.status != 304
                if validated:  # then the content is a stored one, made for another
                    self._stored(event)
                self.seen["validated" if validated else "forwarded"] += 1
                if asking.method not in ("GET", "HEAD"):
                    return
                assert _age(got) >= int(event.field("age") or 0), "§5.1: Age lost on the way"
            else:
                self._reuse(event, asking, got)
        except AssertionError as wrong:
            now = self.author.now() - event.time
            raise AssertionError(f"{wrong}\n  {now:.0f} s after {told}") from None

    # -- answers that are no origin's

    def _own_answer(self, asking: Asking, got: Received) -> None:
        match got.status:
            case 412:
                conditions = ("if-match", "if-unmodified-since")
                assert any(map(asking.field, conditions)), "RFC 9110 §15.5.13: 412 on no condition"
            case 416:
                self._unsatisfiable(asking, got, self.author.of(asking.target))
            case 504 if "only-if-cached" in asking.directives:
                self.seen["only-if-cached"] += 1
            case 502 | 503 | 504:
                excused = self._troubles(asking) or self._may_be_out()
                assert excused, f"{got.status} though the origin answers: {got.fields}"
                self.seen["error"] += 1
            case status:
                raise AssertionError(f"{status} that no origin sent: {got.fields}")

    def _unsatisfiable(self, asking: Asking, got: Received, versions: Iterable[Version]) -> None:
        size = (got.field("content-range") or "").removeprefix("bytes */")
        assert asking.method == "GET", "RFC 9110 §14.2: Range is for GET"
        assert size in {str(len(version.content)) for version in versions}, (
            "RFC 9110 §15.5.17: the length that a 416 tells is no version's"
        )
        ranges = requested(asking.field("range"), int(size))
        assert ranges == [], f"RFC 9110 §15.5.17: 416 though {ranges} can be had"
        self.seen["416"] += 1

    # -- what every answer must be

    def _fields(self, event: Event, asking: Asking, got: Received) -> None:
        """All that the origin said is there as it said it, and nothing of other events."""
        left_out = {"age", "set-cookie", "x-mine", "content-type", "content-range"}
        for name, value in event.fields:
            if name.lower() not in left_out:
                found = got.field(name)
                assert found == value, f"RFC 9111 §3.2: {name} is {found!r}, was {value!r}"
        cookie = got.field("set-cookie")
        assert cookie in (None, f"for={event.ask}"), "a cookie of another answer"
        mine = got.field("x-mine")
        assert mine in (None, str(event.ask)), "a field of another answer"

    def _status(self, event: Event, asking: Asking, got: Received) -> None:
        version, plan = event.version, event.version.plan
        if asking.method not in ("GET", "HEAD") or plan.status != 200:
            assert got.status == plan.status, f"status {got.status} of a {plan.status}"
            return
        not_modified = unchanged(asking, event)
        match got.status:
            case 304:
                assert not_modified, "RFC 9110 §13.1.2, §13.1.3: 304 to a validator that differs"
                self.seen["304"] += 1
            case 206:
                assert asking.method == "GET", "RFC 9110 §14.2: Range is for GET"
                assert range_holds(asking, event), "RFC 9110 §13.1.5: If-Range is false"
                self.seen["206"] += 1
            case 416:
                self._unsatisfiable(asking, got, [version])
            case 200:
                # Date stands in for Last-Modified in caches only (RFC 9111 §4.3.2).
                sure = not_modified and (asking.field("if-none-match") or version.modified)
                assert not sure, "RFC 9110 §13.2.1: a false condition was not heeded"
            case status:
                raise AssertionError(f"status {status} of a 200")

    def _content(self, event: Event, asking: Asking, got: Received) -> None:
        whole = event.version.content
        if asking.method == "HEAD" or got.status in (204, 304):
            assert got.content == b""
            length = got.field("content-length")
            if asking.method == "HEAD" and got.status == 200 and length is not None:
                assert int(length) == len(whole), "RFC 9110 §8.6: Content-Length of nothing"
            return
        if not got.complete:
            assert "cut" in self._troubles(asking), "cut short, though the origin was not"
            self.seen["cut"] += 1
        if got.status == 206:
            parts = parts_of(got)
            for start, stop, size, content in parts:
                assert size in (None, len(whole)), "RFC 9110 §14.4: a wrong complete length"
                assert (start, stop) != (0, 0)
                expected = whole[start:stop]
                matches = content == expected if got.complete else expected.startswith(content)
                assert matches, f"RFC 9110 §15.3.7: wrong bytes {start}-{stop}"
            self._ranges(event, asking, [part[:2] for part in parts])
        elif got.status != 416:
            expected = whole if got.complete else whole[: len(got.content)]
            assert got.content == expected, "content that the origin never sent"
            truncated = event.cut and event.status == 200
            assert not (truncated and got.complete), "RFC 9111 §3.3: incomplete, served as complete"

    def _ranges(self, event: Event, asking: Asking, parts: list[tuple[int, int]]) -> None:
        wanted = requested(asking.field("range"), len(event.version.content))
        assert wanted, f"RFC 9110 §14.2: 206 to {asking.field('range')}"
        for start, stop in wanted:
            covered = any(a <= start and stop <= b for a, b in parts)
            assert covered, f"RFC 9110 §15.3.7: {start}-{stop} was asked for, {parts} came"
        assert len(parts) <= len(wanted), "RFC 9110 §15.3.7.2: more parts than were asked for"
        if len(wanted) == 1:
            assert parts == wanted, f"RFC 9110 §15.3.7: {wanted} was asked for, {parts} came"
        elif len(parts) > 1:
            self.seen["multipart"] += 1
        if event.status == 206 and event.version.plan.validators[:1] != ("strong",):
            inside = all(a in event.part and b - 1 in event.part for a, b in parts)
            assert inside, "RFC 9111 §3.4: parts combined without a strong validator"

    # -- reuse

    def _reuse(self, event: Event, asking: Asking, got: Received) -> None:
        """RFC 9111 §4: a stored response, or another's that is on its way, for this request."""
        assert asking.method in ("GET", "HEAD"), "§4: a method that is not understood, from store"
        self._stored(event)
        self._selected(event, asking)
        self._standing(event, asking)
        said, _ = governing(event)
        assert "no-cache" not in said, "§5.2.2.4: no-cache, reused without validation"
        assert not shut_out(said), "§5.2.2.5, §5.2.2.7: private or no-store, reused"
        self._personal_fields(event, said, got)
        age, (lifetime, _) = age_of(event, self.author.now()), lifetime_of(event)
        self._age(event, age, got)
        troubles = self._troubles(asking)
        if lifetime > age:
            self.seen["fresh"] += 1
        else:
            self._stale(event, asking, age - lifetime, troubles)
        if not troubles and not self._may_be_out():
            self._wanted(asking, age, lifetime)
        if asking.method == "HEAD":
            self.seen["head"] += 1
        self._same_head(event, asking, got)

    def _stored(self, event: Event) -> None:
        """§3: some answer that brought this content could be stored for others."""
        # What a shield got with its content may come to the edge as a 304, as a freshening.
        freshening = event.status == 304 or event.method == "HEAD" or self.behind_shield
        brought = [
            one
            for one in (event.version.events if freshening else [event])
            if one.method == "GET" and one.status != 304 and one.number <= event.number
        ]
        refusals = [_not_storable(one) for one in brought]
        assert None in refusals, f"reused, but could not be stored: {refusals}"

    def _selected(self, event: Event, asking: Asking) -> None:
        """§4.1: what Vary nominates has the values that it had in a request for this content."""
        vary = event.field("vary") or ""
        assert vary != "*", "§4.1: Vary: * never matches"
        names = [name.strip().lower() for name in vary.split(",") if name.strip()]
        values = [asking.field(name) for name in names]
        asked = [[one.asked.get(name) for name in names] for one in event.version.events]
        assert values in asked, f"§4.1: another variant's: {names} is {values}, was {asked}"

    def _standing(self, event: Event, asking: Asking) -> None:
        """§4.4: nothing older than an invalidation that came before the request."""
        for what in (event.version.target, event.field("cache-groups")):
            gone = self.gone.get(what or "", 0)
            older = event.number < gone < asking.moment
            assert not older, f"§4.4: purged or invalidated ({what}), and served again"

    def _personal_fields(self, event: Event, said: Directives, got: Received) -> None:
        if got.field("set-cookie") is not None:
            lifetime, explicit = lifetime_of(event)
            said_for_how_long = explicit and lifetime > 0
            assert said_for_how_long, "§7.3: Set-Cookie shared without explicit freshness"
            self.seen["shared cookie"] += 1
        if said.get("private") == "x-mine":
            assert got.field("x-mine") is None, "§5.2.2.7: a field that is private, reused"

    def _age(self, event: Event, age: float, got: Received) -> None:
        """§4.2.3, §5.1."""
        found = got.field("age")
        assert found is not None, "§5.1: reused without Age"
        assert int(found) >= int(age), f"§4.2.3: Age {found} of a response that is {age:.0f} s old"
        if not self.stepped_back:
            assert int(found) == int(age), f"§4.2.3: Age {found}, and it is {age:.0f} s old"
        before, last = self._ages.get(event.number, (0.0, 0))
        assert int(found) >= last, f"§4.2.3: Age went back from {last} at {before} to {found}"
        self._ages[event.number] = (self.author.now(), int(found))

    def _stale(self, event: Event, asking: Asking, staleness: float, troubles: set[str]) -> None:
        """§4.2.4: stale only where the response, the request or a failure allows it."""
        said, _ = governing(event)
        forbidden = {"must-revalidate", "proxy-revalidate", "s-maxage", "no-cache"} & said.keys()
        assert not forbidden, f"§4.2.4: stale by {staleness:.0f} s in spite of {forbidden}"
        wants = asking.directives
        if staleness < seconds(said, "stale-while-revalidate", 0):
            self.seen["while revalidated"] += 1
        elif "max-stale" in wants and staleness <= seconds(wants, "max-stale", 10**9):
            self.seen["max-stale"] += 1
        else:
            window = max(seconds(one, "stale-if-error", 0) for one in (said, wants))
            if "disconnected" in troubles or self._may_be_out():
                window = max(window, DISCONNECTED)
            failed = bool({"error", "disconnected"} & troubles) or self._may_be_out()
            allowed = failed and staleness < window
            assert allowed, f"§4.2.4: stale by {staleness:.0f} s; {said}, {wants}, {troubles}"
            self.seen["stale on failure"] += 1

    def _wanted(self, asking: Asking, age: float, lifetime: float) -> None:
        """§5.2.1: what the client will take. This CDN obeys, as long as the origin answers."""
        wants = asking.directives
        assert "no-cache" not in wants, "§5.2.1.4: not validated, though the request said no-cache"
        most_stale = seconds(wants, "max-stale", 10**9) if "max-stale" in wants else 0
        if "max-age" in wants:
            too_old = age > seconds(wants, "max-age", 0) + most_stale
            assert not too_old, f"§5.2.1.1: {age:.0f} s old, for {wants}"
        if "min-fresh" in wants and "max-stale" not in wants:
            left = lifetime - age
            assert left >= seconds(wants, "min-fresh", 0), f"§5.2.1.3: {left:.0f} s left, {wants}"
        if {"max-age", "min-fresh"} & wants.keys() and "max-stale" not in wants:
            assert age < lifetime, f"§5.2.1.1: stale, for {wants}"

    def _same_head(self, event: Event, asking: Asking, got: Received) -> None:
        """RFC 9110 §9.3.2: HEAD's fields are GET's, and so are those of the next GET. But for Age
        and Cache-Status, which tell of this one answer, and the fields of framing."""
        # What is still arriving has told no length yet: only hits are compared.
        last_member = (got.field("cache-status") or "").split(",")[-1]
        if got.status != event.version.plan.status or "; hit" not in last_member:
            return
        per_answer = {"age", "cache-status", "content-length", "transfer-encoding", "connection"}
        lines = sorted(line for line in got.fields if line[0].lower() not in per_answer)
        shown = self._shown.setdefault(event.number, lines)
        assert lines == shown, f"RFC 9110 §9.3.2: fields {lines} were {shown}"

    # -- the origin's failures

    def _troubles(self, asking: Asking) -> set[str]:
        return {
            trouble.kind
            for trouble in self.author.troubles
            if trouble.target == asking.target and trouble.moment > asking.moment
        }

    def _may_be_out(self) -> bool:
        """Whether the edge may have put its shield out of service (three failures)."""
        now = self.author.now()
        recent = [
            trouble
            for trouble in self.author.troubles
            if trouble.kind != "error" and abs(now - trouble.time) < OUT
        ]
        return self.behind_shield and len(recent) >= 3


def _not_storable(event: Event) -> str | None:
    """§3: why this answer could not be stored for others; None where it could."""
    said, _ = governing(event)
    if shut_out(said):
        return "§5.2.2.5, §5.2.2.7: private or no-store"
    if "no-store" in directives(event.asked.get("cache-control")):
        return "§5.2.1.5: the request that brought it said no-store"
    shared = {"public", "must-revalidate", "s-maxage"} & said.keys()
    if "authorization" in event.asked and not shared:
        return "§3.5: it answered a request with Authorization"
    explicit = lifetime_of(event)[1]
    if not explicit and "public" not in said and event.version.plan.status not in HEURISTICALLY:
        return "§3: no freshness, and its status gives it none"
    return None


def _age(got: Received) -> int:
    return int(got.field("age") or 0)
