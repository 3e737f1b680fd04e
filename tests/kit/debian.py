"""Programs from Debian's packages that some scenarios need."""

import os
import shutil

import pytest


def need(program: str, package: str | None = None) -> str:
    """The path of `program`; without it the test is skipped with the apt line that brings it,
    or failed when CI=true, where every scenario has to run."""
    # Daemons live where an ordinary user's PATH does not look.
    path = shutil.which(program, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")
    if path is not None:
        return path
    missing = f"{program} is not installed: apt-get install {package or program}"
    if os.environ.get("CI") == "true":
        pytest.fail(missing)
    pytest.skip(missing)
