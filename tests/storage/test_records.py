"""Records and heads: every byte is covered by a checksum, and every value comes back as it was."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdn.semantics.cache_control import CacheControl
from cdn.semantics.message import Fields
from cdn.semantics.ranges import ByteRange
from cdn.semantics.stored_response import Validator
from cdn.storage.heads import decode_head, encode_head
from cdn.storage.records import HEADER_SIZE, KILLED, Kind, checksum, content_of, pack, unpack
from tests.storage.disk_kit import key_of, response


def _record(key=b"key", content=b"content") -> bytearray:
    header = pack(Kind.SLICE, b"d" * 16, 7, 9, 3, len(key), len(content), checksum(key, content))
    return bytearray(header + key + content)


def test_a_record_comes_back():
    header, key, content = content_of(_record())
    assert (header.live, header.kind, header.digest) == (True, Kind.SLICE, b"d" * 16)
    assert (header.object_id, header.sequence, header.number) == (7, 9, 3)
    assert (header.size, bytes(key), bytes(content)) == (HEADER_SIZE + 10, b"key", b"content")


def test_no_byte_can_change_unseen():
    sound = _record()
    for at in range(len(sound)):
        damaged = bytearray(sound)
        damaged[at] ^= 1
        assert content_of(damaged) is None, at


def test_a_killed_record_is_still_a_record():
    record = _record()
    record[: len(KILLED)] = KILLED
    header, _, content = content_of(record)
    assert not header.live
    assert content == b"content"


@pytest.mark.parametrize("data", [b"", b"\0" * 64, b"iijR" + b"\0" * 60])
def test_what_is_no_header_is_none(data):
    assert unpack(data) is None


def test_a_record_cut_short_is_none():
    assert content_of(_record()[:-1]) is None


def test_a_head_comes_back_with_all_its_derived_values():
    head = replace(
        response("a", (("accept-encoding", "gzip"), ("x", None)), 10, lines=[("X", "\xe9")]),
        directives=CacheControl(
            max_age=3, no_cache_fields=frozenset({"a", "b"}), stale_if_error=0, public=True
        ),
        validator=Validator('"e"', 12.5),
        explicit_lifetime=None,
        initial_age=math.inf,
        present=ByteRange(3, 9),
        groups=frozenset({"g", "h"}),
        stamp=4,
    )
    assert decode_head(key_of("a"), encode_head(head)) == head


_TEXT = st.text(st.characters(max_codepoint=255))


@given(st.lists(st.tuples(_TEXT, _TEXT)), st.floats(allow_nan=False), st.integers(0, 2**63))
def test_any_fields_come_back(lines, lifetime, length):
    head = replace(response(), fields=Fields(lines), explicit_lifetime=lifetime, length=length)
    assert decode_head(head.primary_key, encode_head(head)) == head


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b"3", b"\xff", encode_head(response())[:-2]])
def test_what_is_no_head_is_a_value_error(data):
    with pytest.raises(ValueError):
        decode_head(b"key", data)


def test_directives_of_another_version_are_a_value_error():
    data = encode_head(response()).replace(b'"max_age"', b'"max_aeg"')
    with pytest.raises(ValueError):
        decode_head(b"key", data)
