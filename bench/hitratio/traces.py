"""Traces: who asked for what, from files and made here.

Strategy: two arrays of numbers per trace, small enough for millions of requests. The made ones are
the same at every run: a web site with one-hit wonders whose popularity shifts half-way, and films
read slice by slice by viewers who seek and leave.
"""

from __future__ import annotations

import gzip
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from random import Random

from bench.hitratio.log_store import SLICE, Content, content_of


@dataclass(frozen=True)
class Trace:
    """Request number n asks for `keys[n]`, of `sizes[n]` bytes."""

    name: str
    keys: array[int]
    sizes: array[int]

    def __len__(self) -> int:
        return len(self.keys)

    @cached_property
    def footprint(self) -> int:
        """Bytes of all keys, each once."""
        return sum(dict(zip(self.keys, self.sizes, strict=True)).values())

    @cached_property
    def bytes(self) -> int:
        return sum(self.sizes)

    @cached_property
    def contents(self) -> dict[int, Content]:
        """What the disk store keeps of every key."""
        sizes = dict(zip(self.keys, self.sizes, strict=True))
        return {
            key: content_of(b"https://content.example/%032x" % key, size)
            for key, size in sizes.items()
        }


def read_traces(directory: Path) -> Iterator[Trace]:
    """All *.csv.gz of `directory`: a line of names, then `time,key,size`. Raises ValueError for a
    file that is something else."""
    for path in sorted(directory.glob("*.csv.gz")):
        keys, sizes = array("q"), array("q")
        with gzip.open(path, "rt") as lines:
            next(lines, None)
            for number, line in enumerate(lines, 2):
                try:
                    _, key, size = line.split(",")
                    keys.append(int(key))
                    sizes.append(int(size))
                except ValueError:
                    wrong = f"{path}:{number}: not time,key,size in whole numbers: {line.strip()!r}"
                    raise ValueError(wrong) from None
        yield Trace(path.name.removesuffix(".csv.gz"), keys, sizes)


def made_traces(requests: int) -> Iterator[Trace]:
    """The two that need no file."""
    yield _web(requests)
    yield _films(requests)


def _zipf(count: int, exponent: float) -> list[float]:
    return list(accumulate(rank**-exponent for rank in range(1, count + 1)))


def _web(requests: int) -> Trace:
    random = Random(1)
    popular = requests // 5
    ranks = random.choices(range(popular), cum_weights=_zipf(popular, 0.9), k=requests)
    size_of: dict[int, int] = {}
    keys = array("q")
    for number, rank in enumerate(ranks):
        if random.random() < 0.4:
            key = popular + number  # a one-hit wonder
        elif number < requests // 2:
            key = rank
        else:
            key = (rank + popular // 2) % popular
        keys.append(key)
        if key not in size_of:
            size_of[key] = 1 + int(random.lognormvariate(9.2, 1.8))  # median 10 KB, mean 50 KB
    return Trace("made_web", keys, array("q", map(size_of.__getitem__, keys)))


def _films(requests: int) -> Trace:
    random = Random(2)
    films = max(requests // 600, 10)
    lengths = [random.randrange(50, 400) for _ in range(films)]
    starts = [0, *accumulate(lengths)]
    popularity = _zipf(films, 0.8)

    def watch() -> Iterator[int]:
        (film,) = random.choices(range(films), cum_weights=popularity)
        at = 0
        while at < lengths[film] and random.random() > 0.015:  # many leave early
            yield starts[film] + at
            at = random.randrange(lengths[film]) if random.random() < 0.01 else at + 1

    keys = array("q")
    viewers = [watch() for _ in range(max(films // 5, 5))]
    while len(keys) < requests:
        seat = random.randrange(len(viewers))
        key = next(viewers[seat], None)
        if key is None:
            viewers[seat] = watch()
        else:
            keys.append(key)
    return Trace("made_films", keys, array("q", [SLICE]) * len(keys))
