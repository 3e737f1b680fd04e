"""What a store takes of its disk while more than it holds goes through it, by du."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from bench.store.figures import Figure
from bench.store.filling import fill
from bench.store.place import directory
from cdn.hashing.digest import SHARDS
from cdn.storage.disk import segment_size_for

TIMES = 3
_EVERY = 4 << 20


class Use(NamedTuple):
    """Bytes: the most and the last that du has said, and what went in; how often it was asked."""

    most: int
    last: int
    brought: int
    asked: int


def measure(given: Path | None, size: int, step: Callable[[str], object]) -> Use:
    """Raises Unusable."""
    with directory(given, 2 * size) as place:
        store = place / f"flood-{size}"
        said: list[int] = []
        brought = 0

        def told(more: int) -> None:
            nonlocal brought
            before, brought = brought, brought + more
            if before // _EVERY != brought // _EVERY:
                said.append(_du(store))
                step(f"{brought >> 20} MiB brought, {said[-1] >> 20} MiB used of {size >> 20}")

        fill(store, size, _objects(size), b"x" * (1 << 20), told)
        said.append(_du(store))
        return Use(max(said), said[-1], brought, len(said))


def _objects(size: int) -> Iterator[tuple[str, int]]:
    dice, left, number = random.Random(1), TIMES * size, 0
    while left > 0:
        length = int(2 ** dice.uniform(8, 23))
        yield f"/flood/{number}", length
        left, number = left - length, number + 1


def _du(store: Path) -> int:
    words = ["du", "-s", "--block-size=1", str(store)]
    # Files go while it looks; of those it says so, and counts on.
    said = subprocess.run(words, capture_output=True, text=True, check=False).stdout
    return int(said.split()[0])


def figures(of: Use, size: int) -> list[Figure]:
    segment = segment_size_for(Path(), size)
    mib = 1 << 20
    return [
        Figure("size", size / mib, "MiB"),
        Figure("brought", of.brought / mib, "MiB"),
        Figure("times that du was asked", of.asked),
        Figure("most that it said", of.most / mib, "MiB", (size + SHARDS * segment) / mib),
        Figure("at the end", of.last / mib, "MiB"),
        Figure("a segment per shard", SHARDS * segment / mib, "MiB"),
    ]
