"""The one clock."""

from cdn.node.clock import LOOK_EVERY, Clock


class Hands:
    def __init__(self) -> None:
        self.wall, self.monotonic = 1000.0, 5.0


def clock_and_hands() -> tuple[Clock, Hands]:
    hands = Hands()
    return Clock(lambda: hands.wall, lambda: hands.monotonic), hands


def test_it_goes_on_when_the_wall_clock_steps_back():
    clock, hands = clock_and_hands()
    hands.wall -= 3600
    hands.monotonic += 10
    assert clock.now() == 1010


def test_it_follows_a_wall_clock_that_is_ahead():
    clock, hands = clock_and_hands()
    hands.wall += 3600
    assert clock.now() == 4600
    hands.monotonic += 1
    assert clock.now() == 4601


def test_it_looks_at_the_wall_clock_now_and_then():
    clock, hands = clock_and_hands()
    assert clock.now() == 1000
    hands.wall += 3600
    assert clock.now() == 1000
    hands.monotonic += LOOK_EVERY
    assert clock.now() == 4600


def test_small_differences_are_let_be():
    clock, hands = clock_and_hands()
    hands.wall += 0.4
    assert clock.now() == 1000


def test_the_date_follows():
    clock, hands = clock_and_hands()
    assert clock.date() == "Thu, 01 Jan 1970 00:16:40 GMT"
    hands.monotonic += 60
    assert clock.date() == "Thu, 01 Jan 1970 00:17:40 GMT"
