"""Small multiples as SVG: a panel for each trace, a line for each policy.

Strategy: text put together by hand. Four charts of polylines need no library.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import log10

from bench.hitratio.contenders import Outcome
from bench.hitratio.results import Row

WIDTH, HEIGHT = 200, 140
LEFT, TOP, RIGHT, BOTTOM = 44, 26, 12, 22
COLUMNS = 5
COLOURS = ("#888", "#b8860b", "#2a9d8f", "#4361ee", "#d00000", "#111", "#8338ec", "#80b918")


def chart(rows: Sequence[Row], title: str, value: Callable[[Outcome], float | None]) -> str:
    """One SVG; the horizontal axis is the cache's share of the footprint, logarithmic."""
    traces = list(dict.fromkeys(row.trace for row in rows))
    policies = list(dict.fromkeys(row.policy for row in rows))
    wide = LEFT + WIDTH + RIGHT
    high = TOP + HEIGHT + BOTTOM
    lines = -(-len(traces) // COLUMNS)
    width, height = wide * min(len(traces), COLUMNS), 54 + lines * high
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'font-family="sans-serif" font-size="10"><rect width="100%" height="100%" fill="#fff"/>',
        f'<text x="{LEFT}" y="18" font-size="14">{title}</text>',
    ]
    for number, policy in enumerate(policies):
        at = LEFT + number * 120
        parts.append(
            f'<path d="M{at} 34h18" stroke="{COLOURS[number]}" stroke-width="2"/>'
            f'<text x="{at + 22}" y="38">{policy}</text>'
        )
    for number, trace in enumerate(traces):
        across, down = number % COLUMNS * wide + LEFT, 50 + number // COLUMNS * high + TOP
        of_trace = [row for row in rows if row.trace == trace]
        parts.append(f'<g transform="translate({across} {down})">')
        parts += _panel(of_trace, trace, policies, value)
        parts.append("</g>")
    return "\n".join([*parts, "</svg>\n"])


def _panel(
    rows: Sequence[Row],
    trace: str,
    policies: Sequence[str],
    value: Callable[[Outcome], float | None],
) -> list[str]:
    shares = [row.share for row in rows]
    least, most = log10(min(shares)), log10(max(shares))
    top = max(value(row.outcome) or 0 for row in rows) or 1.0

    def x(share: float) -> float:
        return (log10(share) - least) / ((most - least) or 1) * WIDTH

    parts = [
        f'<text x="0" y="-8" font-weight="bold">{trace}</text>',
        f'<path d="M0 0V{HEIGHT}H{WIDTH}" fill="none" stroke="#aaa"/>',
        f'<text x="-4" y="8" text-anchor="end">{top:.3g}</text>',
        f'<text x="-4" y="{HEIGHT}" text-anchor="end">0</text>',
    ]
    parts += [
        f'<text x="{x(share):.0f}" y="{HEIGHT + 13}" text-anchor="middle">{share:.1%}</text>'
        for share in dict.fromkeys(shares)
    ]
    for colour, policy in zip(COLOURS, policies, strict=False):
        points = [
            f"{x(row.share):.1f},{HEIGHT * (1 - figure / top):.1f}"
            for row in rows
            if row.policy == policy and (figure := value(row.outcome)) is not None
        ]
        parts.append(
            f'<polyline points="{" ".join(points)}" fill="none" stroke="{colour}" '
            'stroke-width="1.5"/>'
        )
    return parts
