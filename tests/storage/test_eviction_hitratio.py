"""The measurement itself: the bound bounds, the traces are what they say, the command works."""

import gzip
import json
from array import array

import pytest
from typer.testing import CliRunner

from bench.hitratio.__main__ import app
from bench.hitratio.contenders import CONTENDERS, DISK_DEFAULT, RAM_DEFAULT
from bench.hitratio.log_store import LEAST_SHARD
from bench.hitratio.optimum import optimum
from bench.hitratio.results import SHARES, Row, gain
from bench.hitratio.traces import SLICE, Trace, made_traces, read_traces


def test_no_policy_beats_the_optimum_and_it_can_be_reached():
    for trace in made_traces(3000):
        for share in SHARES:
            budget = int(trace.footprint * share)
            (bound,) = optimum(trace, [budget])
            for play in CONTENDERS.values():
                outcome = play(budget, trace)
                if outcome is None:
                    continue  # no disk store is as small
                assert outcome.object_hits <= bound.object_hits
                assert outcome.byte_hits <= bound.byte_hits
    loop = Trace("loop", array("q", [1, 2] * 50), array("q", [10] * 100))
    one, both = optimum(loop, [10, 20])
    # A cache for one of two keys asked in turn: it holds one, and hits every other time.
    assert 49 <= one.object_hits <= 50
    assert both.object_hits == both.byte_hits == 98


def test_the_defaults_are_better_than_lru():
    """On little traces; docs/HITRATIO.md has the figures of large ones."""
    web, films = made_traces(20_000)
    rows = [
        Row(trace.name, share, policy, outcome)
        for trace, default in ((web, RAM_DEFAULT), (films, DISK_DEFAULT))
        for share in (0.01, 0.1)
        for policy in (default, "LRU")
        if (outcome := CONTENDERS[policy](int(trace.footprint * share), trace))
    ]
    assert gain(rows, DISK_DEFAULT, [films.name]).bytes > 1.5
    assert gain(rows, RAM_DEFAULT, [web.name]).objects > 3


def test_made_traces_are_what_they_say():
    web, films = made_traces(5000)
    counts = dict.fromkeys(web.keys, 0)
    for key in web.keys:
        counts[key] += 1
    once = sum(count == 1 for count in counts.values())
    assert 0.38 < once / len(web) < 0.55  # 40 %, and who of the others came only once
    halves = [web.keys[:2500], web.keys[2500:]]
    favourites = [max(set(half), key=list(half).count) for half in halves]
    assert favourites[0] != favourites[1]
    assert set(films.sizes) == {SLICE}
    assert sum(key + 1 in films.keys[n : n + 60] for n, key in enumerate(films.keys)) > 3000
    assert [trace.keys for trace in made_traces(5000)] == [web.keys, films.keys]


def test_large_objects_are_cut_into_slices():
    trace = Trace("one", array("q", [7, 7]), array("q", [2 * SLICE + 5] * 2))
    first, second, rest = trace.contents[7].slices
    assert (first.size, second.size, rest.size) == (SLICE, SLICE, 5)
    assert len({first.name, second.name, rest.name, trace.contents[7].head.name}) == 4
    assert (trace.footprint, trace.bytes) == (2 * SLICE + 5, 4 * SLICE + 10)


def test_the_command_plays_files_too_and_writes_the_page(tmp_path):
    lines = "".join(f"{n},{n * n % 17},{100 + n * n % 17}\n" for n in range(300))
    with gzip.open(tmp_path / "little.csv.gz", "wt") as file:
        file.write("time,key,size\n" + lines)
    arguments = ["--quick", "--traces", str(tmp_path), "--page", str(tmp_path)]
    ran = CliRunner().invoke(app, arguments)
    assert ran.exit_code == 0, ran.output
    for said in (
        "little: object/byte hits",
        "made_web",
        "made_films",
        "RAM default (GDG) over LRU",
    ):
        assert said in ran.output
    page = (tmp_path / "HITRATIO.md").read_text()
    assert "### little" in page
    for name in ("objects", "bytes", "written", "ns"):
        assert f"(hitratio-{name}.svg)" in page
        chart = (tmp_path / f"hitratio-{name}.svg").read_text()
        assert chart.count("<polyline") == 3 * (len(CONTENDERS) + 1)


def test_the_command_speaks_json():
    ran = CliRunner().invoke(app, ["--quick", "--json"])
    rows = json.loads(ran.stdout)
    on_disk = [row for row in rows if row["policy"] == DISK_DEFAULT]
    assert [(row["trace"], row["share"]) for row in on_disk] == [
        (trace.name, share)
        for trace in made_traces(5000)
        for share in SHARES
        if trace.footprint * share >= LEAST_SHARD  # with less no store opens
    ]
    assert len(rows) == 2 * len(SHARES) * (len(CONTENDERS) - 1) + 2 * len(on_disk)
    assert set(rows[0]["outcome"]) == {"object_hits", "byte_hits", "written", "ns"}


def test_a_file_that_is_no_trace_is_named(tmp_path):
    with gzip.open(tmp_path / "bad.csv.gz", "wt") as file:
        file.write("time,key,size\n0,1,10\n0,one,10\n")
    with pytest.raises(ValueError, match=r"bad\.csv\.gz:3: .*'0,one,10'"):
        list(read_traces(tmp_path))
    ran = CliRunner().invoke(app, ["--traces", str(tmp_path)])
    assert ran.exit_code == 1
    assert "bad.csv.gz:3: not time,key,size in whole numbers" in ran.output
