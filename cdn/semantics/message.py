"""HTTP messages as immutable values (RFC 9110 §6).

Strategy: a field line is a pair of str, decoded as ISO-8859-1 at the rim so that every byte
survives the round trip. The lines are kept as they came: order, repetition and the sender's
spelling of names (old set-top boxes read names case-sensitively). Look-ups go through an index by
lower-case name that is built at the first look-up and shared by nothing.

No framing lives here: Content-Length, Transfer-Encoding and Connection belong to one hop and are
dealt with at the rims (`cdn/wire`, `cdn/upstream`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from itertools import chain

from cdn.semantics.value import value

FieldLine = tuple[str, str]

LINE_WEIGHT = 240
"""Bytes of a field line besides its text: a tuple, two str and their places in the index. Measured
with tracemalloc, as all weights (tests/storage/test_memory.py)."""


class Fields:
    """Field lines in order; names compare case-insensitively (RFC 9110 §5.1).

    Names given to the methods are lower case; that is checked nowhere, for speed.
    """

    __slots__ = ("_index", "_size", "encoded", "lines")

    def __init__(self, lines: Iterable[FieldLine] = ()) -> None:
        self.lines: tuple[FieldLine, ...] = tuple(lines)
        self.encoded: str | None = None
        """As `cdn/upstream` writes them, once it has."""
        self._index: dict[str, str] | None = None
        self._size: int | None = None

    @classmethod
    def indexed(
        cls, lines: list[FieldLine], index: dict[str, str], size: int | None = None
    ) -> Fields:
        """Of `lines`, no two by one name; `index` has their values by lower-case name, `size` is
        theirs in characters where it is known."""
        fields = cls(lines)
        fields._index = index
        fields._size = size
        return fields

    @property
    def weight(self) -> int:
        """Bytes of RAM that these take, some: texts, and what Python and the index add."""
        if self._size is None:
            self._size = len("".join(chain.from_iterable(self.lines)))
        return self._size + LINE_WEIGHT * len(self.lines)

    @property
    def written(self) -> str:
        """All lines as HTTP/1.1 has them (RFC 9112 §5), each with its line end."""
        return "".join([f"{name}: {value}\r\n" for name, value in self.lines])

    def _by_name(self) -> dict[str, str]:
        index = self._index
        if index is None:
            index = {}
            for line, value in self.lines:
                name = line.lower()
                # RFC 9110 §5.3: repeated field lines combine, in order, with a comma.
                index[name] = f"{index[name]}, {value}" if name in index else value
            self._index = index
        return index

    def get(self, name: str) -> str | None:
        """The combined value of all lines called `name` (lower case), or None."""
        index = self._index  # asked dozens of times per request: not through another call
        return (self._by_name() if index is None else index).get(name)

    def get_all(self, name: str) -> list[str]:
        """Each line's own value: for fields that must not be combined, such as Set-Cookie."""
        if name not in self._by_name():
            return []
        return [value for line, value in self.lines if line.lower() == name]

    def __contains__(self, name: str) -> bool:
        index = self._index
        return name in (self._by_name() if index is None else index)

    def any_of(self, names: AbstractSet[str]) -> bool:
        """Whether there is a line by one of `names` (lower case)."""
        return not names.isdisjoint(self._by_name())

    def by_name(self) -> Mapping[str, str]:
        """Combined values by lower-case name."""
        return self._by_name()

    def names(self) -> frozenset[str]:
        """Lower-case names that are present."""
        return frozenset(self._by_name())

    def without(self, names: AbstractSet[str]) -> Fields:
        """These without any line whose lower-case name is in `names`."""
        index = self._by_name()
        if names.isdisjoint(index):
            return self  # nearly always
        kept = Fields([line for line in self.lines if line[0].lower() not in names])
        # Made anew: a dictionary that once was larger stays so, and this one may be stored.
        kept._index = {name: value for name, value in index.items() if name not in names}
        return kept

    def adding(self, *lines: FieldLine) -> Fields:
        """A copy with `lines` after the others."""
        return Fields(self.lines + lines)

    def replacing(self, name: str, value: str) -> Fields:
        """A copy in which one line, at the end, is all there is of `name` (spelled as given)."""
        return Fields((*self.without({name.lower()}).lines, (name, value)))

    def __iter__(self) -> Iterator[FieldLine]:
        return iter(self.lines)

    def __len__(self) -> int:
        return len(self.lines)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Fields) and self.lines == other.lines

    def __hash__(self) -> int:
        return hash(self.lines)

    def __repr__(self) -> str:
        return f"Fields({list(self.lines)!r})"


@value(frozen=True, slots=True)
class Request:
    """A request head. The effective URI is scheme + authority + target (RFC 9110 §7.1).

    `target` is the origin-form exactly as received (path and query, never decoded), or `*` for
    OPTIONS. `authority` is what Host or the absolute-form said, lower-cased, with its port only
    where it is not the scheme's default; `fields` still holds Host as it came.
    """

    method: str
    scheme: str
    authority: str
    target: str
    fields: Fields
    version: tuple[int, int] = (1, 1)

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.authority}{self.target}"

    def with_fields(self, fields: Fields) -> Request:
        return Request(self.method, self.scheme, self.authority, self.target, fields, self.version)


@value(frozen=True, slots=True)
class Response:
    """A response head. `reason` is kept only to be relayed; nothing decides by it."""

    status: int
    fields: Fields
    reason: str = ""

    def with_fields(self, fields: Fields) -> Response:
        return Response(self.status, fields, self.reason)
