"""Training lets slates go first."""

import os
import subprocess
import sys
import time

from thinslice.process.bond import SHARE_NICE, computed_s
from thinslice.process.patience import PATIENCE_S, Patience

CODE = """
import os
from thinslice.process.bond import stand_back
stand_back()
print(os.nice(0), os.sched_getscheduler(0) == os.SCHED_IDLE)
"""


def test_a_process_that_stands_back_has_the_lowest_priority_and_the_idle_class():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout.split() == ["19", "True"]


def test_a_process_that_keeps_a_share_stands_behind_the_workers_and_is_not_starved():
    code = CODE.replace("stand_back()", "stand_back(keep_share=True)").replace("SCHED_IDLE", "SCHED_BATCH")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout.split() == [str(max(os.nice(0), SHARE_NICE)), "True"]


def test_how_long_a_process_computed_is_known_while_it_runs_and_unknown_after():
    begin = time.process_time()
    while time.process_time() < begin + 0.1:
        pass
    assert abs(computed_s(os.getpid()) - sum(os.times()[:4])) < 0.1
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    assert computed_s(gone.pid) == float("inf")


def test_who_found_no_idle_time_gets_a_share_until_a_training_ends_in_time():
    patience = Patience()
    assert not patience.starves("training", "shop")
    patience.ended("training", "shop", took_s=PATIENCE_S + 1, computed_s=30.0)
    assert patience.starves("training", "shop")
    assert not patience.starves("training", "other")
    patience.ended("training", "shop", took_s=60.0, computed_s=30.0)
    assert not patience.starves("training", "shop")


def test_a_training_that_is_long_because_it_computes_has_not_starved():
    patience = Patience()
    patience.ended("tuning", "shop", took_s=1_000.0, computed_s=950.0)
    assert not patience.starves("tuning", "shop")
