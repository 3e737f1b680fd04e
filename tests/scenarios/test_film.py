"""A film of 2 GiB, watched by many at many places: nginx, curl, an edge and a shield with stores.

Strategy: the file is sparse but for a mark in every 64 KiB, so that no two places are alike and
little is written. nginx logs which ranges it was asked for: each aligned slice once, or it is told
here which one was not.
"""

import asyncio
import os
import random
from collections import Counter
from pathlib import Path

import pytest

from tests.kit import need
from tests.kit.cdn_nodes import node_process
from tests.scenarios.mirroring import nginx, requests_logged
from tests.scenarios.running import run

MIB = 1 << 20
LENGTH = (2 << 30) + 12_345
ANY_PORT = ("--listen", "127.0.0.1:0")
CLIENTS, RANGES, STEP = 8, 10, 700_000


def make_film(path: Path) -> None:
    marks = random.Random(7)
    with path.open("wb") as file:
        for place in range(0, LENGTH - 64, 64 << 10):
            os.pwrite(file.fileno(), marks.randbytes(64), place)
        os.truncate(file.fileno(), LENGTH)


def places(client: int) -> list[tuple[int, int]]:
    """What a client asks for: bytes [start, stop), in a row from somewhere on, then a seek back.
    Clients 0 and 1 watch the same scene."""
    first = (client // 2 * 517 * MIB + client * 4_321) % (LENGTH - RANGES * STEP)
    row = [(first + n * STEP, first + (n + 1) * STEP) for n in range(RANGES)]
    return [*row, (first + 5, first + 15), (LENGTH - 1000 * (client + 1), LENGTH)]


async def watch(url: str, client: int, film: Path, folder: Path) -> None:
    with film.open("rb") as file:
        for start, stop in places(client):
            # Some say where they stop, some only how much from the end.
            wanted = f"-{LENGTH - start}" if stop == LENGTH else f"{start}-{stop - 1}"
            got = folder / f"{client}"
            finished = await run(need("curl"), "-sf", "-r", wanted, "-o", str(got), f"{url}/film")
            assert finished.code == 0, (wanted, finished)
            assert got.read_bytes() == os.pread(file.fileno(), stop - start, start), wanted


@pytest.mark.debian
@pytest.mark.usefixtures("unmeasured")
async def test_every_viewer_gets_the_right_bytes_and_the_origin_sends_each_slice_once(tmp_path):
    need("curl")
    (tmp_path / "site").mkdir()
    film = tmp_path / "site" / "film"
    make_film(film)

    def store(name: str) -> tuple[str, ...]:
        return "--store", str(tmp_path / name), "--disk", "6GiB", "--workers", "2"

    async with nginx(tmp_path) as origin:
        shield = ("shield", *ANY_PORT, "--origin", origin, *store("shield"))
        async with node_process(*shield) as behind:
            edge = ("edge", *ANY_PORT, "--shield", behind.url, *store("edge"))
            async with node_process(*edge) as node:
                clients = (watch(node.url, n, film, tmp_path) for n in range(CLIENTS))
                await asyncio.gather(*clients)
                # Another evening: nothing that was watched is asked for again.
                await watch(node.url, 3, film, tmp_path)
                assert await requests_logged(origin, tmp_path)
        log = (tmp_path / "access.log").read_text()
        ranges = Counter(line.split('"')[1] for line in log.splitlines())
    slices = {
        (start // MIB, (stop - 1) // MIB) for n in range(CLIENTS) for start, stop in places(n)
    }
    touched = {number for first, last in slices for number in range(first, last + 1)}
    sent = {int(wanted.removeprefix("bytes=").partition("-")[0]) // MIB for wanted in ranges}
    assert all(count == 1 for count in ranges.values()), ranges.most_common(3)
    assert all(int(one[6:].partition("-")[0]) % MIB == 0 for one in ranges)
    assert touched <= sent
    assert len(sent - touched) <= CLIENTS  # read ahead of those who watch in a row
    film.unlink()
