"""An operator edits a delivery service's file while viewers come and go."""

import asyncio
import contextlib
import json
import signal
from collections.abc import AsyncIterator
from itertools import count

from tests.kit import Counter, RawClient, Reply, ScriptedOrigin, get
from tests.scenarios.numbered import content_of
from tests.scenarios.running import SmallCdn, ask_admin, cdn_command, service_file, small_cdn

VIEWERS = 8
HOST = ("Host", "site.example")


def answers_as(name: str):
    def reply(request) -> Reply:
        fields = [
            ("Cache-Control", "max-age=3600"),
            ("CDN-Cache-Control", "max-age=3600"),
            ("X-Origin", name),
        ]
        return Reply(fields=fields, content=content_of(request.target))

    return reply


@contextlib.asynccontextmanager
async def two_origins() -> AsyncIterator[tuple[ScriptedOrigin, ScriptedOrigin]]:
    async with ScriptedOrigin() as old, ScriptedOrigin() as new:
        for origin, name in ((old, "old"), (new, "new")):
            for path in ("/hot", "/cold"):
                origin.on(path, answers_as(name))
        yield old, new


@contextlib.asynccontextmanager
async def load(edge: str) -> AsyncIterator[Counter]:
    """Viewers who ask for hot and cold objects, one after the other, for as long as the block
    lasts; counts answers. A wrong one fails the test."""
    answers, numbers, over = Counter("answers to viewers"), count(), asyncio.Event()

    async def view() -> None:
        async with await RawClient.connect(edge) as client:
            while not over.is_set():
                for target in ("/hot?n=1", f"/cold?viewer={next(numbers)}"):
                    got = await client.get(target, [HOST])
                    assert (got.status, got.complete) == (200, True), got
                    assert got.content == content_of(target)
                    answers.add()

    async with asyncio.TaskGroup() as viewers:
        for _ in range(VIEWERS):
            viewers.create_task(view())
        try:
            yield answers
        finally:
            over.set()


async def hang_up_all(cdn: SmallCdn, words: str) -> list[list[str]]:
    """SIGHUP to every node; the lines that each told from then to the one that has `words`."""
    told = []
    for node in (cdn.edges | cdn.shields).values():
        before = len(node.lines)
        node.signal(signal.SIGHUP)
        await node.told(words, after=before)
        told.append(node.lines[before:])
    return told


async def test_a_changed_file_holds_for_the_next_request_and_a_broken_one_changes_nothing(
    tmp_path,
):
    async with (
        two_origins() as (old, new),
        small_cdn(tmp_path, old.url, hosts="site.example") as cdn,
        load(cdn.edge.url) as answers,
    ):
        edge, numbers = cdn.edge.url, count()

        async def source_of_cold_objects() -> set[str | None]:
            targets = [f"/cold?test={next(numbers)}" for _ in range(20)]
            return {(await get(edge + t, [HOST])).field("X-Origin") for t in targets}

        await answers.reached(200)
        assert await source_of_cold_objects() == {"old"}
        assert (await get(f"{edge}/hot?n=1", [("Host", "new.example")])).status == 421

        cdn.service.write_text(
            service_file(
                new.url, "site.example, new.example", "cache:\n  relay_cdn_cache_control: false\n"
            )
        )
        await hang_up_all(cdn, "reload: ok")
        assert await source_of_cold_objects() == {"new"}
        assert (await get(f"{edge}/hot?n=1", [("Host", "new.example")])).status == 200
        # What was stored stays, and is delivered by the new rule.
        hot = await get(f"{edge}/hot?n=1", [HOST])
        assert hot.field("X-Origin") == "old"
        assert "edge-a; hit" in hot.field("Cache-Status")
        assert hot.field("CDN-Cache-Control") is None

        cdn.service.write_text(service_file("ftp://nobody"))
        for lines in await hang_up_all(cdn, "reload: nothing changed"):
            (line,) = lines
            assert f"{cdn.service}:3: origins[0]: " in line
        await answers.reached(answers.value + 200)
        assert await source_of_cold_objects() == {"new"}


async def test_cdn_reload_and_the_admin_api_say_the_same(tmp_path):
    async with two_origins() as (old, new), small_cdn(tmp_path, old.url, shields=()) as cdn:
        admin, place = cdn.admin("edge-a"), f"{cdn.service}:3: origins[0]: "

        cdn.service.write_text(service_file("ftp://nobody"))
        refused = await cdn_command("reload", "--admin", admin)
        assert refused.code == 1
        assert place in refused.out
        assert "nothing changed" in refused.out
        answer = await ask_admin(admin, "/v1/reload", method="POST")
        assert answer.status == 409
        report = json.loads(answer.content)
        assert report["ok"] is False
        assert [place in message for message in report["messages"]] == [True]
        assert (await get(f"{cdn.edge.url}/cold?n=1")).field("X-Origin") == "old"

        cdn.service.write_text(service_file(new.url))
        accepted = await cdn_command("reload", "--admin", admin)
        assert (accepted.code, accepted.out) == (0, "reloaded\n")
        assert (await get(f"{cdn.edge.url}/cold?n=2")).field("X-Origin") == "new"
        answer = await ask_admin(admin, "/v1/reload", method="POST")
        assert (answer.status, json.loads(answer.content)["ok"]) == (200, True)
