"""Bars: what is put up by one invalidation is taken down by that one, or falls when it is due."""

from cdn.gateway.bars import BARRED, Bars


def bars_of(most: int = 100) -> tuple[Bars, list[float]]:
    now = [1000.0]
    return Bars(lambda: now[0], most), now


def test_of_two_invalidations_of_one_key_each_holds_for_itself():
    bars, _ = bars_of()
    bars.put_up(b"a", "1")
    bars.put_up(b"a", "2")
    bars.take_down(b"a", "1")
    assert bars.stand(b"a")
    bars.take_down(b"a", "1")
    assert bars.stand(b"a")
    bars.take_down(b"a", "2")
    assert not bars.stand(b"a")
    assert len(bars) == 0


def test_another_key_is_not_barred():
    bars, _ = bars_of()
    bars.put_up(b"a", "1")
    bars.take_down(b"b", "1")
    assert (bars.stand(b"a"), bars.stand(b"b")) == (True, False)


def test_what_nobody_takes_down_falls_when_it_is_due():
    bars, now = bars_of()
    bars.put_up(b"a", "1")
    now[0] += BARRED / 2
    bars.put_up(b"a", "2")
    bars.put_up(b"b", "2")
    now[0] += BARRED / 2
    assert (bars.stand(b"a"), len(bars)) == (True, 2)
    bars.take_down(b"a", "2")
    assert not bars.stand(b"a")
    assert bars.stand(b"b")
    now[0] += BARRED / 2
    assert (bars.stand(b"b"), len(bars)) == (False, 0)


def test_put_up_again_it_stands_as_long_as_a_new_one():
    bars, now = bars_of()
    bars.put_up(b"a", "1")
    bars.put_up(b"b", "1")
    now[0] += BARRED - 1
    bars.put_up(b"a", "1")
    now[0] += 1
    assert (bars.stand(b"a"), bars.stand(b"b"), len(bars)) == (True, False, 1)


def test_more_than_there_is_room_for_bar_everything_until_all_are_due():
    bars, now = bars_of(most=2)
    assert bars.put_up(b"a", "1")
    now[0] += 1
    assert bars.put_up(b"b", "2")
    assert not bars.put_up(b"c", "3")
    assert len(bars) == 0
    for invalidation, key in (("1", b"a"), ("2", b"b"), ("3", b"c")):
        bars.take_down(key, invalidation)
        assert bars.stand(key)
    assert bars.stand(b"d")
    now[0] += BARRED
    assert not bars.stand(b"d")


def test_many_that_are_taken_down_leave_nothing_behind():
    bars, _ = bars_of(most=2)
    for number in range(1000):
        assert bars.put_up(b"%d" % number, f"{number}")
        bars.take_down(b"%d" % number, f"{number}")
    assert not bars.stand(b"1")
