"""Each step of the hot path beside its baseline: make bench, python -m bench.steps.

Strategy: pytest-benchmark measures; what is kept and compared is no time but a ratio, each step's
shortest to that of a reference loop in the same run, so that a baseline from one machine says
something on another. What looks too slow is measured again before it is believed: neighbours only
ever add. A step that takes more than `LIMIT` times its baseline ends in exit code 1, and so does a
claim about two steps that does not hold.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer
from rich.box import SIMPLE
from rich.console import Console
from rich.markup import escape
from rich.table import Table

HERE = Path(__file__).parent
BASELINE = HERE / "baseline.json"
REFERENCE = "test_bench_reference.py::test_reference"

LIMIT = 1.5
"""How many times its baseline a step may take: below lies what machines and neighbours do."""

PASSES = 3
"""Over all steps: a neighbour who is there for some seconds spoils one, and the shortest counts."""

AGAIN = 5
"""Times that steps which look too slow are measured again."""

SECONDS = 0.2
"""For which a step is repeated in each."""


@dataclass(frozen=True, slots=True)
class Step:
    """`test` is pytest's name for it; `ratio` is to the reference, `baseline` what that was when
    it was saved."""

    name: str
    test: str
    micros: float
    ratio: float
    baseline: float | None

    @property
    def change(self) -> float | None:
        return None if self.baseline is None else self.ratio / self.baseline


@dataclass(frozen=True, slots=True)
class Claim:
    """One step takes at most `most` times another."""

    what: str
    step: str
    other: str
    most: float

    def figure(self, steps: Sequence[Step]) -> float | None:
        """None where one of them was not measured."""
        micros = {step.name: step.micros for step in steps}
        if self.step not in micros or self.other not in micros:
            return None
        return micros[self.step] / micros[self.other]


CLAIMS = [  # the last, because conditions are read field by field (`field_block`)
    Claim(
        f"a head whose {kind} was never seen / its strict parse alone",
        f"heads: never_seen[{kind}]",
        f"heads: parse_alone[{kind}]",
        most,
    )
    for kind, most in {"cookie": 1.1, "referer": 1.1, "field": 1.1, "etag": 1.4}.items()
]


class Unusable(Exception):
    """There are no figures; the message says why."""


@dataclass(slots=True)
class Bench:
    """What was measured so far: of every benchmark the shortest run, in seconds, by its name."""

    seconds: float
    told: Callable[[str], None]
    least: dict[str, float] = field(default_factory=dict)

    def measure(self, what: Sequence[str], passes: int = PASSES) -> None:
        """Benchmarks that pytest finds by these words, and the reference. Raises Unusable."""
        for _ in range(passes):
            for name, took in _measured(what, self.seconds, self.told):
                self.least[name] = min(took, self.least.get(name, took))


def _measured(
    what: Sequence[str], seconds: float, told: Callable[[str], None]
) -> Iterator[tuple[str, float]]:
    with TemporaryDirectory() as folder:
        file = Path(folder) / "told.json"
        command = [
            sys.executable, "-m", "pytest", *what, "-v", "--benchmark-only",
            "--benchmark-quiet", f"--benchmark-max-time={seconds:g}", f"--benchmark-json={file}",
        ]  # fmt: skip
        output: list[str] = []
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as run:
            assert run.stdout is not None
            for line in run.stdout:
                output.append(line)
                if "::" in line:
                    told(line.split()[0])
        if run.returncode:
            raise Unusable(f"the benchmarks failed:\n{''.join(output)}")
        measured = json.loads(file.read_text())["benchmarks"]
    for one in measured:
        yield one["fullname"].rpartition("/")[2], one["stats"]["min"]


def compared(measured: Mapping[str, float], baseline: Mapping[str, float]) -> list[Step]:
    """Steps in the order of their names. Raises Unusable where the reference is not among them."""
    references = [seconds for name, seconds in measured.items() if name.startswith(REFERENCE)]
    if not references:
        raise Unusable(f"{REFERENCE} was not measured")
    unit = min(references)
    steps = []
    for name, seconds in measured.items():
        if not name.startswith(REFERENCE):
            shown = _shown(name)
            steps.append(Step(shown, name, seconds * 1e6, seconds / unit, baseline.get(shown)))
    return sorted(steps, key=lambda step: step.name)


def _shown(name: str) -> str:
    file, _, test = name.partition(".py::")
    return f"{file.removeprefix('test_bench_')}: {test.removeprefix('test_')}"


def slower(steps: Sequence[Step], limit: float) -> list[Step]:
    """Those that take more than `limit` times what they did."""
    return [step for step in steps if step.change is not None and step.change > limit]


def broken(steps: Sequence[Step]) -> list[Claim]:
    """Claims that do not hold, of those that were measured."""
    figures = [(claim, claim.figure(steps)) for claim in CLAIMS]
    return [claim for claim, figure in figures if figure is not None and figure > claim.most]


def show(steps: Sequence[Step], limit: float, console: Console) -> None:
    table = Table(box=SIMPLE, padding=0)
    for number, head in enumerate(("step", "µs", "/ ref.", "baseline", "change")):
        table.add_column(head, justify="right" if number else "left", no_wrap=number > 0)
    late = slower(steps, limit)
    for step in steps:
        known = ("new", "")
        if step.baseline is not None and step.change is not None:
            known = (f"{step.baseline:.3f}", f"{step.change:.2f}")
        cells = (step.name, f"{step.micros:.2f}", f"{step.ratio:.3f}", *known)
        table.add_row(*map(escape, cells), style="yellow" if step in late else "")
    console.print(table)
    for claim in CLAIMS:
        figure = claim.figure(steps)
        if figure is not None:
            held = figure <= claim.most
            line = f"{claim.what}: {figure:.2f}, at most {claim.most:g}"
            console.print(f"{line}: {'holds' if held else 'broken'}", highlight=False)
    for step in late:
        line = f"{step.name}: {step.change:.2f} times its baseline"
        console.print(line, markup=False, highlight=False)


def read(file: Path) -> dict[str, float]:
    """The ratios that were saved; none where there is no such file."""
    return dict(json.loads(file.read_text())["ratios"]) if file.exists() else {}


def write(steps: Sequence[Step], kept: Mapping[str, float], file: Path) -> None:
    """Saves the ratios of `steps`, and of others as they are `kept`."""
    ratios = dict(kept) | {step.name: round(step.ratio, 4) for step in steps}
    told = {"reference": REFERENCE, "ratios": dict(sorted(ratios.items()))}
    file.write_text(json.dumps(told, indent=2) + "\n")


app = typer.Typer(add_completion=False)


@app.command()
def main(
    save: Annotated[bool, typer.Option("--save", help="Make this run the baseline.")] = False,
    only: Annotated[
        str, typer.Option("--only", "-k", help="Steps by name, as for pytest -k.", metavar="NAMES")
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="For programs, not people.")] = False,
    limit: Annotated[float, typer.Option(min=1.0, help="Times its baseline.")] = LIMIT,
    passes: Annotated[int, typer.Option(min=1, help="Over all steps.")] = PASSES,
    seconds: Annotated[float, typer.Option(min=0.05, help="For each step in each.")] = SECONDS,
    baseline: Annotated[
        Path, typer.Option(dir_okay=False, help="The file of ratios.", metavar="FILE")
    ] = BASELINE,
) -> None:
    """Every step of the hot path, as a ratio to a reference loop, beside what it was."""
    errors = Console(stderr=True)
    known = read(baseline)
    try:
        with errors.status("") as status:
            bench = Bench(seconds, lambda line: status.update(escape(line)))
            words = ["-k", f"({only}) or test_reference"] if only else []
            bench.measure([str(HERE), *words], passes)
            steps = compared(bench.least, known)
            for _ in range(0 if save else AGAIN):
                if not (late := slower(steps, limit)):
                    break
                tests = [str(HERE / test) for test in (REFERENCE, *[step.test for step in late])]
                bench.measure(tests, 1)
                steps = compared(bench.least, known)
    except Unusable as reason:
        errors.print(str(reason), markup=False, highlight=False)
        raise typer.Exit(2) from None
    if as_json:
        told = [asdict(step) | {"change": step.change} for step in steps]
        print(json.dumps(told, indent=2))
    else:
        show(steps, limit, Console())
    if save:
        write(steps, known if only else {}, baseline)
    failed = broken(steps) or (not save and slower(steps, limit))
    raise typer.Exit(1 if failed else 0)


if __name__ == "__main__":
    app(prog_name="bench.steps")
