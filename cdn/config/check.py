"""`cdn check` without the printing: a file, or a directory with everything that belongs together.

Strategy: it loads what a node would load, by the same code, and adds the rules that only a view of
several nodes can tell. Services that many nodes share are told about once.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from cdn.config.document import read_document
from cdn.config.loader import Loaded, load_node, load_service
from cdn.config.models import EdgeConfig
from cdn.config.problems import ConfigError, Problem

LookAtStore = Callable[[Path, int], tuple[str, str] | None]
"""What of a store's directory, for so many bytes, would keep a node from starting, and the mend."""


@dataclass(frozen=True, slots=True)
class Report:
    """What was looked at, and what is wrong with it."""

    checked: tuple[Path, ...]
    problems: tuple[Problem, ...]
    edges: int = 0
    shields: int = 0
    services: int = 0

    @property
    def summary(self) -> str:
        """`6 files, 2 edges, 2 shields, 2 services: fine`."""
        parts = [_counted(len(self.checked), "file")]
        for number, noun in ((self.edges, "edge"), (self.shields, "shield")):
            parts += [_counted(number, noun)] if number else []
        parts += [_counted(self.services, "service")] if self.services else []
        verdict = _counted(len(self.problems), "problem") if self.problems else "fine"
        return f"{', '.join(parts)}: {verdict}"


def check(
    path: Path,
    environ: Mapping[str, str] = os.environ,
    look: LookAtStore = lambda directory, size: None,
    now: Callable[[], float] = time.time,
) -> Report:
    """Checks a node's or service's file, or every *.yaml directly in a directory, with the service
    files that nodes name. Whatever is wrong is in the report; nothing is raised. `look` may look at
    the stores' directories, and opens none; `now` is the wall time by which certificates are old,
    with which a node would start."""
    if not path.is_dir():
        return _check_all([path], environ, look, now())
    files = sorted(path.glob("*.yaml"))
    if not files:
        what, mend = "holds no *.yaml file", "name a file, or a directory such as configs/"
        return Report((), (Problem(str(path), None, "", what, mend),))
    return _check_all(files, environ, look, now())


def _check_all(
    files: list[Path], environ: Mapping[str, str], look: LookAtStore, now: float
) -> Report:
    nodes: list[Loaded] = []
    alone: list[Path] = []
    problems: list[Problem] = []
    for file in files:
        if _is_service(file):
            alone.append(file)
            problems.extend(load_service(file, environ))
        else:
            nodes.append(load_node(file, environ))
            problems.extend(nodes[-1].problems)
    problems.extend(_same_names(nodes))
    problems.extend(_stores(nodes, look))
    problems.extend(_outdated(nodes, now))
    services = dict.fromkeys([*alone, *(file for node in nodes for file in node.files[1:])])
    configs = [node.config for node in nodes if node.config]
    edges = sum(isinstance(config, EdgeConfig) for config in configs)
    return Report(
        checked=(*(node.files[0] for node in nodes), *services),
        problems=tuple(dict.fromkeys(problems)),
        edges=edges,
        shields=len(configs) - edges,
        services=len(services),
    )


def _is_service(file: Path) -> bool:
    """Nodes have a role, services have hosts; what has neither is told that it lacks a role."""
    try:
        keys = read_document(file).value
    except ConfigError:
        return False
    return "hosts" in keys and "role" not in keys


def _same_names(nodes: list[Loaded]) -> Iterator[Problem]:
    """Two nodes of one name: by CDN-Loop (RFC 8586) each would take the other's requests for its
    own that came round again, and answer 508."""
    owners: dict[str, Path] = {}
    for node in nodes:
        if node.config is None:
            continue
        file, name = node.files[0], node.config.name
        if name in owners:
            line = read_document(file).line(("name",))
            what = f"{owners[name]} is named {name} too, and requests between them would be loops"
            yield Problem(str(file), line, "name", what, "give each node a name of its own")
        owners.setdefault(name, file)


def _stores(nodes: list[Loaded], look: LookAtStore) -> Iterator[Problem]:
    owners: dict[Path, Path] = {}
    for node in nodes:
        config, file = node.config, node.files[0]
        if config is None or config.store is None or config.disk is None:
            continue
        line = read_document(file).line(("store",))
        if config.store in owners:
            what = f"{config.store} is the store of {owners[config.store]}"
            yield Problem(str(file), line, "store", what, "give each node a directory of its own")
        elif (found := look(config.store, config.disk)) is not None:
            yield Problem(str(file), line, "store", *found)
        owners.setdefault(config.store, file)


def _outdated(nodes: list[Loaded], now: float) -> Iterator[Problem]:
    for node in nodes:
        if node.config is None or node.config.tls is None:
            continue
        document = read_document(node.files[0])
        for n, certificate in enumerate(node.config.tls.loaded):
            if not certificate.is_valid(now):
                what = f"{certificate.cert} {certificate.trouble(now)}"
                mend = "have it renewed, and reload"
                yield document.problem(("tls", "certificates", n, "cert"), what, mend)


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
