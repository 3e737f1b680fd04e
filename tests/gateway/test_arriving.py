"""Content as it arrives: its bytes stay right however they are cut, joined and forgotten."""

from hypothesis import given
from hypothesis import strategies as st

from cdn.gateway.arriving import Arriving

CONTENT = bytes(range(256)) * 4


@given(st.lists(st.integers(1, 60), min_size=1, max_size=15), st.integers(1, 80))
def test_every_position_that_is_here_reads_right(sizes, slice_size):
    arriving, slices = Arriving(), []
    for size in sizes:
        arriving.append(CONTENT[arriving.end : arriving.end + size])
        while arriving.unsliced >= slice_size:
            slices.append(arriving.next_slice(slice_size))
        assert b"".join(slices) == CONTENT[: arriving.end - arriving.unsliced]
        assert all(len(piece) == slice_size for piece in slices)
        for position in range(arriving.base, arriving.end):
            piece = bytes(arriving.at(position))
            assert piece
            assert piece == CONTENT[position : position + len(piece)]


@given(st.lists(st.integers(1, 60), min_size=1, max_size=15), st.integers(0, 900))
def test_forgetting_keeps_what_is_still_wanted(sizes, before):
    arriving = Arriving()
    for size in sizes:
        arriving.append(CONTENT[arriving.end : arriving.end + size])
    before = min(before, arriving.end)
    arriving.forget(before)
    assert arriving.base <= before
    for position in range(arriving.base, arriving.end):
        piece = bytes(arriving.at(position))
        assert piece == CONTENT[position : position + len(piece)]
    assert before - arriving.base <= 60


def test_a_slice_is_shared_with_its_readers():
    arriving = Arriving()
    arriving.append(b"abc")
    arriving.append(b"defgh")
    piece = arriving.next_slice(6)
    assert arriving.at(0) is piece
    assert bytes(arriving.at(6)) == b"gh"
    arriving.append(b"ij")
    assert arriving.next_slice(4) == b"ghij"
