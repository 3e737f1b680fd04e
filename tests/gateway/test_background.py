"""Owned tasks: kept until their end, their failures told, none left behind."""

import asyncio

from cdn.gateway.background import BackgroundTasks


async def test_tasks_are_kept_until_they_end():
    told = []
    tasks = BackgroundTasks(told.append)
    gate = asyncio.Event()

    async def work():
        await gate.wait()

    task = tasks.start(work(), "work")
    assert len(tasks) == 1
    gate.set()
    await task
    assert (len(tasks), told) == (0, [])


async def test_what_a_task_raises_is_told_once():
    told = []
    tasks = BackgroundTasks(told.append)

    async def broken():
        raise KeyError("gone")

    await asyncio.wait([tasks.start(broken(), "revalidation")])
    assert told == ["bug: revalidation failed: KeyError: 'gone'"]
    assert len(tasks) == 0


async def test_close_ends_what_runs_and_waits_for_it():
    tasks = BackgroundTasks(lambda line: None)
    ended = []

    async def work():
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append(True)

    tasks.start(work(), "work")
    await asyncio.sleep(0)  # it has begun
    await tasks.close()
    assert ended == [True]
    assert len(tasks) == 0
