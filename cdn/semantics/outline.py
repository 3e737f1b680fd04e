"""Fields of which most are those of many others: an origin repeats its lines from answer to answer.

Strategy: an `Outline` has the lines that repeat, once, and says where those stand that tell one
representation from the next; fields that are drawn by it hold the values of these alone. Whoever
asks for lines has them made; nothing made is kept, for there may be millions of such fields.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from operator import itemgetter
from typing import TYPE_CHECKING, TypeVar

from cdn.semantics.message import FieldLine, Fields

if TYPE_CHECKING:
    from cdn.semantics.plain import Known

T = TypeVar("T")

_SHARE = 200
"""Bytes of these fields besides their values, and of their part of the outline."""

_VALUE_WEIGHT = 60


Values = tuple[str, ...]


class Outline:
    """`lines` in order, no two by one name; None for the value of one that varies."""

    __slots__ = ("_less", "drawn", "index", "known", "open", "written")

    def __init__(self, lines: Sequence[tuple[str, str | None]]) -> None:
        self.drawn: list[FieldLine] = [(name, value or "") for name, value in lines]
        self.open = tuple([at for at, (_, value) in enumerate(lines) if value is None])
        self.index: dict[str, str | int] = {name.lower(): value or "" for name, value in lines}
        """By lower-case name: what does not vary, or which of the values it is."""
        for number, at in enumerate(self.open):
            self.index[lines[at][0].lower()] = number
        texts = [f"{name}: {'%s' if value is None else _escaped(value)}" for name, value in lines]
        self.written = "".join([f"{text}\r\n" for text in texts])
        """All lines as HTTP/1.1 has them, to be formatted with the values."""
        self.known: Known | None = None
        """What `cdn/semantics/plain` knows of all fields that are drawn by it."""
        self._less: dict[frozenset[str], tuple[Outline, Callable[[Values], Values]]] = {}

    def without(self, names: frozenset[str]) -> tuple[Outline, Callable[[Values], Values]]:
        """This without the lines by `names` (lower case), and what picks the values that are left.
        It is remembered: such sets are few, as the rules have them."""
        less = self._less.get(names)
        if less is None:
            kept = [at for at, (name, _) in enumerate(self.drawn) if name.lower() not in names]
            lines = [
                (self.drawn[at][0], None if at in self.open else self.drawn[at][1]) for at in kept
            ]
            values = [number for number, at in enumerate(self.open) if at in kept]
            less = self._less[names] = Outline(lines), picker(values)
        return less


class OutlinedFields(Fields):
    """`values` are those of the outline's open lines, in order."""

    __slots__ = ("outline", "values")

    def __init__(self, outline: Outline, values: Values) -> None:
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

    @property
    def written(self) -> str:
        """See `Fields.written`."""
        return self.outline.written % self.values

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
        if names.isdisjoint(self.outline.index):
            return self
        if not isinstance(names, frozenset):
            return super().without(names)
        less, pick = self.outline.without(names)
        return OutlinedFields(less, pick(self.values))

    def __len__(self) -> int:
        return len(self.outline.drawn)


def picker(places: Sequence[int]) -> Callable[[tuple[T, ...]], tuple[T, ...]]:
    """What takes those out of a tuple that stand at `places`."""
    if len(places) > 1:
        return itemgetter(*places)
    return lambda values: tuple([values[at] for at in places])


def _escaped(text: str) -> str:
    return text.replace("%", "%%")
