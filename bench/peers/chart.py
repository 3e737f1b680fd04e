"""A panel for each workload, a bar for each contender, as SVG.

Strategy: text put together by hand; bars need no library.
"""

from __future__ import annotations

from collections.abc import Sequence

from bench.peers.contenders import FLOOR, OURS
from bench.peers.results import Row
from bench.peers.workloads import WORKLOADS

WIDTH, BAR, GAP = 190, 16, 5
LEFT, TOP, RIGHT = 84, 30, 62
COLUMNS = 3
COLOURS = {OURS: "#d00000", FLOOR: "#999"}
OTHERS = "#4361ee"


def chart(table: Sequence[Row]) -> str:
    """Server CPU in µs per request; in idle, KiB per connection. Each panel has its own scale."""
    workloads = list(dict.fromkeys(row.workload for row in table))
    panels = [[row for row in table if row.workload == name] for name in workloads]
    wide = LEFT + WIDTH + RIGHT
    high = TOP + max(map(len, panels), default=0) * (BAR + GAP) + 14
    lines = -(-len(panels) // COLUMNS)
    width, height = wide * min(max(len(panels), 2), COLUMNS), 34 + lines * high
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'font-family="sans-serif" font-size="11"><rect width="100%" height="100%" fill="#fff"/>',
        '<text x="12" y="22" font-size="14">Server CPU, µs per request (shorter is better)</text>',
    ]
    for number, panel in enumerate(panels):
        across, down = number % COLUMNS * wide + LEFT, 34 + number // COLUMNS * high + TOP
        parts.append(f'<g transform="translate({across} {down})">')
        parts += _panel(panel)
        parts.append("</g>")
    return "\n".join([*parts, "</svg>\n"])


def _panel(panel: Sequence[Row]) -> list[str]:
    idle = WORKLOADS[panel[0].workload].is_idle
    unit = 1024 if idle else 1
    top = max(row.cost for row in panel) or 1.0
    title = panel[0].workload + (" (KiB per connection)" if idle else "")
    parts = [f'<text x="0" y="-8" font-weight="bold">{title}</text>']
    for number, row in enumerate(panel):
        at, length = number * (BAR + GAP), max(0.0, row.cost / top * WIDTH)
        ratio = "" if row.ratio is None else f" ({row.ratio:.2f})"
        parts.append(
            f'<text x="-6" y="{at + 12}" text-anchor="end">{row.contender}</text>'
            f'<rect y="{at}" width="{length:.1f}" height="{BAR}" '
            f'fill="{COLOURS.get(row.contender, OTHERS)}"/>'
            f'<text x="{length + 4:.1f}" y="{at + 12}">{row.cost / unit:.1f}{ratio}</text>'
        )
    return parts
