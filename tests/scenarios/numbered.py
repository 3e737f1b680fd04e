"""Small objects without number: what the origin sends for a target, anybody can tell.

Strategy: apart from what uses it, because locust patches the process that imports it.
"""

from hashlib import sha256

PER_SECOND = 500
"""Requests that all users of the load send together."""

USERS = 25


def content_of(target: str) -> bytes:
    """32 bytes to 8 KiB that are this target's alone."""
    digest = sha256(target.encode()).digest()
    return digest * (digest[0] + 1)
