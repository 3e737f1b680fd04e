"""The disk store's section of docs/PERFORMANCE.md: each bench writes its own part.

Strategy: the section is the last of the page, a part for each bench in a fixed order. Whatever else
is on the page stays as it is.
"""

from __future__ import annotations

import re
from pathlib import Path
from textwrap import fill

from bench.store.figures import Found

NAME = "PERFORMANCE.md"
HEAD = "## The disk store"
TEXT = f"""{HEAD}

What keeping responses on a disk costs, and what it must not cost. Every part has the command that
has written it; without `--page docs` it is a table in the terminal, with `--json` for programs. The
machine is told because others may have been at work on it: a load average beyond one is not ours.
"""
ORDER = ("p99", "restart", "use", "kill", "upgrade")
_PART = re.compile(r"^### (\S+)\n(.*?)(?=^### |\Z)", re.MULTILINE | re.DOTALL)

NOTES = {
    "p99": """Where others are at work they are in the p99 of hits alone too, which makes a ratio of
two p99 small: see both, and their p50.

What was tried, 5 pairs of 3 s each, with others on the machine first come (load average 3 to 4):
two reader threads at nice 5, as it is now, 1.2 (worst pair 2.7), and in 7 pairs of 6 s 4.3 (worst
27); four at nice 10, 1.1, but 20 and more in the worst pair: a reader that other programs keep from
its core may hold the GIL; four at nice 5, 16; one at the loop's own priority, 3.0 (worst 28); four
of them, as SCHED_BATCH, 8 to 20 (2 pairs). None read more than 820 MiB/s, and two at nice 5 read
660 to 750: here it is the one core that is full."""
}
"""Of what has led to the figures: typed once, not measured again."""


def kept(directory: Path) -> str:
    """The section as it is on the page, for whoever writes the rest; "" where there is none."""
    page = directory / NAME
    _, found, section = page.read_text().partition(HEAD) if page.exists() else ("", "", "")
    return found + section


def write(of: Found, directory: Path, chart: str | None = None) -> None:
    """Puts a bench's part into its place, and its chart beside the page."""
    page = directory / NAME
    text = page.read_text() if page.exists() else "# Performance\n"
    section = kept(directory)
    others = text.removesuffix(section)
    parts = {name: part.strip("\n") for name, part in _PART.findall(section)}
    parts[of.name] = _part(of, chart is not None)
    if chart is not None:
        (directory / _chart(of)).write_text(chart)
    told = "".join(f"\n### {name}\n\n{parts[name]}\n" for name in ORDER if name in parts)
    page.write_text(f"{others.rstrip()}\n\n{TEXT}{told}")


def _part(of: Found, charted: bool) -> str:
    lines = [f"    {of.command}", "", fill(of.how, 100), ""]
    if charted:
        lines += [f"![{of.name}]({_chart(of)})", ""]
    lines += ["| what | figure | target |", "|---|--:|---|"]
    lines += [f"| {' | '.join(figure.cells())} |" for figure in of.figures]
    lines += ["", f"{of.machine}."]
    if of.name in NOTES:
        lines += ["", NOTES[of.name]]
    return "\n".join(lines)


def _chart(of: Found) -> str:
    return f"performance-store-{of.name}.svg"
