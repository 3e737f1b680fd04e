"""What the gateway counts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class GatewayCounters:
    """Plain counts, collected at scrape."""

    invalidated: int = 0
    purged: int = 0
    stale_on_error: int = 0
