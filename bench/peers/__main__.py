"""Our edge beside nginx, Varnish and Traffic Server: make peers, python -m bench.peers."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.box import SIMPLE
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from bench.peers.chart import chart
from bench.peers.contenders import (
    FLOOR,
    OURS,
    PEERS,
    edge_has_tls,
    require,
    version,
)
from bench.peers.origin import origin
from bench.peers.page import write_page
from bench.peers.processes import Unusable
from bench.peers.results import HEAD, Row, Sample, grid, rows, verdicts
from bench.peers.rounds import Plan, contenders_of, play
from bench.peers.workloads import WORKLOADS, Workload
from bench.peers.workplace import begin, cores, make_certificate, workplace

BUSY = 0.5
"""Load average beyond which others are in the way."""


def measure(
    chosen: Sequence[Workload], plan: Plan, folder: Path, progress: Progress
) -> Iterator[Sample]:
    """Every workload, every round, everybody in turn. Raises Unusable."""
    total = sum(len(contenders_of(one, plan)) for one in chosen) * plan.rounds
    task = progress.add_task("", total=total)
    with origin(folder / "origin", plan.load_core) as source:
        for workload in chosen:

            def step(what: str, name: str = workload.name) -> None:
                progress.update(task, description=f"{name}: {what}")

            for sample in play(workload, plan, folder / workload.name, source, step):
                progress.advance(task)
                yield sample


def show(table: Sequence[Row], console: Console) -> None:
    for name in dict.fromkeys(row.workload for row in table):
        shown = Table(
            title=f"{name}: {WORKLOADS[name].what}", title_justify="left", box=SIMPLE, padding=0
        )
        for number, head in enumerate(HEAD):
            shown.add_column(head, justify="right" if number else "left")
        for line in grid(table, name):
            shown.add_row(*line)
        console.print(shown)
    for verdict in verdicts(table):
        console.print(verdict.sentence, style="" if verdict.met else "yellow", highlight=False)


def selected(given: Sequence[str], known: Sequence[str], what: str) -> list[str]:
    """The names in `given`, a comma between two, each of them known; all if there are none."""
    names = [name for words in given for name in words.split(",") if name]
    for name in names:
        if name not in known:
            raise Unusable(f"{name} is no {what}: there are {', '.join(known)}")
    return [name for name in known if name in names] or list(known)


def machine() -> str:
    """The processor and the kernel."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    return f"{models[0] if models else platform.machine()}, Linux {platform.release()}"


app = typer.Typer(add_completion=False)


@app.command()
def main(
    workload: Annotated[
        list[str] | None, typer.Option(help="Only NAME[,NAME]; repeatable.", metavar="NAME")
    ] = None,
    peers: Annotated[
        str, typer.Option(help="Beside these, a comma between two.", metavar="NAMES")
    ] = ",".join(PEERS),
    rounds: Annotated[int | None, typer.Option(min=1, help="Default 5.")] = None,
    seconds: Annotated[int | None, typer.Option(min=1, help="Of each round; default 3.")] = None,
    quick: Annotated[bool, typer.Option(help="One short round, fewer objects: 2 minutes.")] = False,
    as_json: Annotated[
        Path | None, typer.Option("--json", help="Write figures to FILE; - prints them.")
    ] = None,
    chart_file: Annotated[
        Path | None, typer.Option("--chart", help="Write an SVG to FILE.")
    ] = None,
    page: Annotated[
        Path | None,
        typer.Option(
            exists=True, file_okay=False, help="Write PERFORMANCE.md and its chart to DIR."
        ),
    ] = None,
) -> None:
    """CPU per request of our edge and of others, in paired rounds."""
    begin()
    errors = Console(stderr=True)
    samples: list[Sample] = []
    try:
        chosen = [WORKLOADS[name] for name in selected(workload or [], [*WORKLOADS], "workload")]
        names = [OURS, *selected([peers], PEERS, "peer"), FLOOR]
        require(names)
        if any(one.tls for one in chosen) and not edge_has_tls():
            errors.print("tls-1k is left out: cdn edge has no --tls-cert yet", highlight=False)
            chosen = [one for one in chosen if not one.tls]
        bars = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        with (
            workplace() as folder,
            Progress(*bars, TimeElapsedColumn(), console=errors, refresh_per_second=2) as progress,
        ):
            cache_core, load_core = cores()
            if cache_core == load_core:
                progress.console.print("only one core: load and caches are in each other's way")
            busy = os.getloadavg()[0]
            if busy > BUSY:
                progress.console.print(
                    f"the machine is busy (load {busy:.1f}): ratios hold, rates and latencies "
                    "do not",
                    highlight=False,
                )
            # The bench itself and what it starts without a core of its own.
            os.sched_setaffinity(0, {load_core})
            plan = Plan(
                names,
                rounds or (1 if quick else 5),
                seconds or (1 if quick else 3),
                quick,
                cache_core=cache_core,
                load_core=load_core,
                certificate=make_certificate(folder) if any(w.tls for w in chosen) else None,
            )
            samples += measure(chosen, plan, folder, progress)
    except Unusable as error:
        errors.print(str(error), soft_wrap=True, highlight=False)
        raise typer.Exit(1) from None
    table = rows(samples)
    told: dict[str, Any] = {
        "machine": machine(),
        "load_before": busy,
        "versions": {name: version(name) for name in names},
        "rounds": plan.rounds,
        "seconds": plan.seconds,
        "rows": [asdict(row) for row in table],
        "verdicts": [{**asdict(one), "met": one.met} for one in verdicts(table)],
        "samples": [asdict(sample) for sample in samples],
    }
    if as_json == Path("-"):
        typer.echo(json.dumps(told))
    else:
        show(table, Console())
        if as_json is not None:
            as_json.write_text(json.dumps(told, indent=1))
    if chart_file is not None:
        chart_file.write_text(chart(table))
    if page is not None:
        write_page(table, told, page)


if __name__ == "__main__":
    app(prog_name="python -m bench.peers")
