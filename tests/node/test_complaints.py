"""Failing upstreams as operators hear of them."""

import io

from cdn.node.complaints import Complaints
from cdn.observe.events import EventLog
from cdn.upstream.errors import ConnectRefused, ConnectTimeout, RequestContentFailed
from tests.kit import ManualClock


def complaints() -> tuple[Complaints, ManualClock, io.StringIO]:
    clock, stream = ManualClock(), io.StringIO()
    return Complaints(EventLog("edge-a", clock.now, stream), clock.now), clock, stream


def told(stream: io.StringIO) -> list[str]:
    return [line.partition(" edge-a ")[2] for line in stream.getvalue().splitlines()]


def test_each_kind_at_each_address_is_told_at_once_and_then_now_and_then():
    complaint, clock, stream = complaints()
    first = ConnectRefused("http://10.0.0.1:80", "refused")
    for _ in range(3):
        complaint.failed(first, "http://a.example/x")
    complaint.failed(ConnectRefused("http://10.0.0.2:80", "refused"), "http://a.example/y")
    complaint.failed(ConnectTimeout("http://10.0.0.1:80", "late"), "http://a.example/z")
    clock.advance(11)
    complaint.failed(first, "http://a.example/x")
    assert told(stream) == [
        "warning upstream http://10.0.0.1:80: refused (for http://a.example/x)",
        "warning upstream http://10.0.0.2:80: refused (for http://a.example/y)",
        "warning upstream http://10.0.0.1:80: late (for http://a.example/z)",
        "warning upstream http://10.0.0.1:80: refused (for http://a.example/x, "
        "and 2 more like it before)",
    ]


def test_a_clients_own_fault_is_not_told_as_the_upstreams():
    complaint, _, stream = complaints()
    complaint.failed(RequestContentFailed("http://10.0.0.1:80", "ended"), "http://a.example/x")
    assert told(stream) == []


def test_who_goes_out_of_service_and_comes_back_is_told():
    complaint, _, stream = complaints()
    complaint.health("shield-yokohama", 10.0)
    complaint.health("shield-yokohama", None)
    assert told(stream) == [
        "warning upstream shield-yokohama keeps failing: out of service for 10 s",
        "info upstream shield-yokohama is back in service",
    ]
