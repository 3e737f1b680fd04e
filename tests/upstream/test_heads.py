"""Heads that are read line by line: what is known of their lines without looking again."""

import pytest

from cdn.semantics.message import LINE_WEIGHT, Fields
from cdn.upstream.heads import read_plain_head

OPENING = b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\nConnection: keep-alive\r\n"


@pytest.mark.parametrize(
    "lines",
    [
        b'ETag: "v1"\r\nLast-Modified: Thu, 01 Jan 2026 00:00:00 GMT',
        b"X-Empty:\r\nX-Wide  :   a \t\r\nX-Odd: \xe9",
        b"Age: 7\r\nVia: 1.1 other\r\nCache-Status: other; hit",
    ],
)
def test_the_size_of_a_heads_lines_is_what_they_weigh(lines):
    fields = read_plain_head(OPENING + lines).head.fields
    assert fields.weight == Fields(fields.lines).weight
    texts = sum(map(len, sum(fields.lines, ())))
    assert fields.weight == texts + LINE_WEIGHT * len(fields.lines)
