"""RFC 9111 §4.4."""

import pytest

from cdn.semantics.invalidation import SAFE_METHODS, invalidated_keys
from tests.semantics.messages import asking, response

TARGET = b"http://example.com/a"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "M-SEARCH", "FOO", "get"])
@pytest.mark.parametrize("status", [200, 201, 204, 303, 399])
def test_a_successful_unsafe_method_invalidates_its_target(method, status):
    """An unknown method is taken for unsafe; a non-error response is a 2xx or 3xx."""
    assert invalidated_keys(asking(method=method), response(status=status)) == {TARGET}


@pytest.mark.parametrize("status", [400, 404, 500, 503, 199])
def test_an_error_invalidates_nothing(status):
    assert not invalidated_keys(asking(method="POST"), response(status=status))


@pytest.mark.parametrize("method", sorted(SAFE_METHODS))
def test_a_safe_method_invalidates_nothing(method):
    """RFC 9110 §9.2.1."""
    assert not invalidated_keys(asking(method=method), response())


@pytest.mark.parametrize("name", ["Location", "Content-Location"])
@pytest.mark.parametrize(
    ("reference", "also"),
    [
        ("/b?c", b"http://example.com/b?c"),
        ("b#d", b"http://example.com/b"),
        ("HTTP://EXAMPLE.com:80/b", b"http://example.com/b"),
        ("http://other.com/b", None),
        ("https://example.com/b", None),
        ("http://example.com:81/b", None),
        ("http://example.com.evil/b", None),
        ("http://example.com@evil/b", None),
        ("//evil/b", None),
        ("http://[", None),
        ("mailto:a@b", None),
        ("", TARGET),
    ],
)
def test_uris_in_location_of_the_same_origin_only(name, reference, also):
    """RFC 9111 §4.4: MUST NOT where the origin differs, against denial of service."""
    keys = invalidated_keys(asking(method="POST"), response((name, reference)))
    assert keys == {TARGET} | ({also} if also else set())


def test_both_are_looked_at():
    head = response(("Location", "/b"), ("Content-Location", "/c"), status=201)
    assert len(invalidated_keys(asking(method="POST"), head)) == 3
