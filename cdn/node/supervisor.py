"""The supervisor of a node's workers: plain Python, no event loop, no threads.

Strategy: it binds every socket once and forks its children, before any loop or thread exists here,
so that a fork is safe, quick, and takes the configuration along; a worker makes its own loop. One
listening socket per address is shared by all (no SO_REUSEPORT: a connection must never hang on a
socket whose worker has gone). It waits in one `poll`: signals come in over a wake-up descriptor,
children and successor over a socket pair or pipe each.

    SIGHUP   reload: the files are read here first, so a broken one changes nothing anywhere
    SIGTERM  drain (SIGINT too); a second one ends all at once
    SIGUSR2  upgrade: the program is run anew with our sockets and the disk store's lock; when it
             serves, our workers let go of the store's shards at once, and we drain

A child leaves our frames by an exception and ends like any other process.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from cdn.config.addresses import ListenAddress
from cdn.config.models import NodeConfig
from cdn.config.problems import ConfigError
from cdn.control.api import AdminUnusable, bind_admin
from cdn.node.assembly import Assemble
from cdn.node.clock import Clock
from cdn.node.handover import Handover, Named, hand_over
from cdn.node.limits import raise_file_limit
from cdn.node.node import DRAIN_LIMIT, GRACE, Load, admin_listen, stderr_events
from cdn.node.peers import Place
from cdn.node.process import run_node
from cdn.node.store_keeper import StoreKeeper
from cdn.node.viewers_tls import make_tls
from cdn.node.worker import GO, READY, RELOADED, STOP_WRITING, run_admin, run_worker
from cdn.observe.events import EventLog, tell_why_not
from cdn.storage.directory import StoreUnusable
from cdn.wire.server import BACKLOG, ListenFailed, bind

QUICK = 1.0
"""Seconds: who dies sooner is not started again at once."""

FIRST_PAUSE = 0.1
LONGEST_PAUSE = 5.0
"""Seconds between one quick death and the next start, doubling from the first to the longest."""

KILL_AFTER = GRACE + DRAIN_LIMIT + 10.0
"""Seconds after which a worker that does not end is killed."""

SIGNALS = (signal.SIGCHLD, signal.SIGHUP, signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)


def run(config: NodeConfig, assemble: Assemble, load: Load) -> int:
    """Runs a node to its end, in one process or with its workers; returns the exit code."""
    handover = Handover.received(os.environ)
    events = stderr_events(config.name, Clock())
    raise_file_limit(config.store is not None, events)
    try:
        if config.workers == 1 and handover is None:
            keeper = StoreKeeper.take(config, events, lambda _: None)
            return run_node(config, assemble, load, keeper)
        return Supervisor(config, assemble, load, handover, events).run()
    except (ListenFailed, AdminUnusable, StoreUnusable) as error:
        tell_why_not(config.role, error, sys.stderr)
        return 1
    except _Forked as child:
        work = child.work
    return work()


class _Forked(BaseException):
    """Raised in a child: this is what it is for."""

    def __init__(self, work: Callable[[], int]) -> None:
        self.work = work


_NamedSocket = tuple[str, socket.socket]


@dataclass(slots=True)
class _Child:
    pid: int
    channel: socket.socket
    config: NodeConfig
    born: float
    ready: bool = False


@dataclass(slots=True)
class _Slot:
    """A child's place: the admin process's where `place` is None."""

    place: Place | None
    child: _Child | None = None
    quick_deaths: int = 0
    due: float | None = 0.0

    def __str__(self) -> str:
        return "the admin process" if self.place is None else f"worker {self.place.index}"


class Supervisor:
    """Raises ListenFailed and AdminUnusable where it cannot bind, StoreUnusable where there is no
    store to be had."""

    def __init__(
        self,
        config: NodeConfig,
        assemble: Assemble,
        load: Load,
        handover: Handover | None,
        events: EventLog,
    ) -> None:
        self._config = config
        self._assemble = assemble
        self._load = load
        self._handover = handover
        self._events = events
        self._listeners = self._all_bound("listen", config.listen)
        self._tls_listeners = self._all_bound("tls", config.tls.listen if config.tls else ())
        # Before any fork: all workers, those that come after a death too, have its ticket keys.
        self._tls = make_tls(config)
        self._admin: list[_NamedSocket] = []
        if config.admin is not None:
            at = admin_listen(config.admin)
            self._admin.append(self._bound(f"admin {config.admin.listen}", lambda: bind_admin(at)))
        # It may have to be rebuilt, which takes a while: whoever comes meanwhile is refused.
        self._keeper = StoreKeeper.take(config, events, handover.take if handover else _nothing)
        # From here on nobody is: who comes before the workers do waits for them.
        for _, sock in self._all_listeners:
            sock.listen(BACKLOG)
        self._directory = handover.directory if handover else tempfile.mkdtemp(prefix="cdn-")
        self._slots = [
            _Slot(Place(self._directory, str(os.getpid()), index, config.workers))
            for index in range(config.workers)
        ]
        if self._admin:
            self._slots.append(_Slot(None))
        self._up = False
        self._stopping = False
        self._handed_over = False
        self._all_ended_well = True
        self._successor: int | None = None
        self._code = 0
        self._kill_at: float | None = None
        self._selector = selectors.PollSelector()
        self._wakeup = socket.socketpair()

    def _all_bound(self, what: str, addresses: Sequence[ListenAddress]) -> list[_NamedSocket]:
        return [self._bound(f"{what} {at}", partial(bind, at.host, at.port)) for at in addresses]

    @property
    def _viewers(self) -> list[_NamedSocket]:
        return [*self._listeners, *self._tls_listeners]

    @property
    def _all_listeners(self) -> list[_NamedSocket]:
        return [*self._viewers, *self._admin]

    def _bound(self, name: str, bind_anew: Callable[[], socket.socket]) -> _NamedSocket:
        fd = self._handover.take(name) if self._handover else None
        return name, bind_anew() if fd is None else socket.socket(fileno=fd)

    def run(self) -> int:
        """Until the last child has ended; returns the exit code. Raises _Forked in a child."""
        self._catch_signals()
        while not self._stopping or any(slot.child for slot in self._slots):
            self._start_what_is_due()
            for key, _ in self._selector.select(self._pause()):
                key.data()
            if self._kill_at is not None and time.monotonic() >= self._kill_at:
                self._signal_all(signal.SIGKILL)
        if self._keeper is not None:
            self._keeper.end(clean=self._all_ended_well and self._is_last)
        if self._is_last:
            self._clear_away()
            self._events.info("stopped")
        return self._code

    @property
    def _is_last(self) -> bool:
        """Whether the node ends with this program: none has taken over, nor does one before go on
        because this one never served."""
        return not self._handed_over and (self._up or self._handover is None)

    def _clear_away(self) -> None:
        shutil.rmtree(self._directory, ignore_errors=True)
        if self._config.admin is not None and isinstance(
            at := admin_listen(self._config.admin), str
        ):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(at)

    # --- children -------------------------------------------------------------------------------

    def _start_what_is_due(self) -> None:
        now = time.monotonic()
        for slot in self._slots:
            if not self._stopping and slot.due is not None and slot.due <= now:
                slot.due = None
                self._fork(slot)

    def _pause(self) -> float | None:
        dues = [slot.due for slot in self._slots if slot.due is not None and not self._stopping]
        if self._kill_at is not None:
            dues.append(self._kill_at)
        return max(0.0, min(dues) - time.monotonic()) if dues else None

    def _fork(self, slot: _Slot) -> None:
        ours, theirs = socket.socketpair()
        # A signal between fork and the child's own handlers would be lost in ours.
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        pid = os.fork()
        if pid == 0:
            ours.close()
            self._leave(slot)
            raise _Forked(self._work(slot, theirs))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        theirs.close()
        slot.child = child = _Child(pid, ours, self._config, time.monotonic())
        self._selector.register(ours, selectors.EVENT_READ, lambda: self._hear(child))

    def _leave(self, slot: _Slot) -> None:
        """In the child: lets go of all that is the supervisor's, above all of the other children's
        channels, which must close when it dies, and of listeners that the child does not serve."""
        signal.set_wakeup_fd(-1)
        for number in SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        # Ctrl-C reaches the whole process group; what it means is the supervisor's to say. A reload
        # that comes before the worker can hear it is repeated when it is ready.
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR2):
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        for sock in (*self._wakeup, *(s.child.channel for s in self._slots if s.child)):
            sock.close()
        if self._handover is not None and not self._up:
            self._handover.forget()
        for _, sock in self._viewers if slot.place is None else self._admin:
            sock.close()
        if slot.place is None and self._keeper is not None:
            self._keeper.let_go()

    def _work(self, slot: _Slot, channel: socket.socket) -> Callable[[], int]:
        config, assemble, load = self._config, self._assemble, self._load
        if slot.place is None:
            directory, (_, sock) = self._directory, self._admin[0]
            return lambda: run_admin(config, directory, sock, channel)
        place, tls = slot.place, self._tls
        plain, secure = ([sock for _, sock in of] for of in (self._listeners, self._tls_listeners))
        lock_fd = None if self._keeper is None else self._keeper.lock_fd
        return lambda: run_worker(
            config, assemble, load, place, plain, secure, channel, lock_fd, tls
        )

    def _hear(self, child: _Child) -> None:
        if child.channel.fileno() < 0:
            return  # its death was noticed by the same `poll`
        words = child.channel.recv(64)
        if not words:
            self._hang_up(child)  # SIGCHLD will say the rest
        if RELOADED in words:
            with contextlib.suppress(ConfigError):
                self._config = self._load()
                child.config = self._config
                self._known_to_all_ready()
        if READY in words:
            child.ready = True
            if child.config is not self._config:
                os.kill(child.pid, signal.SIGHUP)
            if self._up:
                self._tell(child, GO)
            elif all(slot.child and slot.child.ready for slot in self._slots):
                self._begin()

    def _hang_up(self, child: _Child) -> None:
        if child.channel.fileno() >= 0:
            self._selector.unregister(child.channel)
            child.channel.close()

    def _tell(self, child: _Child, word: bytes) -> None:
        with contextlib.suppress(OSError):  # dead: SIGCHLD will say so
            child.channel.send(word)

    def _begin(self) -> None:
        self._up = True
        for slot in self._slots:
            if slot.child is not None:
                self._tell(slot.child, GO)
        shown = [_shown(sock) for _, sock in self._listeners]
        shown += [f"{_shown(sock)} (TLS)" for _, sock in self._tls_listeners]
        self._events.info(f"listening on {', '.join(shown)}")
        if self._handover is not None:
            self._handover.complete()

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            code = os.waitstatus_to_exitcode(status)
            if pid == self._successor:
                self._successor = None
                if not self._handed_over:
                    self._events.error(f"upgrade: the new program {_how(code)}: this one goes on")
            for slot in self._slots:
                if slot.child is not None and slot.child.pid == pid:
                    self._ended(slot, slot.child, code)

    def _ended(self, slot: _Slot, child: _Child, code: int) -> None:
        slot.child = None
        self._hang_up(child)
        if slot.place is not None:
            for path in (slot.place.socket, slot.place.admin):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)
        if self._stopping:
            self._all_ended_well &= code == 0
            self._end_admin_last()
            return
        if not self._up:
            self._events.error(f"{slot} {_how(code)} before it served: not started")
            self._all_ended_well &= code > 0
            self._code = 1
            self._stop()
            return
        now = time.monotonic()
        slot.quick_deaths = slot.quick_deaths + 1 if now - child.born < QUICK else 0
        pause = FIRST_PAUSE * 2 ** (slot.quick_deaths - 1) if slot.quick_deaths else 0.0
        slot.due = now + min(pause, LONGEST_PAUSE)
        if slot.place is not None:
            slot.place = replace(slot.place, restarts=slot.place.restarts + 1)
            if self._keeper is not None:
                self._keeper.worker_died()
        self._events.warning(f"{slot} ({child.pid}) {_how(code)}: another is started")

    # --- signals --------------------------------------------------------------------------------

    def _catch_signals(self) -> None:
        for sock in self._wakeup:
            sock.setblocking(False)
        signal.set_wakeup_fd(self._wakeup[1].fileno())
        for number in SIGNALS:
            signal.signal(number, _noted)
        self._selector.register(self._wakeup[0], selectors.EVENT_READ, self._heed_signals)

    def _heed_signals(self) -> None:
        for number in self._wakeup[0].recv(4096):
            match number:
                case signal.SIGCHLD:
                    self._reap()
                case signal.SIGHUP:
                    self._reload()
                case signal.SIGUSR2:
                    self._upgrade()
                case _:
                    self._stop_or_die(number)

    def _reload(self) -> None:
        try:
            self._config = self._load()
        except ConfigError as error:
            for problem in error.problems:
                self._events.error(f"reload: nothing changed: {problem}")
            return
        self._known_to_all_ready()
        self._signal_workers(signal.SIGHUP)

    def _known_to_all_ready(self) -> None:
        for slot in self._slots:
            if slot.child is not None and slot.child.ready:
                slot.child.config = self._config

    def _upgrade(self) -> None:
        if self._successor is not None or self._stopping or not self._up:
            self._events.warning("upgrade: not now: this program is starting, ending or upgrading")
            return
        command = [sys.executable, "-m", "cdn", *sys.argv[1:]]
        try:
            self._successor, pipe = hand_over(self._to_hand_over(), self._directory, command)
        except OSError as error:
            self._events.error(f"upgrade: {command[0]}: {error.strerror}: this program goes on")
            return
        self._events.info(f"upgrade: process {self._successor} is starting")
        self._selector.register(pipe, selectors.EVENT_READ, lambda: self._successor_tells(pipe))

    def _to_hand_over(self) -> list[Named]:
        named = [(name, sock.fileno()) for name, sock in self._all_listeners]
        if self._keeper is not None:
            named.append((self._keeper.name, self._keeper.lock_fd))
        return named

    def _successor_tells(self, pipe: int) -> None:
        began = os.read(pipe, 1)
        self._selector.unregister(pipe)
        os.close(pipe)
        if began and not self._stopping:
            self._events.info(f"upgrade: process {self._successor} has taken over; draining")
            self._handed_over = True
            for slot in self._slots:
                if slot.child is not None:
                    self._tell(slot.child, STOP_WRITING)
            self._stop()

    def _stop_or_die(self, number: int) -> None:
        if not self._stopping:
            self._stop()
            self._events.info("draining: no new connections, those in flight finish")
            return
        self._signal_all(signal.SIGKILL)
        if self._is_last:
            self._clear_away()
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    def _stop(self) -> None:
        self._stopping = True
        self._kill_at = time.monotonic() + KILL_AFTER
        # Held here, they would take connections that nobody will answer.
        for _, sock in self._all_listeners:
            sock.close()
        if self._successor is not None and not self._handed_over:
            os.kill(self._successor, signal.SIGTERM)
        self._signal_all(signal.SIGTERM)
        self._end_admin_last()

    def _end_admin_last(self) -> None:
        """The admin process says "draining" while workers do; after a hand-over another speaks."""
        workers = any(slot.child for slot in self._slots if slot.place is not None)
        admin = self._slots[-1].child if self._slots[-1].place is None else None
        if admin is not None and (self._handed_over or not workers):
            self._hang_up(admin)

    def _signal_workers(self, number: signal.Signals) -> None:
        for slot in self._slots:
            if slot.place is not None and slot.child is not None:
                os.kill(slot.child.pid, number)

    def _signal_all(self, number: signal.Signals) -> None:
        for slot in self._slots:
            if slot.child is not None:
                os.kill(slot.child.pid, number)


def _noted(*_: object) -> None:
    """The wake-up descriptor has the signal's number; this only keeps Python from acting."""


def _nothing(_: str) -> None:
    """What is handed over to a first program."""


def _shown(sock: socket.socket) -> str:
    host, port = sock.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _how(code: int) -> str:
    return f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
