"""The garbage collector of a process that serves.

Strategy: a request leaves no cycles (tests/gateway/test_garbage.py), so reference counts free all
but a little, and the collector only walks what lives: at Python's defaults a stored miss paid
some 70 us for walks over every import and every stored response. What is there at the start is
frozen, and the young are looked at less often.
"""

from __future__ import annotations

import gc

YOUNG = 10_000
"""Objects more than before until the young are walked: some 700 stored misses. Of 700, 10,000 and
50,000 the second cost least: more do not stay in the processor's cache."""


def settle() -> None:
    """To be called once, when the process is ready to serve."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, 10, 10)
