"""Typed configuration: an edge, a shield, a delivery service.

Strategy: frozen models that hold finished values (bytes, seconds, addresses, secrets already read),
so whoever wires a node only hands them on, and two of them compare by what they mean. Each mistake
is told at its own key; a rule between two keys sits at the later one and runs even when other keys
are wrong. Rules between files are the loader's.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from cdn.config.addresses import ListenAddress
from cdn.config.certificates import ServerCertificate
from cdn.config.problems import BadValue
from cdn.config.units import format_size
from cdn.config.values import (
    AUTO,
    MIN_SLICE,
    MOST_SLICE,
    AccessLog,
    AdminListen,
    CertFile,
    Deadline,
    Distinct,
    Flag,
    Fraction,
    Host,
    HostPattern,
    KeyFile,
    Label,
    Listed,
    Listen,
    Memory,
    NodeName,
    OneOrMore,
    OperatorName,
    Prefix,
    Seconds,
    Secret,
    SecretEnv,
    SecretFile,
    Size,
    SliceSize,
    StorePath,
    UpstreamUrl,
    Weight,
    Workers,
)
from cdn.semantics.policy import CachePolicy

_POLICY = CachePolicy()

SEGMENTS = 160
"""A disk store has at least so many, of one size, and a slice must fit into one."""

SEGMENT_MARGIN = 128 * 2**10
"""Bytes that a segment has beside its largest slice."""


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class OriginDeadlines(_Model):
    """Seconds: to be connected, to the whole response head, between two pieces of content."""

    connect: Deadline = 3.0
    first_byte: Deadline = 15.0
    idle: Deadline = 30.0


class ShieldDeadlines(OriginDeadlines):
    """The same from edge to shield, where a slow origin must not look like a dead shield."""

    first_byte: Deadline = 40.0


class CacheConfig(_Model):
    """`CachePolicy` as a service may set it: the same names, the same defaults."""

    heuristic_fraction: Fraction = _POLICY.heuristic_fraction
    heuristic_limit: Seconds = _POLICY.heuristic_limit
    stale_when_disconnected: Seconds = _POLICY.stale_when_disconnected
    stale_if_error: Seconds = _POLICY.stale_if_error
    stale_while_revalidate: Seconds = _POLICY.stale_while_revalidate
    hit_for_miss: Seconds = _POLICY.hit_for_miss
    request_directives: Flag = _POLICY.request_directives
    relay_cdn_cache_control: Flag = _POLICY.relay_cdn_cache_control
    normalize_vary: Flag = _POLICY.normalize_vary
    slice_size: SliceSize = _POLICY.slice_size


class ServiceConfig(_Model):
    """A delivery service: one content provider, by host name."""

    name: Annotated[Label, Field(examples=["films"])]
    hosts: Annotated[
        tuple[HostPattern, ...], OneOrMore, Distinct, Field(examples=["[films.example]"])
    ]
    origins: Annotated[tuple[UpstreamUrl, ...], Distinct] = ()
    origin_host: Host | None = None
    """The Host that origins are asked for; None passes the viewer's on."""

    cache: CacheConfig = CacheConfig()
    deadlines: OriginDeadlines = OriginDeadlines()

    def policy(self) -> CachePolicy:
        return CachePolicy(**self.cache.model_dump())


class AdminConfig(_Model):
    """The operators' HTTP API: where it listens and the bearer token it asks for."""

    listen: Annotated[AdminListen, Field(examples=["127.0.0.1:8081"])]
    token_file: SecretFile | None = None
    token_env: SecretEnv | None = Field(default=None, validate_default=True)

    @field_validator("token_env")
    @classmethod
    def _one_token(cls, token_env: Secret | None, info: ValidationInfo) -> Secret | None:
        token_file = info.data.get("token_file")
        if token_env and token_file:
            raise BadValue("token_file says it already", "keep one of the two")
        on_tcp = isinstance(info.data.get("listen"), ListenAddress)
        if on_tcp and "token_file" in info.data and not (token_env or token_file):
            raise BadValue(
                "an admin listener on TCP needs a bearer token",
                "write token_file: PATH or token_env: NAME, or listen: unix:/PATH",
            )
        return token_env

    @property
    def token(self) -> str | None:
        """The bearer token; None only for a Unix socket, which its directory protects."""
        secret = self.token_file or self.token_env
        return secret.value if secret else None


class CertificateConfig(_Model):
    """A certificate, with those that signed it, and its key: two PEM files, or one."""

    cert: Annotated[CertFile, Field(examples=["films.pem"])]
    key: KeyFile = Field(default=None, validate_default=True)
    """Both together, read: apart they are of no use."""

    @property
    def loaded(self) -> ServerCertificate:
        return self.key


class TlsConfig(_Model):
    """Where viewers are answered over TLS, and as whom."""

    listen: Annotated[
        tuple[Listen, ...], Listed, OneOrMore, Distinct, Field(examples=["0.0.0.0:8443"])
    ]
    certificates: Annotated[
        tuple[CertificateConfig, ...],
        OneOrMore,
        Field(examples=["[{cert: films.pem, key: films.key}]"]),
    ]
    """Chosen by server name; the first is also for clients that name none of them."""

    @property
    def loaded(self) -> tuple[ServerCertificate, ...]:
        return tuple(certificate.loaded for certificate in self.certificates)


class _NodeConfig(_Model):
    """What edges and shields have in common."""

    name: Annotated[NodeName, Field(examples=["edge-a"])]
    tls: TlsConfig | None = None
    listen: Annotated[tuple[Listen, ...], Listed, Distinct, Field(examples=["127.0.0.1:8080"])] = (
        Field(default=(), validate_default=True)
    )
    """Empty only where `tls` listens."""

    admin: AdminConfig | None = None
    memory: Memory = 2**30
    store: StorePath | None = None
    """The disk store's directory, absolute; None keeps what is stored in RAM."""

    disk: Size | None = Field(default=None, validate_default=True)
    admission: Literal["all", "reuse"] = "all"
    workers: Workers = Field(default=AUTO, validate_default=True)
    scheduling: Literal["batch", "normal"] = "batch"
    access_log: AccessLog | None = None
    """An absolute path, or "-" for standard output; None for no log."""

    @field_validator("listen", mode="before")
    @classmethod
    def _somewhere(cls, listen: object, info: ValidationInfo) -> object:
        if listen == () and "tls" in info.data and info.data["tls"] is None:
            mend = "write e.g. listen: 127.0.0.1:8080, or a tls: that listens"
            raise BadValue("is missing", mend)
        if listen == []:
            raise BadValue("is empty", "write at least one")
        return listen

    @field_validator("listen")
    @classmethod
    def _not_both(
        cls, listen: tuple[ListenAddress, ...], info: ValidationInfo
    ) -> tuple[ListenAddress, ...]:
        tls: TlsConfig | None = info.data.get("tls")
        for address in listen:
            if tls and address in tls.listen and address.port:
                raise BadValue(f"{address} is the address for TLS already", "write another port")
        return listen

    @field_validator("disk")
    @classmethod
    def _with_a_store(cls, disk: int | None, info: ValidationInfo) -> int | None:
        if "store" in info.data and (disk is None) != (info.data["store"] is None):
            if disk is None:
                raise BadValue(
                    "the store needs to know how much of its disk it may use",
                    "write a size, e.g. 100GiB",
                )
            raise BadValue("there is no store", "name its directory, or leave this out")
        return disk

    @field_validator("admin")
    @classmethod
    def _own_address(cls, admin: AdminConfig | None, info: ValidationInfo) -> AdminConfig | None:
        viewers: tuple[ListenAddress, ...] = info.data.get("listen", ())
        if (tls := info.data.get("tls")) is not None:
            viewers += tls.listen
        # Port 0 asks for any free port: no clash.
        if admin and admin.listen in viewers and admin.listen.port:
            raise BadValue(f"{admin.listen} is the viewers' address already", "write another port")
        return admin

    @property
    def largest_slice(self) -> int:
        """Bytes of the largest that its disk takes, whatever services a reload may bring."""
        size = MOST_SLICE
        while size > MIN_SLICE and self.disk is not None and self.disk < least_disk(size):
            size //= 2
        return size


def least_disk(slice_size: int) -> int:
    """Bytes of the smallest disk store that takes slices of so many."""
    return SEGMENTS * (slice_size + SEGMENT_MARGIN)


def _that_the_disk_takes(
    services: tuple[ServiceConfig, ...], info: ValidationInfo
) -> tuple[ServiceConfig, ...]:
    disk = info.data.get("disk")
    for service in services:
        size = service.cache.slice_size
        if disk is not None and disk < (least := least_disk(size)):
            raise BadValue(
                f"{service.name} has slices of {format_size(size)}, too large for a disk of "
                f"{format_size(disk)}",
                f"write disk: {format_size(least)} or more, or a smaller cache.slice_size",
            )
    return services


Services = Annotated[tuple[ServiceConfig, ...], AfterValidator(_that_the_disk_takes)]


class NamedShield(_Model):
    """A shield as an edge knows it. The ring is made of names and weights: all edges must agree on
    them, or one object has two owners."""

    name: Annotated[Label, Field(examples=["shield-yokohama"])]
    url: Annotated[UpstreamUrl, Field(examples=["http://shield.example:8180"])]
    weight: Weight = 1.0


class EdgeConfig(_NodeConfig):
    """A node that answers viewers."""

    role: Annotated[Literal["edge"], Field(examples=["edge"])]
    operator: OperatorName = ""
    prefixes: tuple[Prefix, ...] = ()
    """Address prefixes of the operator whose edge this is."""

    shields: tuple[NamedShield, ...] = ()
    shield_secret_file: SecretFile | None = None
    direct_to_origin: Flag = Field(default=False, validate_default=True)
    deadlines: ShieldDeadlines = ShieldDeadlines()
    services: Services

    @field_validator("shields")
    @classmethod
    def _different(cls, shields: tuple[NamedShield, ...]) -> tuple[NamedShield, ...]:
        for n, shield in enumerate(shields):
            for other in shields[:n]:
                if shield.url == other.url:
                    raise BadValue(f"{shield.url} is given twice", "keep one of the two")
                if shield.name == other.name:
                    raise BadValue(f"two shields are named {shield.name}", "rename one of them")
        return shields

    @field_validator("direct_to_origin")
    @classmethod
    def _somewhere_to_go(cls, direct: bool, info: ValidationInfo) -> bool:
        if not direct and info.data.get("shields") == ():
            raise BadValue(
                "this edge has no shields and may not ask origins either",
                "name shields:, or write direct_to_origin: true",
            )
        return direct

    @property
    def shield_secret(self) -> str | None:
        """What this edge tells shields to be believed; None where its prefix is enough."""
        return self.shield_secret_file.value if self.shield_secret_file else None


class KnownEdges(_Model):
    """Which downstreams a shield believes, by address or by shared secret."""

    prefixes: tuple[Prefix, ...] = ()
    secret_file: SecretFile | None = Field(default=None, validate_default=True)

    @field_validator("secret_file")
    @classmethod
    def _someone(cls, secret_file: Secret | None, info: ValidationInfo) -> Secret | None:
        if secret_file is None and info.data.get("prefixes") == ():
            raise BadValue(
                "no edge would be believed", "write prefixes: [CIDR, …] or secret_file: PATH"
            )
        return secret_file

    @property
    def secret(self) -> str | None:
        return self.secret_file.value if self.secret_file else None


class ShieldConfig(_NodeConfig):
    """A node that answers edges and asks origins."""

    role: Annotated[Literal["shield"], Field(examples=["shield"])]
    edges: Annotated[KnownEdges, Field(examples=["{prefixes: [192.0.2.0/24]}"])]
    services: Services


NodeConfig = EdgeConfig | ShieldConfig


def needs_restart(old: NodeConfig, new: NodeConfig) -> list[str]:
    """The keys whose change a reload cannot bring about, in the order of the file."""
    fixed = (
        *("role", "name", "operator", "listen", "tls.listen", "admin", "memory"),
        *("store", "disk", "admission", "workers", "scheduling", "access_log"),
    )

    def said(config: NodeConfig, key: str) -> object:
        value: object = config
        for step in key.split("."):
            value = getattr(value, step, None)
        return value or None  # a shield has no operator

    return [key for key in fixed if said(old, key) != said(new, key)]
