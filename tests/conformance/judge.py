"""What a result means, by the suite's own rules.

Strategy: pure. A test whose dependency did not pass is judged no further; what could not be set up
is told apart from what failed; required and optional tests pass or fail, checks only inform.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

_NO_ANSWER = (
    "RFC 9111 §4.2.4",
    "The origin closes the connection and the directive forbids stale: 502 is the answer. The test "
    "then wants a field that only the origin's answer could have had, so no cache can pass it.",
)
EXCEPTIONS: dict[str, tuple[str, str]] = {
    "stale-close-must-revalidate": _NO_ANSWER,
    "stale-close-proxy-revalidate": _NO_ANSWER,
    "stale-close-no-cache": _NO_ANSWER,
    "stale-close-s-maxage=2": _NO_ANSWER,
    "304-etag-update-response-ETag": (
        "RFC 9111 §4.3.4",
        "The 304 bears another strong entity tag than the stored response: a cache MUST NOT use it "
        "to update any stored response, and the test wants it to renew the freshness of one.",
    ),
    "conditional-lm-fresh-no-lm": (
        "RFC 9111 §4.3.2",
        "Without Last-Modified, Date stands in for it, and it is 50 minutes later than the "
        "If-Modified-Since: the condition holds and the answer is 200, not 304.",
    ),
}
"""Tests that ask for what the RFC forbids, or for what no cache can give: id to clause and why."""


class Verdict(StrEnum):
    PASS = "pass"
    FAIL = "fail"
    OPTIONAL_FAIL = "optional fail"
    YES = "yes"
    NO = "no"
    SETUP_FAIL = "setup fail"
    DEPENDENCY_FAIL = "dependency fail"
    UNTESTED = "untested"
    EXCEPTED = "excepted"


@dataclass(frozen=True, slots=True)
class Judged:
    """One test and how it went."""

    id: str
    group: str
    kind: str
    name: str
    verdict: Verdict
    detail: str

    @property
    def wrong(self) -> bool:
        """Whether a required or optimal test did not pass (a check never is wrong)."""
        return self.kind != "check" and self.verdict not in (Verdict.PASS, Verdict.EXCEPTED)


def judge(
    tests: Iterable[Mapping[str, object]],
    results: Mapping[str, object],
    exceptions: Mapping[str, object] = EXCEPTIONS,
) -> list[Judged]:
    """Every test that applies to a shared cache, in the suite's order."""
    known = {str(test["id"]): test for test in tests}
    return [
        _judged(test, known, results, exceptions)
        for test in known.values()
        if not test["browser_only"]
    ]


def _judged(
    test: Mapping[str, object],
    known: Mapping[str, Mapping[str, object]],
    results: Mapping[str, object],
    exceptions: Mapping[str, object],
) -> Judged:
    name = str(test["id"])
    result = results.get(name)
    verdict = _verdict(name, known, results)
    if name in exceptions and verdict is not Verdict.PASS:
        verdict = Verdict.EXCEPTED
    detail = ": ".join(map(str, result)) if isinstance(result, list) else ""
    return Judged(name, str(test["group"]), str(test["kind"]), str(test["name"]), verdict, detail)


def _verdict(
    name: str, known: Mapping[str, Mapping[str, object]], results: Mapping[str, object]
) -> Verdict:
    result, test = results.get(name), known[name]
    if result is None:
        return Verdict.UNTESTED
    needs = test["depends_on"]
    assert isinstance(needs, list)
    if any(_verdict(need, known, results) not in (Verdict.PASS, Verdict.YES) for need in needs):
        return Verdict.DEPENDENCY_FAIL
    if isinstance(result, list) and result[0] == "Setup":
        return Verdict.SETUP_FAIL
    passed = result is True
    match test["kind"]:
        case "required":
            return Verdict.PASS if passed else Verdict.FAIL
        case "optimal":
            return Verdict.PASS if passed else Verdict.OPTIONAL_FAIL
        case _:
            return Verdict.YES if passed else Verdict.NO


def totals(judged: Iterable[Judged]) -> dict[str, Counter[Verdict]]:
    """How many of each verdict, by kind."""
    counts: dict[str, Counter[Verdict]] = {"required": Counter(), "optimal": Counter()}
    for one in judged:
        counts.setdefault(one.kind, Counter())[one.verdict] += 1
    return counts
