"""Single flight: one per key, until it lands."""

from cdn.gateway.collapse import Collapse, Follower, Leader


def test_the_first_leads_and_the_others_follow_the_same_flight():
    collapse = Collapse()
    begun = []

    def begin():
        begun.append(object())
        return begun[-1]

    assert collapse.join("a", begin) == Leader(begun[0])
    assert collapse.join("a", begin) == Follower(begun[0])
    assert isinstance(collapse.join("b", begin), Leader)
    assert (len(begun), len(collapse)) == (2, 2)
    assert "a" in collapse


def test_after_landing_the_next_one_leads():
    collapse = Collapse()
    first = collapse.join("a", object).flight
    collapse.land("a", first)
    assert "a" not in collapse
    assert isinstance(collapse.join("a", object), Leader)


def test_an_old_flight_does_not_land_its_successor():
    collapse = Collapse()
    first = collapse.join("a", object).flight
    collapse.land("a", first)
    second = collapse.join("a", object).flight
    collapse.land("a", first)
    assert collapse.join("a", object) == Follower(second)


def test_flights_may_land_while_they_are_looked_through():
    collapse = Collapse()
    for key in "abc":
        collapse.join(key, object)
    for key, flight in collapse.under_way():
        collapse.land(key, flight)
    assert len(collapse) == 0
