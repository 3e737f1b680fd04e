"""RFC 9111 §2 (the key), RFC 9110 §4.2.3 (which URIs are the same)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdn.semantics.cache_key import (
    CacheKey,
    key_of_url,
    normalize_authority,
    normalize_target,
    primary_key,
    resolve,
)
from cdn.semantics.message import Fields, Request
from tests.semantics.messages import asking


@pytest.mark.parametrize("target", ["/", "/a?", "/a", "/a//b/../c", "/%7Ea", "/~a", "/a%2Fb", "/é"])
def test_target_is_keyed_byte_for_byte(target):
    request = Request("GET", "https", "example.com", target, Fields())
    assert primary_key(request) == b"https://example.com" + target.encode("latin-1")


@pytest.mark.parametrize(
    ("scheme", "authority", "normal"),
    [
        ("http", "Example.COM", "example.com"),
        ("http", "example.com:80", "example.com"),
        ("https", "example.com:443", "example.com"),
        ("http", "example.com:443", "example.com:443"),
        ("http", "example.com:", "example.com"),
        ("http", "[2001:DB8::1]", "[2001:db8::1]"),
        ("http", "[2001:db8::1]:80", "[2001:db8::1]"),
        ("http", "[::80]", "[::80]"),
        ("http", "", ""),
    ],
)
def test_authority_is_lower_case_without_the_default_port(scheme, authority, normal):
    """RFC 9110 §4.2.3."""
    assert normalize_authority(scheme, authority) == normal


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("HTTP://Example.com:80/a?b#c", ("http", "example.com", "/a?b")),
        ("http://example.com", ("http", "example.com", "/")),
        ("http://example.com?", ("http", "example.com", "/?")),
        ("http://example.com/a#?", ("http", "example.com", "/a")),
        ("https://user:pass@example.com:443/%7e", ("https", "example.com", "/%7e")),
        ("https://example.com/動画?é", ("https", "example.com", "/%E5%8B%95%E7%94%BB?%C3%A9")),
    ],
)
def test_a_url_is_split_as_requests_are_keyed(url, parts):
    assert normalize_target(url) == parts
    assert key_of_url(url) == f"{parts[0]}://{parts[1]}{parts[2]}".encode()


@pytest.mark.parametrize("url", ["/a", "example.com/a", "ftp://example.com/", "http:///a", "",
                                 "http://[::1/", "http://日本.example/"])  # fmt: skip
def test_what_is_no_absolute_url_is_refused(url):
    with pytest.raises(ValueError):
        key_of_url(url)


@given(st.text(alphabet="/ab.%?=&~", max_size=20))
def test_key_of_a_requests_url_is_the_requests_key(rest):
    request = asking(target="/" + rest)
    assert key_of_url(request.url) == primary_key(request)


@pytest.mark.parametrize(
    ("reference", "url"),
    [
        ("b", "http://example.com/x/b"),
        ("/b?c", "http://example.com/b?c"),
        ("//other/b", "http://other/b"),
        ("https://other/", "https://other/"),
        ("http://[", None),
    ],
)
def test_references_are_resolved_against_the_target(reference, url):
    """RFC 9110 §10.2.2, RFC 3986 §5."""
    assert resolve(asking(target="/x/a"), reference) == url


def test_variants_of_one_key_are_distinct_names():
    assert CacheKey(b"k") != CacheKey(b"k", (("accept", None),))
