"""Sizes and times as people write them: `256MiB`, `30s`.

Strategy: one spelling each, a whole number and a unit. The near misses that everybody types (MB,
GB, a bare number of seconds) are recognised only to say what to write instead.
"""

from __future__ import annotations

import re

from cdn.config.problems import BadValue, shown

_SIZE_UNITS = {"": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
_SIZE = re.compile(r"([0-9]{1,18})(|KiB|MiB|GiB|TiB)")
_SIZE_NEAR_MISS = re.compile(r"([0-9]{1,18}) *([kmgt])i?b?", re.IGNORECASE)

_MILLISECONDS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_DURATION = re.compile(r"([0-9]{1,12})(ms|s|m|h|d)")


def parse_size(value: object) -> int:
    """Bytes of `256MiB`, `10GiB` (also KiB, TiB) or a plain number of bytes. Raises BadValue."""
    # bool is an int to Python, never to an operator.
    text = str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""
    if match := _SIZE.fullmatch(text):
        return int(match[1]) * _SIZE_UNITS[match[2]]
    if match := _SIZE_NEAR_MISS.fullmatch(text):
        raise BadValue(
            f"{shown(value)} is not a size",
            f"write {match[1]}{match[2].upper()}iB (powers of 1024)",
        )
    raise BadValue(
        f"{shown(value)} is not a size",
        "write a whole number and KiB, MiB, GiB or TiB, e.g. 256MiB",
    )


def format_size(size: int) -> str:
    """The shortest exact spelling: `parse_size(format_size(n)) == n`."""
    unit, factor = max(
        ((unit, factor) for unit, factor in _SIZE_UNITS.items() if size and size % factor == 0),
        key=lambda pair: pair[1],
        default=("", 1),
    )
    return f"{size // factor}{unit}"


def parse_duration(value: object) -> float:
    """Seconds of `500ms`, `30s`, `5m`, `1h` or `1d`. Raises BadValue."""
    if isinstance(value, str) and (match := _DURATION.fullmatch(value)):
        return int(match[1]) * _MILLISECONDS[match[2]] / 1000
    if isinstance(value, str | int) and re.fullmatch(r"[0-9]{1,12}", str(value)):
        raise BadValue(f"{shown(value)} is a time without its unit", f"write e.g. {value}s")
    raise BadValue(
        f"{shown(value)} is not a time", "write a whole number and ms, s, m, h or d, e.g. 30s"
    )
