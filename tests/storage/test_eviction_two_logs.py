"""The disk's rules: which log, whose segment, what is spared; and the store they are played in."""

from hypothesis import given, settings
from hypothesis import strategies as st
from xxhash import xxh3_64_intdigest

from bench.hitratio.log_store import LogStore
from cdn.storage.eviction.ghost_table import GhostTable
from cdn.storage.eviction.two_logs import Admission, Log, Record, TwoLogs

SIZE = 1000


def _name(number: int) -> int:
    return xxh3_64_intdigest(b"%d" % number)


# --- the rules ------------------------------------------------------------------------------------


def test_what_was_used_on_probation_moves_to_main_and_the_rest_leave_ghosts():
    rules = TwoLogs(SIZE, probation=100)
    assert rules.log_for(_name(1)) is Log.PROBATION
    records = [Record(_name(1), 10, 0), Record(_name(2), 10, 1), Record(_name(3), 10, 3)]
    spared = rules.spared(Log.PROBATION, records)
    assert sorted(spared) == sorted([Record(_name(2), 10, 0), Record(_name(3), 10, 0)])
    assert rules.log_for(_name(1)) is Log.MAIN  # it came back
    assert rules.log_for(_name(1)) is Log.PROBATION  # and a ghost comes back once
    assert rules.log_for(_name(2)) is Log.PROBATION


def test_main_spares_the_most_used_one_use_less_and_no_segment_is_spared_whole():
    rules = TwoLogs(SIZE, probation=100)
    uses = [3, 0, 1, 2, 1]
    spared = rules.spared(Log.MAIN, [Record(_name(n), 20, use) for n, use in enumerate(uses)])
    # Three quarters of 100 bytes: the fourth of 20 finds no room.
    assert spared == [Record(_name(0), 20, 2), Record(_name(3), 20, 1), Record(_name(2), 20, 0)]
    assert [rules.log_for(_name(number)) for number in (1, 4)] == [Log.MAIN, Log.MAIN]
    assert rules.log_for(_name(0)) is Log.PROBATION
    used = [Record(_name(number), 20, 1) for number in range(10, 15)]
    assert rules.spared(Log.PROBATION, used) == [one._replace(uses=0) for one in used[:3]]


def test_whose_segment_goes():
    rules = TwoLogs(SIZE, probation=100)
    assert rules.next_to_drop(400, 600) is None  # probation may have what main does not need
    assert rules.next_to_drop(101, 900) is Log.PROBATION
    assert rules.next_to_drop(100, 901) is Log.MAIN
    assert not rules.promotes_at_use


def test_whose_segment_goes_where_probation_is_in_ram():
    rules = TwoLogs(SIZE, probation=100, admission=Admission.REUSE)
    assert rules.next_to_drop(100, 1000) is None
    assert rules.next_to_drop(101, 1001) is Log.PROBATION
    assert rules.next_to_drop(100, 1001) is Log.MAIN
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


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(list(Admission)),
    st.lists(st.integers(0, 60), max_size=400),
    st.lists(st.integers(1, 100), min_size=61, max_size=61),
)
def test_the_miniature_store_keeps_its_accounts(admission, asked, sizes):
    store = LogStore(10_000, admission)
    for number in asked:
        name, size = _name(number), sizes[number]
        if name in store:
            store.read(name, size)
        else:
            store.write(name, size)
        assert name in store
        held = sum(sizes[n] for n in range(61) if _name(n) in store)
        assert store.used <= 10_000
        if admission is Admission.ALL:
            assert store.used == held  # a record is in one log only
        else:
            assert held <= 10_100


def test_reuse_writes_at_the_second_use():
    store = LogStore(10_000, Admission.REUSE)
    store.write(_name(1), 50)
    assert (store.written, store.used) == (0, 0)
    store.read(_name(1), 50)
    assert (store.written, store.used) == (50, 50)
    for number in range(2, 10):
        store.write(_name(number), 50)
    assert store.written == 50
    store.write(_name(2), 50)  # gone from RAM, and not forgotten
    assert (store.written, store.used) == (100, 100)


def test_a_disk_of_hits_is_not_written_again_at_the_first_miss():
    store = LogStore(100_000, Admission.ALL)
    for number in range(1000):
        store.write(_name(number), 100)
        for _ in range(3):
            store.read(_name(number), 100)
    before = store.written
    for number in range(1000, 1100):
        store.write(_name(number), 100)
    assert store.written - before <= 5 * 10_000  # a byte frees a quarter of what it costs


def test_a_record_that_no_segment_holds_passes_by():
    store = LogStore(1000, Admission.ALL)
    store.write(_name(1), 101)
    assert (_name(1) in store, store.written) == (False, 0)
