"""Fields of which most are those of many others: an origin repeats its lines from answer to answer.

Strategy: an `Outline` has the lines that repeat, once, and says where those stand that tell one
representation from the next; fields that are drawn by it hold the values of these alone. Whoever
asks for lines has them made; nothing made is kept, for there may be millions of such fields.
"""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING

from cdn.semantics.message import FieldLine, Fields

if TYPE_CHECKING:
    from cdn.semantics.plain import Known

_SHARE = 200
"""Bytes of these fields besides their values, and of their part of the outline."""

_VALUE_WEIGHT = 60


class Outline:
    """`lines` in order, no two by one name; None for the value of one that varies."""

    __slots__ = ("drawn", "index", "known", "open")

    def __init__(self, lines: Sequence[tuple[str, str | None]]) -> None:
        self.drawn: list[FieldLine] = [(name, value or "") for name, value in lines]
        self.open = tuple([at for at, (_, value) in enumerate(lines) if value is None])
        self.index: dict[str, str | int] = {name.lower(): value or "" for name, value in lines}
        """By lower-case name: what does not vary, or which of the values it is."""
        for number, at in enumerate(self.open):
            self.index[lines[at][0].lower()] = number
        self.known: Known | None = None
        """What `cdn/semantics/plain` knows of all fields that are drawn by it."""


class OutlinedFields(Fields):
    """`values` are those of the outline's open lines, in order."""

    __slots__ = ("outline", "values")

    def __init__(self, outline: Outline, values: tuple[str, ...]) -> None:
        self.outline = outline
        self.values = values
        self.encoded = None

    @property
    def lines(self) -> tuple[FieldLine, ...]:  # type: ignore[override]  # nobody sets them
        """All of them, made anew."""
        drawn = self.outline.drawn.copy()
        for at, value in zip(self.outline.open, self.values, strict=True):
            drawn[at] = (drawn[at][0], value)
        return tuple(drawn)

    @property
    def weight(self) -> int:
        """See `Fields.weight`."""
        return _SHARE + _VALUE_WEIGHT * len(self.values) + len("".join(self.values))

    def _by_name(self) -> dict[str, str]:
        values = self.values
        return {
            name: values[held] if isinstance(held, int) else held
            for name, held in self.outline.index.items()
        }

    def get(self, name: str) -> str | None:
        """See `Fields.get`."""
        held = self.outline.index.get(name)
        return self.values[held] if isinstance(held, int) else held

    def __contains__(self, name: str) -> bool:
        return name in self.outline.index

    def any_of(self, names: AbstractSet[str]) -> bool:
        """See `Fields.any_of`."""
        return not names.isdisjoint(self.outline.index)

    def names(self) -> frozenset[str]:
        """See `Fields.names`."""
        return frozenset(self.outline.index)

    def without(self, names: AbstractSet[str]) -> Fields:
        """See `Fields.without`."""
        return self if names.isdisjoint(self.outline.index) else super().without(names)

    def __len__(self) -> int:
        return len(self.outline.drawn)
