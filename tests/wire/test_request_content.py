"""Chunks to the letter (RFC 9112 §7.1), whatever the reads that bring them."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdn.upstream.errors import RequestContentFailed
from cdn.wire.errors import RequestError
from cdn.wire.request_content import DISCARDED, HELD, ChunkedDecoder, RequestContent


def decode(*reads: bytes) -> tuple[bytes, bytes, bool]:
    decoder = ChunkedDecoder()
    content, rest = b"", b""
    for read in reads:
        if decoder.done:
            rest += read
            continue
        pieces, rest = decoder.feed(read)
        content += b"".join(pieces)
    return content, rest, decoder.done


@given(
    st.lists(st.binary(min_size=1, max_size=40), max_size=6),
    st.binary(max_size=30),
    st.lists(st.integers(0, 400), max_size=8),
)
def test_any_split_gives_the_same_content_and_the_same_rest(chunks, behind, cuts):
    stream = b"".join(b"%X;a=b\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)
    stream += b"00\r\nX-Sum: 1\r\n\r\n" + behind
    edges = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    reads = [stream[a:b] for a, b in pairwise(edges)]
    assert decode(*reads) == (b"".join(chunks), behind, True)


@pytest.mark.parametrize(
    "stream",
    [
        b"x\r\n",
        b"\r\n",
        b" 1\r\na\r\n",
        b"1 \r\na\r\n",
        b"+1\r\na\r\n",
        b"0x1\r\na\r\n",
        b"1\na\n",
        b"1\r\nab\r\n",
        b"1\r\na\n",
        b"1;\x00\r\na\r\n",
        b"1;a\rb\r\na\r\n",
        b"1;" + b"a" * 1100,
        b"1" * 16 + b"\r\n",
        b"0\r\nno colon\r\n\r\n",
        b"0\r\nX : a\r\n\r\n",
        b"1;" + b"\r\na\r\n1;".join([b"e" * 1000] * 18) + b"\r\n",
        b"0\r\n" + b"X: " + b"\r\nX: ".join([b"e" * 1000] * 18) + b"\r\n",
    ],
)
def test_malformed_chunks_are_refused(stream):
    with pytest.raises(RequestError) as caught:
        decode(stream)
    assert caught.value.status == 400
    with pytest.raises(RequestError):
        decode(*(stream[i : i + 1] for i in range(len(stream))))


async def test_content_is_read_in_order_and_what_follows_is_given_back():
    content = RequestContent(5, "192.0.2.1", lambda: None)
    assert content.feed(b"ab") == b""
    assert content.feed(b"cdeGET") == b"GET"
    assert content.complete
    assert [piece async for piece in content] == [b"ab", b"cde"]


async def test_a_reader_is_told_that_the_rest_will_not_come():
    content = RequestContent(5, "192.0.2.1", lambda: None)
    content.feed(b"ab")
    content.fail("the client closed")
    assert await anext(content) == b"ab"
    with pytest.raises(RequestContentFailed, match=r"192\.0\.2\.1: the client closed"):
        await anext(content)


async def test_malformed_chunks_reach_the_reader_too():
    content = RequestContent(None, "192.0.2.1", lambda: None)
    with pytest.raises(RequestError):
        content.feed(b"nonsense\r\n")
    with pytest.raises(RequestContentFailed, match="not hexadecimal"):
        await anext(content)


async def test_it_says_when_it_holds_enough_and_when_it_wants_more():
    wants = []
    content = RequestContent(10 * HELD, "192.0.2.1", lambda: wants.append(content.full))
    content.feed(bytes(HELD))
    assert content.full
    await anext(content)
    assert wants == [False]


async def test_only_little_is_worth_discarding():
    assert RequestContent(DISCARDED, "c", lambda: None).worth_discarding
    assert not RequestContent(DISCARDED + 1, "c", lambda: None).worth_discarding
    content = RequestContent(None, "c", lambda: None)
    content.discard()
    content.feed(b"%x\r\n" % DISCARDED + bytes(DISCARDED) + b"\r\n")
    assert content.worth_discarding
    content.feed(b"1\r\na\r\n")
    assert not content.worth_discarding
    with pytest.raises(RequestContentFailed, match="after the answer's end"):
        await anext(content)
