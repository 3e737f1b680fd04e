"""Metrics: what is declared is what Prometheus reads, and the manual says the same."""

from dataclasses import dataclass, field

import pytest
from prometheus_client.parser import text_string_to_metric_families

from cdn.observe.metrics import DURATION_BOUNDS, Metrics, RequestCounts
from tests.observe.manual import MANUAL, manual

CONSTANT = {"node": "edge-a", "role": "edge", "operator": "east"}


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(**CONSTANT)


def samples(metrics: Metrics) -> dict[tuple[str, ...], float]:
    """By name and the values of the labels that are not constant, in order of their names."""
    found = {}
    for family in text_string_to_metric_families(metrics.render().decode()):
        for sample in family.samples:
            assert CONSTANT.items() <= sample.labels.items()
            own = (v for k, v in sorted(sample.labels.items()) if k not in CONSTANT)
            found[sample.name, *own] = sample.value
    return found


def test_plain_values_are_read_at_the_scrape(metrics):
    connections = {("yokohama",): 1.0, ("saitama",): 2.0}
    stored = [0]
    metrics.gauge("cdn_upstream_connections", "Open.", lambda: connections, ("upstream",))
    metrics.counter("cdn_stored_bytes_total", "Bytes stored.", lambda: stored[0])
    stored[0] = 7
    assert samples(metrics) == {
        ("cdn_upstream_connections", "yokohama"): 1.0,
        ("cdn_upstream_connections", "saitama"): 2.0,
        ("cdn_stored_bytes_total",): 7.0,
    }
    stored[0] = 8
    del connections["yokohama",]
    assert samples(metrics) == {
        ("cdn_upstream_connections", "saitama"): 2.0,
        ("cdn_stored_bytes_total",): 8.0,
    }


def test_help_and_type_are_told(metrics):
    metrics.counter("cdn_things_total", "Things seen.", lambda: 1)
    text = metrics.render().decode()
    assert "# HELP cdn_things_total Things seen.\n# TYPE cdn_things_total counter\n" in text


def test_a_dataclass_of_counters(metrics):
    @dataclass
    class Counts:
        opened: int = field(default=3, metadata={"help": "Connections opened."})
        reused: int = field(default=4, metadata={"help": "Connections used again."})

    counts = Counts()
    metrics.counters("cdn_upstream", counts)
    counts.reused = 5
    assert samples(metrics) == {
        ("cdn_upstream_opened_total",): 3.0,
        ("cdn_upstream_reused_total",): 5.0,
    }


@pytest.mark.parametrize(
    ("declare", "complaint"),
    [
        (lambda m: m.gauge("store_bytes", "Bytes.", lambda: 0), "cdn_"),
        (lambda m: m.gauge("cdn_Bytes", "Bytes.", lambda: 0), "small letters"),
        (lambda m: m.counter("cdn_bytes", "Bytes.", lambda: 0), "_total"),
        (lambda m: m.gauge("cdn_bytes_total", "Bytes.", lambda: 0), "_total"),
        (lambda m: m.gauge("cdn_bytes", "bytes", lambda: 0), "sentence"),
        (lambda m: m.gauge("cdn_taken", "Taken.", lambda: 0), "twice"),
    ],
)
def test_careless_declarations_are_refused(metrics, declare, complaint):
    metrics.gauge("cdn_taken", "Taken.", lambda: 0)
    with pytest.raises(ValueError, match=complaint):
        declare(metrics)


def test_two_nodes_in_one_process_share_nothing(metrics):
    other = Metrics(node="edge-b", role="edge", operator="west")
    metrics.gauge("cdn_things", "Things.", lambda: 1)
    other.gauge("cdn_things", "Things.", lambda: 2)
    assert samples(metrics) == {("cdn_things",): 1.0}
    assert b'node="edge-b"' in other.render()


def test_requests_are_counted_by_service_outcome_and_class(metrics):
    requests = RequestCounts()
    requests.declare(metrics)
    requests.count("films", "hit", 200, 100, 0.0004)
    requests.count("films", "hit", 206, 50, 0.0005)
    requests.count("films", "uri-miss", 404, 9, 0.2)
    requests.count("", "", 421, 20, 0.0001)
    found = samples(metrics)
    # Labels in order of their names: cache, service, status.
    assert {k[1:]: v for k, v in found.items() if k[0] == "cdn_requests_total"} == {
        ("hit", "films", "2xx"): 2,
        ("uri-miss", "films", "4xx"): 1,
        ("none", "none", "4xx"): 1,
    }
    assert {k[1:]: v for k, v in found.items() if k[0] == "cdn_response_content_bytes_total"} == {
        ("hit", "films", "2xx"): 150,
        ("uri-miss", "films", "4xx"): 9,
        ("none", "none", "4xx"): 20,
    }


def test_durations_fall_into_inclusive_buckets(metrics):
    requests = RequestCounts()
    requests.declare(metrics)
    for seconds in (0.0005, 0.00051, 299.0, 301.0):
        requests.count("films", "hit", 200, 1, seconds)
    found = samples(metrics)
    buckets = {k[2]: v for k, v in found.items() if k[0].endswith("_bucket")}
    assert len(buckets) == len(DURATION_BOUNDS) + 1
    assert [buckets[le] for le in ("0.0005", "0.001", "60.0", "300.0", "+Inf")] == [1, 2, 2, 3, 4]
    assert found["cdn_request_duration_seconds_count", "hit"] == 4
    assert found["cdn_request_duration_seconds_sum", "hit"] == pytest.approx(600.00101)


async def test_the_manual_is_true():
    assert MANUAL.read_text() == await manual(), (
        "docs/METRICS.md differs from the declarations: python -m tests.observe.manual"
    )
