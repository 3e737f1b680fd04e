"""Fixtures of the scenarios."""

import pytest


@pytest.fixture
def unmeasured(monkeypatch):
    """Processes run without coverage: for scenarios that want their full speed."""
    for name in ("COVERAGE_PROCESS_CONFIG", "COVERAGE_PROCESS_START"):
        monkeypatch.delenv(name, raising=False)
