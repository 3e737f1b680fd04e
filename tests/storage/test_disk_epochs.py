"""Purges that outlive the process, seen by every process of the node."""

import os
import signal
import subprocess
import sys

import pytest

from cdn.storage.disk_epochs import DiskEpochs

NEWS, FILMS = (b"service", "news"), (b"service", "films")


@pytest.fixture
def epochs(tmp_path):
    epochs = DiskEpochs(tmp_path)
    yield epochs
    epochs.close()


def _elsewhere(directory, code: str) -> str:
    """What another process says of these epochs."""
    code = (
        "import os, signal, sys, pathlib\n"
        "from cdn.storage.disk_epochs import DiskEpochs\n"
        f"epochs = DiskEpochs(pathlib.Path({str(directory)!r}))\n{code}"
    )
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=False)
    assert done.returncode in (0, -signal.SIGKILL)
    return done.stdout.decode().strip()


def test_a_purge_outlives_the_process_that_made_it(tmp_path):
    first = DiskEpochs(tmp_path)
    first.purge([NEWS])
    now = first.now
    first.close()
    again = DiskEpochs(tmp_path)
    assert again.now == now
    assert again.outdated([NEWS], 0)
    assert not again.outdated([FILMS], 0)
    again.purge([FILMS])
    assert again.outdated([FILMS], now)
    assert not again.outdated([NEWS], now)
    again.close()


def test_a_process_that_is_killed_after_a_purge_has_purged(tmp_path, epochs):
    before = epochs.now
    assert not epochs.outdated([NEWS], before)
    _elsewhere(tmp_path, f"epochs.purge([{NEWS!r}]); os.kill(os.getpid(), signal.SIGKILL)")
    assert epochs.now == before + 1
    assert epochs.outdated([NEWS], before)
    assert not epochs.outdated([FILMS], before)


def test_every_process_sees_a_purge_at_once(tmp_path, epochs):
    epochs.purge([FILMS])  # what was read of tags is not remembered beyond a purge
    assert epochs.outdated([FILMS], 0)
    assert not epochs.outdated([NEWS], 0)
    epochs.purge([NEWS])
    assert _elsewhere(tmp_path, f"print(epochs.now, epochs.outdated([{NEWS!r}], 1))") == "2 True"
    _elsewhere(tmp_path, f"epochs.purge([{FILMS!r}])")
    assert epochs.outdated([FILMS], 2)


def test_a_forgotten_tag_outdates_rather_too_much_than_too_little(tmp_path):
    epochs = DiskEpochs(tmp_path, most_tags=2)
    epochs.purge([(b"", "a"), (b"", "b"), (b"", "c")])
    assert epochs.outdated([(b"", "a")], 0)
    assert epochs.outdated([(b"", "never purged")], 0)
    assert not epochs.outdated([(b"", "never purged")], 1)
    assert epochs.outdated([(b"", "b")], 1)
    assert not epochs.outdated([(b"", "never purged")], epochs.now)
    epochs.close()


def test_names_are_not_run_together(epochs):
    epochs.purge([(b"ab", "c")])
    assert not epochs.outdated([(b"a", "bc")], 0)
    epochs.purge([(b"a", "\ud800" + "x" * 10_000)])
    assert epochs.outdated([(b"a", "\ud800" + "x" * 10_000)], 1)


def test_a_purge_that_cannot_be_written_holds_and_is_written_with_the_next(tmp_path):
    told = []
    epochs = DiskEpochs(tmp_path, report=told.append)
    stamp = epochs.now
    epochs._env.set_mapsize(4096 * 16)
    many = [(b"", f"{number}") for number in range(5_000)]
    epochs.purge([NEWS, *many])
    assert epochs.outdated([NEWS], stamp)
    assert not epochs.outdated([FILMS], stamp)
    assert "MAP_FULL" in told[0]
    assert len(told) == 1
    epochs._env.set_mapsize(64 << 20)
    epochs.purge([FILMS])
    after = epochs.now
    assert not epochs.outdated([NEWS, FILMS], after)
    epochs.close()
    again = DiskEpochs(tmp_path)
    assert again.outdated([NEWS], stamp)
    assert again.outdated([FILMS], stamp)
    again.close()


def test_a_purge_of_nothing_waits_for_no_device(epochs):
    epochs.purge([NEWS])
    before = epochs._env.info()["last_txnid"]
    epochs.purge([])
    assert epochs._env.info()["last_txnid"] == before


def test_what_is_there_is_its_owners_only(tmp_path, epochs):
    assert os.stat(tmp_path / "epochs").st_mode & 0o777 == 0o600
