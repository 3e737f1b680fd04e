"""Delivery services by host: exact, then the longest suffix, then any."""

import pytest

from cdn.gateway.services import DeliveryService, ServiceTable
from cdn.semantics.policy import CachePolicy


def table(*names):
    return ServiceTable(DeliveryService(name, (name,), CachePolicy(), None) for name in names)


@pytest.mark.parametrize(
    ("authority", "name"),
    [
        ("www.example.com", "www.example.com"),
        ("www.example.com:8080", "www.example.com"),
        ("img.example.com", "*.example.com"),
        ("a.b.example.com", "*.b.example.com"),
        ("x.a.b.example.com", "*.b.example.com"),
        ("example.com", "*"),  # a suffix is for names below it
        ("notexample.com", "*"),
        ("[2001:db8::1]", "[2001:db8::1]"),
        ("[2001:db8::1]:8080", "[2001:db8::1]"),
        ("[2001:db8::2]:8080", "*"),
        ("", "*"),
    ],
)
def test_the_most_specific_name_wins(authority, name):
    services = table("*", "*.example.com", "*.b.example.com", "www.example.com", "[2001:db8::1]")
    assert services.match(authority).name == name


def test_without_a_catch_all_there_are_hosts_that_nobody_serves():
    services = table("*.example.com", "www.example.org")
    assert services.match("example.com") is None
    assert services.match("www.example.org.evil") is None
    assert services.match("a.example.com").name == "*.example.com"
