from pathlib import Path

import pytest

from cdn.config.addresses import (
    ListenAddress,
    UnixAddress,
    Url,
    parse_admin_listen,
    parse_host,
    parse_host_pattern,
    parse_listen,
    parse_prefix,
    parse_url,
)
from cdn.config.problems import BadValue


@pytest.mark.parametrize(
    ("text", "host", "port", "spelt"),
    [
        ("127.0.0.1:8080", "127.0.0.1", 8080, "127.0.0.1:8080"),
        ("[::]:8080", "::", 8080, "[::]:8080"),
        ("[2001:DB8:0::1]:1", "2001:db8::1", 1, "[2001:db8::1]:1"),
        ("LocalHost:0", "localhost", 0, "localhost:0"),
    ],
)
def test_listen(text, host, port, spelt):
    address = parse_listen(text)
    assert (address.host, address.port, str(address)) == (host, port, spelt)


@pytest.mark.parametrize(
    "value",
    [
        "8080",
        8080,
        ":8080",
        "*:8080",
        "127.0.0.1",
        "127.0.0.256:1",
        "127.0.0.1:65536",
        "::1:8080",
        "[::1:8080",
        "[127.0.0.1]:80",
        "a b:1",
        "a..b:1",
        "-a:1",
        f"{'a' * 254}:1",
        "host:80 ",
        "hôte:80",
        None,
    ],
)
def test_what_is_no_listen_address(value):
    with pytest.raises(BadValue, match=r"is not HOST:PORT; write e\.g\. 127\.0\.0\.1:8080"):
        parse_listen(value)


def test_admin_listens_on_tcp_or_a_unix_socket():
    assert parse_admin_listen("127.0.0.1:1") == ListenAddress("127.0.0.1", 1)
    unix = parse_admin_listen("unix:/run/cdn/edge.sock")
    assert unix == UnixAddress(Path("/run/cdn/edge.sock"))
    assert str(unix) == "unix:/run/cdn/edge.sock"


@pytest.mark.parametrize("value", ["unix:", "unix:edge.sock", "unix:/" + "a" * 107])
def test_a_unix_socket_needs_an_absolute_path_that_fits(value):
    with pytest.raises(BadValue, match="absolute path"):
        parse_admin_listen(value)


@pytest.mark.parametrize(
    ("text", "url", "spelt"),
    [
        ("http://a.example", Url("http", "a.example", 80), "http://a.example:80"),
        ("https://a.example", Url("https", "a.example", 443), "https://a.example:443"),
        ("HTTP://A_b.Example:8180/", Url("http", "a_b.example", 8180), "http://a_b.example:8180"),
        ("http://[::1]:9000", Url("http", "::1", 9000), "http://[::1]:9000"),
        ("http://10.0.0.1", Url("http", "10.0.0.1", 80), "http://10.0.0.1:80"),
    ],
)
def test_url(text, url, spelt):
    assert parse_url(text) == url
    assert str(url) == spelt


@pytest.mark.parametrize(
    "value",
    [
        "htp://x",
        "x",
        "http://",
        "http://:80",
        "http://a:0",
        "http://a:99999",
        "http://a/path",
        "http://a?q",
        "http://u:p@a",
        "http://a b",
        "http://a\n",
        "http://1.2.3",
        9,
    ],
)
def test_what_is_no_url(value):
    with pytest.raises(BadValue, match="is not an http or https URL"):
        parse_url(value)


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("*", "*"),
        ("Films.Example", "films.example"),
        ("*.Films.Example", "*.films.example"),
        ("127.0.0.1", "127.0.0.1"),
        ("[::0:1]", "[::1]"),
    ],
)
def test_host_patterns(text, pattern):
    assert parse_host_pattern(text) == pattern


@pytest.mark.parametrize(
    "value", ["", "*.", "a.*", "*a.example", "**", "*.*", "a:80", "http://a", "*.[::1]", "a/", None]
)
def test_what_is_no_host_pattern(value):
    with pytest.raises(BadValue, match="is not a host name"):
        parse_host_pattern(value)


def test_origin_host_keeps_its_port():
    assert parse_host("Origin.Example") == "origin.example"
    assert parse_host("[::1]:81") == "[::1]:81"
    for bad in ("http://a", "a:0", "", None):
        with pytest.raises(BadValue, match="is not a Host"):
            parse_host(bad)


def test_prefixes():
    assert str(parse_prefix("192.0.2.0/24")) == "192.0.2.0/24"
    assert str(parse_prefix("2001:db8::/32")) == "2001:db8::/32"
    with pytest.raises(BadValue, match=r"write 192\.0\.2\.0/24"):
        parse_prefix("192.0.2.7/24")
    for bad in ("192.0.2.0/33", "x", "", 7, None):
        with pytest.raises(BadValue, match="is not an address prefix"):
            parse_prefix(bad)
