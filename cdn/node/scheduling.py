"""When the kernel lets a node's loop run: for a batch of what has come at a time.

Strategy: a loop that wakes deals with all that has come meanwhile. Where loops of ours share a core
(workers and the owner of a key, an edge and its shield), each word from one to the other would let
the other in at once, for that one request and with cold caches; under SCHED_BATCH (sched(7)) it
waits until the one that runs has nothing more to do, or has had its slice. An idle core is taken as
quickly as ever. Only loops run so: the access log's thread and the disk store's writers must keep
up with a loop that is never idle, so they are started before.
"""

from __future__ import annotations

import os

from cdn.observe.events import EventLog


def run_in_batches(events: EventLog) -> None:
    """For the calling thread, and those that it starts from here on. What an operator has chosen
    (chrt, or CPUSchedulingPolicy= of its systemd unit) stays."""
    if os.sched_getscheduler(0) != os.SCHED_OTHER:
        return
    try:
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    except OSError as error:
        events.warning(
            f"scheduling: {error.strerror}: the node runs as it was started; allow it "
            "sched_setscheduler, or write scheduling: normal"
        )
