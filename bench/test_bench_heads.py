"""A head never seen before beside what any head costs that nobody remembers: the strict parse.

Strategy: the same browser's head, each time with something of its own; `parse alone` has the same
heads. `make bench` compares them (`bench.steps.CLAIMS`).
"""

import itertools

import pytest

from bench.test_bench_fastpath import FIELDS, LINE
from cdn.wire.field_block import FieldMemory, read_head
from cdn.wire.request_head import parse_head

END = len(LINE) - 2
UNIQUE = {
    "cookie": b"Cookie: session=%d\r\n\r\n",
    "referer": b"Referer: http://films.example/%d\r\n\r\n",
    "field": b"X-Request-Id: %d\r\n\r\n",
    "etag": b'If-None-Match: "%d"\r\n\r\n',
}


def heads(kind: str):
    """Without end, no two alike."""
    before, after = LINE + FIELDS, UNIQUE[kind]
    return (before + after % number for number in itertools.count())


@pytest.mark.parametrize("kind", UNIQUE)
def test_parse_alone(benchmark, kind):
    fresh = heads(kind)
    assert benchmark(lambda: parse_head(next(fresh), "http")).keep_alive


@pytest.mark.parametrize("kind", UNIQUE)
def test_never_seen(benchmark, kind):
    memory, fresh = FieldMemory(), heads(kind)

    def read():
        raw = next(fresh)
        return read_head(raw, END, memory.block(raw[END + 2 :]), "http")

    assert benchmark(read).keep_alive
