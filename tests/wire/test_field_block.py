"""Field blocks say what the strict parser says, and the memory of them stays small."""

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdn.wire.errors import RequestError
from cdn.wire.field_block import MOST_LINES, FieldMemory, TwiceSeen, read_head
from cdn.wire.request_head import parse_head

LINES = [
    b"Host: a.example",
    b"Host: A.example:80",
    b"Host: b.example:8080",
    b"Host:",
    b"host: [::1]",
    b'User-Agent: quote " and \xe9',
    b"user-agent: another",
    b"Cookie: a=b",
    b"Cookie: c=d",
    b"Cookie:",
    b"Referer: http://a.example/",
    b"Referer: /b",
    b"Connection: keep-alive",
    b"Connection: Keep-Alive",
    b"Connection: close",
    b"Connection: cookie",
    b"Content-Length: 0",
    b"Content-Length: x",
    b"Transfer-Encoding: chunked",
    b"Expect: 100-continue",
    b"Upgrade: h2c",
    b"Range: bytes=0-1",
    b"Range: bytes=0-0",
    b"Range: bytes=1-0",
    b"Range: bytes=2-",
    b"Range: bytes=0-1,3-4",
    b'If-None-Match: "a"',
    b"Cache-Control: no-cache",
    b"X-Tab:\t x \t",
    b" folded",
    b"No colon",
    b"Space : before",
    b"Bare\rcr: x",
    b"Bare\nlf: x",
    b"Nul: \x00",
    b": no name",
    b"",
]
REQUEST_LINES = [
    b"GET / HTTP/1.1",
    b"GET /a?b#c HTTP/1.1",
    b'HEAD /a%20b" HTTP/1.1',
    b"GET /a b HTTP/1.1",
    b"GET http://c.example/ HTTP/1.1",
    b"GET /a HTTP/1.0",
    b"GET /a HTTP/1.2",
    b"get /a HTTP/1.1",
    b"POST /a HTTP/1.1",
    b"OPTIONS * HTTP/1.1",
    b"GET /\xe9 HTTP/1.1",
]


def judged(read) -> object:
    """What comes of a head: all that the connection goes by, or the refusal."""
    try:
        head = read()
    except RequestError as fault:
        return fault.status, fault.reason, fault.detail
    request = head.request
    return (
        (request.method, request.scheme, request.authority, request.target, request.version),
        request.fields.lines,
        {name: request.fields.get(name) for name in request.fields.names()},
        (head.content_length, head.chunked, head.keep_alive, head.expects_continue),
    )


MEMORY = FieldMemory()


@given(
    line=st.sampled_from(REQUEST_LINES),
    lines=st.lists(st.sampled_from(LINES) | st.just(LINES[0]), max_size=6),
    scheme=st.sampled_from(["http", "https"]),
)
def test_a_head_is_what_the_strict_parser_says(line, lines, scheme):
    raw = b"\r\n".join([line, *lines, b"", b""])
    end = raw.find(b"\r\n")

    def remembered():
        return read_head(raw, end, MEMORY.block(raw[end + 2 :]), scheme)

    expected = judged(lambda: parse_head(raw, scheme))
    for _ in range(3):  # read, read and remembered, remembered
        assert judged(remembered) == expected


@pytest.mark.parametrize(
    "line", [b"Content-Length: 1", b"Transfer-Encoding: chunked", b"Connection: close", b"TE: x"]
)
def test_what_frames_or_ends_is_left_to_the_strict_parser(line):
    block = b"Host: a.example\r\n" + line + b"\r\n\r\n"
    assert FieldMemory().block(block) is None


@pytest.mark.parametrize(
    ("wanted", "part"),
    [
        (b"0-0", (0, 0)),
        (b"5-9", (5, 9)),
        (b"7-", (7, None)),
        (b"9-5", None),
        (b"-5", None),
        (b"1-2,4-5", None),
        (b"1-2\r\nRange: bytes=3-4", None),
        (b"1-2\r\nrange: bytes=3-4", None),
        (b"\xe9-2", None),
    ],
)
def test_blocks_differ_in_the_range_they_want(wanted, part):
    memory = FieldMemory()
    blocks = [
        memory.block(
            b'Host: a.example\r\nIf-Range: "a"\r\nRange: bytes=%s\r\nCookie: a\r\n\r\n' % asked
        )
        for asked in (b"0-0", wanted, wanted)
    ]
    for block in blocks[1:]:
        assert block.part == part
        assert (block.narrowing == blocks[0].narrowing) is (part is not None)
        values = wanted.decode("latin-1").lower().replace("\r\nrange: ", ", ")
        assert block.fields.get("range") == f"bytes={values}"
        assert block.fields.get("if-range") == '"a"'


def test_a_block_is_the_same_object_at_its_third_sight():
    memory, raw = FieldMemory(), b"Host: a.example\r\nAccept: */*\r\n\r\n"
    memory.block(raw)
    second = memory.block(raw)
    assert memory.block(raw) is second


def test_a_flood_of_new_fields_drives_out_nothing_that_is_used():
    memory, warm = FieldMemory(1 << 20), b"Host: a.example\r\nAccept: */*\r\n\r\n"
    memory.block(warm)
    kept = memory.block(warm)
    for number in range(20_000):
        raw = b"Host: a.example\r\nX-New: %d\r\n\r\n" % number
        for _ in range(2):
            assert memory.block(raw) is not None
        if number % 50 == 0:
            assert memory.block(warm) is kept


def test_the_memory_keeps_to_its_bytes():
    budget = 2 << 20
    memory = FieldMemory(budget)
    memory.block(b"Host: a.example\r\n\r\n")
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for number in range(20_000):
        raw = b"Host: a.example\r\nAccept: */*\r\nX-New: %d%s\r\n\r\n" % (number, b"x" * 300)
        memory.block(raw)
        memory.block(raw).fields.get("accept")
    held = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    seen = 2 * 65_536 * 70  # digests of what was seen once
    assert budget / 2 < held < 2 * budget + seen


def test_what_is_seen_once_is_not_kept():
    memory: TwiceSeen[str] = TwiceSeen(1 << 20, 100)
    memory.offer(b"a", "a")
    assert memory.get(b"a") is None
    memory.offer(b"a", "a")
    assert memory.get(b"a") == "a"


def test_a_head_full_of_cookies_is_read_as_any_other():
    lines = [b"Host: a.example", *[b"Cookie: a"] * 39]
    block = FieldMemory().block(b"\r\n".join([*lines, b"", b""]))
    assert block.fields.get("cookie") == ", ".join(["a"] * 39)
    assert FieldMemory().block(b"\r\n".join([*lines, *[b"Cookie: "] * 3000, b"", b""])) is None


def test_a_client_of_its_own_is_told_from_others():
    memory = FieldMemory()
    block = None
    for number in range(3):
        own = b"Cookie: %d\r\nAccept: */*\r\nReferer: /%d\r\n\r\n" % (number, number)
        block = memory.block(b"Host: a.example\r\nUser-Agent: b\r\n" + own)
        assert (block.said.referer, block.said.user_agent) == (f"/{number}", "b")
        assert block.fields.get("cookie") == f"{number}"
        names = [name for name, _ in block.fields]
        assert names == ["Host", "User-Agent", "Cookie", "Accept", "Referer"]


@pytest.mark.parametrize("name", [b"Cookie", b"Referer", b"Forwarded"])
@pytest.mark.parametrize("size", [1030, 4000])
def test_a_long_line_of_its_own_can_be_read(name, size):
    memory = FieldMemory()
    block = memory.block(b"Host: a.example\r\n%b: %b\r\n\r\n" % (name, b"a" * size))
    assert block is not None
    assert block.fields.get(name.decode().lower()) == "a" * size


def test_heads_of_many_lines_keep_to_the_bytes_too():
    budget = 2 << 20
    memory = FieldMemory(budget)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for number in range(3000):
        lines = [b"Host: a.example", *[b"X-%d: %d" % (n, 100 * number + n) for n in range(39)]]
        raw = b"\r\n".join([*lines, b"", b""])
        for _ in range(3):
            assert memory.block(raw) is not None
            memory.block(raw).fields.get("accept")
    held = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    seen = 2 * 65_536 * 70  # digests of what was seen once
    assert held < 2 * budget + seen


def test_a_head_of_very_many_lines_is_for_all_the_rules():
    lines = [b"Host: a.example", *[b"X: a"] * MOST_LINES, b"", b""]
    assert FieldMemory().block(b"\r\n".join(lines)) is None
