"""Which slice a request lacks first (DESIGN, the life of a range).

Strategy: pure. Of what is known, by what is there of it; of what is not known, by where the request
begins. None wherever slices are not the way: then it goes up whole, or as it is.
"""

from __future__ import annotations

from cdn.semantics.message import Request
from cdn.semantics.policy import CachePolicy
from cdn.semantics.ranges import ByteRange, parse_range, parse_range_specs
from cdn.semantics.slices import PresentSlices
from cdn.semantics.stored_response import StoredResponse
from cdn.semantics.validation import range_applies


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
            gaps = (present.first_missing(part) for part in parts)
            return next((gap for gap in gaps if gap is not None), None)
        case ByteRange() if "range" in request.fields:
            return parts[0].start // size
        case _:
            return None


def _first_of_unknown(request: Request, policy: CachePolicy) -> int | None:
    wanted = request.fields.get("range")
    specs = None if wanted is None else parse_range_specs(wanted)
    if not specs:
        return None
    first, _ = specs[0]
    return None if first is None else first // policy.slice_size


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
