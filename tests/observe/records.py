"""Records for the access log's tests."""

from cdn.observe.hits import Hit, Said, Served
from cdn.observe.log_lines import LogRecord

NOON = 1795348800.0  # 2026-11-22T12:00:00Z

MEMBER = "edge-a; hit; ttl="

RECORD = LogRecord(
    time=NOON + 0.75,
    client="192.0.2.7",
    method="GET",
    target="/a?b=c",
    authority="www.example.com",
    scheme="https",
    version=(1, 1),
    status=200,
    content_bytes=1024,
    referer="https://www.example.com/",
    user_agent="Mozilla/5.0 (TV)",
    cache_status="edge-a; hit; ttl=295",
    outcome="hit",
    service="films",
    seconds=0.000213,
    complete=True,
    source="",
)


def hit(target="/a?b=c", agent="Mozilla/5.0 (TV)", time=NOON, seconds=0.000213, ttl=295) -> Hit:
    served = Served("GET", "https", "www.example.com", target, 200, 1024, MEMBER, "films", None)
    return served, Said("", agent), "192.0.2.7", time, seconds, ttl
