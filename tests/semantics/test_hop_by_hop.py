"""RFC 9110 §7.6.1: what a connection keeps for itself."""

import pytest

from cdn.semantics.hop_by_hop import HOP_BY_HOP, connection_options, end_to_end
from cdn.semantics.message import Fields


def test_end_to_end_fields_stay_in_order_and_as_spelled():
    lines = [("HOST", "a"), ("x-One", "1"), ("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")]
    assert end_to_end(Fields(lines)) == Fields(lines)


@pytest.mark.parametrize("name", sorted(HOP_BY_HOP))
def test_hop_by_hop_fields_go_whatever_their_case(name):
    assert end_to_end(Fields([(name.title(), "x"), ("A", "b")])) == Fields([("A", "b")])


def test_fields_listed_in_connection_go():
    fields = Fields([("X-One", "1"), ("Connection", "close, x-ONE ,"), ("connection", "X-Two"),
                     ("x-two", "2"), ("X-Three", "3")])  # fmt: skip
    assert end_to_end(fields) == Fields([("X-Three", "3")])


@pytest.mark.parametrize("name", ["Host", "Authorization", "Age", "Cache-Control", "Date", "Vary",
                                  "CDN-Loop", "Via", "Content-Range"])  # fmt: skip
def test_connection_cannot_strike_fields_meant_for_all_recipients(name):
    fields = Fields([(name, "x"), ("Connection", name)])
    assert end_to_end(fields) == Fields([(name, "x")])


def test_proxy_authentication_travels_on():
    fields = Fields([("Proxy-Authenticate", "Basic"), ("Proxy-Authorization", "Basic x")])
    assert end_to_end(fields) == fields


def test_connection_options_are_lower_case_tokens():
    fields = Fields([("Connection", "Keep-Alive,\tX-One"), ("Connection", "CLOSE")])
    assert connection_options(fields) == {"keep-alive", "x-one", "close"}
    assert connection_options(Fields()) == frozenset()
