"""Which slice a request lacks first (DESIGN, the life of a range).

Strategy: pure. Of what is known, by what is there of it; of what is not known, by where the request
begins. None wherever slices are not the way: then it goes up whole, or as it is.
"""

from __future__ import annotations

from cdn.semantics.message import Request
from cdn.semantics.policy import CachePolicy
from cdn.semantics.ranges import ByteRange, Spec, parse_range, parse_range_specs
from cdn.semantics.slices import PresentSlices
from cdn.semantics.stored_response import StoredResponse
from cdn.semantics.validation import range_applies

_MOST_WASTE = 2
"""Slices' worth of bytes fetched at most beside what several ranges want (RFC 9110 §17.15: many
small ones are a way to have much sent)."""


def has_slices(stored: StoredResponse) -> bool:
    """Whether it is longer than one slice, and slices of it can be told from another's."""
    return (
        stored.length is not None
        and stored.length > stored.slice_size
        and stored.validator.strong_etag is not None
        and not isinstance(stored.present, ByteRange)
    )


def wanted_slice(
    request: Request, found: StoredResponse | None, policy: CachePolicy, now: float
) -> int | None:
    """The slice to ask for first. `found` is what is stored for the request, in part."""
    if request.method != "GET":
        return None
    if found is None:
        return _first_of_unknown(request, policy)
    parts = _parts(request, found, now)
    if not parts:
        return None
    size = found.slice_size
    match found.present:
        case PresentSlices() as present:
            if len(parts) > 1 and _waste(found, present, parts) > _MOST_WASTE * size:
                return None
            gaps = (present.first_missing(part) for part in parts)
            return next((gap for gap in gaps if gap is not None), None)
        case ByteRange() if "range" in request.fields:
            return parts[0].start // size
        case _:
            return None


def _waste(found: StoredResponse, present: PresentSlices, parts: list[ByteRange]) -> int:
    """Bytes that slices would bring beside what is wanted of them."""
    size, waste = found.slice_size, 0
    assert found.length is not None
    for start, stop in parts:
        first, last = start // size, (stop - 1) // size
        if not present.has(first):
            waste += start - first * size
        if not present.has(last):
            waste += min((last + 1) * size, found.length) - stop
    return waste


def _first_of_unknown(request: Request, policy: CachePolicy) -> int | None:
    wanted = request.fields.get("range")
    specs = None if wanted is None else parse_range_specs(wanted)
    if not specs:
        return None
    first, _ = specs[0]
    size = policy.slice_size
    if first is None or (
        len(specs) > 1 and sum(_waste_of_spec(spec, size) for spec in specs) > _MOST_WASTE * size
    ):
        return None
    return first // size


def _waste_of_spec(spec: Spec, size: int) -> int:
    first, last = spec
    return size if first is None else first % size + (0 if last is None else -(last + 1) % size)


def _parts(request: Request, found: StoredResponse, now: float) -> list[ByteRange] | None:
    """What the request wants of it; nothing where it is to go up as it is."""
    if found.length is None or found.validator.strong_etag is None:
        return None
    whole = [ByteRange(0, found.length)]
    wanted = request.fields.get("range")
    if wanted is None or not range_applies(request, found.fields, now):
        return whole
    parts = parse_range(wanted, found.length)
    return whole if parts is None else parts
