"""Unsafe methods and purges: what is outdated is gone before the answer goes down."""

import asyncio

import pytest

from tests.gateway.gateway_kit import site, storable
from tests.kit import Gate, Pattern, Reply, get

POST = {"method": "POST", "content": b"form"}


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
async def test_a_successful_unsafe_method_removes_its_target(method):
    async with site() as cdn:
        cdn.origin.on("/a", storable(b"old"))
        await cdn.get("/a")
        assert cdn.stored()
        answer = await cdn.get("/a", method=method, content=b"form")
        assert answer.status == 200
        assert answer.field("cache-status") == "edge-a; fwd=method"
        assert cdn.stored() == ()
        assert bytes(cdn.origin.requests[1].content) == b"form"
        assert cdn.edge.node.gateway.counters.invalidated == 1


@pytest.mark.parametrize("status", [201, 204, 303])
@pytest.mark.parametrize("name", ["Location", "Content-Location"])
async def test_and_what_it_names_on_the_same_origin(status, name):
    async with site() as cdn:
        for target in ("/a", "/b", "/c"):
            cdn.origin.on(target, storable(target.encode()))
            await cdn.get(target)
        await get(f"{cdn.edge.url}/b", [("Host", "other.example")])
        cdn.origin.on("/a", Reply(status, [(name, "b")]))
        await cdn.get("/a", **POST)
        assert (cdn.stored("/a"), cdn.stored("/b")) == ((), ())
        assert cdn.stored("/c")
        cdn.origin.on("/a", Reply(status, [(name, "http://other.example/b")]))
        await cdn.get("/a", **POST)
        assert cdn.stored("/b", host="other.example")


@pytest.mark.parametrize("reply", [Reply(400), Reply(500), Reply(disconnect=True)])
async def test_an_error_removes_nothing(reply):
    async with site() as cdn:
        cdn.origin.on("/a", storable(b"old"))
        await cdn.get("/a")
        cdn.origin.on("/a", reply)
        await cdn.get("/a", **POST)
        assert (await cdn.get("/a")).content == b"old"


async def test_safe_methods_remove_nothing():
    async with site() as cdn:
        cdn.origin.on("/a", storable(b"old"))
        await cdn.get("/a")
        await cdn.get("/a", method="OPTIONS")
        await cdn.get("/a", method="HEAD")
        assert cdn.stored()


async def test_a_large_post_streams_up_and_its_answer_comes_down():
    content = Pattern(3 << 20).read(0, 3 << 20)
    async with site() as cdn:
        cdn.origin.on("/a", lambda request: Reply(content=bytes(request.content[-10:])))
        answer = await cdn.get("/a", method="POST", content=content)
        assert answer.content == content[-10:]
        assert bytes(cdn.origin.requests[0].content) == content
        assert cdn.origin.requests[0].field("content-length") == str(len(content))


async def test_a_get_with_content_is_for_the_origin_alone():
    async with site() as cdn:
        cdn.origin.on("/a", storable(b"stored"))
        await cdn.get("/a")
        cdn.origin.on("/a", lambda request: storable(bytes(request.content)))
        answer = await cdn.get("/a", content=b"query")
        assert answer.content == b"query"
        assert answer.field("cache-status") == "edge-a; fwd=bypass"
        assert (await cdn.get("/a")).content == b"stored"


async def test_what_was_on_its_way_before_a_post_is_not_stored():
    gate = Gate(after=3)
    async with site() as cdn:
        cdn.origin.on(
            "/a",
            lambda request: (
                Reply(204) if request.method == "POST" else storable(b"before", gate=gate)
            ),
        )
        async with await cdn.ask("/a") as client:
            await gate.reached()
            await cdn.get("/a", **POST)
            gate.open()
            assert (await client.read_response()).content == b"before"
        assert cdn.stored() == ()


# -- purge


async def test_a_purge_removes_every_variant_of_the_url_alone():
    async with site() as cdn:
        vary = ("Vary", "Accept-Language")
        cdn.origin.on("/a", storable(b"content", vary))
        for language in ("ja", "en"):
            await cdn.get("/a", ("Accept-Language", language))
        await cdn.get("/a?q", ("Accept-Language", "ja"))
        gateway = cdn.edge.node.gateway
        assert gateway.purge("HTTP://WWW.Example.com:80/a#top") == 2
        assert cdn.stored() == ()
        assert cdn.stored("/a?q")
        assert gateway.purge("http://www.example.com/a") == 0
        assert gateway.counters.purged == 2


async def test_a_purge_that_names_nothing_says_so():
    async with site() as cdn:
        with pytest.raises(ValueError, match="not an absolute"):
            cdn.edge.node.gateway.purge("/a")


async def test_a_purge_ends_hit_for_miss():
    async with site() as cdn:
        cdn.origin.on("/a", [Reply(fields=[("Cache-Control", "private")]), storable(b"x")])
        await cdn.get("/a")
        filling = cdn.edge.node.gateway.filling
        assert filling.judge.marked(b"http://www.example.com/a")
        cdn.edge.node.gateway.purge("http://www.example.com/a")
        assert not filling.judge.marked(b"http://www.example.com/a")


@pytest.mark.parametrize("after", [None, 3], ids=["before the head", "in the content"])
async def test_what_began_before_a_purge_is_not_stored_and_takes_no_new_followers(after):
    gate = Gate(after=after)
    async with site() as cdn:
        cdn.origin.on("/a", [storable(b"before", gate=gate), storable(b"since")])
        old = await cdn.ask("/a")
        await gate.reached()
        cdn.edge.node.gateway.purge("http://www.example.com/a")
        assert (await cdn.get("/a")).content == b"since"
        gate.open()
        assert (await old.read_response()).content == b"before"
        old.close()
        await asyncio.sleep(0)
        assert cdn.stored_content() == b"since"


async def test_a_validation_that_began_before_a_purge_brings_nothing_back():
    gate = Gate()
    async with site() as cdn:
        again = storable(b"old", honours_conditions=True, gate=gate)
        cdn.origin.on("/a", [storable(b"old"), again, storable(b"new")])
        await cdn.get("/a")
        cdn.clock.advance(400)
        client = await cdn.ask("/a")
        await gate.reached()
        cdn.edge.node.gateway.purge("http://www.example.com/a")
        gate.open()
        await client.read_response()
        client.close()
        assert cdn.stored() == ()
        assert (await cdn.get("/a")).content == b"new"


async def test_a_purge_ends_what_was_only_finished_for_the_store():
    gate = Gate(after=10)
    async with site() as cdn:
        cdn.origin.on("/a", storable(b"x" * 20, gate=gate))
        client = await cdn.ask("/a")
        await client.read_head()
        client.close()
        async with asyncio.timeout(5):
            while cdn.joined():
                await asyncio.sleep(0)
        assert len(cdn.edge.node.gateway.filling._flights) == 1
        cdn.edge.node.gateway.purge("http://www.example.com/a")
        async with asyncio.timeout(5):
            await cdn.origin.requests[0].over.wait()
        assert not cdn.origin.requests[0].finished


@pytest.mark.parametrize("how", ["purge", "location", "group"])
async def test_a_part_asked_for_before_a_purge_is_not_kept(how):
    gate = Gate()
    grouped = ("Cache-Groups", '"g"')
    async with site() as cdn:
        old = storable(b"old", grouped, gate=gate)
        cdn.origin.on("/a", [old, storable(b"new")])
        names = [("Location", "/a"), ("Cache-Group-Invalidation", '"g"')]
        cdn.origin.on("/b", Reply(fields=names[:1] if how == "location" else names[1:]))
        asking = asyncio.create_task(cdn.get("/a", ("Range", "bytes=-2")))
        await gate.reached()
        if how == "purge":
            cdn.edge.node.gateway.purge("http://www.example.com/a")
        else:
            await cdn.get("/b", **POST)
        gate.open()
        await asking
        assert (await cdn.get("/a")).content == b"new"
