"""An origin that remembers every answer it gave, so that a client's answer can be traced to it.

Strategy: a `Plan` says how a target behaves. Every representation is a `Version` with content and
X-Version of its own, and no two versions are equally long. Every answer is an `Event` with X-Event
of its own, which a 304 or a HEAD hands on to the stored response that it freshens. X-Ask names the
client request that an event answered: whoever else gets that event's answer is being served by
reuse.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from email.utils import formatdate, parsedate_to_datetime
from random import Random

from tests.kit import Gate, RecordedRequest, Reply
from tests.kit.clock import START
from tests.kit.reply import FieldLine, fitted

ETAG_OF_NOBODY = '"never-seen"'


@dataclass(frozen=True)
class Plan:
    """How a target answers until the next plan. Times in seconds.

    `renewed` is Cache-Control in its 304s; `expires` counts from Date, `skew` is how far the
    origin's clock is ahead, None for no Date at all. `validators`: of "strong", "weak" (entity
    tags) and "modified". `personal`: each request gets content of its own.
    """

    status: int = 200
    cache_control: str = ""
    renewed: str = ""
    targeted: str = ""
    expires: int | None = None
    validators: tuple[str, ...] = ("strong",)
    vary: str = ""
    age: int = 0
    skew: int | None = 0
    chunked: bool = False
    cookie: bool = False
    ranges: bool = False
    personal: bool = False
    group: str = ""
    early: bool = False


@dataclass(eq=False)
class Version:
    """One representation, or one error, of a target."""

    number: int
    target: str
    plan: Plan
    events: list[Event] = field(default_factory=list)

    @property
    def content(self) -> bytes:
        # A length that no other version has: a HEAD's Content-Length then tells them apart.
        return Random(self.number).randbytes(100 + self.number)

    @property
    def etag(self) -> str | None:
        kinds = {"strong": '"v{}"', "weak": 'W/"v{}"'}
        forms = [kinds[kind] for kind in self.plan.validators if kind in kinds]
        return forms[0].format(self.number) if forms else None

    @property
    def modified(self) -> float | None:
        # A second apart: Last-Modified tells versions from each other as well as a tag.
        return START - 5_000 + self.number if "modified" in self.plan.validators else None


@dataclass(eq=False)
class Event:
    """One answer of the origin. `asked` are the request's fields by lower-case name, `part` what it
    sent of the content; `cut`: it broke off before its end."""

    number: int
    version: Version
    status: int
    method: str
    asked: dict[str, str]
    time: float
    fields: list[FieldLine]
    part: range
    cut: bool

    @property
    def ask(self) -> int:
        return int(self.asked["x-ask"])

    @property
    def date(self) -> float:
        """Date, or when it came: a recipient dates what has none (RFC 9110 §6.6.1)."""
        told = self.field("date")
        return self.time if told is None else seconds_of(told)

    def field(self, name: str) -> str | None:
        return next((value for line, value in self.fields if line.lower() == name), None)


@dataclass(frozen=True)
class Trouble:
    """The origin failed: "error" (a 5xx), "disconnected" (no head) or "cut" (no end)."""

    kind: str
    target: str
    moment: int
    time: float


@dataclass(frozen=True)
class Weather:
    """What befalls the origin's answers during one step; `gate` holds them up. `unsafe`: status and
    fields of its answer to an unsafe method."""

    kind: str = "fine"
    gate: Gate | None = None
    unsafe: tuple[int, tuple[FieldLine, ...]] = (204, ())


class Author:
    """`moment` counts all that happened, `now` tells the origin's time (without its skew)."""

    def __init__(self, now: Callable[[], float]) -> None:
        self.now = now
        self.moment = 0
        self.weather = Weather()
        self.versions: list[Version] = []
        self.events: dict[int, Event] = {}
        self.troubles: list[Trouble] = []
        self.asks: set[int] = set()
        self._plans: dict[str, tuple[int, Plan]] = {}
        self._current: dict[object, Version] = {}

    def tick(self) -> int:
        self.moment += 1
        return self.moment

    def publish(self, target: str, plan: Plan) -> None:
        """From now on `target` has something new, and behaves as `plan` says."""
        self._plans[target] = (self.tick(), plan)

    def of(self, target: str) -> list[Version]:
        """All that `target` ever was, the newest last."""
        return [version for version in self.versions if version.target == target]

    # -- answering

    def answer(self, request: RecordedRequest) -> Reply:
        """The origin's script."""
        asked = {name.lower(): value for name, value in request.fields}
        self.asks.add(int(asked["x-ask"]))
        kind = self.weather.kind
        if kind in ("disconnect", "reset"):
            self._trouble("disconnected", request)
            return Reply(disconnect=True, reset=kind == "reset", gate=self.weather.gate)
        if kind.isdigit():
            error = self._new_version(request, Plan(status=int(kind), validators=()))
            return self._reply(error, request, asked)
        if request.method not in ("GET", "HEAD"):
            return self._unsafe(request, asked)
        conditional = "if-none-match" in asked or "if-modified-since" in asked
        if kind == "strange 304" and conditional:
            return self._strange(request, asked)
        return self._reply(self._version(request, asked), request, asked)

    def _trouble(self, kind: str, request: RecordedRequest) -> None:
        self.troubles.append(Trouble(kind, request.target, self.tick(), self.now()))

    def _version(self, request: RecordedRequest, asked: dict[str, str]) -> Version:
        edition, plan = self._plans[request.target]
        names = [name.strip().lower() for name in plan.vary.split(",")]
        key: object = (edition, *(asked.get(name) for name in names))
        if plan.personal or plan.vary == "*":
            key = object()
        if key not in self._current:
            self._current[key] = self._new_version(request, plan)
        return self._current[key]

    def _new_version(self, request: RecordedRequest, plan: Plan) -> Version:
        version = Version(len(self.versions), request.target, plan)
        self.versions.append(version)
        return version

    def _unsafe(self, request: RecordedRequest, asked: dict[str, str]) -> Reply:
        status, fields = self.weather.unsafe
        plan = self._plans[request.target][1]
        if status < 400:
            self._plans[request.target] = (self.tick(), plan)
        # Fresh for long by itself: an answer to POST is nonetheless none to GET (RFC 9110 §9.3.3).
        done = self._new_version(request, Plan(status, "max-age=600", validators=()))
        return self._reply(done, request, asked, fields)

    def _strange(self, request: RecordedRequest, asked: dict[str, str]) -> Reply:
        fields = [("ETag", ETAG_OF_NOBODY), ("Cache-Control", "max-age=600")]
        nobody = Version(-1, request.target, Plan())
        event = self._event(nobody, 304, request, asked, fields, range(0), cut=False)
        return Reply(304, event.fields)

    def _reply(
        self,
        version: Version,
        request: RecordedRequest,
        asked: dict[str, str],
        more: tuple[FieldLine, ...] = (),
    ) -> Reply:
        plan = version.plan
        unchanged = plan.status == 200 and _unchanged(version, request.method, asked)
        cut = self.weather.kind == "cut" and not unchanged and request.method == "GET"
        reply = Reply(
            304 if unchanged else plan.status,
            [*self._fields(version, unchanged, int(asked["x-ask"])), *more],
            version.content,
            # A HEAD tells the length in any case, for that is all that it can be matched by.
            "chunked" if plan.chunked and request.method == "GET" else "length",
            cut_after=5 if cut else None,
            gate=self.weather.gate,
            honours_ranges=plan.ranges,
            interim=[(103, [("X-Version", "103"), ("Link", "</style>")])] if plan.early else [],
        )
        final, part = fitted(reply, request.method, request.fields)
        if cut:
            self._trouble("cut", request)
        elif final.status in (500, 502, 503, 504):
            self._trouble("error", request)  # RFC 5861 §4's errors
        fields = list(reply.fields)
        event = self._event(version, final.status, request, asked, fields, part, cut)
        return Reply(**{**vars(reply), "fields": event.fields})

    def _event(
        self,
        version: Version,
        status: int,
        request: RecordedRequest,
        asked: dict[str, str],
        fields: list[FieldLine],
        part: range,
        cut: bool,
    ) -> Event:
        number, time = self.tick(), self.now()
        fields = [("X-Event", str(number)), *fields]
        event = Event(number, version, status, request.method, asked, time, fields, part, cut)
        version.events.append(event)
        self.events[number] = event
        return event

    def _fields(self, version: Version, unchanged: bool, ask: int) -> list[FieldLine]:
        """A 304 says anew all that governs reuse: what is stored is then the last event's word."""
        plan, date = version.plan, self.now() + (version.plan.skew or 0)
        control = (plan.renewed if unchanged else "") or plan.cache_control
        lines = [
            ("X-Version", str(version.number)),
            ("Date", formatdate(date, usegmt=True) if plan.skew is not None else ""),
            ("Cache-Control", control if plan.cache_control else ""),
            ("CDN-Cache-Control", plan.targeted),
            (
                "Expires",
                "" if plan.expires is None else formatdate(date + plan.expires, usegmt=True),
            ),
            ("ETag", version.etag or ""),
            (
                "Last-Modified",
                formatdate(version.modified, usegmt=True) if version.modified else "",
            ),
            ("Vary", plan.vary),
            ("Age", str(plan.age) if plan.age else ""),
            ("Set-Cookie", f"for={ask}" if plan.cookie else ""),
            ("X-Mine", str(ask)),
            ("Cache-Groups", f'"{plan.group}"' if plan.group else ""),
            ("Content-Type", "" if unchanged else "application/x-random"),
        ]
        return [(name, value) for name, value in lines if value]


def _unchanged(version: Version, method: str, asked: dict[str, str]) -> bool:
    """RFC 9110 §13.1.2, §13.1.3, as the origin itself sees it."""
    if method not in ("GET", "HEAD"):
        return False
    if (tags := asked.get("if-none-match")) is not None:
        given = [tag.strip().removeprefix("W/") for tag in tags.split(",")]
        return "*" in given or (
            version.etag is not None and version.etag.removeprefix("W/") in given
        )
    since = asked.get("if-modified-since")
    return (
        since is not None and version.modified is not None and version.modified <= seconds_of(since)
    )


def seconds_of(date: str) -> float:
    """An HTTP date as seconds since 1970."""
    return parsedate_to_datetime(date).timestamp()
