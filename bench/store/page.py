"""The disk store's section of docs/PERFORMANCE.md: each bench writes its own part, none by hand.

Strategy: the section is the last of the page, a part for each bench in a fixed order. Whatever else
is on the page stays as it is.
"""

from __future__ import annotations

import re
from pathlib import Path

from bench.store.figures import Found

NAME = "PERFORMANCE.md"
HEAD = "## The disk store"
TEXT = f"""{HEAD}

What keeping responses on a disk costs, and what it must not cost. Every part has the command that
has written it; without `--page docs` it is a table in the terminal, with `--json` for programs. The
machine is told because others may have been at work on it: a load average beyond one is not ours.
"""
ORDER = ("p99", "restart", "use", "kill", "upgrade")


def write(of: Found, directory: Path, chart: str | None = None) -> None:
    """Puts a bench's part into its place, and its chart beside the page."""
    page = directory / NAME
    text = page.read_text() if page.exists() else "# Performance\n"
    others, _, section = text.partition(HEAD)
    parts = dict(re.findall(r"^### (\S+)\n(.*?)(?=^### |\Z)", section, re.MULTILINE | re.DOTALL))
    parts[of.name] = _part(of, chart is not None)
    if chart is not None:
        (directory / _chart(of)).write_text(chart)
    told = "".join(f"\n### {name}\n\n{parts[name].strip()}\n" for name in ORDER if name in parts)
    page.write_text(f"{others.rstrip()}\n\n{TEXT}{told}")


def _part(of: Found, charted: bool) -> str:
    lines = [f"    {of.command}", "", of.how, ""]
    if charted:
        lines += [f"![{of.name}]({_chart(of)})", ""]
    lines += ["| what | figure | target |", "|---|--:|---|"]
    lines += [f"| {' | '.join(figure.cells())} |" for figure in of.figures]
    return "\n".join([*lines, "", f"{of.machine}."])


def _chart(of: Found) -> str:
    return f"performance-store-{of.name}.svg"
