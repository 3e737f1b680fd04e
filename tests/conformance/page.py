"""docs/CONFORMANCE.md: every column by the command that is named beside it.

Strategy: each column is a run of its own with `--json`; the page is made from what they print, so
that nobody ever types a figure. `python -m tests.conformance.page` takes some minutes.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from rich.progress import Progress

from tests.conformance.judge import EXCEPTIONS
from tests.conformance.suite import PACKAGE, VERSION

PAGE = Path(__file__).parents[2] / "docs" / "CONFORMANCE.md"

COLUMNS = {
    "edge": ([], None),
    "edge + shield": (["--shield"], None),
    "nginx": (["--peer", "nginx"], ["nginx", "-v"]),
    "Varnish": (["--peer", "varnish"], ["varnishd", "-V"]),
    "Traffic Server": (["--peer", "trafficserver"], ["traffic_server", "--version"]),
    "Squid": (["--peer", "squid"], ["squid", "-v"]),
}
GOOD = {"pass", "yes"}


def measure(arguments: list[str]) -> dict[str, Any]:
    """One run of the suite."""
    command = [sys.executable, "-m", "tests.conformance", "--json", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode > 1:
        sys.exit(f"{' '.join(arguments) or 'edge'}: {done.stderr.strip()}")
    return json.loads(done.stdout)


def version(command: list[str] | None) -> str:
    if command is None:
        return "this tree"
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.search(r"\d+\.\d+(\.\d+)?", done.stdout + done.stderr)
    return found[0] if found else "?"


def share(tests: list[dict[str, str]], kind: str) -> str:
    of_kind = [test for test in tests if test["kind"] == kind]
    good = sum(test["verdict"] in GOOD for test in of_kind)
    return f"{good}/{len(of_kind)}" if of_kind else "–"


def table(results: dict[str, list[dict[str, str]]], kind: str) -> str:
    groups = list(dict.fromkeys(test["group"] for tests in results.values() for test in tests))
    lines = [f"| {kind} | " + " | ".join(results) + " |", "|---|" + "--:|" * len(results)]
    for group in groups:
        row = [share([t for t in tests if t["group"] == group], kind) for tests in results.values()]
        if set(row) != {"–"}:
            lines.append(f"| {group} | " + " | ".join(row) + " |")
    row = [f"**{share(tests, kind)}**" for tests in results.values()]
    lines.append("| **all** | " + " | ".join(row) + " |")
    return "\n".join(lines)


def page(results: dict[str, list[dict[str, str]]]) -> str:
    commands = "\n".join(
        f"| {name} | {version(asked)} | `make conformance{arguments}` |"
        for name, (flags, asked) in COLUMNS.items()
        for arguments in [f' ARGS="{" ".join(flags)}"' if flags else ""]
    )
    excepted = "\n".join(
        f"| `{test}` | {clause} | {why} |" for test, (clause, why) in EXCEPTIONS.items()
    )
    return f"""# Conformance

How this CDN and its peers do in the public HTTP cache tests, the suite behind cache-tests.fyi
({PACKAGE} {VERSION}). Required tests are what RFC 9111 demands, optimal ones what a good cache does
besides; checks only tell how a cache behaves and are not counted here. Tests for browsers alone are
left out. A test whose precondition the cache did not meet counts as not passed.

This page is made by `python -m tests.conformance.page`; nobody types a figure into it. The peers
are Debian's packages, set up in `tests/conformance/peers.py` as a competent operator would; any
other cache can be put beside them: start it before `http://127.0.0.1:9001`, then
`make conformance ARGS="--direct http://127.0.0.1:PORT --origin-port 9001"`.

| column | version | made by |
|---|---|---|
{commands}

{table(results, "required")}

{table(results, "optimal")}

## Exceptions

What we do not pass, and why the RFC has it so:

| test | clause | why |
|---|---|---|
{excepted}

## Beyond the suite

What has been added to the standards since is checked by the project's own cases, as data, in
`tests/conformance/cases`: CDN-Cache-Control (RFC 9213), interim responses, must-understand, ages
and lifetimes beyond 2^31, stale-while-revalidate, Cache-Groups (RFC 9875), No-Vary-Search, Vary by
normalised field, Surrogate-Control. They are played through an edge alone and through edge and
shield with a clock of their own (`make test ARGS=tests/conformance/test_cases.py`). A third
opinion is `tests/conformance/test_machine.py`: random origins and random clients against the real
gateway, judged by a model written from the RFC alone.

Where the RFC leaves a choice, we chose:

- An Age that nobody can read, or that came on several lines, counts as old: the response is stale.
- s-maxage forbids stale use as RFC 9111 §5.2.2.10 says, also beside stale-while-revalidate; an
  origin that wants both says max-age in CDN-Cache-Control.
- Served stale on disconnection is only what said how long it is fresh; an answer that said nothing
  was never meant for others.
- A response with Set-Cookie is stored only where the origin gives it an explicit lifetime.
"""


def main() -> None:
    results: dict[str, list[dict[str, str]]] = {}
    with Progress() as progress:
        work = progress.add_task("columns", total=len(COLUMNS))
        for name, (arguments, _) in COLUMNS.items():
            progress.update(work, description=name)
            results[name] = measure(arguments)["tests"]
            progress.advance(work)
    PAGE.write_text(page(results))
    print(f"wrote {PAGE.name}")


if __name__ == "__main__":
    main()
