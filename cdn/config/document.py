"""A YAML file as plain values that remember their lines.

Strategy: ruamel.yaml composes the nodes (YAML 1.2: `yes` and `12:30` are text), and one walk makes
dicts, lists and scalars of them and notes the line of every key and item. Mistakes of YAML itself
are noted too; a key given twice does not hide what else is wrong with the file.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from cdn.config.problems import ConfigError, Finding, Loc, Problem, spell

# Deeper than any key of ours; an alias inside its own anchor would go on for ever.
_DEPTH_LIMIT = 8


@dataclass(slots=True)
class Document:
    """One file: its top mapping, the line of every place in it, and what YAML found wrong."""

    file: Path
    value: dict[str, Any] = field(default_factory=dict)
    lines: dict[Loc, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def line(self, loc: Loc) -> int:
        """The line of the nearest place around `loc` that the file does have."""
        return next(
            (self.lines[loc[:n]] for n in range(len(loc), 0, -1) if loc[:n] in self.lines), 1
        )

    def problem(self, loc: Loc, what: str, mend: str) -> Problem:
        while loc and isinstance(loc[-1], int) and loc not in self.lines:
            loc = loc[:-1]  # a single text where a list may stand has no items
        return Problem(str(self.file), self.line(loc), spell(loc), what, mend)

    def problems_of(self, findings: list[Finding]) -> list[Problem]:
        return [self.problem(found.loc, found.what, found.mend) for found in findings]


def read_document(file: Path) -> Document:
    """Reads and parses one file. Raises ConfigError if it cannot be read, is not YAML, or is not a
    mapping at its top; lesser mistakes are in the document's `problems`."""
    root = _compose(file)
    document = Document(file)
    if not isinstance(root, MappingNode):
        problem = Problem(str(file), 1, "", "is not a mapping", "write lines of key: value")
        raise ConfigError([problem])
    document.value = _plain(root, (), document)
    return document


def _compose(file: Path) -> Node | None:
    try:
        root: Node | None = YAML(typ="rt").compose(file.read_text(encoding="utf-8"))
    except OSError as error:
        what, mend = f"cannot be read: {error.strerror}", "check the path and its permissions"
        raise ConfigError([Problem(str(file), None, "", what, mend)]) from None
    except UnicodeDecodeError as error:
        what = f"is not UTF-8 at byte {error.start}"
        raise ConfigError([Problem(str(file), None, "", what, "save it as UTF-8")]) from None
    except RecursionError:
        what, mend = "is nested too deeply", "no key here needs more than a few levels"
        raise ConfigError([Problem(str(file), None, "", what, mend)]) from None
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else None
        what = f"is not YAML: {error.problem or error.context}"
        mend = "check indentation, quotes and brackets here and on the line before"
        raise ConfigError([Problem(str(file), line, "", what, mend)]) from None
    except YAMLError as error:
        what = f"is not YAML: {str(error).splitlines()[0]}"
        raise ConfigError([Problem(str(file), None, "", what, "save it as plain text")]) from None
    return root


def _plain(node: Node, loc: Loc, document: Document) -> Any:
    if len(loc) > _DEPTH_LIMIT:
        document.problems.append(document.problem(loc, "is nested too deep", "write it out flat"))
        return None
    if isinstance(node, MappingNode):
        return {
            name: _plain(value, (*loc, name), document)
            for name, value in _members(node, loc, document)
        }
    if isinstance(node, SequenceNode):
        for index, item in enumerate(node.value):
            document.lines[*loc, index] = item.start_mark.line + 1
        return [_plain(item, (*loc, index), document) for index, item in enumerate(node.value)]
    return _scalar(node, loc, document)


def _members(node: MappingNode, loc: Loc, document: Document) -> Iterator[tuple[str, Node]]:
    """The mapping's keys and values; notes lines, and keys that are given twice or are not text."""
    seen: dict[str, int] = {}
    for key, value in node.value:
        line = key.start_mark.line + 1
        name = key.value if isinstance(key, ScalarNode) else "a list or mapping"
        if name in seen:
            what, mend = f"is given twice, first in line {seen[name]}", "keep one of the two"
            where = spell((*loc, name))
            document.problems.append(Problem(str(document.file), line, where, what, mend))
            continue
        seen[name] = document.lines[*loc, name] = line
        yield name, value


def _scalar(node: Node, loc: Loc, document: Document) -> object:
    text = str(node.value)
    match str(node.tag).removeprefix("tag:yaml.org,2002:"):
        case "null":
            return None
        case "bool":
            return text.lower() == "true"
        case "int" if text.lstrip("+-").isdecimal() and len(text) < 20:
            return int(text)
        case "float" if text.replace(".", "", 1).lstrip("+-").isdecimal():
            return float(text)
        case "str" | "int" | "float" | "timestamp":
            return text  # 0x10, 1e3, .inf, 2026-01-01: kept as written, nothing of ours is one
        case tag:
            what, mend = f"has the YAML tag {tag!r}", "leave the tag out"
            document.problems.append(document.problem(loc, what, mend))
            return None
