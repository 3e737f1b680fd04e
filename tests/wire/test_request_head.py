"""The strict rules for a head, one refusal a line (RFC 9112, RFC 9110)."""

import pytest

from cdn.wire.errors import RequestError
from cdn.wire.request_head import parse_head

GET = b"GET / HTTP/1.1\r\n"
POST = b"POST / HTTP/1.1\r\n"
HOST = b"Host: a.example\r\n"
END = b"\r\n"


def parse(raw: bytes, scheme: str = "http"):
    return parse_head(raw, scheme)


def get(target: bytes, host: bytes = b"a.example"):
    return parse(b"GET " + target + b" HTTP/1.1\r\nHost: " + host + b"\r\n\r\n").request


def refusal(raw: bytes) -> RequestError:
    with pytest.raises(RequestError) as caught:
        parse(raw)
    assert caught.value.detail.isascii()
    return caught.value


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", "framing"),
        (b"Content-Length: 3\r\nContent-Length: 4\r\n", "framing"),
        (b"Content-Length: 3, 3\r\n", "framing"),
        (b"Content-Length: +3\r\n", "framing"),
        (b"Content-Length: -3\r\n", "framing"),
        (b"Content-Length: 0x3\r\n", "framing"),
        (b"Content-Length: 3 3\r\n", "framing"),
        (b"Content-Length: \xb2\r\n", "framing"),
        (b"Content-Length:\r\n", "framing"),
        (b"Content-Length: 9999999999999999999\r\n", "framing"),
        (b"Content-Length: 99999999999999999999999\r\n", "framing"),
        (b"Transfer-Encoding: gzip\r\n", "framing"),
        (b"Transfer-Encoding: chunked, gzip\r\n", "framing"),
        (b"Transfer-Encoding: chunked, chunked\r\n", "framing"),
        (b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", "framing"),
        (b"Transfer-Encoding: xchunked\r\n", "framing"),
        (b"Transfer-Encoding: chunked,\r\n", "framing"),
        (b"Transfer-Encoding:\r\n", "framing"),
        (b"Transfer-Encoding: \x0bchunked\r\n", "control-byte"),
        (b"X: a\nY: b\r\n", "control-byte"),
        (b"X: a\rY: b\r\n", "control-byte"),
        (b"X: a\x00b\r\n", "control-byte"),
        (b"X: a\x7fb\r\n", "control-byte"),
        (b": empty\r\n", "field-line"),
        (b"X : a\r\n", "field-line"),
        (b"X\t: a\r\n", "field-line"),
        (b"X: a\r\n b\r\n", "field-line"),
        (b" X: a\r\n", "field-line"),
        (b"no colon\r\n", "field-line"),
        (b"X\xe9: a\r\n", "field-line"),
        (b"X(y): a\r\n", "field-line"),
    ],
)
def test_bad_field_lines_are_400(lines, reason):
    fault = refusal(POST + HOST + lines + END)
    assert (fault.status, fault.reason) == (400, reason)


@pytest.mark.parametrize(
    "line",
    [
        b"GET  / HTTP/1.1",
        b"GET / HTTP/1.1 ",
        b" GET / HTTP/1.1",
        b"GET\t/\tHTTP/1.1",
        b"GET /a b HTTP/1.1",
        b"GET /a#b HTTP/1.1",
        b"GET /\xe9 HTTP/1.1",
        b"GET / http/1.1",
        b"GET / HTTP/1.10",
        b"GET / HTTP/01.1",
        b"GET /",
        b"GET HTTP/1.1",
        b"G@T / HTTP/1.1",
        b"",
    ],
)
def test_a_request_line_is_exact(line):
    fault = refusal(line + b"\r\n" + HOST + END)
    assert (fault.status, fault.reason) == (400, "request-line")


@pytest.mark.parametrize("target", [b"a", b"*", b"ftp://a.example/", b"a.example:80", b"http:/x"])
def test_other_forms_of_target_are_400(target):
    fault = refusal(b"GET " + target + b" HTTP/1.1\r\n" + HOST + END)
    assert (fault.status, fault.reason) == (400, "target")


@pytest.mark.parametrize(
    "hosts",
    [
        b"",
        HOST + HOST,
        HOST + b"host: b.example\r\n",
        b"Host:\r\n",
        b"Host: user@a.example\r\n",
        b"Host: a.example/x\r\n",
        b"Host: a b\r\n",
        b"Host: a:b\r\n",
        b"Host: a:65536\r\n",
        b"Host: a:0000080\r\n",
        b"Host: :80\r\n",
        b"Host: [::1\r\n",
        b"Host: [:::1]\r\n",
        b"Host: [1.2.3.4]\r\n",
        b"Host: ::1\r\n",
        b"Host: a%zz\r\n",
        b"Host: \xe9.example\r\n",
        b"Host: http://a.example\r\n",
    ],
)
def test_host_is_there_once_and_valid(hosts):
    fault = refusal(GET + hosts + END)
    assert (fault.status, fault.reason) == (400, "host")


def test_the_absolute_form_does_not_excuse_a_missing_or_bad_host():
    line = b"GET http://b.example/ HTTP/1.1\r\n"
    assert refusal(line + END).reason == "host"
    assert refusal(line + b"Host: a b\r\n" + END).reason == "host"


@pytest.mark.parametrize(
    "authority", [b"", b"user@b.example", b"b.example:x", b"b.example,c:99999", b"[]"]
)
def test_a_bad_authority_in_the_absolute_form_is_400(authority):
    fault = refusal(b"GET http://" + authority + b"/ HTTP/1.1\r\n" + HOST + END)
    assert (fault.status, fault.reason) == (400, "host")


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"POST / HTTP/1.0\r\n" + HOST + b"Transfer-Encoding: chunked\r\n" + END, 400),
        (b"GET /" + b"a" * 16384 + b" HTTP/1.1\r\n" + HOST + END, 414),
        (GET + HOST + b"X: " + b"a" * 32768 + b"\r\n" + END, 431),
        (GET + HOST + b"X: a\r\n" * 128 + END, 431),
        (POST + HOST + b"Transfer-Encoding: gzip, chunked\r\n" + END, 501),
        (b"BREW / HTTP/1.1\r\n" + HOST + END, 501),
        (b"get / HTTP/1.1\r\n" + HOST + END, 501),
        (b"DESCRIBE / HTTP/1.1\r\n" + HOST + END, 501),
        (b"GET / HTTP/2.0\r\n" + HOST + END, 505),
        (b"PRI * HTTP/2.0\r\n\r\n", 505),
        (b"GET / HTTP/0.9\r\n" + HOST + END, 505),
        (b"CONNECT a.example:443 HTTP/1.1\r\n" + HOST + END, 405),
        (b"TRACE / HTTP/1.1\r\n" + HOST + END, 405),
        (POST + HOST + b"Content-Length: 3\r\nExpect: a-miracle\r\n" + END, 417),
    ],
)
def test_other_refusals(raw, status):
    assert refusal(raw).status == status


def test_405_names_the_methods_that_are_allowed():
    ((name, value),) = refusal(b"TRACE / HTTP/1.1\r\n" + HOST + END).fields
    assert name == "Allow"
    assert "GET, HEAD" in value
    assert "TRACE" not in value


def test_the_limits_themselves_are_allowed():
    target = b"/" + b"a" * 16383
    assert get(target).target == target.decode()
    assert len(parse(GET + HOST + b"X: a\r\n" * 127 + END).request.fields) == 128


@pytest.mark.parametrize(
    ("host", "authority"),
    [
        (b"A.Example", "a.example"),
        (b"a.example:80", "a.example"),
        (b"a.example:080", "a.example"),
        (b"a.example:", "a.example"),
        (b"a.example:8080", "a.example:8080"),
        (b"127.0.0.1:443", "127.0.0.1:443"),
        (b"[::1]:80", "[::1]"),
        (b"[2001:DB8::1]:81", "[2001:db8::1]:81"),
        (b"a_b.example", "a_b.example"),
    ],
)
def test_authority_is_lower_case_without_the_default_port(host, authority):
    request = get(b"/", host)
    assert request.authority == authority
    assert request.fields.get("host") == host.decode()


def test_the_default_port_is_the_schemes():
    raw = GET + b"Host: a.example:443\r\n" + END
    assert parse(raw, "https").request.url == "https://a.example/"
    assert parse(raw, "http").request.url == "http://a.example:443/"


@pytest.mark.parametrize(
    ("target", "url"),
    [
        (b"http://B.example/x?y", "http://b.example/x?y"),
        (b"HTTP://b.example:80", "http://b.example/"),
        (b"http://b.example?y=/", "http://b.example/?y=/"),
        (b"https://b.example:443/", "https://b.example/"),
        (b"http://[::1]:8080/", "http://[::1]:8080/"),
        (b"https://b.example:80/", "https://b.example:80/"),
        (b"//b.example/x", "http://a.example//b.example/x"),
        (b"/%41?a=b&c", "http://a.example/%41?a=b&c"),
    ],
)
def test_the_absolute_form_wins_over_host(target, url):
    assert get(target).url == url


def test_the_absolute_forms_authority_replaces_host():
    assert get(b"http://B.example:80/").fields.get_all("host") == ["B.example:80"]


def test_options_of_the_server_as_a_whole():
    for target in (b"*", b"http://a.example"):
        raw = b"OPTIONS " + target + b" HTTP/1.1\r\n" + HOST + END
        assert parse(raw).request.target == "*"
    assert parse(b"OPTIONS http://a.example/ HTTP/1.1\r\n" + HOST + END).request.target == "/"


@pytest.mark.parametrize("host", [b"", b"Host:\r\n"])
def test_http_1_0_may_leave_its_host_out(host):
    request = parse(b"GET /x HTTP/1.0\r\n" + host + END).request
    assert (request.authority, request.version) == ("", (1, 0))


def test_a_higher_minor_version_is_read_as_1_1():
    head = parse(b"GET / HTTP/1.7\r\n" + HOST + END)
    assert head.request.version == (1, 1)
    assert head.keep_alive


@pytest.mark.parametrize(
    ("version", "connection", "keep_alive"),
    [
        (b"1.1", b"", True),
        (b"1.1", b"Connection: Close\r\n", False),
        (b"1.1", b"Connection: x\r\nConnection: close\r\n", False),
        (b"1.0", b"", False),
        (b"1.0", b"Connection: Keep-Alive\r\n", True),
        (b"1.0", b"Connection: keep-alive, close\r\n", False),
    ],
)
def test_persistence(version, connection, keep_alive):
    raw = b"GET / HTTP/" + version + b"\r\n" + HOST + connection + END
    assert parse(raw).keep_alive is keep_alive


def test_only_what_is_end_to_end_is_handed_on_in_order():
    head = parse(
        POST
        + HOST
        + b"accept: a\r\nConnection: x-hop, host, Upgrade\r\nX-Hop: 1\r\nTE: trailers\r\n"
        + b"Upgrade: h2c\r\nKeep-Alive: 5\r\nProxy-Connection: close\r\nTrailer: X-Sum\r\n"
        + b"Content-Length: 3\r\nExpect: 100-Continue\r\nAccept: \t b \xe9 \r\nEmpty:\r\n"
        + END
    )
    assert head.request.fields.lines == (
        ("Host", "a.example"),
        ("accept", "a"),
        ("Accept", "b \xe9"),
        ("Empty", ""),
    )
    assert head.expects_continue
    assert (head.content_length, head.chunked) == (3, False)


def test_framing_of_content():
    assert parse(POST + HOST + END).content_length is None
    assert parse(POST + HOST + b"Content-Length: 0\r\n" + END).content_length == 0
    assert parse(POST + HOST + b"Transfer-Encoding: Chunked\r\n" + END).chunked


def test_an_expectation_counts_only_with_content_and_http_1_1():
    expect = b"Expect: 100-continue\r\n"
    assert not parse(GET + HOST + expect + END).expects_continue
    raw = b"POST / HTTP/1.0\r\n" + HOST + expect + b"Content-Length: 3\r\n" + END
    assert not parse(raw).expects_continue


@pytest.mark.parametrize("length", [b"", b"Content-Length: 5\r\n"])
def test_an_upgrade_is_a_request_like_any_other(length):
    head = parse(POST + HOST + b"Connection: upgrade\r\nUpgrade: websocket\r\n" + length + END)
    assert head.content_length == (5 if length else None)
    assert head.request.fields.names() == {"host"}
