"""A process that writes to a store until it is killed, and who checks what it left behind.

Strategy: the child tells a file of everything that it begins and has done, unbuffered. What began
may be there; what was done over a second before the kill must be; what was removed must not; and
whatever is there is right in every byte.

    python -m tests.storage.kill_loop DIRECTORY ROUNDS
"""

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from cdn.semantics.ranges import ByteRange
from tests.storage.disk_kit import SLICE, content_of, key_of, open_store, response, slices_there

SIZE = 1 << 30
NAMES = 400
ROUNDS_PER_STORE = 20


def _content(name: str, version: int) -> bytes:
    size = random.Random(f"{name} {version}").choice((0, 1, 700, 5_000, 20_000, 60_000))
    return content_of(f"{name} {version}", size)


# --- the child ----------------------------------------------------------------------------------


class Writing:
    def __init__(self, directory: Path, told: Path, seed: int) -> None:
        self._store = open_store(directory, SIZE)
        self._told = os.open(told, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._random = random.Random(seed)
        self._version = seed * 1_000_000

    def _tell(self, *words: object) -> None:
        os.write(self._told, (" ".join(map(str, words)) + f" {time.monotonic()}\n").encode())

    async def run(self) -> None:
        self._tell("ready", "-", 0)
        while True:
            name = f"o{self._random.randrange(NAMES)}"
            await self._random.choices(
                (self._put, self._cut_short, self._remove, self._freshen), (16, 3, 1, 2)
            )[0](name)
            await asyncio.sleep(0.001)

    async def _put(self, name: str, whole: bool = True) -> None:
        self._version += 1
        version, content = self._version, _content(name, self._version)
        self._tell("begin", name, version)
        head = response(name, length=len(content), etag=f'"{version}"')
        writer = self._store.open_writer(head)
        pieces = [content[at : at + SLICE] for at in range(0, len(content), SLICE)]
        if self._random.random() < 0.3 or not whole:
            writer.show(head)
        for number, piece in enumerate(pieces):
            if not whole and self._random.random() < 0.5:
                continue
            assert writer.write(number, piece)
            if self._random.random() < 0.1:
                await asyncio.sleep(0.002)
        if whole:
            assert writer.commit(head)
            self._tell("done", name, version)
        else:
            writer.abort()

    async def _cut_short(self, name: str) -> None:
        await self._put(name, whole=False)

    async def _remove(self, name: str) -> None:
        self._store.remove(key_of(name))
        self._tell("removed", name, 0)

    async def _freshen(self, name: str) -> None:
        for stored in await self._store.lookup_soon(key_of(name)):
            self._store.freshen(stored, stored.response)


def _version(stored) -> int:
    return int(stored.response.validator.etag.strip('"'))


# --- the judge ----------------------------------------------------------------------------------


@dataclass
class Judge:
    """What may, and what must be there. `due` and `hits` count what was done in time."""

    may: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))
    must: dict[str, int | None] = field(default_factory=dict)
    due: int = 0
    hits: int = 0
    checked: int = 0

    def hear(self, told: Path, killed_at: float) -> None:
        for line in told.read_text().splitlines():
            what, name, version, at = line.split()
            if what == "removed":
                self.may[name].clear()
            else:
                self.may[name].add(int(version))
            in_time = what == "done" and float(at) < killed_at - 1.0
            self.must[name] = int(version) if in_time else None

    async def look(self, directory: Path) -> None:
        store = open_store(directory, SIZE)
        try:
            for name, version in self.must.items():
                found = await store.lookup_soon(key_of(name))
                assert len(found) <= 1, name
                for stored in found:
                    await self._check(name, stored)
                whole = [_version(one) for one in found if one.response.present is None]
                if version is not None:
                    self.due += 1
                    self.hits += whole == [version]
                # What outlived one kill outlives the next.
                self.must[name] = whole[0] if whole else None
            assert store.counters.damaged == 0
        finally:
            store.close()

    async def _check(self, name: str, stored) -> None:
        version = _version(stored)
        assert version in self.may[name], f"{name} was removed, or never was"
        content = _content(name, version)
        assert stored.response.length == len(content)
        for number in slices_there(stored):
            part = ByteRange(number * SLICE, min((number + 1) * SLICE, len(content)))
            reading = stored.open([part])
            pieces = []
            while piece := await reading.read():
                pieces.append(bytes(piece))
            assert b"".join(pieces) == content[part.start : part.stop], (name, number)
            self.checked += 1


def run(
    directory: Path, rounds: int, seed: int = 1, killed: Callable[[int], object] = lambda _: None
) -> Judge:
    """Kills as many writers, and tells `killed` how many; raises AssertionError at the first wrong
    thing. Long runs are 1 s to 1.6 s, so that something is due; every third is cut off early."""
    dice, total = random.Random(seed), Judge()
    for number in range(rounds):
        if number % ROUNDS_PER_STORE == 0:
            judge = Judge()
            store = directory / f"store{number}"
        told = directory / f"told{number}"
        child = subprocess.Popen(
            [sys.executable, "-m", "tests.storage.kill_loop", "--child", store, told, str(number)]
        )
        while not (told.exists() and told.read_text()):
            assert child.poll() is None, "the child ended by itself"
            time.sleep(0.01)
        time.sleep(dice.uniform(0, 0.5) if number % 3 == 2 else dice.uniform(1.1, 1.6))
        child.send_signal(signal.SIGKILL)
        killed_at = time.monotonic()
        assert child.wait() == -signal.SIGKILL
        judge.hear(told, killed_at)
        asyncio.run(judge.look(store))
        killed(number + 1)
        if number % ROUNDS_PER_STORE == ROUNDS_PER_STORE - 1 or number == rounds - 1:
            total.due += judge.due
            total.hits += judge.hits
            total.checked += judge.checked
    return total


if __name__ == "__main__":
    if sys.argv[1] == "--child":
        asyncio.run(Writing(Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])).run())
    else:
        print(run(Path(sys.argv[1]), int(sys.argv[2])))
