"""The collector of a serving process, tried in a process of its own."""

import subprocess
import sys

SCRIPT = """
import gc
from cdn.node.collector import YOUNG, settle
settle()
assert gc.isenabled()
assert gc.get_freeze_count() > 1000, gc.get_freeze_count()
assert gc.get_threshold()[0] == YOUNG
"""


def test_what_is_there_at_the_start_is_walked_no_more():
    subprocess.run([sys.executable, "-c", SCRIPT], check=True)
