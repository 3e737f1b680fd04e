"""What tests of the disk store share: small stores, responses, content that is nobody else's."""

import contextlib
import os
import subprocess
from pathlib import Path

from xxhash import xxh3_64_intdigest

from cdn.semantics.message import Fields, Response
from cdn.semantics.ranges import ByteRange
from cdn.semantics.slices import slice_count
from cdn.semantics.stored_response import StoredResponse, make_stored_response
from cdn.storage.disk import DiskStore

NOW = 1_767_225_600.0
SLICE = 4096
SIZE = 16 << 20
SHARDS = 2


def key_of(name: str) -> bytes:
    return f"http://example.com/{name}".encode()


def response(name="a", variant=(), length=None, etag='"v1"', **more) -> StoredResponse:
    lines = [("Cache-Control", "max-age=60, public"), ("X-Name", name)]
    if etag:
        lines.append(("ETag", etag))
    fields = Fields([*lines, *more.pop("lines", ())])
    return make_stored_response(
        primary_key=key_of(name),
        variant=variant,
        response=Response(200, fields, "OK"),
        fields=fields,
        request_time=NOW,
        response_time=more.pop("at", NOW),
        length=length,
        slice_size=more.pop("slice_size", SLICE),
        **more,
    )


def content_of(name: str, size: int) -> bytes:
    """Bytes that are nobody else's."""
    seed = xxh3_64_intdigest(name.encode())
    block = b"".join(
        (seed + at & (1 << 64) - 1).to_bytes(8, "big") for at in range(min(size, 1 << 16) // 8 + 1)
    )
    return (block * (size // len(block) + 1))[:size]


def open_store(directory: Path, size=SIZE, **more) -> DiskStore:
    told = more.pop("told", None)
    more = {"largest_slice": SLICE, "shards": SHARDS, "boot_id": "this boot"} | more
    return DiskStore.open(
        directory, size, report=told.append if told is not None else lambda line: None, **more
    )


@contextlib.contextmanager
def opened(directory: Path, size=SIZE, **more):
    store = open_store(directory, size, **more)
    try:
        yield store
    finally:
        store.close()


def slices_of(content: bytes, size=SLICE):
    return [content[at : at + size] for at in range(0, len(content), size)]


def put(store: DiskStore, head: StoredResponse, content: bytes) -> bool:
    """Stores a whole response; whether all of it was taken."""
    writer = store.open_writer(head)
    if writer is None:
        return False
    taken = [
        writer.write(number, piece)
        for number, piece in enumerate(slices_of(content, head.slice_size))
    ]
    return writer.commit(head.with_length(len(content))) and all(taken)


async def read(stored, part: ByteRange | None = None) -> bytes:
    length = stored.response.length or 0
    return await read_all(stored.open([part or ByteRange(0, length)]))


async def read_all(content) -> bytes:
    pieces = []
    while piece := await content.read():
        pieces.append(bytes(piece))
    return b"".join(pieces)


def slices_there(stored) -> list[int]:
    """Numbers of the aligned slices that are there."""
    held = stored.response
    if held.present is None:
        return list(range(slice_count(held.length, held.slice_size)))
    return list(held.present.numbers())


def only(store: DiskStore, name: str):
    """The one variant that is stored; None where there is none."""
    found = store._lookups.find(key_of(name), resident=False)
    assert len(found) <= 1
    return found[0] if found else None


def files(directory: Path, suffix: str) -> list[Path]:
    return sorted(directory.glob(f"*/*.{suffix}"))


def usage(directory: Path) -> int:
    """Bytes of everything in a store."""
    return sum(
        Path(root, name).stat().st_size for root, _, names in os.walk(directory) for name in names
    )


def du(directory: Path) -> int:
    """What `du` says: bytes of blocks, directories too."""
    words = ["du", "-s", "--block-size=1", str(directory)]
    # Files that go while it looks make it complain, and count on.
    said = subprocess.run(words, capture_output=True, text=True, check=False)
    return int(said.stdout.split()[0])


def flip(path: Path, offset: int) -> None:
    """One bit, as a disk does it."""
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes((byte ^ 1,)))
