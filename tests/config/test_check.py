"""`cdn check`, the project's own configs/, and the page that documents every key."""

import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from cdn.config.check import check
from cdn.config.models import (
    SEGMENT_MARGIN,
    CacheConfig,
    EdgeConfig,
    ServiceConfig,
    ShieldConfig,
    least_disk,
)
from cdn.config.units import parse_duration, parse_size
from cdn.config.validation import model_in
from cdn.config.values import MIN_SLICE, MOST_SLICE
from cdn.storage.directory import StoreUnusable
from cdn.storage.disk import segment_size_for
from cdn.storage.inspect import look
from tests.config.config_trees import EDGE, FILMS, SHIELD

ROOT = Path(__file__).parents[2]


def test_the_configurations_of_the_project_are_fine():
    report = check(ROOT / "configs", {})
    assert report.problems == ()
    assert report.summary == "6 files, 2 edges, 2 shields, 2 services: fine"
    assert ROOT / "configs/services/films.yaml" in report.checked


def test_a_file_a_service_and_a_directory_of_services(write):
    write(edge=EDGE)
    assert check(Path("edge.yaml"), {}).summary == "2 files, 1 edge, 1 service: fine"
    assert check(Path("services/films.yaml"), {}).summary == "1 file, 1 service: fine"
    assert check(Path("services"), {}).summary == "1 file, 1 service: fine"


def test_problems_of_shared_services_are_told_once(write):
    write(edge=EDGE, shield=SHIELD, films=FILMS.replace("[films", "[/films"))
    report = check(Path(), {})
    (problem,) = report.problems
    assert str(problem).startswith("services/films.yaml:2: hosts[0]: ")
    assert report.summary == "3 files, 1 edge, 1 shield, 1 service: 1 problem"


def test_two_nodes_of_one_name(write):
    write(edge=EDGE, shield="# comment\n" + SHIELD.replace("shield-yokohama", "edge-a"))
    (problem,) = check(Path(), {}).problems
    assert str(problem).startswith("shield.yaml:3: name: edge.yaml is named edge-a too, and ")


def test_two_nodes_of_one_store_and_a_directory_that_is_none(write, tmp_path):
    kept = "store: kept\ndisk: 1GiB\n"
    write(edge=EDGE + kept, shield=SHIELD + kept)
    (problem,) = check(Path(), {}).problems
    assert str(problem).startswith(f"shield.yaml:6: store: {tmp_path}/kept is the store of edge.y")
    assert check(Path("edge.yaml"), {}, look).problems == ()

    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "letter.txt").touch()
    (problem,) = check(Path("edge.yaml"), {}, look).problems
    assert str(problem) == (
        f"edge.yaml:8: store: {tmp_path}/kept is not a store, and not empty; "
        "name an empty or a new directory"
    )
    write(edge=EDGE + f"store: {tmp_path}/new\ndisk: 999999TiB\n")
    (tmp_path / "new").mkdir()
    (problem,) = check(Path("edge.yaml"), {}, look).problems
    assert str(problem).startswith(f"edge.yaml:8: store: {tmp_path}/new is on a disk of ")


def test_what_a_disk_must_have_is_what_a_store_asks_for(tmp_path):
    for size in (MIN_SLICE, MOST_SLICE):
        assert segment_size_for(tmp_path, least_disk(size), size) == size + SEGMENT_MARGIN
        with pytest.raises(StoreUnusable):
            segment_size_for(tmp_path, least_disk(size) - 1, size)


def test_what_is_neither_node_nor_service(write):
    write(edge=EDGE, stray="nmae: x\n", broken="a: [")
    lines = [str(problem) for problem in check(Path(), {}).problems]
    assert [line.partition(";")[0] for line in lines] == [
        "broken.yaml:1: is not YAML: expected the node content, but found '<stream end>'",
        "stray.yaml:1: role: is missing",
    ]


def test_nothing_to_check(tmp_path):
    report = check(tmp_path, {})
    assert str(report.problems[0]).startswith(f"{tmp_path}: holds no *.yaml file; ")
    report = check(tmp_path / "nope", {})
    assert "cannot be read: No such file or directory" in str(report.problems[0])
    assert report.summary == "1 file: 1 problem"


def test_a_service_alone_tells_its_problems(write):
    write(films=FILMS + "x: 1\n")
    (problem,) = check(Path("services/films.yaml"), {}).problems
    assert problem.line == 4


def keys(model: type[BaseModel]) -> set[str]:
    found = set()
    for name, field in model.model_fields.items():
        found.add(name)
        found |= keys(inner) if (inner := model_in(field.annotation)) else set()
    return found


def documented() -> dict[str, list[str]]:
    """First column of the tables of keys -> the other columns."""
    page = (ROOT / "docs/CONFIGURATION.md").read_text(encoding="utf-8")
    rows = {}
    for table in re.findall(r"^\| key .*\n\|[-|]+\n((?:\|.*\n)+)", page, re.MULTILINE):
        for row in table.splitlines():
            first, *rest = (cell.strip(" `") for cell in row.strip("|").split("|"))
            rows[first.rpartition(".")[2]] = rest
    return rows


@pytest.mark.parametrize("model", [EdgeConfig, ShieldConfig, ServiceConfig])
def test_the_page_names_every_key(model):
    assert keys(model) <= documented().keys()


def test_the_page_names_no_other_key():
    assert documented().keys() <= keys(EdgeConfig) | keys(ShieldConfig) | keys(ServiceConfig)


@pytest.mark.parametrize("name", CacheConfig.model_fields)
def test_the_page_has_the_defaults_of_the_cache(name):
    kind, said = documented()[name][:2]
    kinds = {"time": parse_duration, "flag": "true".__eq__, "size": parse_size}
    read = kinds.get(kind.partition(",")[0], float)
    assert read(said) == CacheConfig.model_fields[name].default
