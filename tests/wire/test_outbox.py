"""Answers that leave together: none is lost, overtaken or written to who is gone."""

import asyncio

import pytest

from cdn.wire import outbox
from tests.gateway.gateway_kit import HOST, site, storable
from tests.kit import Reply
from tests.wire.rim_kit import until


class Line:
    """A connection, what was written to it, and what it was to see off. Its client takes what is
    not over `takes` bytes."""

    def __init__(self, takes: int = 9, tls: bool = False) -> None:
        self.closing = False
        self.outgoing = self.room = None
        self.tls = tls
        self.transport = self
        self.written = []
        self.late = []
        self._takes = takes

    def write(self, data):
        self.writelines((data,))

    def writelines(self, pieces):
        self.written.extend(pieces)
        if sum(map(len, pieces)) > self._takes:
            self.room = asyncio.get_running_loop().create_future()

    def see_off(self, given, *, begun=True):
        self.late.append((given, begun))


class Box(outbox.Outbox):
    """Notes what has left."""

    def __init__(self) -> None:
        self.gone = []
        super().__init__(self.gone.extend)


async def test_they_leave_at_the_end_of_the_turn_in_their_order():
    box, one, two = Box(), Line(), Line()
    box.put(one, b"a", b"", 1)
    box.put(two, b"b", b"c", 2)
    box.put(one, b"d", b"", 3)
    assert one.written == two.written == box.gone == []
    assert one.outgoing is two.outgoing is box
    await asyncio.sleep(0)
    assert (one.written, two.written) == ([b"a", b"d"], [b"b", b"c"])
    assert one.outgoing is two.outgoing is None
    assert box.gone == [1, 2, 3]


async def test_not_too_many_wait():
    box, line = Box(), Line()
    for number in range(outbox.MOST + 1):
        box.put(line, b"a", b"", number)
    assert len(line.written) == len(box.gone) == outbox.MOST
    box.flush()
    assert len(line.written) == len(box.gone) == outbox.MOST + 1


async def test_who_is_gone_is_written_nothing():
    box, gone, here = Box(), Line(), Line()
    box.put(gone, b"a", b"", 1)
    box.put(here, b"b", b"", 2)
    gone.closing = True
    box.flush()
    assert (gone.written, here.written) == ([], [b"b"])
    assert (gone.late, here.late, box.gone) == ([(1, False)], [], [2])


async def test_what_has_not_left_whole_is_seen_off():
    box, slow, here, tls = Box(), Line(takes=1), Line(), Line(takes=1, tls=True)
    box.put(slow, b"a", b"b", 1)
    box.put(here, b"a", b"b", 2)
    box.put(tls, b"a", b"b", 3)  # encrypted, it is not known
    box.flush()
    assert (slow.late, here.late, tls.late) == ([(1, True)], [], [])
    assert box.gone == [2, 3]


async def test_one_that_cannot_be_written_to_takes_nobodys_answer_along():
    box, broken, here, told = Box(), Line(), Line(), []
    broken.write = None
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    box.put(broken, b"a", b"", 1)
    box.put(here, b"b", b"", 2)
    box.flush()
    assert here.written == [b"b"]
    assert here.outgoing is broken.outgoing is None
    assert (broken.late, box.gone) == ([(1, False)], [2])
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


async def test_nor_does_it_lose_what_it_takes_slowly():
    async with site() as at:
        content = b"a" * 100_000
        at.origin.on("/a", storable(content))
        await _hot(at, "/a")
        server, asked = at.edge.node.server, 200
        async with await at.open() as client:
            client.writer.transport.pause_reading()
            await client.send(b"GET /a HTTP/1.1\r\nHost: www.example.com\r\n\r\n" * asked)
            await until(lambda: any(one.room is not None for one in server._rim.connections))
            client.writer.write_eof()
            client.writer.transport.resume_reading()
            received = await client.read_to_close()
        assert received.count(b"HTTP/1.1 200 OK") == received.count(content)
        assert at.edge.log[-1].complete


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


async def test_what_never_left_is_not_said_to_have():
    async with site() as at:
        at.origin.on("/a", storable(b"a" * 20_000))
        await _hot(at, "/a")
        before = at.edge.node.server.fast_answers
        async with await at.open() as client:
            await client.get("/a", [HOST])
            (connection,) = at.edge.node.server._rim.connections
            connection.data_received(b"GET /a HTTP/1.1\r\nHost: www.example.com\r\n\r\n")
            connection.abort()
            assert await client.read_to_close() == b""
        last = at.edge.log[-1]
        assert (last.outcome, last.complete, last.content_bytes) == ("hit", False, 0)
        assert at.edge.node.server.fast_answers == before + 1
