"""Files to configuration, with every problem of every file at once.

Strategy: a node's file is read, then the service files that its globs name; each is validated by
itself, and then the rules that span files. Nothing stops at the first mistake but a file that is
not YAML. The one load serves start, reload and `cdn check`, so they cannot disagree.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cdn.config.document import Document, read_document
from cdn.config.models import EdgeConfig, NodeConfig, ServiceConfig, ShieldConfig
from cdn.config.problems import ConfigError, Loc, Problem, shown
from cdn.config.validation import validate
from cdn.config.values import Context

_MODELS: dict[str, type[EdgeConfig] | type[ShieldConfig]] = {
    "edge": EdgeConfig,
    "shield": ShieldConfig,
}


@dataclass(slots=True)
class Loaded:
    """What became of one node's file: its configuration, unless there are problems."""

    files: list[Path]
    problems: list[Problem] = field(default_factory=list)
    config: NodeConfig | None = None


@dataclass(slots=True)
class _Service:
    document: Document
    config: ServiceConfig


def load(path: Path, environ: Mapping[str, str] = os.environ) -> NodeConfig:
    """The edge or shield that the file at `path` describes, with its services and secrets read.
    Relative paths in a file start at that file. Raises ConfigError with all problems."""
    loaded = load_node(path, environ)
    if loaded.config is None or loaded.problems:
        raise ConfigError(loaded.problems)
    return loaded.config


def load_edge(path: Path, environ: Mapping[str, str] = os.environ) -> EdgeConfig:
    """As `load`, for a file that must be an edge's."""
    config = load(path, environ)
    if not isinstance(config, EdgeConfig):
        raise _other_role(path, config.role, "edge")
    return config


def load_shield(path: Path, environ: Mapping[str, str] = os.environ) -> ShieldConfig:
    """As `load`, for a file that must be a shield's."""
    config = load(path, environ)
    if not isinstance(config, ShieldConfig):
        raise _other_role(path, config.role, "shield")
    return config


def load_node(path: Path, environ: Mapping[str, str]) -> Loaded:
    """`load` for those who want problems as data; never raises for what a file holds."""
    loaded = Loaded([path])
    try:
        document = read_document(path)
    except ConfigError as error:
        loaded.problems.extend(error.problems)
        return loaded
    loaded.problems.extend(document.problems)
    role = document.value.get("role")
    if not isinstance(role, str) or role not in _MODELS:
        what = f"{shown(role)} is not a role" if "role" in document.value else "is missing"
        mend = "write role: edge or role: shield"
        loaded.problems.append(document.problem(("role",), what, mend))
        return loaded
    context = Context(path.parent, environ)
    services = list(_services(document, context, loaded))
    raw = {**document.value, "services": tuple(service.config for service in services)}
    loaded.config, findings = validate(_MODELS[role], raw, context)
    loaded.problems.extend(document.problems_of(findings))
    loaded.problems.extend(_clashes(services))
    if role == "shield" or document.value.get("direct_to_origin") is True:
        loaded.problems.extend(_without_origins(services, path))
    if isinstance(loaded.config, EdgeConfig) and loaded.config.shields:
        loaded.problems.extend(_impatient(loaded.config, services, path))
    return loaded


def load_service(path: Path, environ: Mapping[str, str]) -> list[Problem]:
    """The problems of a delivery service's file by itself."""
    return _read_service(path, Context(path.parent, environ))[1]


def _other_role(path: Path, role: str, wanted: str) -> ConfigError:
    what = f"this file is for role {role}"
    mend = f"run cdn {role} -c {path}, or give -c a file of role {wanted}"
    return ConfigError([Problem(str(path), None, "role", what, mend)])


def _services(document: Document, context: Context, loaded: Loaded) -> Iterator[_Service]:
    seen: set[Path] = set()
    for loc, pattern in _patterns(document, loaded):
        names = sorted(glob.glob(pattern, root_dir=context.directory))
        if not names:
            what = f"{shown(pattern)} matches no file in {context.directory}"
            mend = "write e.g. services/*.yaml, relative to this file"
            loaded.problems.append(document.problem(loc, what, mend))
        for file in (context.directory / name for name in names):
            if file in seen:
                continue
            seen.add(file)
            loaded.files.append(file)
            service, problems = _read_service(file, Context(file.parent, context.environ))
            loaded.problems.extend(problems)
            if service:
                yield service


def _patterns(document: Document, loaded: Loaded) -> Iterator[tuple[Loc, str]]:
    """The globs under `services:` and where each stands."""
    value = document.value.get("services")
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, list) or not items:
        what = "is missing" if value is None else f"{shown(value)} is not a path or list of paths"
        mend = "write e.g. services: services/*.yaml"
        loaded.problems.append(document.problem(("services",), what, mend))
        return
    for n, item in enumerate(items):
        if isinstance(item, str) and item:
            yield ("services", n), item
        else:
            what, mend = f"{shown(item)} is not a path", "write e.g. services/*.yaml"
            loaded.problems.append(document.problem(("services", n), what, mend))


def _read_service(file: Path, context: Context) -> tuple[_Service | None, list[Problem]]:
    try:
        document = read_document(file)
    except ConfigError as error:
        return None, list(error.problems)
    config, findings = validate(ServiceConfig, document.value, context)
    problems = document.problems + document.problems_of(findings)
    return (_Service(document, config) if config else None), problems


def _clashes(services: list[_Service]) -> Iterator[Problem]:
    """Names and hosts that two services claim: which of them answers must not be a matter of
    luck."""
    owners: dict[tuple[str, str], str] = {}
    for service in services:
        claims: list[tuple[Loc, str]] = [(("name",), service.config.name)]
        claims += [(("hosts", n), host) for n, host in enumerate(service.config.hosts)]
        for loc, text in claims:
            key = (str(loc[0]), text)
            if key in owners:
                what = f"{text!r} is taken by {owners[key]}"
                yield service.document.problem(loc, what, "keep it in one of the two")
            else:
                owners[key] = f"{service.document.file}:{service.document.line(loc)}"


def _without_origins(services: list[_Service], node: Path) -> Iterator[Problem]:
    for service in services:
        if not service.config.origins:
            what = f"is missing, and {node} asks origins itself"
            mend = "write e.g. origins: [http://origin.example]"
            yield service.document.problem(("origins",), what, mend)


def _impatient(edge: EdgeConfig, services: list[_Service], node: Path) -> Iterator[Problem]:
    """Deadlines by which the edge would give up a shield that still waits for an origin: a slow
    origin would pass for a dead shield. The shield connects at most twice, and waits once."""
    ours = edge.deadlines.first_byte
    for service in services:
        theirs = service.config.deadlines
        if (longest := 2 * theirs.connect + theirs.first_byte) >= ours:
            what = (
                f"a shield may take {longest:g}s over it, and {node} waits {ours:g}s for a shield"
            )
            mend = f"raise deadlines.first_byte of {node} above {longest:g}s, or lower these"
            yield service.document.problem(("deadlines",), what, mend)
