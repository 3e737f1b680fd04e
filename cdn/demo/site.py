"""The demo's site map: every path, its size and how long it may be kept.

Strategy: pure data, computed the same way wherever it is imported; the origin's files are made from
it and the load tests choose from it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

KIB = 1024
MIB = 1024 * KIB


@dataclass(frozen=True, slots=True)
class Page:
    """One file of the site; `size` in bytes."""

    path: str
    size: int


def _asset_sizes(count: int) -> list[int]:
    """Log-normal, as the web's are: median 12 KiB, some of 1 KiB, a few beyond 300 KiB."""
    normal = NormalDist(math.log(12 * KIB), 1.3)
    sizes = [int(math.exp(normal.inv_cdf((n + 0.5) / count))) for n in range(count)]
    # A stride prime to the count deals them out, so that a number says nothing about the size.
    return [sizes[n * 73 % count] for n in range(count)]


_KINDS = ("css", "js", "svg", "jpg")

PAGES = tuple(f"/pages/{n}.html" for n in range(1, 13))
ASSETS = tuple(
    Page(f"/assets/{n:03}.{_KINDS[n % len(_KINDS)]}", size)
    for n, size in enumerate(_asset_sizes(200))
)
VIDEO = Page("/video/film.mp4", 64 * MIB)
PLAYLIST = "/hls/film.m3u8"
SEGMENTS = tuple(Page(f"/hls/film-{n:03}.ts", 512 * KIB) for n in range(20))
SEGMENT_SECONDS = 4.0

# By what follows the last dot of a path: media type, and Cache-Control as a publisher would set it.
MEDIA: dict[str, tuple[str, str]] = {
    "html": ("text/html; charset=utf-8", "public, max-age=10"),
    "css": ("text/css; charset=utf-8", "public, max-age=3600"),
    "js": ("text/javascript; charset=utf-8", "public, max-age=3600"),
    "svg": ("image/svg+xml", "public, max-age=3600"),
    "jpg": ("image/jpeg", "public, max-age=3600"),
    "mp4": ("video/mp4", "public, max-age=86400"),
    "m3u8": ("application/vnd.apple.mpegurl", "public, max-age=2"),
    "ts": ("video/mp2t", "public, max-age=86400, immutable"),
}


def playlist() -> str:
    """The film's playlist, VOD (RFC 8216 §4)."""
    lines = ["#EXTM3U", "#EXT-X-VERSION:3", f"#EXT-X-TARGETDURATION:{math.ceil(SEGMENT_SECONDS)}"]
    lines += ["#EXT-X-MEDIA-SEQUENCE:0", "#EXT-X-PLAYLIST-TYPE:VOD"]
    for segment in SEGMENTS:
        lines += [f"#EXTINF:{SEGMENT_SECONDS:.3f},", segment.path.rpartition("/")[2]]
    return "\n".join([*lines, "#EXT-X-ENDLIST", ""])
