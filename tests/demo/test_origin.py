"""The demo's files and the origin that serves them."""

import json
import re

import pytest

from cdn.demo import site
from cdn.demo.files import make_files
from cdn.demo.origin import COUNT, serve
from tests.kit import get


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    directory = tmp_path_factory.mktemp("site")
    make_files(directory)
    return directory


@pytest.fixture
async def origin(directory):
    origin = await serve("127.0.0.1", 0, directory)
    yield f"http://127.0.0.1:{origin.port}", origin
    await origin.close()


def content(directory, path):
    return (directory / path[1:]).read_bytes()


def test_the_site_is_what_its_map_says(directory):
    for page in (*site.ASSETS, *site.SEGMENTS, site.VIDEO):
        assert (directory / page.path[1:]).stat().st_size == page.size, page
    sizes = sorted(asset.size for asset in site.ASSETS)
    assert len({asset.path for asset in site.ASSETS}) == 200
    assert sizes[0] < 1024 < 10_000 < sizes[100] < 14_000 < 200_000 < sizes[-1]
    made = {f"/{file.relative_to(directory)}" for file in directory.rglob("*.*")}
    named = {*site.PAGES, "/index.html", site.PLAYLIST}
    assert made == named | {page.path for page in (*site.ASSETS, *site.SEGMENTS, site.VIDEO)}


def test_files_are_the_same_each_time(directory, tmp_path):
    make_files(tmp_path)
    for path in ("/index.html", site.PLAYLIST, site.ASSETS[3].path, site.SEGMENTS[1].path):
        assert content(tmp_path, path) == content(directory, path)
        assert (tmp_path / path[1:]).stat().st_mtime == (directory / path[1:]).stat().st_mtime


def test_no_two_stretches_of_the_film_are_equal(directory):
    film = content(directory, site.VIDEO.path)
    stretches = {film[at : at + site.MIB] for at in range(0, len(film), site.MIB)}
    assert len(stretches) == 64


def test_pages_and_playlist_name_only_what_is_there(directory):
    for page in ("/index.html", *site.PAGES):
        for link in re.findall(r'href="([^"]+)"', content(directory, page).decode()):
            assert (directory / link[1:]).is_file(), link
    lines = content(directory, site.PLAYLIST).decode().splitlines()
    segments = [f"/hls/{line}" for line in lines if not line.startswith("#")]
    assert segments == [segment.path for segment in site.SEGMENTS]
    assert (lines[0], lines[-1]) == ("#EXTM3U", "#EXT-X-ENDLIST")


async def test_everything_is_served_with_its_kind_and_lifetime(origin, directory):
    url, _ = origin
    cases = {
        "/": ("text/html; charset=utf-8", "public, max-age=10"),
        site.ASSETS[0].path: ("text/css; charset=utf-8", "public, max-age=3600"),
        site.PLAYLIST: ("application/vnd.apple.mpegurl", "public, max-age=2"),
        site.SEGMENTS[0].path: ("video/mp2t", "public, max-age=86400, immutable"),
    }
    for path, (media_type, cache_control) in cases.items():
        answer = await get(url + path)
        assert (answer.status, answer.complete) == (200, True)
        assert answer.content == content(directory, "/index.html" if path == "/" else path)
        assert answer.field("content-type") == media_type
        assert answer.field("cache-control") == cache_control
        assert answer.field("last-modified") == "Thu, 01 Jan 2026 00:00:00 GMT"
        assert re.fullmatch(r'"[^"]+"', answer.field("etag") or "")


async def test_conditions_and_head(origin):
    url, _ = origin
    page = site.ASSETS[1]
    first = await get(url + page.path, method="HEAD")
    assert (first.status, first.field("content-length")) == (200, str(page.size))
    for condition in (
        ("If-None-Match", first.field("etag")),
        ("If-Modified-Since", first.field("last-modified")),
    ):
        answer = await get(url + page.path, [condition])
        assert (answer.status, answer.content) == (304, b"")
        assert answer.field("cache-control") == "public, max-age=3600"
    ranged = await get(url + page.path, [("Range", "bytes=0-9")], method="HEAD")
    assert (ranged.status, ranged.field("content-length")) == (200, str(page.size))


@pytest.mark.parametrize(
    ("fields", "status", "slice_"),
    [
        ([("Range", "bytes=1000-1999")], 206, slice(1000, 2000)),
        ([("Range", "bytes=524000-")], 206, slice(524000, None)),
        ([("Range", "bytes=-10")], 206, slice(-10, None)),
        ([("Range", "bytes=0-1,4-5")], 200, slice(None)),
        ([("Range", "bytes=0-9"), ("If-Range", '"other"')], 200, slice(None)),
        ([("Range", "bytes=0-9"), ("If-Range", "Thu, 01 Jan 2026 00:00:00 GMT")], 206, slice(10)),
        ([("Range", "bytes=0-9"), ("If-Range", "Wed, 31 Dec 2025 00:00:00 GMT")], 200, slice(None)),
        ([("Range", "bytes=999999-")], 416, None),
    ],
)
async def test_ranges(origin, directory, fields, status, slice_):
    url, _ = origin
    path = site.SEGMENTS[2].path
    answer = await get(url + path, fields)
    assert answer.status == status
    if slice_ is not None:
        assert answer.content == content(directory, path)[slice_]


async def test_if_range_with_the_right_etag(origin):
    url, _ = origin
    path = site.SEGMENTS[3].path
    etag = (await get(url + path, method="HEAD")).field("etag")
    answer = await get(url + path, [("Range", "bytes=5-9"), ("If-Range", etag)])
    assert (answer.status, answer.field("content-range")) == (206, "bytes 5-9/524288")


async def test_requests_are_counted_by_path(origin):
    url, running = origin
    await get(f"{url}/?a")
    await get(f"{url}/?b")
    assert (await get(f"{url}/none")).status == 404
    assert (await get(f"{url}/../etc/hostname.txt")).status == 404
    assert running.counts["/"] == 2
    counts = json.loads((await get(url + COUNT)).content)
    assert counts == running.counts
