"""What is cut short stays so and is never stored; what is one viewer's stays one viewer's."""

import asyncio
import contextlib
from hashlib import sha256

import pytest
import pytest_asyncio

from tests.kit import Gate, Pattern, RawClient, Received, Reply, ScriptedOrigin, get
from tests.scenarios.running import SHIELDS, small_cdn

pytestmark = pytest.mark.asyncio(loop_scope="module")

FILM = Pattern(2 << 20)
FRESH = ("Cache-Control", "public, max-age=3600")


@contextlib.asynccontextmanager
async def _cdn(directory, shields):
    async with ScriptedOrigin() as origin:
        edges = ("edge-a", "edge-b")
        async with small_cdn(directory, origin.url, shields=shields, edges=edges) as cdn:
            yield origin, [edge.url for edge in cdn.edges.values()]


@pytest_asyncio.fixture(
    loop_scope="module", scope="module", params=[(), SHIELDS], ids=["edges", "edges and shields"]
)
async def cdn(request, tmp_path_factory):
    """An origin, and the URLs of two edges before it or before two shields."""
    async with _cdn(tmp_path_factory.mktemp("cdn"), request.param) as parts:
        yield parts


# -- truncation


@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
@pytest.mark.parametrize("validators", [[], [("ETag", '"film"')]], ids=["no ETag", "strong ETag"])
async def test_half_a_film_is_a_broken_transfer_and_the_next_request_asks_again(
    cdn, framing, reset, validators
):
    origin, (edge, _) = cdn
    path = f"/half/{framing}-{reset}-{len(validators)}"
    whole = Reply(fields=[FRESH, *validators], content=FILM, framing=framing)
    half = Reply(
        fields=whole.fields, content=FILM, framing=framing, cut_after=FILM.length // 2, reset=reset
    )
    broken = True

    def film(_) -> Reply:
        return half if broken else whole

    origin.on(path, film)
    for _ in range(2):
        before = origin.count(path)
        got = await get(edge + path)
        assert got.status == 200
        assert not got.complete
        assert FILM.verify(0, got.content)
        assert len(got.content) <= FILM.length // 2
        assert origin.count(path) > before

    broken, before = False, origin.count(path)
    got = await get(edge + path)
    assert (got.complete, got.content) == (True, FILM.read(0, FILM.length))
    # Not exactly one more: what a node had begun to read ahead for the broken ones may still come.
    assert (asked := origin.count(path)) > before
    got = await get(edge + path)
    assert (got.complete, got.content) == (True, FILM.read(0, FILM.length))
    assert origin.count(path) == asked


# -- privacy

DATE = ("Last-Modified", "Mon, 01 Jan 2024 00:00:00 GMT")
SESSION = ("Set-Cookie", "issued to {}")
VARY = ("Vary", "Cookie, Authorization")
PRIVATE = ("Cache-Control", "private, max-age=3600")

ANSWERS = {
    "nothing said": [],
    "a date, and Vary": [DATE, VARY],
    "Set-Cookie": [SESSION],
    "Set-Cookie and a date": [SESSION, DATE],
    "private": [PRIVATE],
    "private and Set-Cookie": [PRIVATE, SESSION],
    "no-store": [("Cache-Control", "no-store")],
    "no-cache": [("Cache-Control", "no-cache")],
    "Vary": [("Cache-Control", "max-age=3600"), VARY],
    "Vary and public": [FRESH, VARY],
    "Vary, public and Set-Cookie": [FRESH, VARY, SESSION],
    "Vary: *": [FRESH, ("Vary", "*")],
}
"""Fields of responses that are not for everybody."""

UNLESS_AUTHORIZED = {
    "fresh": [("Cache-Control", "max-age=3600")],
    "fresh and Set-Cookie": [("Cache-Control", "max-age=3600"), SESSION],
    "a date": [DATE],
}
"""For everybody, cookies or not, unless the request had Authorization (RFC 9111 §3.5)."""

CREDENTIALS = {
    "Cookie": lambda who: [("Cookie", f"session={who}")],
    "Authorization": lambda who: [("Authorization", f"Bearer {who}")],
    "both": lambda who: [("Cookie", f"session={who}"), ("Authorization", f"Bearer {who}")],
}
CASES = [
    *((answer, credentials) for answer in ANSWERS for credentials in CREDENTIALS),
    *(
        (answer, credentials)
        for answer in UNLESS_AUTHORIZED
        for credentials in ("Authorization", "both")
    ),
]
VIEWERS = ("alice", "bob")


def own(fields) -> str:
    """What a request with these fields should be answered."""
    given = dict(fields)
    return f"{given.get('Cookie')} {given.get('Authorization')}"


def account(fields, gate=None, tagged=False):
    """A script that answers each viewer its own, with an honest ETag where it is `tagged`."""

    def reply(request) -> Reply:
        mine = own(request.fields)
        tag = [("ETag", f'"{sha256(mine.encode()).hexdigest()}"')] if tagged else []
        lines = [(name, value.format(mine)) for name, value in fields]
        content = mine.encode()
        return Reply(fields=[*lines, *tag], content=content, gate=gate, honours_conditions=True)

    return reply


async def ask_all_at_once(edges: list[str], path: str, fields_of) -> list[tuple[str, Received]]:
    """Each viewer three times at each edge, concurrently; the answers with whose they are."""

    async def ask(edge: str, who: str) -> tuple[str, Received]:
        # X-Viewer is nothing to any cache: it tells the origin who asks in truth.
        fields = [("Host", "bank.example"), ("X-Viewer", who), *fields_of(who)]
        async with await RawClient.connect(edge) as client:
            return who, await client.get(path, fields)

    asking = (ask(edge, who) for _ in range(3) for who in VIEWERS for edge in edges)
    return await asyncio.gather(*asking)


@pytest.mark.parametrize("tagged", [False, True], ids=["no ETag", "ETag"])
@pytest.mark.parametrize(("answer", "credentials"), CASES)
async def test_two_viewers_never_see_each_others_answers(cdn, answer, credentials, tagged):
    origin, edges = cdn
    path = f"/account/{CASES.index((answer, credentials))}-{tagged}"
    fields_of, gate = CREDENTIALS[credentials], Gate()
    origin.on(path, account((ANSWERS | UNLESS_AUTHORIZED)[answer], gate, tagged))

    crowd = asyncio.ensure_future(ask_all_at_once(edges, path, fields_of))
    await gate.reached()
    gate.open()
    for answers in (await crowd, await ask_all_at_once(edges, path, fields_of)):
        for who, got in answers:
            assert (got.status, got.complete) == (200, True)
            mine = own(fields_of(who))
            assert got.content.decode() == mine
            assert got.field("Set-Cookie") in (None, f"issued to {mine}")

    asked = [request for request in origin.requests if request.path == path]
    for request in asked:
        assert own(request.fields) == own(fields_of(request.field("x-viewer")))


async def test_what_was_made_for_one_with_credentials_is_not_for_one_without(cdn):
    origin, edges = cdn
    origin.on("/statement", account(UNLESS_AUTHORIZED["fresh"]))
    anybody, alice = [("Host", "bank.example")], ("Authorization", "Bearer alice")
    for edge in edges:
        assert (await get(f"{edge}/statement", [*anybody, alice])).content == b"None Bearer alice"
    for edge in edges:
        assert (await get(f"{edge}/statement", anybody)).content == b"None None"
