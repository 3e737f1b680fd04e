"""HTTP-date (RFC 9110 §5.6.7): seconds since the epoch in, IMF-fixdate out, and back.

Strategy: one expression for each of the three formats that a recipient MUST accept; anything else
is no date. Names of days are not checked against the date, their case and the case of months is
ignored, as deployed senders vary in both.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from functools import lru_cache

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAY_NAMES = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTH, _CLOCK = r"(?P<mon>[a-z]{3})", r"(?P<h>\d\d):(?P<m>\d\d):(?P<s>\d\d)"
_FORMATS = tuple(
    re.compile(form, re.IGNORECASE | re.ASCII)
    for form in (
        rf"[a-z]{{3}}, (?P<day>\d\d) {_MONTH} (?P<year>\d{{4}}) {_CLOCK} GMT",  # IMF-fixdate
        rf"[a-z]{{6,9}}, (?P<day>\d\d)-{_MONTH}-(?P<year>\d\d) {_CLOCK} GMT",  # RFC 850
        rf"[a-z]{{3}} {_MONTH} (?P<day>[ \d]\d) {_CLOCK} (?P<year>\d{{4}})",  # asctime
    )
)


_LONGEST = len("Wednesday, 31-Dec-99 23:59:59 GMT")


def parse_http_date(value: str, this_year: int = 2000) -> float | None:
    """Seconds since 1970 UTC, or None where `value` is no HTTP-date.

    `this_year` places the two-digit years of RFC 850 dates: one that seems over 50 years ahead is
    the most recent past year with those digits (RFC 9110 §5.6.7).
    """
    return _parse(value, this_year) if len(value) <= _LONGEST else None


@lru_cache(maxsize=4096)
def _parse(value: str, this_year: int) -> float | None:
    for form in _FORMATS:
        if match := form.fullmatch(value):
            break
    else:
        return None
    year = int(match["year"])
    if len(match["year"]) == 2:
        year += this_year // 100 * 100
        if year > this_year + 50:
            year -= 100
    try:
        month = _MONTHS.index(match["mon"].lower()) + 1
        seconds = min(int(match["s"]), 59)  # a leap second counts as the one before it
        moment = datetime(
            year, month, int(match["day"]), int(match["h"]), int(match["m"]), seconds, tzinfo=UTC
        )
    except ValueError:
        return None
    return moment.timestamp()


def format_http_date(seconds: float) -> str:
    """IMF-fixdate, the one format a sender generates."""
    return _format(int(seconds))


@lru_cache(maxsize=16)
def _format(seconds: int) -> str:
    moment = datetime.fromtimestamp(seconds, UTC)
    day, month = _DAY_NAMES[moment.weekday()], _MONTHS[moment.month - 1].capitalize()
    return f"{day}, {moment:%d} {month} {moment.year:04} {moment:%H:%M:%S} GMT"


def year_of(seconds: float) -> int:
    """The calendar year (UTC) of a moment."""
    return _year_of_day(int(seconds // 86_400))


@lru_cache(maxsize=16)
def _year_of_day(day: int) -> int:
    return datetime.fromtimestamp(day * 86_400, UTC).year
