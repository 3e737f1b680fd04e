"""Stores that the gateway's scenarios are played with."""

import itertools

import pytest

from tests.gateway import gateway_kit

DISK = "1GiB"


@pytest.fixture
def on_disk(tmp_path, monkeypatch):
    """Nodes keep what they store on a disk, each site that a test makes in a store of its own."""
    count = itertools.count()

    def keys(name):
        return {"store": str(tmp_path / f"{name}-{next(count)}"), "disk": DISK}

    monkeypatch.setattr(gateway_kit, "store_keys", keys)


@pytest.fixture(params=["memory", "disk"])
def both_stores(request):
    """The test is played twice."""
    if request.param == "disk":
        request.getfixturevalue("on_disk")
