"""`cdn demo` as a newcomer meets it: tried by itself, under load, and ended by Ctrl-C."""

import asyncio
import json
import os
import re
import signal
import socket
import sys
import time

import pytest

from tests.kit import get
from tests.scenarios.running import cdn_command, finished, run, started

EDGE = re.compile(r"edge-a +(http://127\.0\.0\.1:\d+)")
URL = re.compile(r"http://127\.0\.0\.1:(\d+)")


async def test_check_shows_what_happened_and_exits_with_0():
    checked = await cdn_command("demo", "--check")
    assert (checked.code, checked.err) == (0, "")
    assert "What happened" in checked.out
    rows = [line for line in checked.out.splitlines() if "edge-" in line]
    assert len(rows) == 10
    assert {tuple(re.findall("miss|hit", row)) for row in rows} == {
        ("miss", "miss", "hit"),
        ("miss", "hit", "hit"),
    }
    assert all(row.split()[-1] == "1" for row in rows)
    assert "Each object left the origin once; every second fetch was a hit." in checked.out


async def test_check_for_programs():
    checked = await cdn_command("demo", "--check", "--json")
    assert checked.code == 0
    visits = json.loads(checked.out)
    assert {visit["origin_fetches"] for visit in visits} == {1}
    assert {visit["through"] for visit in visits} <= {"shield-yokohama", "shield-saitama"}


async def listening(demo: asyncio.subprocess.Process) -> str:
    """All that a demo prints up to the point where it follows requests."""
    printed = ""
    async with asyncio.timeout(30):
        while "Ctrl-C ends everything" not in printed:
            line = await demo.stdout.readline()
            assert line, (printed, await demo.stderr.read())
            printed += line.decode()
    return printed


async def interrupt(demo: asyncio.subprocess.Process) -> tuple[float, str]:
    """Ctrl-C; seconds until the end, and what was still printed."""
    began = time.monotonic()
    demo.send_signal(signal.SIGINT)
    told = await finished(demo)
    assert told.code == 0, told
    assert told.err == ""
    return time.monotonic() - began, told.out


@pytest.mark.usefixtures("unmeasured")
async def test_ctrl_c_ends_everything_at_once():
    async with started(sys.executable, "-m", "cdn", "demo") as demo:
        printed = await listening(demo)
        edge = EDGE.search(printed)[1]
        ports = sorted(set(map(int, URL.findall(printed))))
        assert len(ports) == 5
        assert printed.count("  curl ") == 3
        assert (await get(f"{edge}/")).status == 200
        lines = [await demo.stdout.readline() for _ in range(2)]
        assert any(b" shield-" in line and b" 200 " in line for line in lines), lines
        assert any(b" edge-a " in line and b" 200 " in line for line in lines), lines

        seconds, rest = await interrupt(demo)
        assert seconds < 2
        assert "Traceback" not in rest
        with pytest.raises(ProcessLookupError):
            os.killpg(demo.pid, 0)
        for port in ports:
            with socket.create_server(("127.0.0.1", port)):
                pass


@pytest.mark.usefixtures("unmeasured")
async def test_the_load_tests_run_against_it_without_a_failure():
    async with started(sys.executable, "-m", "cdn", "demo") as demo:
        edge = EDGE.search(await listening(demo))[1]
        command = ("-f", "bench/", "--headless", "-u", "50", "-r", "50", "-t", "8s")
        # Somebody has to read what it tells of every request, as a terminal would.
        reading = asyncio.ensure_future(demo.communicate())
        told = await run(sys.executable, "-m", "locust", *command, "--json", "--host", edge)
        assert told.code == 0, told
        rows = json.loads(told.out)
        assert {row["name"] for row in rows} >= {"web page", "HLS segment", "video seek (Range)"}
        assert {row["num_failures"] for row in rows} == {0}
        assert sum(row["num_requests"] for row in rows) > 100
        demo.send_signal(signal.SIGINT)
        assert (await reading)[1] == b""
        assert demo.returncode == 0
