"""Plays traces through the replacement policies: make hitratio, python -m bench.hitratio."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from bench.hitratio.contenders import CONTENDERS
from bench.hitratio.optimum import optimum
from bench.hitratio.page import write_page
from bench.hitratio.results import OPTIMUM, SHARES, Row, grid, verdict
from bench.hitratio.traces import Trace, made_traces, read_traces


def rows_of(trace: Trace, progress: Progress) -> Iterator[Row]:
    """All contenders at all sizes, then the bound."""
    budgets = [int(trace.footprint * share) for share in SHARES]
    task = progress.add_task(trace.name, total=len(CONTENDERS) * len(SHARES) + 1)
    for policy, play in CONTENDERS.items():
        for share, budget in zip(SHARES, budgets, strict=True):
            if outcome := play(budget, trace):
                yield Row(trace.name, share, policy, outcome)
            progress.advance(task)
    for share, outcome in zip(SHARES, optimum(trace, budgets), strict=True):
        yield Row(trace.name, share, OPTIMUM, outcome)
    progress.advance(task)


def show(rows: Sequence[Row], console: Console) -> None:
    for trace in dict.fromkeys(row.trace for row in rows):
        head, *lines = grid(rows, trace)
        table = Table(title=f"{trace}: {head[0]}", title_justify="left", box=SIMPLE, padding=0)
        for number, name in enumerate(["", *head[1:]]):
            table.add_column(name, justify="right" if number else "left")
        for line in lines:
            table.add_row(*line)
        console.print(table)
    for sentence in verdict(rows):
        console.print(sentence, highlight=False)


app = typer.Typer(add_completion=False)


@app.command()
def main(
    traces: Annotated[
        Path | None,
        typer.Option(
            exists=True, file_okay=False, help="Play the *.csv.gz of DIR too.", metavar="DIR"
        ),
    ] = None,
    quick: Annotated[bool, typer.Option(help="Short made traces: some seconds.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Rows as JSON instead of tables.")
    ] = False,
    page: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            file_okay=False,
            help="Write HITRATIO.md and its charts to DIR.",
            metavar="DIR",
        ),
    ] = None,
) -> None:
    """Hit ratios of replacement policies, at five sizes of cache."""
    rows: list[Row] = []
    bars = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*bars, console=Console(stderr=True)) as progress:
        made = made_traces(5_000 if quick else 500_000)
        try:
            for trace in chain(read_traces(traces) if traces else (), made):
                rows += rows_of(trace, progress)
        except ValueError as error:
            progress.console.print(error, soft_wrap=True)
            raise typer.Exit(1) from None
    if as_json:
        typer.echo(json.dumps([asdict(row) for row in rows]))
    else:
        show(rows, Console())
    if page is not None:
        write_page(rows, page)


if __name__ == "__main__":
    app(prog_name="python -m bench.hitratio")
