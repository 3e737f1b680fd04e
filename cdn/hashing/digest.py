"""Short names for cache keys.

Strategy: one fast digest, xxh3_128. It names a stored response in tables and files; it proves
nothing about who owns that name.
"""

from __future__ import annotations

from xxhash import xxh3_128_digest


def key_digest(key: bytes) -> bytes:
    """The 16-byte name of `key`, the same on every machine.

    Whoever looks up by it must compare the full key as well: xxhash is not collision-proof
    against an attacker, who could else have one URL answered with another's response.
    """
    return xxh3_128_digest(key)


SHARDS = 16
"""Parts of a node's keys, each of which one worker fills and stores."""


def shard_of(digest: bytes) -> int:
    """The shard, below SHARDS, of the key with this digest."""
    return digest[0] % SHARDS
