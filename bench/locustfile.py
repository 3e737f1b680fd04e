"""Load as viewers make it: locust -f bench/ --headless -u 50 -r 50 -t 20s --host http://EDGE

Strategy: four kinds of viewer of the demo's site, each checking what it is given: status, length,
Content-Range. locust imports every file in this directory, the micro-benchmarks too; it takes its
users from here, and nothing works at import.
"""

import random
from itertools import accumulate

from locust import FastHttpUser, between, task
from locust.contrib.fasthttp import ResponseContextManager

from cdn.demo.site import ASSETS, KIB, MIB, PAGES, PLAYLIST, SEGMENTS, VIDEO

# Zipf with exponent 0.9: what edges of CDNs see of web objects.
ZIPF = list(accumulate(1 / rank**0.9 for rank in range(1, len(ASSETS) + 1)))
SIZE_OF_SEGMENT = {segment.path: segment.size for segment in SEGMENTS}


def check(response: ResponseContextManager, status: int, size: int | None = None) -> bool:
    """Whether the response has this status and as many bytes; locust counts it a failure if not."""
    got = len(response.content or b"")
    # Few different messages: locust's table of errors has a line for each.
    if response.status_code == 0:
        response.failure(f"no whole response: {response.error}")
    elif response.status_code != status:
        response.failure(f"status {response.status_code}, expected {status}")
    elif size is not None and got != size:
        response.failure(f"content {'cut short' if got < size else 'too long'}")
    else:
        response.success()
        return True
    return False


class WebVisitor(FastHttpUser):
    """Opens a page, then the assets that everybody wants, and some that few do."""

    weight = 5
    wait_time = between(0.05, 0.2)

    @task(1)
    def page(self) -> None:
        with self.client.get(random.choice(PAGES), name="web page", catch_response=True) as page:
            check(page, 200)

    @task(9)
    def asset(self) -> None:
        (asset,) = random.choices(ASSETS, cum_weights=ZIPF)
        with self.client.get(asset.path, name="web asset (Zipf)", catch_response=True) as answer:
            check(answer, 200, asset.size)


class HlsViewer(FastHttpUser):
    """Follows the playlist from its first segment to its last, and watches again."""

    weight = 2
    wait_time = between(0.2, 0.5)

    def on_start(self) -> None:
        self.queue: list[str] = []

    @task
    def watch(self) -> None:
        if not self.queue:
            self.follow()
        else:
            path = self.queue.pop(0)
            with self.client.get(path, name="HLS segment", catch_response=True) as segment:
                check(segment, 200, SIZE_OF_SEGMENT[path])

    def follow(self) -> None:
        with self.client.get(PLAYLIST, name="HLS playlist", catch_response=True) as playlist:
            if not check(playlist, 200):
                return
            folder = PLAYLIST.rpartition("/")[0]
            lines = (playlist.text or "").splitlines()
            self.queue = [f"{folder}/{line}" for line in lines if not line.startswith("#")]
            if self.queue != list(SIZE_OF_SEGMENT):
                playlist.failure(f"the playlist names {len(self.queue)} segments, not the film's")
                self.queue = []


class Seeker(FastHttpUser):
    """Jumps about in the video: a range somewhere, sometimes the tail where players look first."""

    weight = 1
    wait_time = between(0.2, 0.5)

    @task(4)
    def seek(self) -> None:
        start = random.randrange(VIDEO.size)
        stop = min(VIDEO.size, start + random.randrange(64 * KIB, MIB))
        self.ranged("video seek (Range)", f"{start}-{stop - 1}", start, stop)

    @task(1)
    def tail(self) -> None:
        self.ranged("video tail (Range)", f"-{64 * KIB}", VIDEO.size - 64 * KIB, VIDEO.size)

    def ranged(self, name: str, spec: str, start: int, stop: int) -> None:
        fields = {"Range": f"bytes={spec}"}
        with self.client.get(VIDEO.path, headers=fields, name=name, catch_response=True) as part:
            if not check(part, 206, stop - start):
                return
            got = part.headers.get("Content-Range")
            expected = f"bytes {start}-{stop - 1}/{VIDEO.size}"
            if got != expected:
                part.failure(f"Content-Range {got!r}, expected {expected!r}")


class ReturningVisitor(FastHttpUser):
    """Has the popular assets in the browser's cache, and asks whether they have changed."""

    weight = 2
    wait_time = between(0.05, 0.2)

    def on_start(self) -> None:
        self.kept: dict[str, str] = {}

    @task
    def visit(self) -> None:
        (asset,) = random.choices(ASSETS, cum_weights=ZIPF)
        if self.kept.get(asset.path):
            self.revisit(asset.path, self.kept[asset.path])
            return
        with self.client.get(asset.path, name="first visit", catch_response=True) as answer:
            if check(answer, 200, asset.size):
                self.kept[asset.path] = answer.headers.get("ETag", "")

    def revisit(self, path: str, etag: str) -> None:
        fields, name = {"If-None-Match": etag}, "revisit (304)"
        with self.client.get(path, headers=fields, name=name, catch_response=True) as answer:
            check(answer, 304, 0)
