"""How long hits took, as SVG: a line for each round, and the tail where it belongs."""

from __future__ import annotations

from collections.abc import Sequence
from math import log10

from bench.store.stalls import Pair, quantile

WIDTH, HEIGHT, LEFT, TOP = 520, 240, 56, 56
SHARES = (0.0, 0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999)
KINDS = (("alone", "#888", "nothing read beside"), ("beside", "#d00000", "32 cold reads beside"))


def chart(pairs: Sequence[Pair]) -> str:
    """Milliseconds, logarithmic, over quantiles, with an axis that has room for the tail."""
    values = [
        1000 * quantile(getattr(pair, kind).taken, share)
        for pair in pairs
        for kind, _, _ in KINDS
        for share in SHARES
    ]
    least, most = log10(min(values)), log10(max(values))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH + LEFT + 20}" '
        f'height="{HEIGHT + TOP + 30}" font-family="sans-serif" font-size="10">'
        '<rect width="100%" height="100%" fill="#fff"/>',
        f'<text x="{LEFT}" y="18" font-size="14">What a hit in RAM takes, ms</text>',
    ]
    for number, (_, colour, words) in enumerate(KINDS):
        at = LEFT + number * 180
        parts.append(
            f'<path d="M{at} 34h18" stroke="{colour}" stroke-width="2"/>'
            f'<text x="{at + 22}" y="38">{words}</text>'
        )
    parts.append(f'<g transform="translate({LEFT} {TOP})">')
    parts.append(f'<path d="M0 0V{HEIGHT}H{WIDTH}" fill="none" stroke="#aaa"/>')
    for number, share in enumerate(SHARES):
        x = number * WIDTH // (len(SHARES) - 1)
        words = f"p{100 * share:g}" if share else "least"
        parts.append(f'<text x="{x}" y="{HEIGHT + 14}" text-anchor="middle">{words}</text>')
    for power in range(-2, 5):
        if least <= power <= most:
            y = HEIGHT * (1 - (power - least) / (most - least))
            parts.append(f'<path d="M0 {y:.0f}H{WIDTH}" stroke="#ddd"/>')
            parts.append(f'<text x="-4" y="{y + 4:.0f}" text-anchor="end">{10.0**power:g}</text>')
    for pair in pairs:
        for kind, colour, _ in KINDS:
            points = []
            for number, share in enumerate(SHARES):
                value = log10(1000 * quantile(getattr(pair, kind).taken, share))
                x = number * WIDTH / (len(SHARES) - 1)
                points.append(f"{x:.0f},{HEIGHT * (1 - (value - least) / (most - least)):.0f}")
            parts.append(
                f'<polyline points="{" ".join(points)}" fill="none" stroke="{colour}" '
                'stroke-opacity="0.6"/>'
            )
    return "\n".join([*parts, "</g>", "</svg>\n"])
