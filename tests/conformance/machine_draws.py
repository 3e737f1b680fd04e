"""What hypothesis draws: how the origin behaves, what clients ask for, how time passes.

Strategy: everything begins as what a CDN likes, plain and shareable, and gets a few twists: so most
stories reach the store, and a shrunk one shows which twist it took. What a client says about
versions (entity tags, dates) is drawn as which one it means, and told when it asks.
"""

from __future__ import annotations

from dataclasses import dataclass
from email.utils import formatdate
from typing import Any

from hypothesis import strategies as st

from tests.conformance.machine_origin import Plan, Version
from tests.kit.reply import FieldLine

GROUP = "news"

paths = st.sampled_from(("/a", "/a", "/b"))
delays = st.sampled_from((0, 1, 4, 11, 11, 30, 61, 3_600, 90_000, -7))

# -- what the origin may be like: mostly what can be shared, with a few twists

CONTROLS = (
    *("max-age=10", "max-age=60", "s-maxage=20", "max-age=60, s-maxage=5"),
    *("max-age=10, stale-while-revalidate=20", "max-age=0", ""),
)
VALIDATORS = (("strong",), ("strong", "modified"), ("weak",), ("modified",), ())
EXTRAS = (
    *("stale-while-revalidate=20", "stale-if-error=30", "must-revalidate", "proxy-revalidate"),
    *("public", "no-cache", "private", "no-store", 'private="X-Mine"', "must-understand, no-store"),
)
TWISTS = (
    *({"extra": f", {extra}"} for extra in EXTRAS),
    *({"renewed": control} for control in CONTROLS[:4]),
    *({"vary": names} for names in ("X-Choice", "X-Choice", "X-Choice, Cookie", "*")),
    *({"targeted": said} for said in ("max-age=30, stale-while-revalidate=9", "no-store")),
    *({"expires": 30}, {"expires": 0}, {"age": 5}, {"age": 40}),
    *({"skew": -15}, {"skew": 15}, {"skew": None}),
    *({"status": 404}, {"status": 301}, {"status": 500}),
    *({"chunked": True}, {"cookie": True}, {"ranges": True}, {"personal": True}),
    {"early": True},
)


def plan_of(
    control: str, validators: tuple[str, ...], group: str, twists: list[dict[str, Any]]
) -> Plan:
    keys = {name: value for twist in twists for name, value in twist.items()}
    control = (control + keys.pop("extra", "")).removeprefix(", ")
    return Plan(cache_control=control, validators=validators, group=group, **keys)


plans = st.builds(
    plan_of,
    st.sampled_from(CONTROLS),
    st.sampled_from(VALIDATORS),
    st.sampled_from(("", GROUP)),
    st.lists(st.sampled_from(TWISTS), max_size=4),
)
failures = st.just("fine") | st.sampled_from(
    ("fine", "500", "503", "disconnect", "reset", "cut", "strange 304")
)


@dataclass(frozen=True)
class Change:
    """A request with an unsafe method, and what the origin answers to it."""

    method: str
    status: int
    fields: tuple[FieldLine, ...]
    kind: str


changes = st.builds(
    Change,
    st.sampled_from(("POST", "PUT", "DELETE")),
    st.sampled_from((200, 204, 303, 403)),
    st.sampled_from(((), (("Location", "/b"),), (("Cache-Group-Invalidation", f'"{GROUP}"'),))),
    failures,
)
upsets = plans | st.just("purge") | changes

# -- what a client may ask for


@dataclass(frozen=True)
class Wish:
    """A request before it is known which versions there are: `which` and `part_of` pick one."""

    method: str = "GET"
    choice: str | None = None
    cookie: str | None = None
    authorized: bool = False
    directives: tuple[str, ...] = ()
    condition: str | None = None
    which: str = "newest"
    ranges: str | None = None
    part_of: str | None = None


WHICH = ("newest", "older", "weakened", "listed", "nobody's", "*")
CONDITIONS = ("If-None-Match", "If-Modified-Since", "If-Match", "If-Unmodified-Since")
DIRECTIVES = (
    *("no-cache", "no-store", "max-age=5", "max-age=0", "min-fresh=10"),
    *("max-stale=20", "max-stale", "only-if-cached", "stale-if-error=60"),
)
positions = st.integers(0, 120)
spans = st.one_of(
    st.builds("{}-{}".format, positions, positions),
    st.builds("{}-".format, positions),
    st.builds("-{}".format, positions),
)
requirements = st.one_of(
    st.sampled_from(({"choice": "one"}, {"cookie": "ann"}, {"authorized": True})),
    st.just({"method": "HEAD"}),
    st.builds(
        lambda condition, which: {"condition": condition, "which": which},
        st.sampled_from(CONDITIONS),
        st.sampled_from(WHICH),
    ),
    st.builds(
        lambda ranges, part_of: {"ranges": ",".join(ranges), "part_of": part_of},
        st.lists(spans, min_size=1, max_size=3),
        st.none() | st.sampled_from(WHICH[:5]),
    ),
    st.lists(st.sampled_from(DIRECTIVES), min_size=1, max_size=2, unique=True).map(
        lambda directives: {"directives": tuple(directives)}
    ),
)


def wish_of(requirements: list[dict[str, Any]]) -> Wish:
    return Wish(**{name: value for one in requirements for name, value in one.items()})


wishes = st.builds(wish_of, st.lists(requirements, max_size=3))
crowds = st.lists(wishes, min_size=2, max_size=3)
holds = st.sampled_from((None, 0, 5))
meantimes = st.sampled_from(("nothing", "nothing", "purge", "leave"))


def lines_of(wish: Wish, versions: list[Version], now: float) -> list[FieldLine]:
    """The wish as field lines, about the versions that its target has had."""
    lines: list[tuple[str, str | None]] = [
        ("X-Choice", wish.choice),
        ("Cookie", wish.cookie),
        ("Authorization", "Basic YTpi" if wish.authorized else None),
        ("Cache-Control", ", ".join(wish.directives) or None),
    ]
    if wish.condition is not None:
        told = tag_of if wish.condition.endswith("Match") else date_of
        lines.append((wish.condition, told(wish.which, versions, now)))
    if wish.ranges is not None:
        lines.append(("Range", f"bytes={wish.ranges}"))
        if wish.part_of is not None:
            version = picked(wish.part_of, versions)
            told = date_of if version is not None and version.etag is None else tag_of
            lines.append(("If-Range", told(wish.part_of, versions, now)))
    return [(name, value) for name, value in lines if value is not None]


def picked(which: str, versions: list[Version]) -> Version | None:
    if which == "older":
        return versions[-2] if len(versions) > 1 else None
    return versions[-1] if versions and which != "nobody's" else None


def tag_of(which: str, versions: list[Version], now: float) -> str:
    version = picked(which, versions)
    tag = (version.etag if version else None) or '"nobody\'s"'
    match which:
        case "*":
            return "*"
        case "weakened":
            return "W/" + tag.removeprefix("W/")
        case "listed":
            return f'"other", {tag}'
    return tag


def date_of(which: str, versions: list[Version], now: float) -> str:
    version = picked(which, versions)
    modified = version.modified if version else None
    return formatdate(now if modified is None else modified, usegmt=True)
