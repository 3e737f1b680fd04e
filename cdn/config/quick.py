"""A node from a few flags: the same configuration that a file would give.

Strategy: the flags become the mapping that a file would hold and go through the same models; only
the problems differ, they name the flag. What a quick node leaves out: one service for any host, and
an operator, which is a matter for a file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from cdn.config.addresses import parse_listen, parse_url
from cdn.config.models import CacheConfig, EdgeConfig, ShieldConfig, least_disk
from cdn.config.problems import BadValue, ConfigError, Finding, Problem, spell
from cdn.config.units import format_size
from cdn.config.validation import validate
from cdn.config.values import Context

ADMIN_TOKEN = "CDN_ADMIN_TOKEN"  # noqa: S105 - the name of a variable
LOOPBACK = ("127.0.0.0/8", "::1/128")

_FLAGS = {
    "listen": "--listen",
    "tls.listen": "--tls-listen",
    "tls.certificates[0].cert": "--tls-cert",
    "tls.certificates[0].key": "--tls-key",
    "admin": "--admin",
    "memory": "--memory",
    "store": "--store",
    "disk": "--disk",
    "admission": "--admission",
    "workers": "--workers",
    "name": "--name",
    "access_log": "--access-log",
    "shields": "--shield",
    "edges": "--edges",
    "services": "--origin",
}

C = TypeVar("C", EdgeConfig, ShieldConfig)


def quick_edge(
    *,
    listen: Sequence[str] = (),
    tls_listen: Sequence[str] = (),
    tls_cert: str | None = None,
    tls_key: str | None = None,
    origin: str | None = None,
    shields: Sequence[str] = (),
    admin: str | None = None,
    memory: str | None = None,
    store: str | None = None,
    disk: str | None = None,
    admission: str | None = None,
    workers: int | None = None,
    name: str | None = None,
    access_log: str | None = None,
    hostname: str,
    environ: Mapping[str, str],
) -> EdgeConfig:
    """An edge for any Host. With shields they are asked, in a ring of equal weights, and the
    origin only when all of them are lost; without, the origin is. `hostname` is this machine's, for
    the default name. An `admin` on TCP takes its token from CDN_ADMIN_TOKEN in `environ`.
    Raises ConfigError."""
    given = {
        "name": name, "admin": admin, "memory": memory, "store": store, "disk": disk,
        "admission": admission, "access_log": access_log,
    }  # fmt: skip
    tls = _Tls(tls_listen, tls_cert, tls_key)
    raw = _node("edge", listen, tls, origin, hostname, given, workers)
    raw["shields"] = [{"name": _shield_name(url), "url": url} for url in shields]
    raw["direct_to_origin"] = origin is not None
    missing = tls.missing() if tls else []
    if not listen and not tls:
        missing.append(_missing("--listen", "--listen 127.0.0.1:8080"))
    if origin is None and not shields:
        missing.append(_missing("--origin", "--origin http://127.0.0.1:9000, or --shield URL"))
    return _finished(EdgeConfig, raw, missing, environ)


def quick_shield(
    *,
    listen: Sequence[str] = (),
    tls_listen: Sequence[str] = (),
    tls_cert: str | None = None,
    tls_key: str | None = None,
    origin: str | None,
    edges: Sequence[str] = LOOPBACK,
    admin: str | None = None,
    memory: str | None = None,
    store: str | None = None,
    disk: str | None = None,
    admission: str | None = None,
    workers: int | None = None,
    name: str | None = None,
    access_log: str | None = None,
    hostname: str,
    environ: Mapping[str, str],
) -> ShieldConfig:
    """A shield for any Host before one origin. It believes the edges at the prefixes `edges`, by
    default those on this machine. The rest is as for `quick_edge`. Raises ConfigError."""
    given = {
        "name": name, "admin": admin, "memory": memory, "store": store, "disk": disk,
        "admission": admission, "access_log": access_log,
    }  # fmt: skip
    tls = _Tls(tls_listen, tls_cert, tls_key)
    raw = _node("shield", listen, tls, origin, hostname, given, workers)
    raw["edges"] = {"prefixes": list(edges)}
    missing = tls.missing() if tls else []
    if not listen and not tls:
        missing.append(_missing("--listen", "--listen 127.0.0.1:8180"))
    if origin is None:
        missing.append(_missing("--origin", "--origin http://127.0.0.1:9000"))
    return _finished(ShieldConfig, raw, missing, environ)


class _Tls(NamedTuple):
    """What the flags say of it; true where they say anything."""

    listen: Sequence[str]
    cert: str | None
    key: str | None

    def __bool__(self) -> bool:
        return bool(self.listen or self.cert or self.key)

    def missing(self) -> list[Problem]:
        problems = []
        if not self.listen:
            problems.append(_missing("--tls-listen", "--tls-listen 127.0.0.1:8443"))
        if not self.cert:
            problems.append(_missing("--tls-cert", "--tls-cert PATH, and --tls-key PATH"))
        return problems

    def raw(self) -> dict[str, Any]:
        files = {"cert": self.cert, "key": self.key}
        given = {name: path for name, path in files.items() if path}
        return {"listen": list(self.listen), "certificates": [given]}


def _node(
    role: str,
    listen: Sequence[str],
    tls: _Tls,
    origin: str | None,
    hostname: str,
    given: Mapping[str, str | None],
    workers: int | None,
) -> dict[str, Any]:
    raw: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    if workers is not None:
        raw["workers"] = workers
    raw["role"] = role
    if listen:
        raw["listen"] = list(listen)
    if tls:
        raw["tls"] = tls.raw()
    raw.setdefault("name", _default_name(role, [*listen, *tls.listen], hostname))
    if (admin := given["admin"]) is not None:
        token = {} if admin.startswith("unix:") else {"token_env": ADMIN_TOKEN}
        raw["admin"] = {"listen": admin, **token}
    origins = [] if origin is None else [origin]
    raw["services"] = [{"name": "default", "hosts": ["*"], "origins": origins}]
    return raw


def _default_name(role: str, listen: Sequence[str], hostname: str) -> str:
    """`edge-8080-tokyo1`: the port alone would make two machines look like a loop (CDN-Loop)."""
    try:
        port = parse_listen(listen[0]).port if listen else 0
    except BadValue:
        port = 0  # told as a problem of --listen
    machine = re.sub(r"[^A-Za-z0-9._-]", "-", hostname.partition(".")[0])
    return "-".join(filter(None, (role, str(port), machine)))[:64]


def _shield_name(url: str) -> str:
    try:
        shield = parse_url(url)
    except BadValue:
        return "shield"  # told as a problem of --shield
    return f"{shield.host.replace(':', '_')}-{shield.port}"[-64:]


def _missing(flag: str, mend: str) -> Problem:
    return Problem("", None, flag, "is missing", f"write {mend}")


def _finished(
    model: type[C], raw: Mapping[str, Any], missing: list[Problem], environ: Mapping[str, str]
) -> C:
    config, findings = validate(model, raw, Context(Path(), environ))
    told = {problem.where for problem in missing}
    problems = missing + [
        problem for problem in map(_flag_problem, findings) if problem.where not in told
    ]
    if config is None or problems:
        raise ConfigError(problems)
    return config


def _flag_problem(found: Finding) -> Problem:
    where = found.loc[:2] if found.loc[:2] == ("tls", "listen") else found.loc
    flag = _FLAGS.get(spell(where)) or _FLAGS.get(str(found.loc[0]), "--origin")
    if found.loc == ("admin", "token_env"):
        what = f"an admin listener on TCP needs a bearer token, and {found.what}"
        return Problem("", None, flag, what, f"{found.mend}, or write --admin unix:/PATH")
    if found.loc == ("services",):  # what it has is ours: only the disk's size can be amiss
        least = format_size(least_disk(CacheConfig().slice_size))
        return Problem("", None, "--disk", "is too little for a store", f"write {least} or more")
    return Problem("", None, flag, found.what, found.mend)
