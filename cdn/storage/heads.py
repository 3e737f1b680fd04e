"""What is kept about a response, as bytes and back.

Strategy: JSON, because it outlives Python versions and needs no trust. What later decisions rest on
is written as it was derived, not derived again: the fields that it came from may not have been
kept. Directives are written only where they say something.
"""

from __future__ import annotations

import json
from dataclasses import fields as fields_of
from typing import Any

from cdn.semantics.cache_control import NOTHING_SAID, CacheControl
from cdn.semantics.message import Fields
from cdn.semantics.ranges import ByteRange
from cdn.semantics.stored_response import StoredResponse, Validator

_DIRECTIVES = tuple(field.name for field in fields_of(CacheControl))


def encode_head(response: StoredResponse) -> bytes:
    """All of `response` but its primary key, which a record has anyway, and which slices are there,
    which the index knows."""
    directives, validator = response.directives, response.validator
    said = {
        name: list(value) if isinstance(value, frozenset) else value
        for name in _DIRECTIVES
        if (value := getattr(directives, name)) != getattr(NOTHING_SAID, name)
    }
    head = [
        response.status,
        response.reason,
        [text for line in response.fields.lines for text in line],
        response.variant,
        said,
        validator.etag,
        validator.last_modified,
        response.explicit_lifetime,
        response.initial_age,
        response.date,
        response.request_time,
        response.response_time,
        response.length,
        response.present if isinstance(response.present, ByteRange) else None,
        sorted(response.groups),
        response.stamp,
        response.slice_size,
    ]
    return json.dumps(head, separators=(",", ":")).encode()


def decode_head(key: bytes, data: bytes | bytearray) -> StoredResponse:
    """The response stored under `key`. Raises ValueError where `data` is no such head."""
    try:
        return _decode(key, json.loads(data))
    except (TypeError, IndexError, AttributeError) as error:
        raise ValueError(f"not a head: {error}") from error


def _decode(key: bytes, head: Any) -> StoredResponse:
    (
        status,
        reason,
        texts,
        variant,
        said,
        etag,
        last_modified,
        explicit_lifetime,
        initial_age,
        date,
        request_time,
        response_time,
        length,
        present,
        groups,
        stamp,
        slice_size,
    ) = head
    directives = NOTHING_SAID
    if said:
        held: dict[str, Any] = {
            name: frozenset(value) if isinstance(value, list) else value
            for name, value in said.items()
        }
        directives = CacheControl(**held)
    return StoredResponse(
        primary_key=key,
        variant=tuple((name, value) for name, value in variant),
        status=status,
        reason=reason,
        fields=Fields(zip(texts[::2], texts[1::2], strict=True)),
        directives=directives,
        validator=Validator(etag, last_modified),
        explicit_lifetime=explicit_lifetime,
        initial_age=initial_age,
        date=date,
        request_time=request_time,
        response_time=response_time,
        length=length,
        present=None if present is None else ByteRange(*present),
        groups=frozenset(groups),
        stamp=stamp,
        slice_size=slice_size,
    )
