"""Plays conformance cases: what a client asks, what the origin answers, what must come of it.

Strategy: a case is data (cases/*.yaml), a list of steps. The player is an origin that answers as
the step says, a client on a real socket, and the clock of every node on the way; no step waits for
time to pass. What a step expects is checked against what the client got and what the origin saw.

    - id: a-name
      rfc: RFC 9111 §4.2
      why: one sentence
      steps:
        - target: /path                       # default: /
          method: GET                         # default
          host: other.example                 # default: site.example
          request: {Field: value}             # or a list of [name, value]
          origin: {status: 200, fields: [[name, value]], content: text, interim: [[103, {…}]]}
          expect:
            from: origin | store | validated  # did the origin see a request; was it answered 304
            status: 200
            content: text
            fields: {Age: "30"}               # a value, or {matches: expression}, {absent: true}
            upward: {If-None-Match: '"a"'}    # what the origin saw
          settle: true                        # wait for what goes on behind the answer
        - advance: 30                         # seconds
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from cdn.semantics.http_date import format_http_date
from tests.kit import ManualClock, RawClient, Received, RecordedRequest, Reply, ScriptedOrigin

CASES = Path(__file__).parent / "cases"
HOST = "site.example"


@dataclass(frozen=True, slots=True)
class Case:
    """One case; `steps` as in its file."""

    id: str
    rfc: str
    steps: list[dict[str, Any]]
    cache: dict[str, Any]


def load_cases() -> list[Case]:
    """All cases of all files, in order."""
    yaml = YAML(typ="safe")
    cases = []
    for file in sorted(CASES.glob("*.yaml")):
        for raw in yaml.load(file):
            cases.append(Case(raw["id"], raw["rfc"], raw["steps"], raw.get("cache", {})))
    return cases


async def play(
    case: Case,
    url: str,
    origin: ScriptedOrigin,
    clock: ManualClock,
    settled: Callable[[], Awaitable[None]],
) -> None:
    """Plays `case` through the node at `url`; `settled` waits until no node does anything in the
    background. Raises AssertionError with the step that failed."""
    for number, step in enumerate(case.steps, 1):
        if "advance" in step:
            clock.advance(step["advance"])
            continue
        await _play_step(f"{case.id}, step {number} ({case.rfc})", step, url, origin, clock)
        if step.get("settle"):
            await settled()


async def _play_step(
    where: str, step: Mapping[str, Any], url: str, origin: ScriptedOrigin, clock: ManualClock
) -> None:
    expect = step.get("expect", {})
    answers = _Answers(step.get("origin"), clock)
    origin.on(step.get("target", "/"), answers)
    before = len(origin.requests)
    lines = [("Host", step.get("host", HOST)), *_lines(step.get("request", {}))]
    async with await RawClient.connect(url) as client:
        got = await client.get(
            step.get("target", "/"), lines, method=step.get("method", "GET"), content=None
        )
    seen = origin.requests[before:]
    _check_source(where, expect.get("from"), seen, answers)
    _check_answer(where, expect, got)
    for name, value in expect.get("upward", {}).items():
        assert seen, f"{where}: the origin saw nothing"
        _check_field(f"{where}: upward", name, value, seen[-1].field(name.lower()))


class _Answers:
    """The origin's side of one step; remembers whether it validated."""

    def __init__(self, raw: Mapping[str, Any] | None, clock: ManualClock) -> None:
        self._raw = raw
        self._clock = clock
        self.validated = False

    def __call__(self, request: RecordedRequest) -> Reply:
        raw = self._raw or {"status": 500, "content": "the case did not expect a request"}
        fields = [
            (name, value if isinstance(value, str) else format_http_date(self._clock.now() + value))
            for name, value in _pairs(raw.get("fields", []))
        ]
        if not any(name.lower() == "date" for name, _ in fields):
            fields.append(("Date", format_http_date(self._clock.now())))
        etag = next((value for name, value in fields if name.lower() == "etag"), None)
        self.validated = etag is not None and request.field("if-none-match") == etag
        return Reply(
            status=304 if self.validated else raw.get("status", 200),
            fields=fields,
            content=b"" if self.validated else raw.get("content", "").encode(),
            interim=[(status, list(_pairs(extra))) for status, extra in raw.get("interim", [])],
        )


def _check_source(
    where: str, wanted: str | None, seen: list[RecordedRequest], answers: _Answers
) -> None:
    if wanted is None:
        return
    found = "store" if not seen else "validated" if answers.validated else "origin"
    assert found == wanted, f"{where}: came from {found}, not from {wanted}"


def _check_answer(where: str, expect: Mapping[str, Any], got: Received) -> None:
    status = expect.get("status", 200)
    assert got.status == status, f"{where}: status {got.status}, not {status}"
    if "content" in expect:
        assert got.content == expect["content"].encode(), f"{where}: content {got.content!r}"
    if "interim" in expect:
        statuses = [status for status, _ in got.interim]
        assert statuses == expect["interim"], f"{where}: interim {statuses}"
    for name, value in expect.get("fields", {}).items():
        _check_field(where, name, value, got.field(name.lower()))


def _check_field(where: str, name: str, wanted: Any, found: str | None) -> None:
    match wanted:
        case {"absent": True}:
            assert found is None, f"{where}: {name} is {found!r}, should be absent"
        case {"matches": expression}:
            told = f"{where}: {name} is {found!r}, not like {expression}"
            assert re.search(expression, found or ""), told
        case _:
            assert found == str(wanted), f"{where}: {name} is {found!r}, not {wanted!r}"


def _pairs(raw: Any) -> list[tuple[str, Any]]:
    return list(raw.items()) if isinstance(raw, Mapping) else [(name, value) for name, value in raw]


def _lines(raw: Any) -> list[tuple[str, str]]:
    return [(name, str(value)) for name, value in _pairs(raw)]
