"""Slices in a file in RAM: what is sent of them, and when their pages are given back."""

import os

from cdn.storage.memory_file import LEAST_SENT, MemoryFile, Run, paged
from cdn.storage.store import FileSpan
from tests.kit import Pattern

SIZE = 256 << 10
CONTENT = Pattern(3 * SIZE + 5, seed=3).read(0, 3 * SIZE + 5)


def pages(file: MemoryFile) -> int:
    """Bytes of RAM that it occupies."""
    return os.fstat(file.fd).st_blocks * 512


def sliced(file: MemoryFile):
    return [file.add(CONTENT[at : at + SIZE]) for at in range(0, len(CONTENT), SIZE)]


def test_a_span_is_the_same_by_its_place_and_by_its_view():
    span = MemoryFile().add(CONTENT).span(7, 7 + LEAST_SENT)
    assert isinstance(span, FileSpan)
    assert span.read() == bytes(span.view) == CONTENT[7 : 7 + LEAST_SENT]


def test_what_is_small_is_read():
    held = MemoryFile().add(CONTENT)
    assert held.span(7, 9) == held.read(7, 9) == CONTENT[7:9]
    assert held.read(len(CONTENT) - 3, len(CONTENT) + 3) == CONTENT[-3:]


def test_slices_one_behind_the_other_are_sent_as_one_piece():
    run = Run.of(sliced(MemoryFile()))
    assert run is not None
    assert len(run) == len(CONTENT)
    span = run.span(SIZE - 1, 3 * SIZE + 5)
    assert span.read() == bytes(span.view) == CONTENT[SIZE - 1 :]


def test_slices_that_do_not_lie_so_make_no_run():
    file = MemoryFile()
    one, two, three, end = sliced(file)
    assert Run.of([one, three]) is None
    assert Run.of([two, one]) is None
    assert Run.of([end, file.add(CONTENT)]) is None  # behind it, but not at once
    assert Run.of([one, None, three]) is None
    assert Run.of([one, CONTENT]) is None
    assert Run.of([]) is None


def test_what_is_sent_of_a_run_keeps_all_of_its_pages_and_nothing_else_does():
    file = MemoryFile()
    slices = sliced(file)
    whole = sum(paged(len(one)) for one in slices)
    assert pages(file) == whole
    span = Run.of(slices).span(0, LEAST_SENT)
    del slices
    assert pages(file) == whole
    assert span.read() == CONTENT[:LEAST_SENT]
    del span
    assert pages(file) == 0


def test_a_slice_that_did_not_fit_leaves_nothing(monkeypatch):
    file = MemoryFile()
    kept = file.add(CONTENT)

    def half(fd, data, offset):
        if half.done:
            raise OSError(28, "no space")
        half.done = True
        return pwrite(fd, data[:SIZE], offset)

    half.done, pwrite = False, os.pwrite
    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", half)
        try:
            file.add(CONTENT)
        except OSError:
            pass
        else:
            raise AssertionError("it was taken")
    assert pages(file) == paged(len(CONTENT))
    assert file.add(CONTENT[::-1]).read(0, 9) == CONTENT[::-1][:9]
    assert kept.read(0, len(CONTENT)) == CONTENT
