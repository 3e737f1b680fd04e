"""What a hit costs the disk store: an object looked up, its content had, its use counted."""

import asyncio

import pytest

from cdn.semantics.ranges import ByteRange
from cdn.storage.disk import DiskStore
from tests.storage.disk_kit import content_of, key_of, response

SIZE = 4096
KEY = key_of("film.mp4")
WHOLE = [ByteRange(0, SIZE)]


@pytest.fixture
def store(tmp_path):
    store = DiskStore.open(tmp_path, 4 << 30, report=print)
    writer = store.open_writer(response("film.mp4", length=SIZE, slice_size=1 << 20))
    writer.write(0, content_of("film.mp4", SIZE))
    assert writer.commit(response("film.mp4", length=SIZE, slice_size=1 << 20))
    asyncio.run(store.flush())
    yield store
    store.close()


def test_a_hit(benchmark, store):
    def hit():
        (stored,) = store.lookup(KEY)
        pieces = stored.ready(WHOLE)
        store.touch(stored)
        return pieces

    assert benchmark(hit) == [content_of("film.mp4", SIZE)]


def test_look_up(benchmark, store):
    assert len(benchmark(store.lookup, KEY)) == 1


def test_look_up_of_what_is_not_there(benchmark, store):
    assert not benchmark(store.lookup, key_of("nothing"))


def test_look_up_for_the_first_time(benchmark, store):
    def first():
        store._lookups._known.clear()
        return store.lookup(KEY)

    assert len(benchmark(first)) == 1


def test_content_of_4_kib(benchmark, store):
    (stored,) = store.lookup(KEY)
    assert benchmark(stored.ready, WHOLE) is not None


def test_touch(benchmark, store):
    (stored,) = store.lookup(KEY)
    benchmark(store.touch, stored)


def test_whether_a_response_has_been_purged(benchmark, store):
    store.epochs.purge([(b"service", f"key{number}") for number in range(100)])
    stamp, tags = store.epochs.now - 1, [(b"service", "a"), (b"service", "b")]
    assert not benchmark(store.epochs.outdated, tags, stamp)
