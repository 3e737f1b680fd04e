"""The access log's line."""

import re
import string

from hypothesis import example, given
from hypothesis import strategies as st

from cdn.observe.log_lines import BATCH, BATCH_BYTES, LineFormat, record_of
from tests.observe.records import NOON, RECORD, hit

LINE = re.compile(
    r"(?P<client>[^ ]+) - - \[(?P<time>[^]]+)] "
    r'"(?P<request>[^"]*)" (?P<status>\d+) (?P<bytes>\d+) "(?P<referer>[^"]*)" "(?P<agent>[^"]*)" '
    r'"(?P<cache_status>[^"]*)" (?P<seconds>\d+\.\d{6}) "(?P<operator>[^"]*)" (?P<service>[^ ]+)'
    r" (?P<complete>whole|cut)\n"
)


def unescaped(text: str) -> str:
    """What the bytes were that `text` stands for."""
    if text == "-":
        return ""
    return re.sub(r"\\x([0-9a-f]{2})", lambda found: chr(int(found[1], 16)), text)


def test_the_line():
    assert LineFormat("edge-a", "Cable East").line(RECORD) == (
        '192.0.2.7 - - [22/Nov/2026:12:00:00 +0000] "GET /a?b=c HTTP/1.1" 200 1024 '
        '"https://www.example.com/" "Mozilla/5.0 (TV)" "edge-a; hit; ttl=295" 0.000213 '
        '"Cable East" films whole\n'
    )


def test_what_was_not_sent_whole_says_so():
    assert LineFormat("edge-a", "").line(RECORD._replace(complete=False)).endswith(" films cut\n")


def test_a_refused_head_has_a_client_and_no_request():
    line = LineFormat("edge-a", "").line(RECORD._replace(method="", target="", status=400))
    assert line.startswith('192.0.2.7 - - [22/Nov/2026:12:00:00 +0000] "-" 400 ')


def test_what_is_absent_is_a_dash():
    bare = RECORD._replace(referer="", user_agent="", cache_status="", service="")
    line = LineFormat("edge-a", "").line(bare)
    assert line.endswith(' 200 1024 "-" "-" "-" 0.000213 "-" - whole\n')


def test_only_this_nodes_member_of_cache_status_is_logged():
    chain = 'shield-y; hit; detail="a, edge-a; b", edge-a; fwd=uri-miss; stored'
    line = LineFormat("edge-a", "east").line(RECORD._replace(cache_status=chain))
    assert '"edge-a; fwd=uri-miss; stored"' in line
    assert "shield-y" not in line


def test_time_is_the_records_own():
    form = LineFormat("edge-a", "east")
    times = (NOON, NOON + 0.999, NOON + 1, NOON - 1, 0.0)
    stamps = [LINE.fullmatch(form.line(RECORD._replace(time=t)))["time"] for t in times]
    assert stamps == [
        "22/Nov/2026:12:00:00 +0000",
        "22/Nov/2026:12:00:00 +0000",
        "22/Nov/2026:12:00:01 +0000",
        "22/Nov/2026:11:59:59 +0000",
        "01/Jan/1970:00:00:00 +0000",
    ]


def test_an_operators_name_is_utf8():
    line = LineFormat("edge-a", "横浜").line(RECORD)
    assert r'"\xe6\xa8\xaa\xe6\xb5\x9c"' in line


octets = st.text(st.characters(max_codepoint=0xFF)) | st.text('"\\ \n\r\t\x85x2')


@given(octets, octets, octets, octets, octets)
@example('" 200 0\n192.0.2.66 - - [', "\\", '\\"', "\x85\x1c\x0b\x0c", "\\x22")
def test_no_text_forges_a_line(target, referer, agent, cache_status, service):
    record = RECORD._replace(
        target=target,
        referer=referer,
        user_agent=agent,
        cache_status=cache_status,
        service=service,
        client=service,
    )
    line = LineFormat("edge-a", "east").line(record)
    assert set(line[:-1]) <= set(string.printable) - set("\t\n\r\x0b\x0c")
    assert len(line.splitlines()) == 1
    parts = LINE.fullmatch(line)
    assert parts is not None
    assert unescaped(parts["request"]) == f"GET {target} HTTP/1.1"
    for name, text in (
        ("referer", referer),
        ("agent", agent),
        ("cache_status", cache_status),
        ("service", service),
        ("client", service),
    ):
        assert unescaped(parts[name]) == ("" if text == "-" else text)


@given(st.text("a横\U0001f4fa\u2028\udc80\n"), st.text("a横\U0001f4fa\u2028\n"))
def test_not_even_text_that_was_never_bytes(agent, operator):
    line = LineFormat("edge-a", operator).line(RECORD._replace(user_agent=agent))
    assert LINE.fullmatch(line)
    assert line.isascii()


@given(st.lists(st.tuples(octets, octets, st.sampled_from((NOON, NOON + 1, 0.0)), st.floats(0, 1))))
def test_hits_are_lines_as_any_other(asked):
    hits = [hit(target, agent, time, seconds) for target, agent, time, seconds in asked]
    form, like = LineFormat("edge-a", "east"), LineFormat("edge-a", "east")
    for _ in range(2):  # texts are remembered
        assert form.hits(hits).decode() == "".join(like.line(record_of(each)) for each in hits)


def test_a_batch_ends_at_its_count_and_at_its_bytes():
    form = LineFormat("edge-a", "east")
    lines, count = form.batch([RECORD] * 1000)
    assert count == BATCH == lines.count(b"\n")
    hostile = RECORD._replace(user_agent='"' * 30_000)
    lines, count = form.batch([hostile] * 1000)
    assert count == 2 == lines.count(b"\n")
    assert BATCH_BYTES <= len(lines) < 2 * BATCH_BYTES
