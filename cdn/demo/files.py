"""Makes the demo's real files, the same bytes each time, in well under two seconds.

Strategy: text where a viewer would read it; elsewhere one pseudo-random block per file, repeated
with its place written in, so that no stretch of a film equals another.
"""

from __future__ import annotations

import os
from pathlib import Path
from random import Random

from cdn.demo.site import ASSETS, MIB, PAGES, PLAYLIST, SEGMENTS, VIDEO, playlist

PUBLISHED = 1_767_225_600
"""When the files say they were last modified: 2026-01-01 00:00:00 GMT."""

_COMMENTS = {"css": ("/* ", " */\n"), "js": ("// ", "\n"), "svg": ("<!-- ", " -->\n")}


def make_files(directory: Path) -> None:
    """Writes the whole site under `directory` (made where it is missing). Raises OSError."""
    _write(directory, "/index.html", _page("A small CDN on one machine", [*PAGES, PLAYLIST]))
    for n, path in enumerate(PAGES):
        linked = [asset.path for asset in ASSETS[n :: len(PAGES)]]
        _write(directory, path, _page(f"Page {n + 1}", linked))
    for asset in ASSETS:
        _write(directory, asset.path, _asset(asset.path, asset.size))
    for segment in SEGMENTS:
        _write(directory, segment.path, _film(segment.path, segment.size))
    _write(directory, VIDEO.path, _film(VIDEO.path, VIDEO.size))
    _write(directory, PLAYLIST, playlist().encode())


def _write(directory: Path, path: str, content: bytes) -> None:
    file = directory / path[1:]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    # The date is part of the validators: an origin that starts again must not change them.
    os.utime(file, (PUBLISHED, PUBLISHED))


def _page(title: str, links: list[str]) -> bytes:
    items = "\n".join(f'<li><a href="{link}">{link}</a></li>' for link in links)
    head = f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
    return f"{head}</head>\n<body><h1>{title}</h1>\n<ul>\n{items}\n</ul></body></html>\n".encode()


def _asset(path: str, size: int) -> bytes:
    comment = _COMMENTS.get(path.rpartition(".")[2])
    if comment is None:
        return Random(path).randbytes(size)  # noqa: S311  bytes to carry, not secrets
    line = f"{comment[0]}{path}{comment[1]}".encode()
    return (line * (size // len(line) + 1))[:size]


def _film(path: str, size: int) -> bytes:
    block = Random(path).randbytes(min(size, MIB) - 8)  # noqa: S311  bytes to carry, not secrets
    return b"".join(n.to_bytes(8, "big") + block for n in range(size // (len(block) + 8)))
