"""Failing upstreams as operators hear of them."""

import io

from cdn.node.complaints import Complaints
from cdn.observe.events import EventLog
from cdn.upstream.errors import ConnectRefused
from tests.kit import ManualClock


def test_each_address_is_told_at_once_and_then_now_and_then():
    clock, stream = ManualClock(), io.StringIO()
    complain = Complaints(EventLog("edge-a", clock.now, stream), clock.now)
    for _ in range(3):
        complain(ConnectRefused("http://10.0.0.1:80", "refused"))
    complain(ConnectRefused("http://10.0.0.2:80", "refused"))
    clock.advance(11)
    complain(ConnectRefused("http://10.0.0.1:80", "refused"))
    told = [line.partition(" edge-a ")[2] for line in stream.getvalue().splitlines()]
    assert told == [
        "warning upstream http://10.0.0.1:80: refused",
        "warning upstream http://10.0.0.2:80: refused",
        "warning upstream http://10.0.0.1:80: refused (and 2 more failures before)",
    ]
