"""How requests of one field block are taken: by which names their answers are found."""

from itertools import permutations

from cdn.gateway.hot import Standing
from cdn.semantics.message import Fields
from cdn.wire.field_block import FieldMemory
from cdn.wire.ways import Way

FIELDS = [
    b"",
    b"Range: bytes=0-1\r\n",
    b'If-None-Match: "a"\r\n',
    b'If-None-Match: "ab"\r\nRange: bytes=0-1\r\n',
]


def ways():
    """Of viewers, and of nodes that ask for them."""
    for scheme in ("http", "https"):
        for fields in FIELDS:
            block = FieldMemory().block(b"Host: a.example\r\n%b\r\n" % fields)
            yield Way(block, scheme, None)
            for surrogate in (False, True):
                for origin in (b"http://a.example", b"https://a.example", b"http://b.example"):
                    asked = Fields([("Surrogate-Capability", "a")] if surrogate else [])
                    standing = Standing(0, scheme, "192.0.2.1", origin, "192.0.2.2", asked)
                    assert standing.surrogate is surrogate
                    yield Way(block, scheme, standing)


def test_no_request_line_makes_one_name_of_another():
    # A line is looked up as it came, with breaks that make it none.
    names = {way.named for way in ways()}
    assert len(names) > 20
    for one, other in permutations(names, 2):
        assert not one.startswith(other)
