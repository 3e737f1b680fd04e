"""Writes docs/METRICS.md from what a real node declares: `python -m tests.observe.manual`."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from cdn.observe.metrics import markdown
from tests.kit.cdn_nodes import local_edge

MANUAL = Path(__file__).parents[2] / "docs" / "METRICS.md"


async def manual() -> str:
    """The page, as it should be."""
    async with local_edge("http://127.0.0.1:9", access_log=os.devnull) as edge:
        return markdown(edge.node.declared)


if __name__ == "__main__":
    MANUAL.write_text(asyncio.run(manual()))
