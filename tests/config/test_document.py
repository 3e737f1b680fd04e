from pathlib import Path

import pytest

from cdn.config.document import read_document
from cdn.config.problems import ConfigError


def read(tmp_path: Path, text: str | bytes):
    file = tmp_path / "x.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_document(file)


def test_values_are_plain_and_yaml_1_2(tmp_path):
    document = read(
        tmp_path,
        "a: 1\nb: yes\nc: True\nd: -1.5\ne:\nf: '7'\ng: 2026-01-01\n"
        f"h: 0x10\ni: [x, {{j: 2}}]\nk: 12:30\nl: {'9' * 5000}\n",
    )
    assert document.value == {
        "a": 1,
        "b": "yes",
        "c": True,
        "d": -1.5,
        "e": None,
        "f": "7",
        "g": "2026-01-01",
        "h": "0x10",
        "i": ["x", {"j": 2}],
        "k": "12:30",
        "l": "9" * 5000,
    }
    assert document.problems == []


def test_lines_of_keys_items_and_of_what_is_missing(tmp_path):
    document = read(tmp_path, "# top\na: 1\nb:\n  - c: 2\n    d:\n      3\n  - e\n")
    assert document.line(("a",)) == 2
    assert document.line(("b", 0, "d")) == 5
    assert document.line(("b", 0, "missing")) == 4
    assert document.line(("b", 1)) == 7
    assert document.line(("nowhere",)) == 1


def test_a_key_given_twice_is_told_and_the_rest_is_still_read(tmp_path):
    document = read(tmp_path, "a: 1\nb: {c: 1, c: 2}\na: 2\nd: 4\n")
    assert document.value == {"a": 1, "b": {"c": 1}, "d": 4}
    assert [(p.line, p.where, p.what) for p in document.problems] == [
        (2, "b.c", "is given twice, first in line 2"),
        (3, "a", "is given twice, first in line 1"),
    ]


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("a: [1\nb: 2\n", 2, "is not YAML: expected ',' or ']'"),
        ("a: 1\n\tb: 2\n", 2, "is not YAML"),
        ("a: b: c\n", 1, "is not YAML: mapping values are not allowed here"),
        ("a: 1\nb: *x\n", 2, "is not YAML: found undefined alias"),
        ("a: 1\n---\nb: 2\n", 2, "is not YAML"),
        ("", 1, "is not a mapping"),
        ("- a\n", 1, "is not a mapping"),
        ("a: \x00", None, "is not YAML: unacceptable character"),
        (b"a: \xff", None, "is not UTF-8 at byte 3"),
        ("a: " + "[" * 5000, None, "is nested too deeply"),
    ],
)
def test_what_is_no_yaml_mapping(tmp_path, text, line, what):
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text)
    (problem,) = caught.value.problems
    assert (problem.file, problem.line) == (str(tmp_path / "x.yaml"), line)
    assert problem.what.startswith(what)
    assert "\n" not in str(problem)


def test_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(ConfigError, match=r"nope\.yaml: cannot be read: No such file"):
        read_document(tmp_path / "nope.yaml")
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        read_document(tmp_path)


def test_tags_and_endless_nesting_are_refused(tmp_path):
    document = read(tmp_path, "a: !!python/object:os.system x\nb: &b {c: *b}\n")
    assert [p.what for p in document.problems] == [
        "has the YAML tag 'python/object:os.system'",
        "is nested too deep",
    ]
    assert document.value["a"] is None
