"""The types of configuration's values, each with the one function that reads it.

Strategy: pydantic calls our parsers and keeps what they return. What depends on where a file stands
(relative paths, the environment) comes in as the validation's `Context`, never from globals.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator, Strict, ValidationInfo

from cdn.config.addresses import (
    ListenAddress,
    Network,
    UnixAddress,
    Url,
    parse_admin_listen,
    parse_host,
    parse_host_pattern,
    parse_listen,
    parse_prefix,
    parse_url,
)
from cdn.config.certificates import ServerCertificate, check_certificates, load_certificate
from cdn.config.problems import BadValue, shown
from cdn.config.units import format_size, parse_duration, parse_size

MIN_MEMORY = 2**20
MOST_WORKERS = 64
AUTO = "auto"

MIN_SLICE = 64 * 2**10
MOST_SLICE = 16 * 2**20

_LABEL = re.compile(r"[A-Za-z0-9._-]{1,64}")
_SECRET = re.compile(r"[\x21-\x7e]{8,}")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Context:
    """What a document's values are read against."""

    directory: Path
    """Relative paths start here."""

    environ: Mapping[str, str]
    cpus: int = field(default_factory=lambda: len(os.sched_getaffinity(0)))
    """Those that this process may run on."""


@dataclass(frozen=True, slots=True)
class Secret:
    """A secret and where it came from (a file's path, a variable's name); never shows itself."""

    source: str
    value: str = field(repr=False)


def parse_label(value: object) -> str:
    """A name for metrics and logs: 1 to 64 letters, digits, ".", "_", "-". Raises BadValue."""
    if isinstance(value, str) and _LABEL.fullmatch(value):
        return value
    raise BadValue(
        f"{shown(value)} is not a name",
        'write 1 to 64 letters, digits, ".", "_" or "-" (a number in quotes)',
    )


def parse_node_name(value: object) -> str:
    """A label that begins with a letter: Cache-Status members and CDN-Loop parameters are tokens of
    structured fields (RFC 8941 §3.3.4). Raises BadValue."""
    name = parse_label(value)
    if not name[0].isalpha():
        raise BadValue(f"{shown(name)} does not begin with a letter", f"write e.g. node-{name}")
    return name


def _operator(value: object) -> str:
    if isinstance(value, str) and 0 < len(value) <= 64 and value.isprintable() and '"' not in value:
        return value
    raise BadValue(
        f"{shown(value)} is not an operator's name",
        "write 1 to 64 printable characters without double quotes",
    )


def _memory(value: object) -> int:
    if (size := parse_size(value)) < MIN_MEMORY:
        raise BadValue(f"{shown(value)} is too little", f"write {format_size(MIN_MEMORY)} or more")
    return size


def _workers(value: object, info: ValidationInfo) -> int:
    if value == AUTO:
        # One process has no hop to an owner; with a disk store every process reads all of it.
        cpus = context_of(info).cpus if info.data.get("store") else 1
        return min(cpus, MOST_WORKERS)
    # bool is an int to Python, and to nobody else.
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MOST_WORKERS:
        raise BadValue(
            f"{shown(value)} is not a number of workers", f"write 1 to {MOST_WORKERS}, or {AUTO}"
        )
    return value


def _slice_size(value: object) -> int:
    size = parse_size(value)
    if not MIN_SLICE <= size <= MOST_SLICE or size & (size - 1):
        raise BadValue(
            f"{shown(value)} is not a slice's size",
            f"write a power of two from {format_size(MIN_SLICE)} to {format_size(MOST_SLICE)}",
        )
    return size


def _store(value: object, info: ValidationInfo) -> Path:
    if not isinstance(value, str) or not value:
        raise BadValue(f"{shown(value)} is not a path", "write the path of a directory")
    return _path(value, info)


def _certificates(value: object, info: ValidationInfo) -> Path:
    check_certificates(path := _pem(value, info))
    return path


def _key_of_certificate(value: object, info: ValidationInfo) -> ServerCertificate | None:
    """The certificate under `cert` with the key at this path, or, where none is given, with the one
    in its own file."""
    cert = info.data.get("cert")
    if cert is None:
        return None  # told at `cert`
    return load_certificate(cert, cert if value is None else _pem(value, info))


def _pem(value: object, info: ValidationInfo) -> Path:
    if not isinstance(value, str) or not value:
        raise BadValue(f"{shown(value)} is not a path", "write the path of a PEM file")
    return _path(value, info)


def _deadline(value: object) -> float:
    if (seconds := parse_duration(value)) == 0:
        raise BadValue("a deadline of no time lets nothing through", "write e.g. 3s")
    return seconds


def _listed(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _not_empty(values: tuple[T, ...]) -> tuple[T, ...]:
    # Not pydantic's min_length: that calls a list empty whose items are all refused.
    if not values:
        raise BadValue("is empty", "write at least one")
    return values


def _all_different(values: tuple[T, ...]) -> tuple[T, ...]:
    for n, value in enumerate(values):
        # Port 0 asks for any free port: twice is two ports.
        if value in values[:n] and getattr(value, "port", None) != 0:
            raise BadValue(f"{value} is given twice", "keep one of the two")
    return values


def _access_log(value: object, info: ValidationInfo) -> str:
    if value == "-":
        return "-"
    if not isinstance(value, str) or not value:
        raise BadValue(f"{shown(value)} is not a path", "write a path, or - for standard output")
    return str(_path(value, info))


def _secret_from_file(value: object, info: ValidationInfo) -> Secret:
    if not isinstance(value, str) or not value:
        raise BadValue(f"{shown(value)} is not a path", "write the path of a file with the secret")
    path = _path(value, info)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise BadValue(
            f"{path} cannot be read: {error.strerror}",
            f"make it with: openssl rand -hex 32 > {path}; and let this user read it",
        ) from None
    except UnicodeDecodeError:
        text = ""
    return Secret(str(path), _checked(text.strip(), str(path)))


def _secret_from_environment(value: object, info: ValidationInfo) -> Secret:
    if not isinstance(value, str) or not value:
        raise BadValue(f"{shown(value)} is not a variable's name", "write e.g. CDN_ADMIN_TOKEN")
    environ = context_of(info).environ
    if value not in environ:
        raise BadValue(
            f"the environment has no {value}", f"export {value}=$(openssl rand -hex 32) first"
        )
    return Secret(value, _checked(environ[value], value))


def _checked(secret: str, source: str) -> str:
    # It travels in a field value (RFC 6750 §2.1), and must not be guessed. Never shown.
    if not _SECRET.fullmatch(secret):
        raise BadValue(
            f"{source} holds no usable secret",
            "put at least 8 printable ASCII characters without spaces there",
        )
    return secret


def _path(value: str, info: ValidationInfo) -> Path:
    return (context_of(info).directory / value).absolute()


def context_of(info: ValidationInfo) -> Context:
    """What this document's values are read against."""
    assert isinstance(info.context, Context)
    return info.context


Flag = Annotated[bool, Strict()]
Label = Annotated[str, PlainValidator(parse_label)]
NodeName = Annotated[str, PlainValidator(parse_node_name)]
OperatorName = Annotated[str, PlainValidator(_operator)]
Memory = Annotated[int, PlainValidator(_memory)]
Workers = Annotated[int, PlainValidator(_workers)]
SliceSize = Annotated[int, PlainValidator(_slice_size)]
StorePath = Annotated[Path, PlainValidator(_store)]
Size = Annotated[int, PlainValidator(parse_size)]
Seconds = Annotated[float, PlainValidator(parse_duration)]
Deadline = Annotated[float, PlainValidator(_deadline)]
Fraction = Annotated[float, Strict(), Field(ge=0, le=1)]
Weight = Annotated[float, Strict(), Field(gt=0, le=100)]
AccessLog = Annotated[str, PlainValidator(_access_log)]
SecretFile = Annotated[Secret, PlainValidator(_secret_from_file)]
SecretEnv = Annotated[Secret, PlainValidator(_secret_from_environment)]
CertFile = Annotated[Path, PlainValidator(_certificates)]
KeyFile = Annotated[ServerCertificate, PlainValidator(_key_of_certificate)]
Listen = Annotated[ListenAddress, PlainValidator(parse_listen)]
AdminListen = Annotated[ListenAddress | UnixAddress, PlainValidator(parse_admin_listen)]
UpstreamUrl = Annotated[Url, PlainValidator(parse_url)]
Host = Annotated[str, PlainValidator(parse_host)]
HostPattern = Annotated[str, PlainValidator(parse_host_pattern)]
Prefix = Annotated[Network, PlainValidator(parse_prefix)]

Distinct = AfterValidator(_all_different)
OneOrMore = AfterValidator(_not_empty)
Listed: Any = BeforeValidator(_listed)
