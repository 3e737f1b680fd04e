"""Tasks that no client waits for, owned so that none is lost and none outlives the node."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any


class BackgroundTasks:
    """Starts tasks, keeps them from being collected, reports what they raise, ends them.

    `report` gets one line per task that failed: a bug, as every expected error is handled inside.
    """

    def __init__(self, report: Callable[[str], None]) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._report = report

    def start(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._report(f"bug: {task.get_name()} failed: {type(error).__name__}: {error}")

    def __len__(self) -> int:
        return len(self._tasks)

    async def close(self) -> None:
        """Cancels what still runs and waits for its end."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
