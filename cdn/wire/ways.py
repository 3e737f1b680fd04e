"""How requests with one block of fields are taken: all that is the same for each of their targets.

Strategy: it is made once for a block and a scheme, and hangs at the block. With the request line it
names an answer in one look-up. What one of our own nodes says of its viewer holds for that peer and
while the rules are these; all else holds for good.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cdn.gateway.hot import Standing

if TYPE_CHECKING:
    from cdn.wire.field_block import FieldBlock


class Way:
    """`origin` is how primary keys begin, `told` tells answers apart that have one key, `named` is
    both, before a request line. `standing`: whose word the block's claims are."""

    __slots__ = ("client", "named", "origin", "standing", "told")

    def __init__(self, block: FieldBlock, scheme: str, standing: Standing | None) -> None:
        self.standing = standing
        if standing is None:
            self.client = ""
            self.origin, self.told = block.origins[scheme], block.narrowing
        else:
            self.client = standing.client
            self.origin, self.told = standing.origin, _told_by(block, standing)
        # With its size, for a line that is none may hold any text: what follows cannot be taken
        # for a part of this.
        told = self.told.encode("latin-1")
        self.named = b"%b\n%d\n%b\n" % (self.origin, len(told), told)


def _told_by(block: FieldBlock, standing: Standing) -> str:
    """What tells the answers to a block that says for whom it asks: also who is answered, and what
    the log says of the target where that is not what the key says."""
    scheme, told = standing.scheme, "\nsurrogate" if standing.surrogate else ""
    if standing.origin != block.origins[scheme]:
        told += f"\n{scheme}://{block.origins.authorities[scheme]}"
    return f"{told}\n{block.narrowing}" if told else block.narrowing
