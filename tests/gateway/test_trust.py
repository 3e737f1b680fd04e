"""Who is believed about whom, what goes up, and the node's own errors."""

import pytest

from cdn.gateway.own_answers import own_error
from tests.gateway.gateway_kit import HOST, settled, site, storable, tiers
from tests.kit import Gate, ManualClock, RawClient, Reply, ScriptedOrigin, get
from tests.kit.cdn_nodes import local_edge, local_shield

CLAIMS = [
    ("Forwarded", "for=192.0.2.1;proto=https;host=evil.example"),
    ("X-Forwarded-For", "192.0.2.1"),
    ("X-Forwarded-Proto", "https"),
    ("X-Forwarded-Port", "443"),
    ("X-Real-IP", "192.0.2.1"),
    ("CDN-Edge-Secret", "guess"),
]


# -- who is believed


async def test_a_viewers_claims_are_dropped_and_never_go_up():
    async with tiers() as cdn:
        cdn.origin.on("/a", storable())
        await cdn.get("/a", *CLAIMS)
        (request,) = cdn.origin.requests
        names = {name.lower() for name, _ in request.fields}
        assert not names & {name.lower() for name, _ in CLAIMS}
        assert request.field("host") == HOST[1]
        assert cdn.edge.log[0].client == "127.0.0.1"
        assert cdn.edge.log[0].scheme == "http"
        assert cdn.stored()  # under http, whatever the viewer says


async def test_a_shield_believes_its_edges_about_viewers():
    async with tiers() as cdn:
        cdn.origin.on("/a", storable())
        told = ("Forwarded", "for=evil;proto=http, for=198.51.100.7;proto=https;host=x")
        url = cdn.shield.url
        await get(f"{url}/a", [HOST, told])
        record = cdn.shield.log[0]
        assert record.client == "198.51.100.7"
        store = cdn.shield.node._store
        assert store.lookup(b"https://www.example.com/a")
        assert not store.lookup(b"http://www.example.com/a")


@pytest.mark.parametrize(("secret", "believed"), [("open-sesame", True), ("guess", False)])
async def test_a_shield_believes_who_knows_the_secret(tmp_path, secret, believed):
    file = tmp_path / "secret"
    file.write_text("open-sesame\n")
    file.chmod(0o600)
    edges = {"edges": {"secret_file": str(file)}}
    async with ScriptedOrigin() as origin, local_shield(origin.url, **edges) as shield:
        origin.on("/a", storable())
        told = [("Forwarded", 'for="[2001:db8::1]:5";proto=https'), ("CDN-Edge-Secret", secret)]
        await get(f"{shield.url}/a", [HOST, *told])
        assert shield.log[0].client == ("2001:db8::1" if believed else "127.0.0.1")
        assert origin.requests[0].field("cdn-edge-secret") is None
        await settled(shield)


# -- which host is asked for


async def test_host_goes_up_as_it_came():
    async with site() as cdn:
        cdn.origin.on("/a", Reply())
        for host in ("WWW.Example.com", "www.example.com:80", "www.example.com:8080"):
            await get(f"{cdn.edge.url}/a", [("Host", host)])
        hosts = [request.field("host") for request in cdn.origin.requests]
        assert hosts == ["WWW.Example.com", "www.example.com:80", "www.example.com:8080"]


async def test_an_absolute_form_wins_over_host():
    async with site() as cdn:
        cdn.origin.on("/a?b", storable())
        async with await RawClient.connect(cdn.edge.url) as client:
            await client.send(b"GET http://Www.Example.com/a?b HTTP/1.1\r\nHost: other\r\n\r\n")
            assert (await client.read_response()).status == 200
        (request,) = cdn.origin.requests
        assert (request.target, request.field("host").lower()) == ("/a?b", "www.example.com")
        assert cdn.stored("/a?b")


async def test_the_target_goes_up_byte_for_byte():
    target = "/%7Ea/./b/../c;d=%zz?x=%20&&y=#".rstrip("#")
    async with site() as cdn:
        cdn.origin.on(target, storable())
        await cdn.get(target)
        assert cdn.origin.requests[0].target == target


async def test_a_service_may_name_the_host_to_ask_for():
    clock = ManualClock()
    async with ScriptedOrigin() as origin:
        origin.on("/a", storable())
        service = {
            "name": "site",
            "hosts": ["www.example.com"],
            "origins": [origin.url],
            "origin_host": "bucket.example",
        }
        async with local_edge(services=[service], clock=clock) as edge:
            assert (await get(f"{edge.url}/a", [HOST])).status == 200
            assert origin.requests[0].field("host") == "bucket.example"
            hit = await get(f"{edge.url}/a", [HOST])
            assert hit.field("cache-status") == "edge-a; hit; ttl=300"
            refused = await get(f"{edge.url}/a", [("Host", "other.example")])
            assert refused.status == 421
            assert "error=destination_not_found" in refused.field("proxy-status")
            assert refused.field("cache-status") is None
            assert edge.log[2].outcome == ""
            with pytest.raises(ValueError, match=r"no delivery service is named 'other\.example'"):
                edge.node.gateway.purge("http://other.example/a")


# -- the node's own errors


async def test_without_a_host_nothing_is_asked():
    async with site() as cdn:
        async with await RawClient.connect(cdn.edge.url) as client:
            await client.send(b"GET /a HTTP/1.0\r\n\r\n")
            answer = await client.read_response()
        assert answer.status == 400
        assert answer.content.startswith(b"no Host")
        assert cdn.origin.count() == 0


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
async def test_an_upstream_that_refuses_is_a_502_that_nobody_stores(method):
    async with tiers() as cdn:
        cdn.origin.on("/a", storable(b"back"))
        await cdn.origin.close()
        content = b"x" if method == "POST" else None
        answer = await cdn.get("/a", method=method, content=content)
        assert answer.status == 502
        assert answer.field("cache-control") == "no-store"
        assert answer.field("proxy-status").startswith("shield-yokohama; error=connection_refused")
        assert answer.complete
        await cdn.origin.start()
        assert (await cdn.get("/a")).content == b"back"


async def test_a_slow_upstream_is_a_504():
    async with ScriptedOrigin() as origin:
        service = {
            "name": "site",
            "hosts": ["*"],
            "origins": [origin.url],
            "deadlines": {"first_byte": "50ms"},
        }
        origin.on("/a", Reply(interim=[(103, [])], gate=Gate()))
        async with local_edge(services=[service]) as edge:
            answer = await get(f"{edge.url}/a", [HOST])
            assert answer.status == 504
            assert "error=http_response_timeout" in answer.field("proxy-status")
            assert edge.log[0].outcome == ""
            await settled(edge)


async def test_when_every_shield_is_out_it_is_a_503_that_says_when_to_come_back():
    clock = ManualClock()
    async with ScriptedOrigin() as gone:
        url = gone.url
    async with local_edge(shields={"shield-yokohama": url}, clock=clock) as edge:
        for _ in range(6):  # from the first failure on, also before health has put it out
            answer = await get(f"{edge.url}/a", [HOST])
            assert answer.status == 503
            assert answer.field("retry-after") == "10"
            assert "error=destination_unavailable" in (answer.field("proxy-status") or "")
            assert answer.field("cache-status") is None
        assert "shield-yokohama keeps failing: out of service for 10 s" in edge.events.getvalue()
        await settled(edge)


def test_words_with_odd_characters_make_a_proper_field():
    answer = own_error("edge-a", 502, 'peer said "横\r\n\\浜"', 0.0)
    proxy_status = answer.head.fields.get("proxy-status")
    assert proxy_status == 'edge-a; details="peer said \\"???\\\\?\\""'
    assert answer.length == len(answer.content[0])
