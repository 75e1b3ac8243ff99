"""Training lets slates go first."""

import subprocess
import sys

CODE = """
import os
from thinslice.process.bond import stand_back
stand_back()
print(os.nice(0), os.sched_getscheduler(0) == os.SCHED_IDLE)
"""


def test_a_process_that_stands_back_has_the_lowest_priority_and_the_idle_class():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout.split() == ["19", "True"]
