"""`make conformance`: the public HTTP cache tests through our edge, or through any other cache."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
import tempfile
from collections.abc import AsyncIterator

from rich.console import Console
from rich.table import Table

from tests.conformance.judge import Judged, Verdict, judge, totals
from tests.conformance.peers import PEERS
from tests.conformance.peers import running as peer_running
from tests.conformance.suite import SuiteUnusable, describe, install, origin, play
from tests.kit.cdn_nodes import node_process

LOCAL = "127.0.0.1:0"


@contextlib.asynccontextmanager
async def our_cache(
    upstream: str, shield: bool, flags: list[str], disk: str | None
) -> AsyncIterator[str]:
    """An edge before `upstream`, or an edge before a shield before it; `disk` is the size of a
    store that each of them gets for itself."""
    async with contextlib.AsyncExitStack() as nodes:

        def own(name: str) -> list[str]:
            if disk is None:
                return flags
            directory = nodes.enter_context(tempfile.TemporaryDirectory(prefix=f"{name}-"))
            return [*flags, "--store", directory, "--disk", disk]

        edge = ["edge", "--listen", LOCAL, "--name", "edge-a", *own("edge")]
        if shield:
            command = ["shield", "--listen", LOCAL, "--name", "shield-a", "--origin", upstream]
            behind = await nodes.enter_async_context(node_process(*command, *own("shield")))
            edge += ["--shield", behind.url]
        else:
            edge += ["--origin", upstream]
        yield (await nodes.enter_async_context(node_process(*edge))).url


async def run(arguments: argparse.Namespace, console: Console) -> list[Judged]:
    with console.status("installing the suite") as status:
        package = await asyncio.to_thread(install)
        tests = describe(package)
        async with contextlib.AsyncExitStack() as running:
            upstream = await running.enter_async_context(origin(package, arguments.origin_port))
            if arguments.direct:
                base = arguments.direct
            elif arguments.peer:
                base = await running.enter_async_context(peer_running(arguments.peer, upstream))
            else:
                base = await running.enter_async_context(
                    our_cache(upstream, arguments.shield, arguments.flag, arguments.store)
                )
            seconds = 0

            def tick() -> None:
                nonlocal seconds
                seconds += 1
                status.update(f"{len(tests)} tests through {base}: {seconds} s, about a minute")

            results = await play(package, base, tick)
    return judge(tests, results)


def show(console: Console, judged: list[Judged]) -> None:
    table = Table(title="HTTP cache tests", title_justify="left")
    table.add_column("group")
    for heading in ("required", "optimal", "check: yes"):
        table.add_column(heading, justify="right")
    groups = list(dict.fromkeys(one.group for one in judged))
    for group in groups:
        table.add_row(group, *_cells([one for one in judged if one.group == group]))
    table.add_section()
    table.add_row("all", *_cells(judged))
    console.print(table)
    for one in judged:
        if one.wrong or one.verdict is Verdict.EXCEPTED:
            console.print(
                f"{one.verdict.value:15} {one.kind:8} {one.id}: {one.detail or one.name}",
                style="yellow" if one.verdict is Verdict.EXCEPTED else "red",
                highlight=False,
                soft_wrap=True,
            )


def _cells(judged: list[Judged]) -> list[str]:
    cells = []
    for kind in ("required", "optimal", "check"):
        of_kind = [one for one in judged if one.kind == kind]
        good = sum(one.verdict in (Verdict.PASS, Verdict.YES) for one in of_kind)
        cells.append(f"{good}/{len(of_kind)}" if of_kind else "")
    return cells


def main() -> int:
    parser = argparse.ArgumentParser(prog="make conformance ARGS=…")
    parser.add_argument("--shield", action="store_true", help="edge and shield, not edge alone")
    parser.add_argument(
        "--direct", metavar="URL", help="any other cache, with our origin behind it"
    )
    parser.add_argument("--origin-port", type=int, default=0, help="where it finds the origin")
    parser.add_argument("--peer", choices=PEERS, help="start this one and go through it")
    parser.add_argument("--json", action="store_true", help="every verdict, for programs")
    parser.add_argument("--store", metavar="SIZE", help="give our nodes a disk store of this size")
    parser.add_argument("--flag", action="append", default=[], help="a flag for our nodes")
    arguments = parser.parse_args()
    console = Console(stderr=arguments.json)
    try:
        judged = asyncio.run(run(arguments, console))
    except SuiteUnusable as error:
        print(f"conformance: {error}", file=sys.stderr)
        return 2
    if arguments.json:
        rows = [
            {"id": one.id, "group": one.group, "kind": one.kind, "verdict": one.verdict,
             "detail": one.detail}
            for one in judged
        ]  # fmt: skip
        counts = {kind: dict(count) for kind, count in totals(judged).items()}
        print(json.dumps({"totals": counts, "tests": rows}, indent=1))
    else:
        show(console, judged)
    return 1 if any(one.wrong for one in judged) else 0


if __name__ == "__main__":
    sys.exit(main())
