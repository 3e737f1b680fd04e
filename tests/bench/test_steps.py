"""The micro-benchmarks' table: its arithmetic, what it saves, and one short run of it."""

import json
import sys

import pytest

from bench.steps import CLAIMS, REFERENCE, Step, Unusable, broken, compared, read, slower, write
from tests.scenarios.running import run

FILE = "test_bench_fastpath.py"


def step(name: str, micros: float, ratio: float = 1.0, baseline: float | None = None) -> Step:
    return Step(name, "", micros, ratio, baseline)


def test_a_step_is_a_ratio_to_the_shortest_reference():
    measured = {
        f"{REFERENCE}[first]": 8e-6,
        f"{REFERENCE}[last]": 4e-6,
        f"{FILE}::test_b[x]": 2e-6,
        f"{FILE}::test_a": 6e-6,
    }
    told = compared(measured, {"fastpath: a": 1.0})
    assert [(one.name, one.test, one.ratio, one.baseline, one.change) for one in told] == [
        ("fastpath: a", f"{FILE}::test_a", 1.5, 1.0, 1.5),
        ("fastpath: b[x]", f"{FILE}::test_b[x]", 0.5, None, None),
    ]


def test_without_a_reference_there_is_nothing_to_say():
    with pytest.raises(Unusable, match="was not measured"):
        compared({f"{FILE}::test_a": 1e-6}, {})


def test_what_takes_longer_than_its_baseline_by_the_limit_is_slower():
    steps = [step("a", 1, 1.5, 1.0), step("b", 1, 1.51, 1.0), step("new", 1, 9.0)]
    assert [one.name for one in slower(steps, 1.5)] == ["b"]


def test_a_claim_is_about_two_steps_of_one_run():
    claim = CLAIMS[0]
    held = [step(claim.step, claim.most), step(claim.other, 1.0)]
    assert broken(held) == []
    assert broken([step(claim.step, claim.most + 0.01), step(claim.other, 1.0)]) == [claim]
    assert broken(held[:1]) == []


def test_what_is_saved_keeps_the_steps_that_were_not_measured(tmp_path):
    file = tmp_path / "baseline.json"
    assert read(file) == {}
    write([step("a", 1, 0.12345)], {"a": 9.0, "b": 2.0}, file)
    assert read(file) == {"a": 0.1235, "b": 2.0}


async def test_one_step_measured_and_held_to_its_baseline(tmp_path):
    file = tmp_path / "baseline.json"
    command = [sys.executable, "-m", "bench.steps", "-k", "digest", "--passes", "1"]
    command += ["--seconds", "0.05", "--baseline", str(file)]
    saved = await run(*command, "--save", "--json")
    assert saved.code == 0, saved.err
    (told,) = json.loads(saved.out)
    assert (told["name"], told["baseline"]) == ("hashing: digest_of_a_60_byte_key", None)
    assert told["micros"] > 0
    # As if it had taken a hundredth of that: no machine is so uneven.
    file.write_text(json.dumps({"ratios": {told["name"]: told["ratio"] / 100}}))
    slow = await run(*command)
    assert slow.code == 1
    assert "times its baseline" in slow.out


async def test_every_step_runs():
    told = await run(sys.executable, "-m", "pytest", "-q", "bench", "--benchmark-disable")
    assert told.code == 0, told.out[-2_000:]
