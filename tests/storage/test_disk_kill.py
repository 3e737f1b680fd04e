"""kill -9 at any moment: what is there is right, what was there a second before still is.

CDN_KILLS says how many processes are killed; by default few, for speed.
"""

import os

from tests.storage.kill_loop import run

KILLS = int(os.environ.get("CDN_KILLS", "4"))


def test_nothing_is_wrong_and_little_is_lost_however_often_the_writer_is_killed(tmp_path):
    judge = run(tmp_path, KILLS)
    assert judge.checked > 100 * KILLS
    assert judge.due > 20 * KILLS
    assert judge.hits >= 0.99 * judge.due, f"{judge.hits} of {judge.due}"
