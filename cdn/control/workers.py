"""All workers of a node as one: the `Node` that the admin process serves.

Strategy: every worker answers the same admin API on a Unix socket in the node's directory; whoever
is in the directory is asked, all at once, and the answers are put together by plain rules: numbers
add up, lists of named things are matched by name. During an upgrade both generations are there. A
worker where nobody listens is dead, and what it held with it; a connection that breaks says nothing
of the kind, so it is asked again. What a worker has counted stays counted when it is gone, or every
death would look like a restart of the node to Prometheus.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
from collections.abc import Awaitable, Callable, Collection
from typing import Any

import aiohttp
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from cdn.control.api import INVALIDATION, PURGED
from cdn.control.protocol import NoAnswer, ReloadReport

ADMIN_SUFFIX = ".admin"

LIMIT = aiohttp.ClientTimeout(total=25)
"""Seconds that a worker gets, below those of the operator's client; a reload reads every file."""

TRIES = 2
"""How often a worker is asked that breaks its connection: it may be done twice, not half."""

_LEAST = frozenset({"cdn_upstream_usable", "cdn_tls_certificate_expiry_seconds"})
"""Gauges of which the least is true of the node."""

_MOST = frozenset({"cdn_reloads"})
"""Counters of what every worker does each time."""

_SHARED = frozenset(
    f"cdn_store_{name}" for name in ("objects", "slices", "bytes", "capacity_bytes", "failing")
)
"""What every worker tells alike of a disk store, which is one for all of them."""

Sample = tuple[str, tuple[tuple[str, str], ...]]


class Sums:
    """Metrics put together, sample by sample; of those in `most` the greatest counts."""

    def __init__(self, most: Collection[str]) -> None:
        self._most = most
        self._families: dict[str, tuple[Metric, dict[Sample, float]]] = {}

    def add(self, family: Metric) -> None:
        """What one worker tells under one name."""
        samples = self._families.setdefault(family.name, (family, {}))[1]
        for sample in family.samples:
            key = sample.name, tuple(sample.labels.items())
            samples[key] = self._together(family.name, samples.get(key), sample.value)

    def add_all(self, other: Sums) -> None:
        """What another sum holds."""
        for name, (family, theirs) in other._families.items():
            samples = self._families.setdefault(name, (family, {}))[1]
            for key, value in theirs.items():
                samples[key] = self._together(name, samples.get(key), value)

    def _together(self, name: str, before: float | None, value: float) -> float:
        if before is None:
            return value
        if name in _LEAST:
            return min(before, value)
        return max(before, value) if name in self._most else before + value

    def render(self) -> bytes:
        """Prometheus' text format."""
        lines: list[str] = []
        for name, (head, samples) in self._families.items():
            full = f"{name}_total" if head.type == "counter" else name
            lines += [f"# HELP {full} {_escaped(head.documentation)}", f"# TYPE {full} {head.type}"]
            for (sample_name, labels), value in samples.items():
                told = ",".join(f'{label}="{_escaped(text, True)}"' for label, text in labels)
                lines.append(f"{sample_name}{{{told}}} {value}")
        return "".join(f"{line}\n" for line in lines).encode()


def _escaped(text: str, quoted: bool = False) -> str:
    text = text.replace("\\", r"\\").replace("\n", r"\n")
    return text.replace('"', r"\"") if quoted else text


class AllWorkers:
    """`directory` holds the workers' sockets; `name` and `role` are the node's. `reloaded` is
    called when all workers have taken up a new configuration. With a `shared_store` all of them
    tell of the same one."""

    def __init__(
        self,
        directory: str,
        name: str,
        role: str,
        reloaded: Callable[[], None],
        *,
        shared_store: bool = False,
    ) -> None:
        self._directory = directory
        self._base = {"node": name, "role": role}
        self._reloaded = reloaded
        self._numbers = itertools.count()
        self._counted: dict[str, list[Metric]] = {}
        self._shared_store = shared_store
        self._most = _MOST | _SHARED if shared_store else _MOST
        self._gone = Sums(self._most)

    async def status(self) -> dict[str, Any]:
        """See `control.protocol.Node.status`."""
        told = await self._all(lambda worker: _json(worker.get("/v1/status")))
        merged: dict[str, Any] = _merged([status for _, status in told.values()])
        if merged:
            merged["reloads"] = max((s["reloads"] for _, s in told.values()), key=_total)
            if self._shared_store:
                merged["store"] |= _of_one_store([status["store"] for _, status in told.values()])
        return self._base | (merged or {}) | {"workers": len(told)}

    async def metrics(self) -> bytes:
        """See `control.protocol.Node.metrics`."""
        told = await self._all(lambda worker: _text(worker.get("/metrics")))
        living = {
            name: list(text_string_to_metric_families(text)) for name, (_, text) in told.items()
        }
        for name in self._counted.keys() - living:
            for family in self._counted.pop(name):
                if family.type != "gauge":
                    self._gone.add(family)
        self._counted |= living
        sums = Sums(self._most)
        for families in living.values():
            for family in families:
                sums.add(family)
        sums.add_all(self._gone)
        return sums.render()

    async def purge(self, url: str, invalidation: str = "") -> int:
        """See `control.protocol.Node.purge`."""
        named = {INVALIDATION: f"{os.getpid()}-{next(self._numbers)}"}
        content = {"url": url}
        told = await self._all(
            lambda worker: _json(worker.post("/v1/purge", json=content, headers=named))
        )
        for status, answer in told.values():
            if status != 200:
                raise ValueError(answer["error"])
        # Who does not hear it repeats nothing of the URL for a while: the purge is done.
        with contextlib.suppress(NoAnswer):
            await self._all(lambda worker: _text(worker.post(PURGED, json=content, headers=named)))
        return sum(answer["removed"] for _, answer in told.values())

    async def purged(self, url: str, invalidation: str) -> None:
        """See `control.protocol.Node.purged`. No-op: all workers have been told by `purge`."""

    async def reload(self) -> ReloadReport:
        """See `control.protocol.Node.reload`."""
        told = await self._all(lambda worker: _json(worker.post("/v1/reload")))
        reports = [ReloadReport(answer["ok"], answer["messages"]) for _, answer in told.values()]
        messages = dict.fromkeys(message for report in reports for message in report.messages)
        ok = all(report.ok for report in reports)
        if ok:
            self._reloaded()
        return ReloadReport(ok, list(messages))

    async def _all(
        self, ask: Callable[[aiohttp.ClientSession], Awaitable[tuple[int, Any]]]
    ) -> dict[str, tuple[int, Any]]:
        """The answer of every worker that lives, and its status, by its socket. Raises NoAnswer."""
        names = sorted(n for n in os.listdir(self._directory) if n.endswith(ADMIN_SUFFIX))
        answers = await asyncio.gather(*(self._one(name, ask) for name in names))
        return {
            name: answer for name, answer in zip(names, answers, strict=True) if answer is not None
        }

    async def _one(
        self, name: str, ask: Callable[[aiohttp.ClientSession], Awaitable[tuple[int, Any]]]
    ) -> tuple[int, Any] | None:
        way = aiohttp.UnixConnector(os.path.join(self._directory, name))
        async with aiohttp.ClientSession("http://worker", connector=way, timeout=LIMIT) as worker:
            for _ in range(TRIES):
                try:
                    return await ask(worker)
                except aiohttp.ClientConnectorError as error:
                    if isinstance(error.os_error, ConnectionRefusedError | FileNotFoundError):
                        return None
                except TimeoutError:
                    raise NoAnswer(f"{name}: no answer within {LIMIT.total} s") from None
                except (aiohttp.ClientError, OSError):
                    pass  # it may have died while it was asked, or may have done it
        raise NoAnswer(f"{name}: broke off {TRIES} times")


async def _json(answering: Any) -> tuple[int, Any]:
    async with answering as answer:
        return answer.status, await answer.json()


async def _text(answering: Any) -> tuple[int, str]:
    async with answering as answer:
        return answer.status, await answer.text()


def _of_one_store(told: list[dict[str, Any]]) -> dict[str, Any]:
    """What several workers say of the store that they share: the same, unless one is behind."""
    alike = {
        key: max(one[key] for one in told if key in one)
        for key in told[0]
        if f"cdn_store_{key}" in _SHARED
    }
    return alike | {"trouble": next((one["trouble"] for one in told if one["trouble"]), "")}


def _total(counts: dict[str, int]) -> int:
    return sum(counts.values())


def _merged(values: list[Any]) -> Any:
    """One value for those of all workers."""
    match values:
        case []:
            return None
        case [bool(), *_]:
            return all(values)
        case [int(), *_]:
            return sum(values)
        case [float(), *_]:
            return max(values)
        case [dict(), *_]:
            keys = dict.fromkeys(key for value in values for key in value)
            return {key: _merged([v[key] for v in values if key in v]) for key in keys}
        case [list(), *_]:
            return _matched([item for value in values for item in value])
    return values[0]


def _matched(items: list[Any]) -> list[Any]:
    """Items of several lists; those with one name are one, as are plain ones that are equal."""
    alike: dict[Any, list[Any]] = {}
    for item in items:
        alike.setdefault(item["name"] if isinstance(item, dict) else item, []).append(item)
    return [_merged(group) for group in alike.values()]
