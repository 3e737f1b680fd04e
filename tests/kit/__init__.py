"""The scenario kit: a test reads as a script of an origin, clients, a clock and counters.

Strategy: nothing here trusts an HTTP library, neither ours nor another's; both ends frame by hand,
so that what a scenario sees on the wire is what was on the wire. Order comes from gates, counters
and an injected clock. Every wait has a limit, so a broken promise fails a test and never hangs it.
"""

from tests.kit.client import Incoming, NoResponse, RawClient, Received, get
from tests.kit.clock import ManualClock
from tests.kit.debian import need
from tests.kit.origin import ScriptedOrigin
from tests.kit.pattern import Pattern
from tests.kit.recorded import RecordedRequest
from tests.kit.reply import Reply
from tests.kit.tls import tls_contexts
from tests.kit.waiting import Counter, Gate

__all__ = [
    "Counter",
    "Gate",
    "Incoming",
    "ManualClock",
    "NoResponse",
    "Pattern",
    "RawClient",
    "Received",
    "RecordedRequest",
    "Reply",
    "ScriptedOrigin",
    "get",
    "need",
    "tls_contexts",
]
