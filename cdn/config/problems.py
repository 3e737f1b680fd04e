"""What is wrong with a configuration, told to the person who wrote it.

Strategy: a rule that refuses a value raises `BadValue` with two short texts, what is wrong and what
to write instead; it knows nothing of files. Whoever knows where the value stood (the loader a line,
the quick flags a flag) makes a `Problem` of it. All problems travel together in one `ConfigError`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

Loc = tuple[str | int, ...]
"""A place inside a document: ("shields", 0, "url")."""


class BadValue(ValueError):
    """A value that cannot be accepted: `what` is wrong with it, and how to `mend` it."""

    def __init__(self, what: str, mend: str) -> None:
        super().__init__(f"{what}; {mend}")
        self.what = what
        self.mend = mend


@dataclass(frozen=True, slots=True)
class Finding:
    """A `BadValue` with its place in the document that was validated."""

    loc: Loc
    what: str
    mend: str


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake. `file` is "" for flags; `line` counts from 1 and is None for a whole file."""

    file: str
    line: int | None
    where: str
    what: str
    mend: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line is not None else self.file
        return ": ".join(filter(None, (place, self.where, f"{self.what}; {self.mend}")))


class ConfigError(Exception):
    """A configuration that cannot be used; `problems` are all that were found, one line each."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = tuple(problems)


def spell(loc: Loc) -> str:
    """The place as people write it: `shields[0].url`."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in loc).lstrip(".")


def shown(value: object) -> str:
    """A value for a message: as YAML has it, and never long."""
    if value is None:
        return "an empty value"
    if isinstance(value, bool):
        return str(value).lower()
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
