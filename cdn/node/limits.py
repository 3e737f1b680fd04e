"""How many files a node may have open: as many as the system allows.

Strategy: the soft limit is there for programs that call select(2), which nothing here does; so it
is raised to the hard one, and children inherit it. Where even that is too low, the operator is told
at the start, not by refused viewers.
"""

from __future__ import annotations

import resource

from cdn.observe.events import EventLog

CONNECTIONS = 4_096
"""Descriptors of viewers and upstreams together that a node must have room for."""

STORE = 1_024
"""The same of a disk store: its segments (`segments.MOST_OPEN`), indexes and locks."""


def raise_file_limit(store: bool, events: EventLog) -> None:
    """For this process and all that it starts."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    needed = CONNECTIONS + STORE * store
    if hard != resource.RLIM_INFINITY and hard < needed:
        events.warning(
            f"open files: {hard} are allowed, fewer than the {needed} that a busy node needs; "
            "raise the limit (ulimit -Hn, or LimitNOFILE= in its systemd unit)"
        )
