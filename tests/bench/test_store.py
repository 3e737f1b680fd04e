"""The disk store's benches: that they judge right, and that their page keeps what others wrote."""

import json
import os

import pytest

from bench.store import flood, page, place, restarts, stalls
from bench.store.figures import Figure, Found, show
from cdn.storage.disk import segment_size_for

MIB = 1 << 20


def found(name="use", value=1.0):
    return Found(name, f"make {name}", "How.", "A machine", (Figure("most", value, "MiB", 2.0),))


def test_a_figure_is_judged_by_its_target():
    assert Figure("most", 2.0, "s", 2.0).cells() == ("most", "2 s", "≤ 2: reached")
    assert Figure("most", 2.5, "s", 2.0).cells() == ("most", "2.500 s", "≤ 2: missed")
    assert Figure("most", 1234.5, "ms").cells() == ("most", "1,234 ms", "")
    assert found(value=1.0).met
    assert not found(value=3.0).met


def test_what_programs_get_has_the_verdict(capsys):
    show(found(value=3.0), as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert told["met"] is False
    assert told["figures"] == [{"what": "most", "value": 3.0, "unit": "MiB", "most": 2.0}]


def test_a_part_of_the_page_is_replaced_and_the_rest_stays(tmp_path):
    (tmp_path / "PERFORMANCE.md").write_text("# CPU per request\n\nOthers' figures.\n")
    page.write(found("kill"), tmp_path)
    page.write(found("p99", 1.5), tmp_path, chart="<svg/>")
    page.write(found("kill", 3.0), tmp_path)
    text = (tmp_path / "PERFORMANCE.md").read_text()
    assert text.startswith("# CPU per request\n\nOthers' figures.\n\n## The disk store\n")
    assert [line for line in text.splitlines() if line.startswith("###")] == ["### p99", "### kill"]
    assert text.count("\n\n    make kill\n\nHow.\n") == 1
    assert page.kept(tmp_path) == text[text.index("## The disk store") :]
    assert text.count("| most | 3 MiB | ≤ 2: missed |") == 1
    assert text.count("| most | 1.500 MiB | ≤ 2: reached |") == 1
    assert "![p99](performance-store-p99.svg)" in text
    assert (tmp_path / "performance-store-p99.svg").read_text() == "<svg/>"


def test_the_ratio_is_taken_within_a_pair_and_the_median_of_all_is_told():
    def pair(alone, beside):
        return stalls.Pair(
            stalls.Round([alone / 2] * 98 + [alone] * 2, 0),
            stalls.Round([beside / 2] * 98 + [beside] * 2, 12 * MIB),
        )

    plan = stalls.Plan(rounds=3, seconds=2.0, rate=50.0, clients=1, files=1)
    told = stalls.figures([pair(0.001, 0.002), pair(0.1, 0.4), pair(0.001, 0.009)], plan)
    assert [figure.value for figure in told[:3]] == pytest.approx([4.0, 2.0, 9.0])
    assert told[0].met is False
    assert told[-1] == Figure("read cold beside", 4.0, "MiB/s")


def test_a_file_that_stays_in_ram_is_not_taken_for_a_cold_one(tmp_path, monkeypatch):
    (tmp_path / "00").mkdir()
    (tmp_path / "00" / "00000001.segment").write_bytes(os.urandom(2 * MIB))
    monkeypatch.setattr(place, "_resident", lambda fd, at: at == MIB)
    with pytest.raises(place.Unusable, match=rf"00000001.segment is still in RAM at byte {MIB}"):
        place.drop(tmp_path)


def test_a_store_that_is_filled_is_a_nodes_to_serve(tmp_path):
    starts = restarts.measure(tmp_path, 1000, 1, lambda words: None)
    assert starts.hits == restarts.ASKED
    assert (starts.stat["objects"], starts.stat["slices"]) == (1000, 1000)
    (full,), (empty,) = starts.full, starts.empty
    assert 0 < full.anonymous < full.private
    assert empty.ready > 0
    assert (tmp_path / "store-of-1000.filled").exists()


def test_a_flood_is_measured_while_it_goes_on(tmp_path):
    size = 256 * MIB
    use = flood.measure(tmp_path, size, lambda words: None)
    assert use.brought >= 3 * size
    assert use.asked > 100
    assert size * 0.7 < use.most <= size + 16 * segment_size_for(tmp_path, size)
