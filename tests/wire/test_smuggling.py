"""No request is answered that was not sent, however the bytes come (RFC 9112 §11.2)."""

import asyncio
import re
from itertools import pairwise

import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.wire.rim_kit import HOST, later, served

LAST = b"GET /last HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n"
REQUESTS = (
    b"GET /a HTTP/1.1\r\n" + HOST + b"Accept: */*\r\n\r\n",
    b"POST /b HTTP/1.1\r\n" + HOST + b"Content-Length: 27\r\n\r\nGET /hidden HTTP/1.1\r\nX: y\r\n",
    b"POST /c HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n"
    b"1b\r\nGET /hidden HTTP/1.1\r\nX: y\r\n\r\n0\r\n\r\n",
    b"HEAD /d HTTP/1.1\r\n" + HOST + b"Connection: upgrade\r\nUpgrade: x\r\n\r\n",
    b"GET http://b.example/e HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
)
STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")
examples = settings(max_examples=150, deadline=None)


@pytest.fixture(scope="module")
def runner():
    """One loop for all examples; hypothesis wants functions that return."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        yield runner


async def exchange_in(reads: list[bytes]) -> tuple[bytes, list[str]]:
    """What is answered to `reads`, sent one by one, and the targets that reached the handler."""
    async with served(later, linger=0.2, head=0.2) as site:
        async with site.client() as client:
            client.writer.transport.set_write_buffer_limits(0)
            try:
                for read in reads:
                    client.send(read)
                    await client.writer.drain()
                    await asyncio.sleep(0)
            except ConnectionError:
                pass
            received = await client.rest()
        return received, [report[0].request.target for report in site.finished if report[0]]


def split(stream: bytes, cuts: list[int]) -> list[bytes]:
    edges = sorted({0, len(stream), *(cut % len(stream) for cut in cuts)})
    return [stream[a:b] for a, b in pairwise(edges)]


@examples
@given(
    which=st.lists(st.sampled_from(REQUESTS), max_size=5),
    cuts=st.lists(st.integers(0, 2000), max_size=10),
)
def test_any_split_of_a_pipeline_gives_the_same_answers(runner, which, cuts):
    stream = b"".join(which) + LAST
    assert runner.run(exchange_in(split(stream, cuts))) == runner.run(exchange_in([stream]))


# Bytes with which parsers have been made to disagree.
BITS = st.sampled_from(
    [
        *(bytes([byte]) for byte in b"\r\n\t :,;\x00\x0b\x7f\x85\xa0\xff+0/#[]@"),
        b"\r\n",
        b"\r\n\r\n",
        b"\r\n ",
        b"Content-Length: 5\r\n",
        b"Content-Length: 0\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: identity\r\n",
        b"Transfer-Encoding : chunked\r\n",
        b"Host: c.example\r\n",
        b"Connection: upgrade, host\r\nUpgrade: h2c\r\n",
        b"Expect: 100-continue\r\n",
        b" HTTP/1.0",
        b"CONNECT ",
    ]
)


@examples
@given(
    request=st.sampled_from(REQUESTS),
    at=st.integers(0, 2000),
    drop=st.integers(0, 3),
    bits=st.lists(BITS, max_size=3),
)
def test_a_mutated_head_is_one_request_or_is_refused(runner, request, at, drop, bits):
    head, _, content = request.partition(b"\r\n\r\n")
    at %= len(head)
    mutated = head[:at] + b"".join(bits) + head[at + drop :] + b"\r\n\r\n" + content
    received, targets = runner.run(exchange_in([mutated + LAST]))
    statuses = [int(status) for status in STATUS.findall(received)]
    final = [status for status in statuses if status != 100]
    refused = [status for status in final if status >= 400]
    assert len(refused) <= 1
    assert refused == final[len(final) - len(refused) :]  # nothing is answered after a refusal
    # Each request that reached the handler has one answer, and each refusal none.
    assert len(final) - len(refused) <= len(targets) <= len(final)
    # What was content stays content, while the line that says so is there as it was sent.
    framing = re.search(rb"\r\n(Content-Length|Transfer-Encoding): .+", head)
    if framing and framing[0] + b"\r\n" in head[:at] + b"".join(bits) + head[at + drop :] + b"\r\n":
        assert "/hidden" not in targets
    if refused:
        assert "/last" not in targets
