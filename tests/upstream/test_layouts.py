"""Heads known as a whole: the same is read of them as line by line, or nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdn.semantics.outline import OutlinedFields
from cdn.upstream import heads, layouts
from cdn.upstream.heads import read_plain_head
from cdn.upstream.layouts import SIGHTS, Layouts

USUAL = (
    "Server: nginx",
    "Date: Thu, 01 Jan 2026 00:00:{0:02d} GMT",
    "Content-Type: text/plain",
    "Content-Length: {0}",
    "Last-Modified: Wed, 31 Dec 2025 00:00:{0:02d} GMT",
    "Connection: keep-alive",
    'ETag: "{0}"',
    "Cache-Control: max-age=60",
)
OF_A_SHIELD = (
    *USUAL[1:5],
    "Expires: Thu, 01 Jan 2026 00:01:{0:02d} GMT",
    "Age: {0}",
    "Via: 1.1 shield",
    "Cache-Status: shield; hit; ttl={0}",
)


@pytest.fixture(autouse=True)
def new(monkeypatch):
    """Nothing is known of any head."""
    monkeypatch.setattr(heads, "_lines", {})
    monkeypatch.setattr(heads, "_layouts", Layouts())


def head(lines, number):
    return "\r\n".join(["HTTP/1.1 200 OK", *lines]).format(number).encode("latin-1")


def by_line(data):
    return heads._read_by_line(data)


def learnt(lines):
    """Reads such heads until they are known; returns how many it took."""
    for number in range(40):
        if isinstance(read_plain_head(head(lines, number)).head.fields, OutlinedFields):
            return number
    return None


def same(one, other):
    assert (one is None) == (other is None)
    if one is not None:
        assert one == other
        assert one.head.fields.by_name() == other.head.fields.by_name()


@pytest.mark.parametrize("lines", [USUAL, OF_A_SHIELD], ids=["origin's", "shield's"])
def test_a_head_that_came_a_few_times_is_known(lines):
    assert learnt(lines) == SIGHTS + 1  # of the first, the lines were new
    data = head(lines, 41)
    known = read_plain_head(data)
    assert isinstance(known.head.fields, OutlinedFields)
    same(known, by_line(data))
    assert known.length == 41
    assert known.head.fields.weight < by_line(data).head.fields.weight / 2


def test_what_every_node_writes_itself_is_not_relayed():
    assert learnt(OF_A_SHIELD)
    known = read_plain_head(head(OF_A_SHIELD, 41))
    assert b"Age" not in known.relayed
    assert b"Via" not in known.relayed
    assert b"Cache-Status" not in known.relayed
    assert b"Expires: Thu, 01 Jan 2026 00:01:41 GMT\r\n" in known.relayed
    assert known.head.fields.get("age") == "41"


@pytest.mark.parametrize(
    ("line", "instead"),
    [
        (3, "Content-Length: 1 "),
        (3, "Content-Length: +1"),
        (3, "Content-Length: " + "1" * 19),
        (3, "content-length: 1"),
        (3, "Content-Length:1"),
        (6, "ETag:  spaces before"),
        (6, "ETag: \t"),
        (6, "ETag: "),
        (6, 'ETag: "\xe9"'),
        (6, 'ETag: "a\rb"'),
        (6, 'ETag: "a"\r\nETag: "b"'),
        (5, "Connection: close"),
        (5, "Transfer-Encoding: chunked"),
        (2, "Content-Type: text/html"),
        (2, "Content-Type text/html"),
        (2, "Date: Thu, 01 Jan 2026 00:00:00 GMT"),
        (7, "Cache-Control: max-age=60\r\nX-More: 1"),
    ],
)
def test_one_that_differs_in_more_is_read_as_if_nothing_were_known(line, instead):
    assert learnt(USUAL)
    data = head((*USUAL[:line], instead, *USUAL[line + 1 :]), 41)
    expected = by_line(data)
    read = read_plain_head(data)
    same(read, expected)
    assert read is None or not isinstance(read.head.fields, OutlinedFields)


def test_another_status_is_another_head():
    assert learnt(USUAL)
    data = head(USUAL, 41)
    assert read_plain_head(data.replace(b"200 OK", b"404 OK")) is None
    assert read_plain_head(data.replace(b"HTTP/1.1", b"HTTP/1x1")) is None


def test_a_percent_sign_is_one():
    lines = (*USUAL, "X-Share: 100%d %% %b")
    assert learnt(lines)
    assert b"X-Share: 100%d %% %b\r\n" in read_plain_head(head(lines, 41)).relayed
    data = head(USUAL, 41).replace(b'"41"', b'"%b"')
    assert b'ETag: "%b"\r\n' in read_plain_head(data).relayed


def test_a_line_that_is_always_new_leaves_a_head_unknown():
    assert learnt((*USUAL, "X-Request-Id: {0}")) is None
    assert heads._layouts._order == []


def test_two_layouts_in_turn_are_both_known():
    assert learnt(USUAL)
    assert learnt(OF_A_SHIELD)
    for number in range(4):
        for lines in (USUAL, OF_A_SHIELD):
            data = head(lines, number)
            assert isinstance(read_plain_head(data).head.fields, OutlinedFields)
            same(read_plain_head(data), by_line(data))


def test_outlines_are_so_many_at_most(monkeypatch):
    monkeypatch.setattr(layouts, "MOST_OUTLINES", 3)
    kinds = [(*USUAL, f"X-Kind: {kind}") for kind in range(4)]
    for lines in kinds:
        assert learnt(lines)
    known = heads._layouts
    assert sum(len(layout.outlines) for layout in known._order) == 1 == known._known
    assert learnt(kinds[0])


def test_layouts_are_so_many_at_most(monkeypatch):
    monkeypatch.setattr(layouts, "MOST_LAYOUTS", 2)
    kinds = [(*(f"X-{n}: 1" for n in range(kind)), *USUAL) for kind in range(3)]
    for lines in kinds:
        assert learnt(lines)
    assert len(heads._layouts._order) == len(heads._layouts._by_names) == 1
    assert learnt(kinds[0])


def test_sights_are_forgotten_before_they_are_too_many(monkeypatch):
    monkeypatch.setattr(layouts, "MOST_OUTLINES", 3)
    for kind in range(10):
        for number in range(3):
            read_plain_head(head((*USUAL, f"X-Kind: {kind}"), number))
    assert len(heads._layouts._sights) <= 3


ANY = st.lists(st.sampled_from([*USUAL, *OF_A_SHIELD, "x-odd :  a", "X-B: \xe9"]), unique=True)


@given(lines=ANY, number=st.integers(0, 59))
def test_whatever_the_lines(lines, number):
    for before in range(SIGHTS + 2):
        read_plain_head(head(lines, before))
    data = head(lines, number)
    same(read_plain_head(data), by_line(data))
