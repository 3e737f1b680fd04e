"""`cdn store …`: what is in a disk store, and whether it is as it was written.

Strategy: nothing is locked, so all of it works beside a running node. Every table is for programs
with --json; what cannot be looked at is one line on stderr and exit code 1.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, cast

import typer
from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from cdn.storage import inspect
from cdn.storage.directory import StoreUnusable

app = typer.Typer(help="Look into a disk store, beside its node or without.", no_args_is_help=True)

Directory = Annotated[Path, typer.Argument(help="The directory given to --store.")]
AsJson = Annotated[bool, typer.Option("--json", help="For programs rather than people.")]


@app.command()
def stat(directory: Directory, as_json: AsJson = False) -> None:
    """How the store is laid out, and how much it holds."""
    with _one_line():
        told = inspect.stat(directory)
    if as_json:
        print(json.dumps(told, indent=2))
        return
    table = Table(show_header=False, title=f"store {directory}", title_justify="left")
    for key, value in told.items():
        size = isinstance(value, int) and key.endswith(("_bytes", "_size"))
        table.add_row(key.replace("_", " "), _size(cast(int, value)) if size else str(value))
    Console().print(table)


@app.command()
def ls(
    directory: Directory,
    prefix: Annotated[str, typer.Option(help="URLs that begin with this.")] = "",
    as_json: AsJson = False,
) -> None:
    """The stored responses: URL, status, how much of each is there, since when."""
    with _one_line():
        rows = sorted(map(_row, inspect.ls(directory, prefix.encode())), key=_by_url)
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("URL", overflow="fold")
    for heading in ("status", "length", "stored"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("received", no_wrap=True)
    for row in rows:
        asked = (f"\n  {name}: {value or ''}" for name, value in row["variant"])
        url = row["url"] + "".join(asked)
        length = "?" if row["length"] is None else _size(row["length"])
        table.add_row(Text(url), str(row["status"]), length, _size(row["stored"]), row["received"])
    console = Console()
    console.print(table)
    console.print(f"{len(rows)} stored {'response' if len(rows) == 1 else 'responses'}")


@app.command()
def verify(directory: Directory, as_json: AsJson = False) -> None:
    """Read every record and check it; exit code 1 where one is damaged."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
    with (
        _one_line(),
        Progress(
            *columns,
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        ) as bar,
    ):
        task = bar.add_task(f"reading {directory}", total=None)
        report = inspect.verify(
            directory, lambda done, total: bar.update(task, completed=done, total=total)
        )
    damaged = [
        {"segment": str(one.segment), "offset": one.offset, "url": _text(one.key)}
        for one in report.damaged
    ]
    if as_json:
        print(json.dumps({**asdict(report), "damaged": damaged}, indent=2))
    else:
        for one in damaged:
            print(f"{one['segment']}: damaged at byte {one['offset']}: {one['url'] or 'unknown'}")
        print(
            f"{directory}: {report.records} records in {report.segments} segments, "
            f"{_size(report.bytes)}: {f'{len(damaged)} damaged' if damaged else 'all sound'}"
        )
    raise typer.Exit(1 if damaged else 0)


@contextmanager
def _one_line() -> Iterator[None]:
    try:
        yield
    except (StoreUnusable, OSError) as error:
        typer.echo(f"cdn store: {error}", err=True)
        raise typer.Exit(1) from None


def _row(row: inspect.Row) -> dict[str, Any]:
    at = datetime.fromtimestamp(row.response_time, UTC).replace(microsecond=0)
    return {
        "url": _text(row.key),
        "variant": list(row.variant),
        "status": row.status,
        "length": row.length,
        "stored": row.stored,
        "received": at.isoformat().replace("+00:00", "Z"),
    }


def _by_url(row: dict[str, Any]) -> str:
    return str(row["url"])


def _text(key: bytes | None) -> str | None:
    return None if key is None else key.decode("latin-1")


def _size(size: int) -> str:
    for unit, factor in (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size} B"
