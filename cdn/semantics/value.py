"""Values: immutable to whoever reads and checks the code, made at the price of plain objects.

Strategy: a frozen dataclass sets each field through `object.__setattr__`: 0.73 µs for six fields
where plain ones cost 0.18, and a miss makes a dozen of them. So it is the type checker alone that
forbids assignment: to mypy `value` is `dataclass`, with the same arguments.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__all__ = ["value"]

if TYPE_CHECKING:
    from dataclasses import dataclass as value
else:
    from dataclasses import dataclass

    def value(*, frozen, slots):
        """A dataclass that compares, and is hashed, by its fields."""
        assert frozen
        return dataclass(slots=slots, unsafe_hash=True)
