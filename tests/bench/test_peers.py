"""The bench beside others: its arithmetic, what it reads, and one short round of the real thing."""

import asyncio
import json
import os
import select
import signal
import sys
from pathlib import Path

import pytest

from bench.peers.__main__ import selected
from bench.peers.load import parse_figures
from bench.peers.origin import MEDIAN, SIZES, parse_stub_status
from bench.peers.processes import (
    Stat,
    Unusable,
    cpu_seconds,
    memory,
    parse_stat,
    parse_status,
    process,
    tree,
)
from bench.peers.results import Sample, Verdict, cost, paired_ratio, rows, tail, verdicts
from bench.peers.server import sum_of
from tests.kit.debian import need
from tests.kit.waiting import LIMIT
from tests.scenarios.running import finished, run, started


def sample(contender: str, number: int, micros: float, workload: str = "hot-1k") -> Sample:
    return Sample(workload, number, contender, micros)


# What the figures are made of


def test_the_ratio_is_the_median_of_paired_rounds():
    # The machine is twice as slow in the last round: the ratio of medians would be 0.25.
    ours = [sample("edge", 0, 10), sample("edge", 1, 20), sample("edge", 2, 60)]
    theirs = [sample("nginx", 0, 20), sample("nginx", 1, 80), sample("nginx", 2, 120)]
    assert paired_ratio(ours, theirs, cost) == 0.5


def test_a_round_that_one_of_them_lacks_is_no_pair():
    assert paired_ratio([sample("edge", 0, 10)], [sample("nginx", 1, 10)], cost) is None
    ours = [sample("edge", 0, 10), sample("edge", 1, 1000)]
    assert paired_ratio(ours, [sample("nginx", 0, 5)], cost) == 2


def test_a_cost_of_nought_is_no_pair():
    assert paired_ratio([sample("edge", 0, 10)], [sample("floor", 0, 0)], cost) is None


def test_rows_are_medians_but_the_peak_is_the_highest():
    samples = [
        Sample("miss", number, "nginx", micros, 10, rate, 1.0, 9.0, memory=peak)
        for number, (micros, rate, peak) in enumerate([(5, 3, 70), (1, 9, 90), (3, 6, 80)])
    ]
    (row,) = rows(samples)
    assert (row.cost, row.rate, row.memory, row.ratio) == (3, 6, 90, None)


def test_a_verdict_for_nginx_the_others_and_the_floor():
    samples = [sample("edge", 0, 6), sample("nginx", 0, 10), sample("varnish", 0, 5)]
    told = verdicts(rows([*samples, sample("floor", 0, 5)]))
    assert [(one.what, one.target, one.met) for one in told] == [
        ("our CPU / nginx's", 0.6, True),
        ("our CPU / varnish's", 1.0, False),
        ("our CPU / floor's", 1.5, True),
    ]


def test_the_tail_is_compared_with_the_floors():
    ours = [Sample("hot-1k", 0, "edge", 6, p50=100, p99=400)]
    floor = [Sample("hot-1k", 0, "floor", 5, p50=50, p99=100)]
    assert tail(ours[0]) == 4
    (told, _) = verdicts(rows([*ours, *floor]))
    assert (told.what, told.figure, told.met) == ("our p99 / p50 over the floor's", 2.0, False)


def test_only_hot_1k_is_held_to_the_floor():
    told = verdicts(rows([sample("edge", 0, 6, "zipf"), sample("floor", 0, 1, "zipf")]))
    assert told == []


def test_idle_is_judged_by_its_own_bytes():
    samples = [sample("edge", 0, 9 * 1024, "idle"), sample("nginx", 0, 1024, "idle")]
    (told,) = verdicts(rows(samples))
    assert told == Verdict("idle", "KiB per connection", 9.0, 8.0)
    assert told.sentence == "idle: KiB per connection 9.00, target 8.00: missed"


# What is read


def test_a_program_whose_name_looks_like_the_fields_after_it():
    line = "42 (a) S 7 (b) S 3 42 42 0 -1 4194560 1 2 3 4 100 20 3 4 20 0 1 0 99 1000 10"
    stat = parse_stat(line)
    assert stat == (42, "a) S 7 (b", 3, 127)


def test_memory_fields_are_in_kib_and_a_zombie_has_none():
    text = "Name:\tnginx\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\n"
    assert parse_status(text, "VmHWM") == 2048 * 1024
    assert parse_status(text, "VmRSS") == 1024 * 1024
    assert parse_status("Name:\tnginx\nState:\tZ (zombie)\n", "VmRSS") == 0


FIGURES = {
    "requests": 100,
    "microseconds": 2_000_000,
    "p50": 1500,
    "p99": 9000,
    "bytes": 1,
    **dict.fromkeys(("connect", "read", "write", "status", "timeout"), 0),
}


def test_figures_are_the_last_line_of_wrk():
    load = parse_figures("Running 2s test\n  1 threads\n" + json.dumps(FIGURES) + "\n")
    assert (load.requests, load.seconds, load.p50, load.p99) == (100, 2.0, 1500, 9000)


@pytest.mark.parametrize(
    ("output", "said"),
    [
        ("unable to connect", "wrk gave no figures, but: unable to connect"),
        ("", "wrk gave no figures, but: nothing"),
        (json.dumps({**FIGURES, "status": 3, "read": 1}), "1 read, 3 status"),
        (json.dumps({**FIGURES, "requests": 0}), "no answer at all"),
    ],
)
def test_what_is_no_measurement_is_refused(output, said):
    with pytest.raises(Unusable, match=said):
        parse_figures(output)


def test_nginx_counts_its_requests():
    text = (
        "Active connections: 2 \nserver accepts handled requests\n 5 6 17 \nReading: 0 Writing: 1"
    )
    assert parse_stub_status(text) == 17


def test_all_samples_of_a_counter_are_added_and_no_other():
    text = (
        "# HELP cdn_requests_total Requests.\n"
        'cdn_requests_total{cache="hit",node="a}b"} 40.0\n'
        'cdn_requests_total{cache="uri-miss"} 2.0\n'
        "cdn_requests_total_created 99.0\n"
        'cdn_upstream_requests_total{tier="origin"} 7.0\n'
    )
    assert sum_of(text, "cdn_requests_total") == 42


def test_sizes_are_log_normal_about_their_median():
    assert sorted(SIZES) == SIZES
    assert abs(SIZES[len(SIZES) // 2] / MEDIAN - 1) < 0.02
    assert sum(SIZES) / len(SIZES) > 1.5 * MEDIAN


def test_names_are_known_and_kept_in_the_tables_order():
    known = ["nginx", "varnish", "trafficserver"]
    assert selected(["varnish,nginx"], known, "peer") == ["nginx", "varnish"]
    assert selected([], known, "peer") == known
    with pytest.raises(Unusable, match="squid is no peer: there are nginx, varnish, trafficserver"):
        selected(["nginx,squid"], known, "peer")


# What is started and ended

FAMILY = """
import os, sys, time
if os.fork() == 0:
    blob = bytearray(32 << 20)
    until = time.process_time() + 0.2
    while time.process_time() < until:
        pass
    open(sys.argv[1], "w").close()
time.sleep(600)
"""


def has_ended(handle: int) -> bool:
    """Whether the process of the pidfd `handle` ends within the time of a failed test."""
    return bool(select.select([handle], [], [], LIMIT)[0])


def test_a_process_and_its_children_are_one_account_and_all_end(tmp_path):
    spent = tmp_path / "spent"
    os.mkfifo(spent)
    core = min(os.sched_getaffinity(0))
    command = [sys.executable, "-c", FAMILY, str(spent)]
    with process(command, tmp_path / "output", core) as parent:
        spent.read_bytes()  # returns when the child has opened it
        family = [stat.pid for stat in tree(parent.pid)]
        assert len(family) == 2
        assert {frozenset(os.sched_getaffinity(pid)) for pid in family} == {frozenset({core})}
        assert sum(cpu_seconds([parent.pid]).values()) >= 0.19
        assert memory([parent.pid], "VmHWM") > 32 << 20
        handles = [os.pidfd_open(pid) for pid in family]
    assert parent.returncode == -signal.SIGTERM
    assert all(has_ended(handle) for handle in handles)


# The real thing


def bench(*options: str) -> list[str]:
    for program in ("nginx", "wrk", "gcc"):
        need(program)
    return [sys.executable, "-m", "bench.peers", "--quick", "--peers", "nginx", *options]


def workplace_of(family: list[Stat]) -> Path:
    """The folder of a run: the floor is compiled in folder/WORKLOAD/floor/."""
    (floor,) = (stat.pid for stat in family if stat.program == "floor")
    return Path(f"/proc/{floor}/exe").readlink().parents[2]


def is_there(folder: Path) -> bool:
    return folder.exists()


@pytest.mark.debian
async def test_one_short_round(tmp_path):
    figures, picture = tmp_path / "figures.json", tmp_path / "chart.svg"
    files = ("--json", str(figures), "--chart", str(picture), "--page", str(tmp_path))
    done = await run(*bench("--workload", "hot-1k,miss", *files), limit=180.0)
    assert done.code == 0, done.err
    told = json.loads(figures.read_text())
    expected = [(w, c) for w in ("hot-1k", "miss") for c in ("edge", "nginx", "floor")]
    assert [(one["workload"], one["contender"]) for one in told["samples"]] == expected
    assert all(one["cost"] > 0 and one["requests"] > 0 for one in told["samples"])
    assert told["versions"]["nginx"].startswith("1.")
    assert "hot-1k: our CPU / nginx's" in done.out
    assert picture.read_text().endswith("</svg>\n")
    page = (tmp_path / "PERFORMANCE.md").read_text()
    assert all(f"### {name}\n" in page for name in ("hot-1k", "miss"))


@pytest.mark.debian
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_ended_early_it_leaves_nothing_behind(number):
    async with started(*bench("--workload", "hot-1k", "--seconds", "600")) as running:
        async with asyncio.timeout(60):
            while "wrk" not in {stat.program for stat in tree(running.pid)}:
                await asyncio.sleep(0)
        family = [stat for stat in tree(running.pid) if stat.pid != running.pid]
        assert {"nginx", "wrk", "floor"} <= {stat.program for stat in family}
        folder = workplace_of(family)
        handles = [os.pidfd_open(stat.pid) for stat in family]
        running.send_signal(number)
        assert (await finished(running)).code != 0
        assert all(has_ended(handle) for handle in handles)
        assert not is_there(folder)
