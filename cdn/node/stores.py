"""What a node keeps responses in: RAM of its own, or the disk store that all its workers share.

Strategy: opened and told of in one place, so that the node itself asks only what both kinds can do.
Whoever holds the directory for the node is `store_keeper.py`; a store opened here takes part in it.
"""

from __future__ import annotations

import asyncio
from typing import Any

from cdn.config.models import NodeConfig
from cdn.node.peers import Place
from cdn.observe.events import EventLog
from cdn.storage.disk import REUSE_MEMORY, DiskStore
from cdn.storage.eviction.two_logs import Admission
from cdn.storage.memory import MemoryStore
from cdn.storage.trouble import RETRY_AFTER

NodeStore = MemoryStore | DiskStore

HOT_PART = 8
"""Of a store in RAM no more than this part is heads that are kept ready to be sent."""


def open_store(
    config: NodeConfig, place: Place | None, lock_fd: int | None, events: EventLog
) -> NodeStore:
    """`lock_fd` holds the directory's lock where another part of the node does. Raises
    StoreUnusable."""
    memory = config.memory if place is None else place.share(config.memory)
    if config.store is None or config.disk is None:
        return MemoryStore(memory)
    return DiskStore.open(
        config.store,
        config.disk,
        largest_slice=config.largest_slice,
        admission=Admission(config.admission),
        memory=min(memory, REUSE_MEMORY),
        owns=(lambda _: True) if place is None else place.owns,
        lock_fd=lock_fd,
        report=events.warning,
    )


def hot_memory(
    config: NodeConfig, place: Place | None, store: NodeStore
) -> tuple[int, MemoryStore | None]:
    """Bytes for hot responses, and the store that they are part of where that is in RAM."""
    if isinstance(store, MemoryStore):
        return store.capacity // HOT_PART, store
    return config.memory if place is None else place.share(config.memory), None


def store_status(store: NodeStore, config: NodeConfig) -> dict[str, Any]:
    """For `GET /v1/status`; `kind` says which it is, `trouble` is a sentence or empty."""
    if isinstance(store, MemoryStore):
        return {
            "kind": "memory",
            "objects": store.counters.objects,
            "bytes": store.counters.bytes,
            "capacity_bytes": store.capacity,
            "evictions": store.counters.evictions,
        }
    told = store.status()
    counters = store.counters
    return {
        "kind": "disk",
        "directory": str(config.store),
        "trouble": _trouble(str(told["why"])) if told["state"] == "failing" else "",
        "objects": told["objects"],
        "slices": told["slices"],
        "bytes": told["bytes"],
        "capacity_bytes": config.disk,
        "refused": counters.refused,
        "damaged": counters.damaged,
        "write_failures": counters.write_failures,
    }


async def close_store(store: NodeStore) -> bool:
    """What it has accepted is on disk afterwards. False: something of it may not be durable."""
    return not isinstance(store, DiskStore) or await asyncio.to_thread(store.close)


def _trouble(why: str) -> str:
    return f"the disk takes no writes: {why}; serving goes on; tried again every {RETRY_AFTER:g} s"
