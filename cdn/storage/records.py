"""Records: what a segment is made of. A head (what is kept about a response) or one slice.

Strategy: 64 bytes of header, the full key, the content. The header has a checksum of its own, so
that a segment can be walked without reading content; in it is the checksum of key and content, so
that the two cover every byte. The magic alone is outside: writing another over it kills a record
where it lies, for good.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import NamedTuple

from xxhash import xxh3_64, xxh3_64_intdigest

LIVE = b"iijR"
KILLED = b"iijX"
"""Written over `LIVE`: no rebuild brings this record back."""

VERSION = 1

_HEADER = struct.Struct("<4sBBH16sQQIIQQ")
_CHECKED = slice(4, 56)

HEADER_SIZE = _HEADER.size

LARGEST_KEY = 0xFFFF
"""Bytes of a key."""

LARGEST_HEAD = 64 << 10
"""Bytes of an encoded head and its key together; responses with more are not stored."""

LARGEST_NUMBER = 0xFFFFFFFF
"""Of a slice."""


class Kind(IntEnum):
    HEAD = 1
    SLICE = 2


class Header(NamedTuple):
    """`object_id` is what slices and their head have in common; `sequence` orders all records of a
    shard, the highest of those that say the same thing counts; `length` is the content's."""

    live: bool
    kind: int
    key_length: int
    digest: bytes
    object_id: int
    sequence: int
    number: int
    length: int
    check: int

    @property
    def size(self) -> int:
        """Bytes of the whole record."""
        return HEADER_SIZE + self.key_length + self.length


Bytes = bytes | bytearray | memoryview


def checksum(key: Bytes, content: Bytes) -> int:
    """What `Header.check` says of a record's key and content."""
    state = xxh3_64(key)
    state.update(content)
    return state.intdigest()


def pack(
    kind: Kind,
    digest: bytes,
    object_id: int,
    sequence: int,
    number: int,
    key_length: int,
    length: int,
    check: int,
) -> bytes:
    """A header's bytes; `check` is the `checksum` of what follows it."""
    fields = (VERSION, kind, key_length, digest, object_id, sequence, number, length, check)
    unsigned = _HEADER.pack(LIVE, *fields, 0)
    return _HEADER.pack(LIVE, *fields, xxh3_64_intdigest(unsigned[_CHECKED]))


def unpack(data: Bytes) -> Header | None:
    """The header that `data` begins with; None where there is none, or a damaged one."""
    if len(data) < HEADER_SIZE:
        return None
    magic, version, *fields, check = _HEADER.unpack_from(data)
    if magic not in (LIVE, KILLED) or version != VERSION:
        return None
    if xxh3_64_intdigest(data[_CHECKED]) != check:
        return None
    return Header(magic == LIVE, *fields)


def content_of(record: bytes | bytearray) -> tuple[Header, memoryview, memoryview] | None:
    """Header, key and content of a whole record; None where one byte is not as it was written."""
    header = unpack(record)
    if header is None or header.size != len(record):
        return None
    rest = memoryview(record)[HEADER_SIZE:]
    key, content = rest[: header.key_length], rest[header.key_length :]
    return (header, key, content) if checksum(key, content) == header.check else None
