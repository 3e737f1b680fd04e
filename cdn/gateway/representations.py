"""One representation among others (RFC 9111 §3.4): what slices of it may be put together with.

Strategy: a strong entity tag and the complete length; nothing else tells two answers apart for
certain. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable

from cdn.semantics.stored_response import StoredResponse
from cdn.storage.store import StoredObject


def is_one_representation(one: StoredResponse, other: StoredResponse) -> bool:
    """Whether bytes of the one are bytes of the other."""
    return (
        one.validator.strong_etag == other.validator.strong_etag is not None
        and one.length == other.length
    )


def representation_among(
    found: Iterable[StoredObject] | None, of: StoredResponse
) -> StoredObject | None:
    """What is stored of the representation `of`, under its variant."""
    for stored in found or ():
        if stored.variant == of.variant and is_one_representation(stored.response, of):
            return stored
    return None
