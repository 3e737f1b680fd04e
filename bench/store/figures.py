"""What a bench has found: figures with their targets, and the machine they are from."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, slots=True)
class Figure:
    """`most` is the target, in the figure's own unit; None where there is none."""

    what: str
    value: float
    unit: str = ""
    most: float | None = None

    @property
    def met(self) -> bool | None:
        return None if self.most is None else self.value <= self.most

    def cells(self) -> tuple[str, str, str]:
        if self.most is None:
            return self.what, _shown(self.value, self.unit), ""
        verdict = "reached" if self.met else "missed"
        return self.what, _shown(self.value, self.unit), f"≤ {_shown(self.most, '')}: {verdict}"


@dataclass(frozen=True, slots=True)
class Found:
    """Of one bench. `how` are sentences: what was done to come to the figures."""

    name: str
    command: str
    how: str
    machine: str
    figures: tuple[Figure, ...]

    @property
    def met(self) -> bool:
        return all(figure.met is not False for figure in self.figures)


def found(name: str, command: str, how: str, figures: Sequence[Figure]) -> Found:
    return Found(name, command, how, machine(), tuple(figures))


def machine() -> str:
    """Processor, cores, kernel, and how busy others kept it."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    model = models[0] if models else platform.machine()
    cores, load = len(os.sched_getaffinity(0)), os.getloadavg()[1]
    return f"{model}, {cores} cores, Linux {platform.release()}, load average {load:.1f}"


def show(of: Found, as_json: bool) -> None:
    if as_json:
        print(json.dumps(asdict(of) | {"met": of.met}, indent=2, ensure_ascii=False))
        return
    table = Table(title=of.name, title_justify="left", box=SIMPLE, padding=0)
    for number, head in enumerate(("", "", "target")):
        table.add_column(head, justify="right" if number == 1 else "left")
    for figure in of.figures:
        table.add_row(*figure.cells(), style="yellow" if figure.met is False else "")
    console = Console()
    console.print(table)
    console.print(of.machine, highlight=False)


def _shown(value: float, unit: str) -> str:
    digits = 0 if value == int(value) or abs(value) >= 1000 else 1 if abs(value) >= 100 else 3
    return f"{value:,.{digits}f} {unit}".rstrip()
