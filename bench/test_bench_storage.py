"""What a hit costs the RAM store: the object looked up, and replacement told of its use."""

import pytest

from bench.test_bench_semantics import stored
from cdn.storage.memory import MemoryStore

KEY = b"http://films.example/film.mp4"


@pytest.fixture
def store() -> MemoryStore:
    store = MemoryStore(1 << 30)
    writer = store.open_writer(stored().with_length(1024))
    assert writer is not None
    writer.write(0, bytes(1024))
    writer.commit(stored().with_length(1024))
    return store


def test_look_up_in_the_ram_store(benchmark, store):
    assert len(benchmark(store.lookup, KEY)) == 1


def test_touch_in_the_ram_store(benchmark, store):
    (found,) = store.lookup(KEY)
    benchmark(store.touch, found)
