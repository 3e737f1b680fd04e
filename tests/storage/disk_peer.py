"""Another process of the same node: it has the store open, and does what it is told, line by line.

python -m tests.storage.disk_peer DIRECTORY LOCK_FD
"""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

from xxhash import xxh3_64_hexdigest

from tests.storage.disk_kit import (
    SLICE,
    content_of,
    key_of,
    open_store,
    put,
    read,
    response,
    slices_of,
)


def name_of(content: bytes) -> str:
    return xxh3_64_hexdigest(content)


class Peer:
    """`shards` are those that it owns, None for all. Killed with the test at the latest."""

    def __init__(self, directory: Path, lock_fd: int, shards=None) -> None:
        owned = json.dumps(shards)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.storage.disk_peer", directory, str(lock_fd), owned],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=[lock_fd],
            text=True,
        )

    def ask(self, *command):
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def kill(self) -> None:
        self.process.kill()
        self.end()

    def end(self) -> None:
        self.process.stdin.close()
        self.process.wait(10)
        self.process.stdout.close()


class _Doing:
    def __init__(self, store) -> None:
        self._store = store
        self._writers = {}

    async def put(self, name, content):
        done = put(self._store, response(name), content_of(content, 3 * SLICE))
        await self._store.flush()
        return done

    async def get(self, name):
        found = await self._store.lookup_soon(key_of(name))
        return [name_of(await read(stored)) for stored in found]

    async def begin(self, name):
        head = response(name, length=3 * SLICE)
        writer = self._writers[name] = self._store.open_writer(head)
        done = writer.write(0, slices_of(content_of(name, 3 * SLICE))[0]) and writer.show(head)
        await self._store.flush()
        return done

    async def end(self, name):
        writer, pieces = self._writers[name], slices_of(content_of(name, 3 * SLICE))
        taken = [writer.write(number, pieces[number]) for number in (1, 2)]
        return [*taken, writer.commit(response(name, length=3 * SLICE, at=2e9))]

    async def remove(self, name):
        return self._store.remove(key_of(name))

    async def status(self):
        return self._store.status()

    async def stop(self):
        await self._store.stop_writing()

    async def close(self):
        return self._store.close()


async def _run(directory: Path, lock_fd: int, owned) -> None:
    owns = (lambda number: True) if owned is None else owned.__contains__
    doing = _Doing(open_store(directory, lock_fd=lock_fd, owns=owns))
    for line in sys.stdin:
        command, *words = json.loads(line)
        print(json.dumps(await getattr(doing, command)(*words)), flush=True)


if __name__ == "__main__":
    asyncio.run(_run(Path(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3])))
