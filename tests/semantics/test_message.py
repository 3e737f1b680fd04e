"""RFC 9110 §5: field lines, their order and their combination."""

from cdn.semantics.message import Fields, Request, Response

LINES = [
    ("Host", "a"),
    ("Set-Cookie", "a=1"),
    ("X-One", "1"),
    ("set-cookie", "b=2"),
    ("x-one", "2"),
]


def test_lines_stay_in_order_and_as_spelled():
    fields = Fields(LINES)
    assert list(fields) == LINES
    assert len(fields) == 5


def test_names_compare_case_insensitively_and_lines_combine():
    """RFC 9110 §5.1, §5.3."""
    fields = Fields(LINES)
    assert fields.get("x-one") == "1, 2"
    assert fields.get("host") == "a"
    assert fields.get("absent") is None
    assert "x-one" in fields
    assert "absent" not in fields
    assert fields.names() == {"host", "set-cookie", "x-one"}


def test_lines_that_must_not_be_combined_are_had_one_by_one():
    """RFC 9110 §5.3: Set-Cookie."""
    assert Fields(LINES).get_all("set-cookie") == ["a=1", "b=2"]
    assert Fields(LINES).get_all("absent") == []


def test_copies_leave_the_original():
    fields = Fields(LINES)
    assert list(fields.without({"set-cookie", "x-one"})) == [("Host", "a")]
    assert list(fields.adding(("B", "2")))[-1] == ("B", "2")
    replaced = fields.replacing("X-One", "3")
    assert replaced.get_all("x-one") == ["3"]
    assert list(replaced)[-1] == ("X-One", "3")
    assert list(fields) == LINES


def test_equality_is_of_lines():
    assert Fields(LINES) == Fields(tuple(LINES))
    assert hash(Fields(LINES)) == hash(Fields(LINES))
    assert Fields(LINES) != Fields(LINES[1:])
    assert Fields() != ()
    assert repr(Fields([("A", "b")])) == "Fields([('A', 'b')])"


def test_heads_are_values():
    request = Request("GET", "http", "a:81", "/x?y", Fields())
    assert request.url == "http://a:81/x?y"
    assert request.with_fields(Fields(LINES)).fields == Fields(LINES)
    assert Response(204, Fields()).with_fields(Fields(LINES)) == Response(204, Fields(LINES))
