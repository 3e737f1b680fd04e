"""When the kernel lets a node's processes run: a batch of what has come at a time.

Strategy: a loop that wakes deals with all that has come meanwhile. Where processes of ours share a
core (workers and the owner of a key, an edge and its shield), each word from one to the other would
let the other in at once, for that one request and with cold caches; under SCHED_BATCH (sched(7)) it
waits until the one that runs has nothing more to do, or has had its slice. An idle core is taken as
quickly as ever. Threads and children inherit it.
"""

from __future__ import annotations

import os

from cdn.observe.events import EventLog


def schedule(batch: bool, inherited: bool, events: EventLog) -> None:
    """For this process and all that it starts. What an operator has chosen otherwise (chrt, or
    CPUSchedulingPolicy= of its systemd unit) stays; `inherited`: this
    program takes over from another, and has its scheduling."""
    now, wanted = os.sched_getscheduler(0), os.SCHED_BATCH if batch else os.SCHED_OTHER
    replaced = os.SCHED_OTHER if batch else os.SCHED_BATCH
    if now != replaced or not (batch or inherited):
        return
    try:
        os.sched_setscheduler(0, wanted, os.sched_param(0))
    except OSError as error:
        events.warning(
            f"scheduling: {error.strerror}: the node runs as it was started; allow it "
            "sched_setscheduler, or write scheduling: normal"
        )
