"""Slices: what is fetched of a large object, what of it is kept, and who waits together for it."""

import asyncio

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.gateway.gateway_kit import ETAG, FRESH, MIB, site, tiers
from tests.kit import Gate, Pattern, Reply

pytestmark = pytest.mark.usefixtures("both_stores")

FILM = Pattern(8 * MIB + 1000)
SLICES = [(n * MIB, min((n + 1) * MIB, len(FILM))) for n in range(9)]


def film(content=FILM, etag=ETAG, **rest) -> Reply:
    return Reply(fields=[FRESH, etag], content=content, honours_ranges=True, **rest)


def ranged(start, stop) -> tuple[str, str]:
    return "Range", f"bytes={start}-{stop - 1}"


def asked(cdn) -> list[str | None]:
    """The ranges that the origin was asked for."""
    return [request.field("range") for request in cdn.origin.requests]


def of_slices(*numbers) -> list[str]:
    return [ranged(*SLICES[number])[1] for number in numbers]


async def at_rest(cdn) -> None:
    async with asyncio.timeout(5):
        while tasks := cdn.edge.node.background._tasks:
            await asyncio.wait(set(tasks))


async def kept(cdn) -> list[int]:
    """What is stored when all that is under way has ended."""
    await at_rest(cdn)
    (stored,) = cdn.stored()
    present = stored.response.present
    return list(range(9)) if present is None else list(present.numbers())


async def expect(cdn, start, stop) -> str:
    """Asks for bytes [start, stop) and checks them; what Cache-Status says."""
    answer = await cdn.get("/a", ranged(start, stop))
    assert (answer.status, answer.complete) == (206, True)
    assert answer.content == FILM.read(start, stop)
    assert answer.field("content-range") == f"bytes {start}-{stop - 1}/{len(FILM)}"
    return answer.field("cache-status")


# --- what is fetched and kept ---------------------------------------------------------------------


async def test_a_range_fetches_the_slices_that_it_touches_and_no_more():
    async with site() as cdn:
        cdn.origin.on("/a", film())
        status = await expect(cdn, 5 * MIB + 10, 5 * MIB + 20)
        assert status == "edge-a; fwd=uri-miss; fwd-status=206; stored"
        assert asked(cdn) == of_slices(5)
        assert await expect(cdn, 5 * MIB, 6 * MIB) == "edge-a; hit; ttl=300"
        status = await expect(cdn, 5 * MIB + 5, 7 * MIB + 1)
        assert status == "edge-a; fwd=partial; fwd-status=206; stored"
        assert asked(cdn) == of_slices(5, 6, 7)
        assert cdn.origin.requests[-1].field("if-range") == '"v1"'
        assert await kept(cdn) == [5, 6, 7]


async def test_edge_and_shield_each_keep_what_came_and_the_origin_sends_it_once():
    async with tiers() as cdn:
        cdn.origin.on("/a", film())
        for start, stop in [(3 * MIB - 5, 3 * MIB + 5), (MIB, 4 * MIB), (0, len(FILM)), (7, 9)]:
            await expect(cdn, start, stop)
        assert sorted(asked(cdn)) == sorted(of_slices(*range(9)))
        whole = await cdn.get("/a")
        assert (whole.status, whole.content) == (200, FILM.read(0, len(FILM)))
        assert cdn.origin.count() == 9


async def test_a_download_that_was_broken_off_goes_on_from_what_there_is():
    gate = Gate(after=3 * MIB + 5)
    async with site() as cdn:
        cdn.origin.on("/a", [film(gate=gate), film()])
        client = await cdn.ask("/a")
        answer, got = await client.read_head(), 0
        async for piece in answer:
            got += len(piece)
            if got == 3 * MIB + 5:
                break
        client.close()
        async with asyncio.timeout(5):
            while cdn.edge.node.gateway.filling.counters.abandoned == 0:
                await asyncio.sleep(0)
        assert await kept(cdn) == [0, 1, 2]
        again = await cdn.get("/a")
        assert (again.status, again.complete) == (200, True)
        assert again.content == FILM.read(0, len(FILM))
        assert asked(cdn) == [None, *of_slices(3, 4, 5, 6, 7, 8)]
        assert await kept(cdn) == list(range(9))


async def test_several_ranges_of_what_is_there_in_part():
    async with site() as cdn:
        cdn.origin.on("/a", film())
        await expect(cdn, 4 * MIB, 4 * MIB + 1)
        answer = await cdn.get("/a", ("Range", f"bytes=0-9,{4 * MIB}-{4 * MIB + 9},-5"))
        assert answer.status == 206
        boundary = answer.field("content-type").partition("; boundary=")[2].encode()
        parts = answer.content.split(b"\r\n--" + boundary)
        bodies = [part.partition(b"\r\n\r\n")[2] for part in parts[1:4]]
        wanted = [(0, 10), (4 * MIB, 4 * MIB + 10), (len(FILM) - 5, len(FILM))]
        assert bodies == [FILM.read(*one) for one in wanted]
        assert asked(cdn) == of_slices(4, 0, 8)


async def test_several_ranges_of_what_nobody_knows():
    async with site() as cdn:
        cdn.origin.on("/a", film())
        answer = await cdn.get("/a", ("Range", f"bytes=5-9,{6 * MIB}-{6 * MIB + 9}"))
        assert answer.status == 206
        assert FILM.read(6 * MIB, 6 * MIB + 10) in answer.content
        assert asked(cdn) == of_slices(0, 6)


@pytest.mark.parametrize(
    ("wanted", "status", "requests"),
    [
        ("bytes=" + ",".join(f"{n}-{n}" for n in range(0, 40, 2)), 200, 8),
        (f"bytes={2**63}-", 416, 1),
        (f"bytes={2**70}-{2**80}", 416, 1),
        (f"bytes=0-{2**64}", 206, 8),
        (f"bytes=-{2**70}", 206, 8),
        ("bytes=-0", 416, 1),
        ("bytes=5-4", 200, 8),
    ],
)
async def test_abuse_and_great_numbers(wanted, status, requests):
    async with site() as cdn:
        cdn.origin.on("/a", film())
        await expect(cdn, MIB, 2 * MIB)
        answer = await cdn.get("/a", ("Range", wanted))
        assert answer.status == status
        assert answer.complete
        if status != 416:
            assert answer.content == FILM.read(0, len(FILM))
        else:
            assert answer.field("content-range") == f"bytes */{len(FILM)}"
        assert cdn.origin.count() == 1 + requests


async def test_what_lies_beyond_the_end_of_what_nobody_knows():
    async with site() as cdn:
        cdn.origin.on("/a", film())
        answer = await cdn.get("/a", ("Range", f"bytes={9 * MIB}-"))
        assert answer.status == 416
        assert answer.field("content-range") == f"bytes */{len(FILM)}"
        answer = await cdn.get("/a", ("Range", f"bytes={8 * MIB + 2000}-"))
        assert (answer.status, await kept(cdn)) == (416, [8])


async def test_a_suffix_of_what_nobody_knows_is_kept_and_its_slices_later_too():
    async with site() as cdn:
        cdn.origin.on("/a", film())
        answer = await cdn.get("/a", ("Range", f"bytes=-{2 * MIB}"))
        assert answer.content == FILM.read(len(FILM) - 2 * MIB, len(FILM))
        assert asked(cdn) == [f"bytes=-{2 * MIB}"]
        assert await expect(cdn, len(FILM) - 9, len(FILM)) == "edge-a; hit; ttl=300"
        await expect(cdn, 0, 10)
        assert await kept(cdn) == [0, 7, 8]
        assert asked(cdn)[1:] == of_slices(0)


async def test_a_small_object_is_whole_when_its_first_slice_has_come():
    async with site() as cdn:
        cdn.origin.on("/a", film(content=b"0123456789"))
        assert (await cdn.get("/a", ("Range", "bytes=2-4"))).content == b"234"
        answer = await cdn.get("/a")
        assert (answer.status, answer.content) == (200, b"0123456789")
        assert answer.field("cache-status") == "edge-a; hit; ttl=300"
        assert asked(cdn) == of_slices(0)


# --- who waits together ---------------------------------------------------------------------------


@pytest.mark.parametrize("known", [True, False])
async def test_many_at_one_place_cost_one_request(known):
    gate = Gate()
    async with tiers() as cdn:
        cdn.origin.on("/a", film())
        if known:
            await expect(cdn, 0, 10)
        cdn.origin.on("/a", film(gate=gate))
        clients = [await cdn.ask("/a", ranged(6 * MIB + n, 6 * MIB + n + 9)) for n in range(20)]
        await cdn.all_joined(20)
        gate.open()
        answers = [await client.read_response() for client in clients]
        for n, answer in enumerate(answers):
            assert answer.content == FILM.read(6 * MIB + n, 6 * MIB + n + 9)
        assert asked(cdn)[-1:] == of_slices(6)
        assert cdn.origin.count() == 1 + known
        for client in clients:
            client.close()


async def test_who_seeks_ahead_of_a_stream_has_it_fetched_and_the_stream_ends_there():
    gate = Gate(after=MIB // 2)
    async with site() as cdn:
        cdn.origin.on("/a", [film(gate=gate), film()])
        async with await cdn.ask("/a") as first:
            answer = await first.read_head()
            await expect(cdn, 5 * MIB, 6 * MIB)
            assert asked(cdn) == [None, *of_slices(5)]
            gate.open()
            whole = await answer.read()
            assert (whole.complete, whole.content) == (True, FILM.read(0, len(FILM)))
        assert asked(cdn) == [None, *of_slices(5, 6, 7, 8)]
        assert await kept(cdn) == list(range(9))


async def test_who_wants_what_a_stream_soon_brings_waits_for_it():
    gate = Gate(after=MIB // 2)
    async with site() as cdn:
        cdn.origin.on("/a", film(gate=gate))
        async with await cdn.ask("/a") as first:
            answer = await first.read_head()
            async with await cdn.ask("/a", ranged(MIB + 5, MIB + 9)) as second:
                await cdn.all_joined(2)
                gate.open()
                assert (await second.read_response()).content == FILM.read(MIB + 5, MIB + 9)
            assert (await answer.read()).content == FILM.read(0, len(FILM))
        assert asked(cdn) == [None]


async def test_a_slice_is_finished_when_its_reader_has_gone():
    gate = Gate(after=MIB // 2)
    async with site() as cdn:
        cdn.origin.on("/a", film(gate=gate))
        client = await cdn.ask("/a", ranged(0, 3 * MIB))
        answer = await client.read_head()
        await anext(aiter(answer))
        client.close()
        gate.open()
        assert 0 in await kept(cdn)


# --- what cannot be put together ------------------------------------------------------------------


async def test_another_version_drops_the_old_slices_and_starts_over_once():
    new = Pattern(8 * MIB + 1000, seed=7)
    async with site() as cdn:
        cdn.origin.on("/a", film())
        await expect(cdn, 0, 2 * MIB)
        cdn.origin.on("/a", film(content=new, etag=("ETag", '"v2"')))
        answer = await cdn.get("/a", ranged(MIB, 4 * MIB))
        assert (answer.status, answer.field("etag")) == (206, '"v2"')
        assert answer.content == new.read(MIB, 4 * MIB)
        answer = await cdn.get("/a", ranged(0, MIB))
        assert answer.content == new.read(0, MIB)


async def test_another_version_while_content_is_on_its_way_breaks_off():
    """RFC 9112 §8: the client sees that it has not had all; what it had was all of one version."""
    new = Pattern(8 * MIB + 1000, seed=7)
    gate = Gate(after=MIB // 2)
    async with site() as cdn:
        changed = film(content=new, etag=("ETag", '"v2"'))
        cdn.origin.on("/a", [film(gate=gate), film(), changed])
        async with await cdn.ask("/a", ranged(0, 4 * MIB)) as client:
            answer = await client.read_head()
            gate.open()
            got = await answer.read()
        assert not got.complete
        assert FILM.verify(0, got.content)
        answer = await cdn.get("/a", ranged(0, 10))
        assert answer.content == new.read(0, 10)


async def test_an_origin_that_does_no_ranges_is_asked_for_the_whole_once():
    async with site() as cdn:
        cdn.origin.on("/a", Reply(fields=[FRESH, ETAG], content=FILM))
        await expect(cdn, 3 * MIB, 4 * MIB)
        assert cdn.edge.node.gateway.filling.counters.abandoned == 1
        await expect(cdn, 7 * MIB, 8 * MIB)  # little is missing then: it is finished
        assert asked(cdn) == [*of_slices(3), None]
        assert await kept(cdn) == list(range(9))
        whole = await cdn.get("/a")
        assert whole.content == FILM.read(0, len(FILM))
        assert cdn.origin.count() == 2


@pytest.mark.parametrize("validator", [("ETag", 'W/"v1"'), ("X-None", "")])
async def test_without_a_strong_validator_nothing_is_put_together(validator):
    """RFC 9111 §3.4"""
    async with site() as cdn:
        cdn.origin.on("/a", film(etag=validator))
        await expect(cdn, 10, 20)
        await expect(cdn, MIB - 5, MIB + 5)  # near: by way of the whole
        await at_rest(cdn)
        await expect(cdn, 6 * MIB, 6 * MIB + 5)  # far: as it is
        assert asked(cdn) == [*of_slices(0), None, f"bytes={6 * MIB}-{6 * MIB + 4}"]


async def test_what_may_not_be_stored_is_handed_down_as_it_came():
    async with site() as cdn:
        fields = [("Cache-Control", "private"), ETAG, ("Age", "40"), ("Via", "1.1 other")]
        cdn.origin.on("/a", Reply(fields=fields, content=FILM, honours_ranges=True))
        answer = await cdn.get("/a", ranged(5, 10))
        assert (answer.status, answer.content) == (206, FILM.read(5, 10))
        assert (answer.field("age"), answer.field("via")) == ("40", "1.1 other, 1.1 edge-a")
        assert answer.field("cache-status").endswith("fwd-status=206; detail=private")
        assert cdn.origin.count() == 1
        # It is known now that nothing is to be gained: it goes up as it is.
        await expect(cdn, MIB - 5, MIB + 5)
        assert asked(cdn)[1:] == [ranged(MIB - 5, MIB + 5)[1]]


async def test_a_part_that_is_not_the_one_asked_for_is_no_slice():
    async with site() as cdn:
        odd = Reply(206, [FRESH, ETAG, ("Content-Range", "bytes 5-9/5000000")], content=b"56789")
        cdn.origin.on("/a", [odd, film()])
        await expect(cdn, 5, 10)
        assert asked(cdn) == [*of_slices(0), None]


async def test_a_slice_that_breaks_off_is_asked_for_again():
    async with site() as cdn:
        cdn.origin.on("/a", [film(), film(cut_after=1000), film()])
        await expect(cdn, 0, 1)
        await expect(cdn, MIB, 2 * MIB)
        assert asked(cdn) == of_slices(0, 1, 1)


async def test_an_origin_that_always_breaks_off_is_not_asked_for_ever():
    async with site() as cdn:
        cdn.origin.on("/a", [film(), film(cut_after=0)])
        await expect(cdn, 0, 1)
        answer = await cdn.get("/a", ranged(MIB, 2 * MIB))
        assert not answer.complete
        assert cdn.origin.count() <= 5


async def test_a_stale_part_is_validated_by_the_slice_that_is_fetched_for_it():
    """RFC 9111 §3.4: the fields of the newest count for all that is put together."""
    async with site() as cdn:
        cdn.origin.on("/a", film())
        await expect(cdn, 0, MIB)
        cdn.clock.advance(400)
        status = await expect(cdn, MIB - 5, MIB + 5)
        assert status == "edge-a; fwd=partial; fwd-status=206; stored"
        assert await expect(cdn, 0, MIB) == "edge-a; hit; ttl=300"
        assert cdn.origin.count() == 2


async def test_a_revalidation_for_a_range_does_not_bring_the_whole_of_another_version():
    """RangeAmp: nobody has asked for more than a slice."""
    swr = ("Cache-Control", "max-age=300, stale-while-revalidate=600")
    gate, new = Gate(after=2 * MIB), Pattern(8 * MIB + 1000, seed=7)
    async with site() as cdn:
        cdn.origin.on("/a", Reply(fields=[swr, ETAG], content=FILM, honours_ranges=True))
        await expect(cdn, 0, MIB)
        changed = Reply(fields=[swr, ("ETag", '"v2"')], content=new, gate=gate)
        cdn.origin.on("/a", [changed, film(content=new, etag=("ETag", '"v2"'))])
        cdn.clock.advance(400)
        assert "hit" in await expect(cdn, 0, MIB)
        await at_rest(cdn)
        gate.open()
        assert not cdn.origin.requests[1].finished
        answer = await cdn.get("/a", ranged(0, 10))
        assert (answer.content, answer.field("etag")) == (new.read(0, 10), '"v2"')


async def test_a_purge_takes_all_slices_and_those_on_their_way():
    gate = Gate()
    async with site() as cdn:
        cdn.origin.on("/a", film())
        await expect(cdn, 0, MIB)
        cdn.origin.on("/a", [film(gate=gate), film()])
        async with await cdn.ask("/a", ranged(MIB, MIB + 9)) as client:
            await cdn.all_joined(1)
            assert cdn.edge.node.gateway.purge("http://www.example.com/a") == 1
            gate.open()
            assert (await client.read_response()).content == FILM.read(MIB, MIB + 9)
        assert cdn.stored() == ()
        assert "uri-miss" in await expect(cdn, 0, MIB)


async def test_a_head_is_answered_from_what_there_is():
    async with site() as cdn:
        cdn.origin.on("/a", film())
        await expect(cdn, 0, 1)
        head = await cdn.get("/a", method="HEAD")
        assert (head.status, head.field("content-length")) == (200, str(len(FILM)))
        assert cdn.origin.count() == 1


@pytest.mark.parametrize("condition", [("If-None-Match", '"v1"'), ("If-Match", '"v2"')])
async def test_a_condition_that_leaves_no_content_to_send_needs_none(condition):
    async with site() as cdn:
        cdn.origin.on("/a", film())
        await expect(cdn, 0, 1)
        status = 304 if condition[0] == "If-None-Match" else 412
        for fields in ([condition], [condition, ranged(5 * MIB, 6 * MIB)]):
            assert (await cdn.get("/a", *fields)).status == status
        assert cdn.origin.count() == 1


# --- reading ahead --------------------------------------------------------------------------------


async def test_who_asks_in_a_row_finds_the_next_slice_there():
    async with site() as cdn:
        cdn.origin.on("/a", film())
        await expect(cdn, 0, MIB)
        assert await kept(cdn) == [0]  # one range is no row
        await expect(cdn, MIB, 2 * MIB)
        assert await kept(cdn) == [0, 1, 2]
        assert await expect(cdn, 2 * MIB, 3 * MIB) == "edge-a; hit; ttl=300"
        assert await kept(cdn) == [0, 1, 2, 3]
        await expect(cdn, 6 * MIB, 7 * MIB)  # a seek
        assert await kept(cdn) == [0, 1, 2, 3, 6]
        for start in range(7, 9):
            await expect(cdn, start * MIB, min((start + 1) * MIB, len(FILM)))
        assert asked(cdn) == of_slices(0, 1, 2, 3, 6, 7, 8)


async def test_a_row_of_small_ranges_costs_no_more_than_two_slices_above():
    async with site() as cdn:
        cdn.origin.on("/a", film())
        start = MIB // 2 + 1000
        had = 0
        for at in range(start, 6 * MIB, 300_000):
            await expect(cdn, at, at + 300_000)
            had += 300_000
            await at_rest(cdn)
            assert sum(map(_length, asked(cdn))) <= had + 2 * MIB
        assert cdn.origin.count() == 7


# --- how much the origin sends --------------------------------------------------------------------

POSITION = st.integers(0, len(FILM) - 1)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(POSITION, st.integers(1, 3 * MIB)), min_size=1, max_size=6))
def test_the_origin_sends_no_more_than_the_clients_had_and_two_slices_each(ranges):
    """RangeAmp: never more than the slices that are touched, and none of them twice."""

    async def play():
        async with site() as cdn:
            cdn.origin.on("/a", film())
            touched = set()
            for start, length in ranges:
                before = len(cdn.origin.requests)
                stop = min(start + length, len(FILM))
                await expect(cdn, start, stop)
                touched |= set(range(start // MIB, (stop - 1) // MIB + 1))
                sent = sum(map(_length, asked(cdn)[before:]))
                assert sent <= stop - start + 2 * MIB
            there = await kept(cdn)
            fetched = [int(one[6:].partition("-")[0]) // MIB for one in asked(cdn)]
            assert sorted(fetched) == there
            # Who asked in a row has the next slice fetched, too.
            assert touched <= set(there) <= touched | {number + 1 for number in touched}

    asyncio.run(play())


def _length(wanted: str) -> int:
    first, last = wanted.removeprefix("bytes=").split("-")
    return int(last) - int(first) + 1


async def test_who_stops_reading_has_the_origin_send_no_more():
    gate = Gate(after=100)
    content = Pattern(64 * MIB)
    async with site() as cdn:
        cdn.origin.on("/a", [Reply(fields=[FRESH, ETAG], content=content, honours_ranges=True)])
        client = await cdn.ask("/a", ("Range", "bytes=0-"))
        answer = await client.read_head()
        await anext(aiter(answer))
        client.close()
        gate.open()
        async with asyncio.timeout(5):
            while cdn.joined():
                await asyncio.sleep(0)
        # What lies in the sockets between here and there has been sent, and no more.
        assert cdn.origin.count() < 16
