"""Answers that leave together: none is lost, overtaken or written to who is gone."""

import asyncio

import pytest

from cdn.wire import outbox
from tests.gateway.gateway_kit import HOST, site, storable
from tests.kit import Reply


class Line:
    """A connection, and what was written to it."""

    def __init__(self) -> None:
        self.closing = False
        self.outgoing = None
        self.transport = self
        self.written = []

    def write(self, data):
        self.written.append(data)

    def writelines(self, pieces):
        self.written.extend(pieces)


async def test_they_leave_at_the_end_of_the_turn_in_their_order():
    box, one, two = outbox.Outbox(), Line(), Line()
    box.put(one, b"a", b"")
    box.put(two, b"b", b"c")
    box.put(one, b"d", b"")
    assert one.written == two.written == []
    assert one.outgoing is two.outgoing is box
    await asyncio.sleep(0)
    assert (one.written, two.written) == ([b"a", b"d"], [b"b", b"c"])
    assert one.outgoing is two.outgoing is None


async def test_not_too_many_wait():
    box, line = outbox.Outbox(), Line()
    for _ in range(outbox.MOST + 1):
        box.put(line, b"a", b"")
    assert len(line.written) == outbox.MOST
    box.flush()
    assert len(line.written) == outbox.MOST + 1


async def test_who_is_gone_is_written_nothing():
    box, gone, here = outbox.Outbox(), Line(), Line()
    box.put(gone, b"a", b"")
    box.put(here, b"b", b"")
    gone.closing = True
    box.flush()
    assert (gone.written, here.written) == ([], [b"b"])


async def test_one_that_cannot_be_written_to_takes_nobodys_answer_along(caplog):
    box, broken, here = outbox.Outbox(), Line(), Line()
    aborted, told = [], []
    broken.write = None
    broken.abort = lambda: aborted.append(True)
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    box.put(broken, b"a", b"")
    box.put(here, b"b", b"")
    box.flush()
    assert here.written == [b"b"]
    assert here.outgoing is broken.outgoing is None
    assert aborted == [True]
    assert isinstance(told[0]["exception"], TypeError)


async def _hot(at, *targets) -> None:
    for target in targets:
        await at.get(target)
        await at.get(target)


@pytest.mark.parametrize("tail", ["miss", "refused", "close", "last", "film"])
async def test_what_is_pipelined_behind_hot_answers_does_not_overtake_them(tail):
    async with site() as at:
        small, large = b"s" * 100, b"l" * 30_000
        at.origin.on("/small", storable(small))
        at.origin.on("/large", storable(large))
        at.origin.on("/film", storable(b"f" * 300_000))
        at.origin.on("/miss", Reply(content=b"missed"))
        await _hot(at, "/small", "/large", "/film")
        line = "GET %s HTTP/1.1\r\nHost: www.example.com\r\n%s\r\n"
        asked = [line % (target, "") for target in ("/small", "/large", "/small")]
        expected = [small, large, small]
        match tail:
            case "miss":
                asked.append(line % ("/miss", ""))
                expected.append(b"missed")
            case "refused":
                asked.append("GET /\x01 HTTP/1.1\r\n\r\n")
            case "close":
                asked.append(line % ("/small", "Connection: close\r\n"))
                expected.append(small)
            case "film":
                asked.append(line % ("/film", ""))
                expected.append(b"f" * 300_000)
        async with await at.open() as client:
            await client.send("".join(asked).encode("latin-1"))
            for content in expected:
                assert (await client.read_response()).content == content
            if tail == "refused":
                assert (await client.read_response()).status == 400


async def test_a_client_that_ends_its_side_gets_what_was_found_for_it():
    async with site() as at:
        at.origin.on("/a", storable(b"a" * 20_000))
        await _hot(at, "/a")
        async with await at.open() as client:
            await client.send(b"GET /a HTTP/1.1\r\nHost: www.example.com\r\n\r\n")
            client.writer.write_eof()
            assert (await client.read_response()).content == b"a" * 20_000


@pytest.mark.parametrize("end", ["close_if_idle", "eof_received", "linger"])
async def test_an_end_in_the_same_turn_comes_after_the_answer(end):
    async with site() as at:
        at.origin.on("/a", storable(b"a" * 20_000))
        await _hot(at, "/a")
        async with await at.open() as client:
            await client.get("/a", [HOST])
            (connection,) = at.edge.node.server._rim.connections
            connection.data_received(b"GET /a HTTP/1.1\r\nHost: www.example.com\r\n\r\n")
            assert connection.outgoing is not None
            getattr(connection, end)()
            assert (await client.read_response()).content == b"a" * 20_000
            assert await client.read_to_close() == b""
