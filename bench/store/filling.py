"""Fills a store by its own writers, without a node and an origin: it is not what is measured."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from bench.store.place import key
from cdn.semantics.message import Fields, Response
from cdn.semantics.stored_response import StoredResponse, make_stored_response
from cdn.storage.disk import DiskStore

Stuff = Iterable[tuple[str, int]]
"""Targets, and bytes of each one's content."""

_TOGETHER = 256


def fill(store: Path, disk: int, stuff: Stuff, block: bytes, step: Callable[[int], object]) -> None:
    """Content is `block` over and over, beginning with the target; `step` is told bytes."""
    held = DiskStore.open(store, disk, report=print)
    try:
        asyncio.run(_fill(held, stuff, block, step))
    finally:
        held.close()


async def _fill(
    store: DiskStore, stuff: Stuff, block: bytes, step: Callable[[int], object]
) -> None:
    made = _response()
    waiting = 0
    for number, (target, size) in enumerate(stuff):
        head = replace(made, primary_key=key(target), length=size)
        writer = store.open_writer(head)
        assert writer is not None, "the disk takes no more"
        name = target.encode()
        for slice_number, at in enumerate(range(0, size, head.slice_size)):
            left = min(head.slice_size, size - at)
            content = (name + block[len(name) :])[:left]
            while not writer.write(slice_number, content):
                await writer.room()
            waiting += left
            if waiting > 16 << 20:
                await writer.room()
                waiting = 0
        assert writer.commit(head)
        step(size)
        if number % _TOGETHER == 0:
            await writer.room()
    await store.flush()


def _response() -> StoredResponse:
    now = time.time()
    fields = Fields(
        [
            ("Content-Type", "application/octet-stream"),
            ("Cache-Control", "public, max-age=31536000"),
            ("ETag", '"0123456789abcdef"'),
        ]
    )
    return make_stored_response(
        primary_key=b"",
        variant=(),
        response=Response(200, fields, "OK"),
        fields=fields,
        request_time=now,
        response_time=now,
        length=0,
    )
