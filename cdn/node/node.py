"""One running node: the parts put together, reloaded, drained.

Strategy: what a reload may not touch (store, connections, listeners, counts) is made once; what it
replaces (services with their routers, whom to trust) comes out of `assemble` and is swapped whole
between two requests. A configuration that cannot be read changes nothing.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Callable, Sequence
from typing import Any

from cdn.config.addresses import ListenAddress, UnixAddress
from cdn.config.models import AdminConfig, EdgeConfig, NodeConfig, needs_restart
from cdn.config.problems import ConfigError
from cdn.control.api import AdminServer, Listen
from cdn.control.protocol import ReloadReport
from cdn.gateway.background import BackgroundTasks
from cdn.gateway.exchange import Exchange, Outcome
from cdn.gateway.gateway import Gateway
from cdn.gateway.owners import OwnerCounters
from cdn.gateway.services import ServiceTable
from cdn.gateway.workers import OneWorker
from cdn.node import viewers_tls
from cdn.node.assembly import Assemble, Upstreams
from cdn.node.clock import Clock
from cdn.node.complaints import Complaints
from cdn.node.instruments import Instrumented, declare
from cdn.node.peers import Peers, Place, drain_both
from cdn.node.stores import close_store, hot_memory, open_store, store_status
from cdn.observe.access_log import AccessLog
from cdn.observe.events import EventLog
from cdn.observe.hits import Hit, Served
from cdn.observe.log_lines import LogRecord, record_of
from cdn.observe.metrics import Metrics, RequestCounts
from cdn.semantics.cache_key import key_of_url
from cdn.semantics.message import Response
from cdn.storage.disk import DiskStore
from cdn.upstream.client import UpstreamClient
from cdn.upstream.health import HealthTracker
from cdn.wire.fastpath import FastPath
from cdn.wire.server import Http1Server
from cdn.wire.tls import TlsContext

DRAIN_LIMIT = 30.0
"""Seconds that requests in flight get when the node is told to stop."""

GRACE = 1.0
"""Seconds in which a worker that ends still hears what its newest connections want."""

A_DAY = 86_400.0
"""Seconds between one look at how long certificates last and the next."""

Load = Callable[[], NodeConfig]
"""Reads the configuration again. Raises ConfigError."""

OnRecord = Callable[[LogRecord], None]


class Node:
    """Made on the loop that runs it. `load` is what a reload reads; `events` tells the operator.
    With a `place` it is one of several workers: it keeps what it owns, and its admin listener
    answers the admin process alone. `lock_fd` is the disk store's lock, `tls` what handshakes begin
    on, where somebody else of the node holds them. Without `fast` every answer is the full path's.

    Raises AccessLogUnusable and StoreUnusable where the access log or the store cannot be opened.
    """

    def __init__(
        self,
        config: NodeConfig,
        assemble: Assemble,
        load: Load,
        *,
        clock: Clock,
        events: EventLog,
        on_record: OnRecord | None = None,
        place: Place | None = None,
        lock_fd: int | None = None,
        tls: TlsContext | None = None,
        fast: bool = True,
    ) -> None:
        self.config = config
        self.events = events
        self._assemble = assemble
        self._load = load
        self._clock = clock
        self._on_record = on_record
        self.closed_soundly = True
        self._reloading = asyncio.Lock()
        self._reloads = {"ok": 0, "failed": 0}
        self._started_at = clock.now()
        monotonic = asyncio.get_running_loop().time
        complaints = Complaints(events, clock.now)
        health = HealthTracker(monotonic, tell=complaints.health)
        self._upstreams = Upstreams(UpstreamClient(monotonic), health)
        self.background = BackgroundTasks(events.error)
        self._place = place
        self._operator = config.operator if isinstance(config, EdgeConfig) else ""
        self._log = (
            AccessLog(config.access_log, node=config.name, operator=self._operator, events=events)
            if config.access_log
            else None
        )
        self._store = open_store(config, place, lock_fd, events)
        assembly = assemble(config, self._upstreams)
        self._peers = None
        if place is not None:
            self._peers = Peers(place, monotonic, clock.now, complaints.failed)
        self.gateway = Gateway(
            name=config.name,
            services=ServiceTable(assembly.services),
            store=self._store,
            clock=clock.now,
            background=self.background,
            trusts=assembly.trusts,
            complain=complaints.failed,
            workers=OneWorker() if self._peers is None else self._peers.workers,
        )
        self._tls = tls or viewers_tls.make_tls(config)
        if tls is not None and config.tls is not None:
            tls.use(viewers_tls.offered(config.tls))  # it may be older than the configuration
        self._certificates = config
        self._warning: asyncio.TimerHandle | None = None
        self._requests = RequestCounts()
        self.server = Http1Server(
            self.gateway if self._peers is None else self._peers.handler(self.gateway, clock.date),
            name=config.name,
            clock=clock.now,
            date=clock.date,
            on_finished=self._finished,
            tls=self._tls,
            report=events.error,
            fast=self._fast_path(clock) if fast else None,
            # Whom a shield answers, says who asks: of that nothing is kept with a field block.
            misses=self.gateway.misses if self.gateway.trusts_nobody else None,
        )
        self.declared = self._instrumented()
        token = config.admin.token if config.admin else None
        answers = config.admin is not None or place is not None
        self._admin = AdminServer(token=token, events=events) if answers else None

    def _fast_path(self, clock: Clock) -> FastPath:
        store = self._store
        capacity, room = hot_memory(self.config, self._place, store)
        return FastPath(
            self.gateway.repeats,
            capacity,
            room,
            clock=clock.now,
            on_hits=self._hits,
            on_uses=self._requests.count_uses,
        )

    def _instrumented(self) -> Metrics:
        config = self.config
        metrics = Metrics(node=config.name, role=config.role, operator=self._operator)
        declare(
            metrics,
            Instrumented(
                self._requests,
                self.server.counters,
                self.server.tls_counters,
                self.gateway,
                self._store,
                config.disk or config.memory,
                self._upstreams,
                OwnerCounters() if self._peers is None else self._peers.counters,
                0 if self._place is None else self._place.restarts,
            ),
        )
        metrics.counter(
            "cdn_hot_answers_total",
            "Requests that were answered by the fast path, out of what is stored and fresh.",
            lambda: self.server.fast_answers,
        )
        metrics.gauge(
            "cdn_hot_bytes",
            "RAM for answers ready to be given again; without a disk store part of the store's.",
            lambda: self.server.hot_bytes,
        )
        metrics.counter(
            "cdn_reloads_total",
            "Reloads of the configuration, by whether it could be used.",
            lambda: {(result,): count for result, count in self._reloads.items()},
            ("result",),
        )
        metrics.gauge(
            "cdn_tls_certificate_expiry_seconds",
            "When each TLS certificate that is in use ends, in seconds since 1970.",
            lambda: viewers_tls.expiries(self._certificates),
            ("certificate",),
        )
        if self._log is not None:
            metrics.counters("cdn_access_log", self._log.counts)
        return metrics

    # --- living and dying -----------------------------------------------------------------------

    async def start(self) -> None:
        """Listens; a worker only for its peers. Raises ListenFailed or AdminUnusable, one line each
        for the operator."""
        if self._peers is not None:
            await self._peers.start()
        else:
            tls = self.config.tls.listen if self.config.tls else ()
            await self.server.start(_pairs(self.config.listen), tls_listeners=_pairs(tls))
        if self._place is None or self._place.index == 0:
            self._warn_of_certificates()
        if self._admin is not None:
            await self._admin.start(self, self._admin_listen())

    async def serve_on(
        self, sockets: Sequence[socket.socket], tls_sockets: Sequence[socket.socket]
    ) -> None:
        """A worker's viewers, on the sockets that its supervisor has bound. They come last: not
        before every worker can be asked for what it owns, and told what to purge."""
        await self.server.start(sockets=sockets, tls_sockets=tls_sockets)

    def _warn_of_certificates(self) -> None:
        """Now, and every day: the process of a node may outlive its certificates."""
        for line in viewers_tls.warnings(self._certificates, self._clock.now()):
            self.events.warning(line)
        loop = asyncio.get_running_loop()
        self._warning = loop.call_later(A_DAY, self._warn_of_certificates)

    def _admin_listen(self) -> Listen:
        if self._place is not None:
            return self._place.admin
        assert self.config.admin is not None
        return admin_listen(self.config.admin)

    async def stop(self, limit: float = DRAIN_LIMIT) -> None:
        """Drains: no new connections, those in flight finish within `limit` seconds."""
        if self._admin is not None:
            self._admin.draining = True
        if self._warning is not None:
            self._warning.cancel()
        if self._peers is None:
            await self.server.drain(limit)
        else:
            await drain_both(self.server, self._peers, GRACE, limit)
        await self.background.close()
        await self._upstreams.client.close()
        if self._peers is not None:
            await self._peers.close()
        if self._admin is not None:
            await self._admin.stop()
        if self._log is not None:
            await self._log.close()
        self.closed_soundly = await close_store(self._store)

    async def stop_writing(self) -> None:
        """A successor keeps what comes from now on; what is stored is served on."""
        if isinstance(self._store, DiskStore):
            await self._store.stop_writing()

    # --- what operators ask (cdn.control.protocol.Node) -----------------------------------------

    async def reload(self) -> ReloadReport:
        """See `control.protocol.Node.reload`. Also opens the access log anew."""
        if self._log is not None:
            self._log.reopen()
        async with self._reloading:
            return await self._reload()

    async def _reload(self) -> ReloadReport:
        try:
            config = await asyncio.to_thread(self._load)
        except ConfigError as error:
            messages = [str(problem) for problem in error.problems]
        except Exception as error:  # ours, but the node and its old rules go on
            messages = [f"a fault of the node, please report it: {type(error).__name__}: {error}"]
        else:
            return self._adopt(config)
        self._reloads["failed"] += 1
        for message in messages:
            self.events.error(f"reload: nothing changed: {message}")
        return ReloadReport(ok=False, messages=messages)

    def _adopt(self, config: NodeConfig) -> ReloadReport:
        """Goes by `config` from the next request on."""
        fixed = needs_restart(self.config, config)
        messages = [f"{key}: has changed, which needs a restart" for key in fixed]
        if self._tls is not None and config.tls is not None:
            self._tls.use(viewers_tls.offered(config.tls))
            self._certificates = config
            messages += viewers_tls.warnings(config, self._clock.now())
        for message in messages:
            self.events.warning(f"reload: {message}")
        self.server.settle()
        assembly = self._assemble(config, self._upstreams)
        self.gateway.services = ServiceTable(assembly.services)
        self.gateway.trusts = assembly.trusts
        self._reloads["ok"] += 1
        names = ", ".join(service.name for service in assembly.services)
        self.events.info(f"reload: ok: services {names}")
        return ReloadReport(ok=True, messages=messages)

    async def purge(self, url: str, invalidation: str = "") -> int:
        """See `control.protocol.Node.purge`."""
        return self.gateway.purge(url, invalidation)

    async def purged(self, url: str, invalidation: str) -> None:
        """See `control.protocol.Node.purged`."""
        self.gateway.lift(invalidation, [key_of_url(url)])

    async def metrics(self) -> bytes:
        """See `control.protocol.Node.metrics`."""
        self.server.settle()
        return self.declared.render()

    @property
    def listening(self) -> list[str]:
        """HOST:PORT of each plain listener, the ports that were 0 now known."""
        return [f"{_host(host)}:{port}" for host, port in self.server.addresses]

    @property
    def tls_listening(self) -> list[str]:
        """The same of those for TLS."""
        return [f"{_host(host)}:{port}" for host, port in self.server.tls_addresses]

    async def status(self) -> dict[str, Any]:
        """See `control.protocol.Node.status`."""
        self.server.settle()
        wire, fills = self.server.counters, self.gateway.filling.counters
        return {
            "node": self.config.name,
            "role": self.config.role,
            "operator": self._operator,
            "prefixes": [str(prefix) for prefix in getattr(self.config, "prefixes", ())],
            "uptime_seconds": round(self._clock.now() - self._started_at, 3),
            "workers": 1,
            "listen": self.listening,
            "tls": {
                "listen": self.tls_listening,
                "certificates": viewers_tls.status(self._certificates, self._clock.now()),
            },
            "connections": wire.connections_open,
            "requests": wire.requests,
            "store": store_status(self._store, self.config),
            "fills": {
                "begun": fills.begun,
                "stored": fills.stored,
                "cut_short": fills.cut_short,
            },
            "services": [
                {"name": service.name, "hosts": list(service.hosts)}
                for service in self.gateway.services.services
            ],
            "upstreams": [
                {
                    "name": state.name,
                    "usable": state.usable,
                    "failures": state.failures,
                    "ejections": state.ejections,
                }
                for state in self._upstreams.health.states()
            ],
            "reloads": dict(self._reloads),
        }

    # --- every finished request -----------------------------------------------------------------

    def _hits(self, hits: Sequence[Hit], misses: Sequence[Served]) -> None:
        self.server.counters.requests += len(hits)
        self._requests.time_hits(hits, all_hits=not misses)
        self._requests.count_uses(misses)
        if self._log is not None:
            self._log.extend(hits)
        if self._on_record is not None:
            for hit in hits:
                self._on_record(record_of(hit))

    def _finished(
        self,
        exchange: Exchange | None,
        head: Response,
        outcome: Outcome,
        sent: int,
        seconds: float,
        complete: bool,
    ) -> None:
        self._requests.count(outcome.service, outcome.cache, head.status, sent, seconds)
        if self._log is None and self._on_record is None:
            return
        record = self._record(exchange, head, outcome, sent, seconds, complete)
        if self._log is not None:
            self._log.append(record)
        if self._on_record is not None:
            self._on_record(record)

    def _record(
        self,
        exchange: Exchange | None,
        head: Response,
        outcome: Outcome,
        sent: int,
        seconds: float,
        complete: bool,
    ) -> LogRecord:
        request = None if exchange is None else exchange.request
        fields = None if request is None else request.fields
        return LogRecord(
            time=self._clock.now(),
            client=outcome.client or ("" if exchange is None else exchange.client),
            method="" if request is None else request.method,
            target="" if request is None else request.target,
            authority="" if request is None else request.authority,
            scheme="" if request is None else request.scheme,
            version=(1, 1) if request is None else request.version,
            status=head.status,
            content_bytes=sent,
            referer="" if fields is None else fields.get("referer") or "",
            user_agent="" if fields is None else fields.get("user-agent") or "",
            cache_status=head.fields.get("cache-status") or "",
            outcome=outcome.cache,
            service=outcome.service,
            seconds=seconds,
            complete=complete,
            source=outcome.source,
        )


def admin_listen(admin: AdminConfig) -> Listen:
    """The admin listener's address as `control` takes it."""
    listen = admin.listen
    return str(listen.path) if isinstance(listen, UnixAddress) else (listen.host, listen.port)


def _pairs(addresses: Sequence[ListenAddress]) -> list[tuple[str, int]]:
    return [(address.host, address.port) for address in addresses]


def _host(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def stderr_events(name: str, clock: Clock) -> EventLog:
    """The event log of a node that runs in a process of its own."""
    return EventLog(name, clock.now, sys.stderr)
