"""What naming a key and finding its owner cost."""

import pytest

from cdn.hashing.digest import key_digest
from cdn.hashing.ring import HashRing

KEY = b"https://static.example.com/assets/app/2024/main.3f9a1c2b.css"


def test_digest_of_a_60_byte_key(benchmark):
    assert len(KEY) == 60
    assert len(benchmark(key_digest, KEY)) == 16


@pytest.mark.parametrize("nodes", [2, 10])
def test_ring_owner(benchmark, nodes):
    names = [f"shield-{number}" for number in range(nodes)]
    ring = HashRing(dict.fromkeys(names, 1))
    assert benchmark(ring.owner, KEY) in names
