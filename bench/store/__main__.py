"""What the disk store costs and keeps: make bench-store, python -m bench.store NAME."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from bench.store import flood, restarts, stalls, upgrades
from bench.store.chart import chart
from bench.store.figures import Figure, found, show
from bench.store.page import write
from bench.store.place import BEFORE_OTHERS, Unusable, directory
from tests.storage import kill_loop

app = typer.Typer(add_completion=False, no_args_is_help=True, help=__doc__)

Directory = Annotated[
    Path | None,
    typer.Option(
        file_okay=False, help="On the disk to measure; what is filled stays there.", metavar="DIR"
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="For programs rather than people.")]
Page = Annotated[
    Path | None,
    typer.Option(exists=True, file_okay=False, help="Write PERFORMANCE.md's part in DIR."),
]


@app.command()
def p99(
    rounds: Annotated[int, typer.Option(min=1, help="Pairs of rounds.")] = 7,
    seconds: Annotated[float, typer.Option(min=1.0, help="Of each round.")] = 4.0,
    rate: Annotated[float, typer.Option(min=1.0, help="Hits asked for a second.")] = 300.0,
    clients: Annotated[int, typer.Option(min=1, help="Who read cold files.")] = 32,
    files: Annotated[int, typer.Option(min=1, help="Of 1 GiB each.")] = 8,
    directory: Directory = None,
    as_json: AsJson = False,
    page: Page = None,
) -> None:
    """What hits in RAM wait while clients read cold files of 1 GiB, and while they do not."""
    plan = stalls.Plan(rounds, seconds, rate, clients, files)
    with _working() as step:
        pairs = stalls.measure(directory, plan, step)
    _tell(
        "p99",
        "An edge of one worker on one core, whoever asks it on the other, both (as root) at nice "
        f"{BEFORE_OTHERS}, before what others do on the machine. {rate:g} requests a "
        f"second for {stalls.SMALL} objects of 4 KiB, all hits, all in RAM; beside them, or not, "
        f"{clients} clients that read as fast as they can, each from its own place in one of "
        f"{files} files of 1 GiB. {rounds} pairs of rounds of {seconds:g} s. Before each round "
        "all segments were dropped from the page cache, and at every MiB of them a read with "
        "RWF_NOWAIT failed; the small objects were then asked for until they were back.",
        stalls.figures(pairs, plan),
        as_json,
        page,
        chart(pairs),
    )


@app.command()
def restart(
    objects: Annotated[int, typer.Option(min=1000, help="In the full store.")] = 1_000_000,
    rounds: Annotated[int, typer.Option(min=1, help="Starts of each kind.")] = 9,
    directory: Directory = None,
    as_json: AsJson = False,
    page: Page = None,
) -> None:
    """How soon a node with many objects answers, and how much RAM they take."""
    with _working() as step:
        starts = restarts.measure(directory, objects, rounds, step)
    _tell(
        "restart",
        f"An edge of one worker on a store of {objects:,} objects of {restarts.SIZE} bytes, and "
        f"on an empty one, started in turn {rounds} times each (medians): from exec to the first "
        'byte of the first answer; a hit here, an origin that refuses there. "No file in RAM": '
        "segments, index and epochs were dropped from the page cache before. Private memory is "
        "Private_Clean + Private_Dirty of /proc/PID/smaps_rollup, less the empty store's, over "
        "the objects. What is not anonymous in it are pages of the mapped index: the kernel's to "
        "take back, shared as soon as another worker reads them; what is still told after many "
        "were asked for is those, and the results of 4,096 look-ups, which is all that are kept.",
        restarts.figures(starts, objects),
        as_json,
        page,
    )


@app.command()
def use(
    mebibytes: Annotated[int, typer.Option("--size", min=256, help="MiB of the store.")] = 512,
    directory: Directory = None,
    as_json: AsJson = False,
    page: Page = None,
) -> None:
    """How much of the disk a store takes while three times as much goes through it."""
    size = mebibytes << 20
    with _working() as step:
        said = flood.measure(directory, size, step)
    _tell(
        "use",
        "Objects of 256 bytes to 8 MiB (log-uniform) go into a store, three times its size in all; "
        "meanwhile `du -s` of its directory is asked after every 4 MiB. It must never say more "
        "than the size and one segment per shard.",
        flood.figures(said, size),
        as_json,
        page,
    )


@app.command()
def kill(
    kills: Annotated[int, typer.Option(min=1, help="Processes to kill.")] = 200,
    directory: Directory = None,
    as_json: AsJson = False,
    page: Page = None,
) -> None:
    """What kill -9 of a writing process loses: tests/storage/kill_loop.py."""
    with _working() as step, _place(directory, 8 << 30) as place:
        try:
            judge = kill_loop.run(
                place, kills, killed=lambda number: step(f"kill {number} of {kills}")
            )
        except AssertionError as error:
            raise Unusable(f"something is wrong in what was left: {error!r}") from error
    _tell(
        "kill",
        "A process stores, replaces, freshens and removes until it is killed, again and again on "
        "the same directory; the next one looks at everything. The run fails at the first byte "
        "that is wrong and at the first object that was removed and is there. What was done over "
        "a second before the kill is due to be a hit.",
        [
            Figure("kills", kills),
            Figure("slices compared, all right", judge.checked),
            Figure("objects due", judge.due),
            Figure("of them lost", 100 * (judge.due - judge.hits) / max(judge.due, 1), "%", 1),
        ],
        as_json,
        page,
    )


@app.command()
def upgrade(
    count: Annotated[int, typer.Option("--upgrades", min=1)] = 20,
    directory: Directory = None,
    as_json: AsJson = False,
    page: Page = None,
) -> None:
    """Upgrades of a node with a store, under 500 new connections a second."""
    with _working() as step:
        upgraded = upgrades.measure(directory, count, step)
    _tell(
        "upgrade",
        f"An edge of two workers with `--store`, upgraded by SIGUSR2 {count} times on end, while "
        f"{upgrades.RATE} connections a second are made, each with one request whose answer is "
        "compared (tests/scenarios/workers.py; what a busy machine has no time for is left out).",
        upgrades.figures(upgraded, count),
        as_json,
        page,
    )
    for error in upgraded.errors[:10]:
        print(error, file=sys.stderr)


_place = directory


@contextmanager
def _working() -> Iterator[Callable[[str], None]]:
    console = Console(stderr=True)
    try:
        with console.status("…") as status:
            yield status.update
    except Unusable as error:
        console.print(f"bench.store: {error}", soft_wrap=True, highlight=False, markup=False)
        raise typer.Exit(1) from None


def _tell(
    name: str,
    how: str,
    figures: Sequence[Figure],
    as_json: bool,
    page: Path | None,
    drawn: str | None = None,
) -> None:
    command = f'make bench-store ARGS="{shlex.join(sys.argv[1:])}"'
    told = found(name, command, how, figures)
    show(told, as_json)
    if page is not None:
        write(told, page, drawn)


if __name__ == "__main__":
    app(prog_name="python -m bench.store")
