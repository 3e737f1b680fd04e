"""The disk's rules: which log, whose segment, what is spared; and the store they are played in."""

import random
from itertools import accumulate

from hypothesis import given, settings
from hypothesis import strategies as st
from xxhash import xxh3_64_intdigest

from bench.hitratio.log_store import LogStore, content_of
from cdn.hashing.digest import key_digest
from cdn.storage.eviction.ghost_table import GhostTable
from cdn.storage.eviction.two_logs import Admission, Log, Sparing, TwoLogs, name_of
from cdn.storage.heads import encode_head
from cdn.storage.index import Index
from cdn.storage.records import LARGEST_HEAD
from tests.storage import disk_kit
from tests.storage.disk_kit import SLICE, opened, put, response

SIZE = 1000


def _name(number: int) -> int:
    return xxh3_64_intdigest(b"%d" % number)


# --- the rules ------------------------------------------------------------------------------------


def test_what_was_forgotten_comes_back_into_main_once():
    rules = TwoLogs(SIZE)
    assert rules.log_for(_name(1)) is Log.PROBATION
    rules.forget(_name(1), 10)
    assert rules.log_for(_name(2)) is Log.PROBATION
    assert rules.log_for(_name(1)) is Log.MAIN
    assert rules.log_for(_name(1)) is Log.PROBATION


def test_what_left_twice_the_disk_ago_is_as_if_it_had_never_been():
    rules = TwoLogs(SIZE)
    rules.forget(_name(1), 10)
    rules.forget(_name(2), 2 * SIZE - 10)
    rules.forget(_name(3), 20)
    assert rules.log_for(_name(1)) is Log.PROBATION
    assert rules.log_for(_name(2)) is Log.MAIN


def test_slices_and_head_of_a_key_have_names_of_their_own():
    names = {name_of(key_digest(b"%d" % key), n) for key in range(50) for n in (None, *range(50))}
    assert len(names) == 50 * 51


def test_probation_asks_for_two_uses_and_main_for_one():
    rules = TwoLogs(SIZE)
    assert _spared(rules.sparing(Log.PROBATION, 100, [30, 20, 20, 0]), [0, 1, 2]) == [2]
    assert _spared(rules.sparing(Log.MAIN, 100, [30, 20, 20, 0]), [0, 1, 2]) == [1, 2]


def test_uses_are_spent_in_main_and_forgotten_on_the_way_there():
    rules = TwoLogs(SIZE)
    assert [rules.uses_left(Log.MAIN, uses) for uses in (1, 2, 3, 60)] == [0, 1, 2, 2]
    assert rules.uses_left(Log.PROBATION, 3) == 0


def _spared(sparing: Sparing, uses: list[int], size: int = 20) -> list[int]:
    return [use for use in uses if sparing.spares(use, size)]


def test_of_a_segment_three_quarters_are_spared_the_most_used_first():
    sparing = TwoLogs(SIZE).sparing(Log.MAIN, 100, [20, 40, 20, 20])
    # 75 bytes: of the two used once one finds room, and asking first takes no one's place.
    assert _spared(sparing, [1, 1, 0, 2, 3]) == [1, 2, 3]


def test_what_is_used_alike_is_spared_as_it_comes():
    sparing = TwoLogs(SIZE).sparing(Log.MAIN, 100, [0, 0, 0, 100])
    assert [sparing.spares(3, size) for size in (30, 30, 30, 10)] == [True, True, False, True]


uses_and_sizes = st.lists(st.tuples(st.integers(0, 9), st.integers(1, 30)), max_size=30)


@given(uses_and_sizes, uses_and_sizes, st.integers(0, 400), st.integers(1, 2))
def test_sparing_never_exceeds_its_room(counted, asked, room, least):
    """Not even where uses have grown since they were counted."""
    held = [0] * 10
    for uses, size in counted:
        held[uses] += size
    sparing = Sparing(room, least, held)
    spared = [(uses, size) for uses, size in asked if sparing.spares(uses, size)]
    assert sum(size for _, size in spared) <= room
    assert all(uses >= least for uses, _ in spared)


@given(uses_and_sizes, st.integers(0, 400), st.integers(1, 2), st.randoms())
def test_who_is_spared_is_not_used_less_than_who_is_not(records, room, least, chance):
    held = [0] * 10
    for uses, size in records:
        held[uses] += size
    sparing = Sparing(room, least, held)
    chance.shuffle(records)
    answers = [(uses, size, sparing.spares(uses, size)) for uses, size in records]
    kept = [uses for uses, _, spared in answers if spared]
    left = [uses for uses, _, spared in answers if not spared and uses >= least]
    assert not kept or not left or min(kept) >= max(left)
    if not left:
        assert sum(size for uses, size, _ in answers if uses >= least) <= room


def test_whose_segment_goes():
    rules = TwoLogs(SIZE)
    assert rules.next_to_drop(400, 600) is None  # probation may have what main does not need
    assert rules.next_to_drop(151, 850) is Log.PROBATION
    assert rules.next_to_drop(150, 851) is Log.MAIN
    assert not rules.promotes_at_use


def test_whose_segment_goes_where_probation_is_in_ram():
    rules = TwoLogs(SIZE, Admission.REUSE, probation=100)
    assert rules.next_to_drop(0, 1000) is None
    assert rules.next_to_drop(0, 1001) is Log.MAIN
    assert rules.next_to_drop(1, 1000) is Log.PROBATION  # left from when it was on the disk
    assert rules.promotes_at_use


# --- ghosts ---------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 9), st.integers(1, 300)), max_size=60))
def test_the_table_remembers_the_last_bytes(steps):
    table, left = GhostTable(SIZE, 1 << 16), []  # ten names in 65,536 slots: none collide
    for leaves, key, size in steps:
        if leaves:
            table.remember(_name(key), size)
            left.append([key, size])
            continue
        after = next((n for n, item in enumerate(left[::-1]) if item[0] == key), None)
        recalled = table.recall(_name(key))
        if after is None:
            assert not recalled
            continue
        since = sum(size for _, size in left[len(left) - after :])
        assert recalled == (since <= SIZE)
        for item in left:
            item[0] = None if item[0] == key else item[0]


def test_the_table_is_as_large_as_it_was_made():
    table = GhostTable(1 << 40, 1000)
    for number in range(5000):
        table.remember(_name(number), 1)
    known = sum(table.recall(_name(number)) for number in range(5000))
    assert 900 < known <= 1024  # every slot holds its newest


def test_a_table_forgets_though_its_clock_wraps():
    table = GhostTable(10, 16)
    table.remember(1 << 40, 5)
    table.remember(2 << 40 | 1, 10 * ((1 << 16) - 2))  # nearly once round
    assert not table.recall(1 << 40)
    assert table.recall(2 << 40 | 1)


# --- played ---------------------------------------------------------------------------------------


def _content(number: int, size: int):
    return content_of(b"%d" % number, size, slice_size=30, head=5)


DISK = 30_000


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(list(Admission)),
    st.lists(st.integers(0, 60), max_size=400),
    st.lists(st.integers(1, 100), min_size=61, max_size=61),
)
def test_the_miniature_store_keeps_its_accounts(admission, asked, sizes):
    store = LogStore(DISK, admission, shards=1)
    contents = [_content(number, size) for number, size in enumerate(sizes)]
    written = 0
    for number in asked:
        content = contents[number]
        found = store.request(content)
        missed = sum(one.record for one in content.slices) if found < sizes[number] else 0
        assert found <= sizes[number]
        if admission is Admission.ALL:
            assert store.written - written >= (missed and content.slices[-1].record)
        written = store.written
        assert store.used <= DISK + DISK // 10


def test_reuse_writes_at_the_second_use():
    store = LogStore(100_000, Admission.REUSE, shards=1)
    one, two = _content(1, 30), _content(2, 30)
    record, head = one.slices[0].record, one.head.record
    assert store.request(one) == 0
    assert (store.written, store.used) == (0, 240)  # 120 bytes of index for each
    assert store.request(one) == 30
    assert store.written == record + head
    assert store.request(one) == 30
    assert store.written == record + head
    store.request(two)
    for number in range(3, 30):
        store.request(_content(number, 30))
    assert store.written == record + head
    assert store.request(two) == 0  # gone from RAM, and not forgotten
    assert store.written == 2 * (record + head)


def test_a_disk_of_hits_is_not_written_again_at_the_first_miss():
    store = LogStore(100_000, Admission.ALL, shards=1)
    for number in range(300):
        for _ in range(4):
            store.request(_content(number, 30))
    before = store.written
    for number in range(300, 330):
        store.request(_content(number, 30))
    assert store.written - before <= 5 * 30 * sum(
        (_content(1, 30).slices[0].record, _content(1, 30).head.record)
    )  # a byte frees a quarter of what it costs


def test_a_record_that_no_segment_holds_passes_by():
    store = LogStore(1000, Admission.ALL, shards=1)
    content = content_of(b"1", 40, slice_size=30)
    assert content.slices[0].record <= 100
    large = content_of(b"1", 101)
    assert [store.request(large), store.request(large)] == [0, 0]
    assert store.written == 0


async def test_the_miniature_does_what_the_real_store_does(tmp_path, monkeypatch):
    """Request by request: the same slices are there, and as many bytes were written for it."""
    monkeypatch.setattr(Index, "size", 0)  # what LMDB's pages take follows no rule
    chance = random.Random(1)
    sizes = [chance.randrange(SLICE + 1, 15 * SLICE) for _ in range(150)]
    popular = list(accumulate(1 / rank for rank in range(1, 151)))
    segment = SLICE + 2 * LARGEST_HEAD
    with opened(tmp_path, 10 * segment, shards=1) as store:
        shard = store._shards[0]
        mini = LogStore(10 * segment, Admission.ALL, 1, segment, index=0)
        requests = chance.choices(range(150), cum_weights=popular, k=700)
        for second, asked in enumerate(requests):
            key, content = disk_kit.key_of(f"o{asked}"), disk_kit.content_of("o", sizes[asked])
            head = response(f"o{asked}", at=disk_kit.NOW + second)
            whole = head.with_length(len(content))
            found = 0
            for entry in shard.index.heads(key_digest(key)):
                for number, place in shard.index.locate(entry.object_id, range(15)).items():
                    shard.segments.get(place.segment).add_uses(place.record)
                    found += min(SLICE, len(content) - number * SLICE)
            if found < len(content):
                put(store, head, content)
                await store.flush()
            expected = content_of(key, len(content), SLICE, len(encode_head(whole)))
            assert mini.request(expected) == found
            counters = store.counters
            assert mini.written == counters.written + counters.rewritten
    assert counters.segments_dropped > 25
    assert counters.slices_kept > 200
