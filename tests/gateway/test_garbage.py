"""A miss leaves nothing for the garbage collector: what it made is freed when it ends."""

import gc
from collections import Counter

import pytest

from tests.gateway.gateway_kit import site, storable, tiers

MADE_PER_MISS = {
    "Arrived", "Arriving", "Asked", "Exchange", "Fill", "MemoryWriter", "PlainMiss", "PlainTurn",
    "Request", "Seat", "StreamedResponse", "Turn", "UpstreamRequest", "WholeResponse", "_Errand",
}  # fmt: skip


def alive() -> Counter[str]:
    names = (type(thing).__name__ for thing in gc.get_objects())
    return Counter(name for name in names if name in MADE_PER_MISS)


@pytest.mark.parametrize("built", [site, tiers])
async def test_misses_leave_no_cycles(built):
    async with built() as cdn:
        for number in range(5):
            cdn.origin.on(f"/{number}", storable(b"content"))
        for number in (0, 4):  # the second time, what the client's fields mean is remembered
            await cdn.get(f"/{number}")
        gc.collect()
        gc.disable()
        try:
            before = alive()
            for number in range(1, 4):
                await cdn.get(f"/{number}")
            left = alive() - before
        finally:
            gc.enable()
        assert not left
