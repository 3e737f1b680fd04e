"""Writes docs/METRICS.md from what a real node declares: `python -m tests.observe.manual`."""

from __future__ import annotations

import asyncio
import os
import tempfile
from pathlib import Path

from cdn.observe.metrics import markdown
from tests.kit.cdn_nodes import local_edge

MANUAL = Path(__file__).parents[2] / "docs" / "METRICS.md"


async def manual() -> str:
    """The page, as it should be."""
    origin = "http://127.0.0.1:9"
    with tempfile.TemporaryDirectory() as store:
        async with (
            local_edge(origin, access_log=os.devnull) as ram,
            local_edge(origin, store=store, disk="1GiB") as disk,
        ):
            nodes = (ram.node.declared, disk.node.declared)
            return markdown(one for node in nodes for one in node.declarations())


if __name__ == "__main__":
    MANUAL.write_text(asyncio.run(manual()))
