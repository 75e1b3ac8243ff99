"""All benchmarks, one after the other: `make bench`. About forty minutes on two cores that do nothing else.

Those of experiments are two more: `python -m benchmarks.trust` (their figures by simulation) and `benchmarks.report`.
"""

import subprocess
import sys

from benchmarks.machine import describe

BENCHMARKS = (
    "quality",
    "knn",
    "known_users",
    "assignment",
    "service",
    "service --policy session-ranker --items 100000 --sessions 1000000 --rate 2000",
)

print("machine:", describe(), flush=True)
failed = []
for name in BENCHMARKS:
    print(f"\npython -m benchmarks.{name}", flush=True)
    module, *options = name.split()
    if subprocess.call([sys.executable, "-m", f"benchmarks.{module}", *options]):
        failed.append(name)
sys.exit(f"failed: {', '.join(failed)}" if failed else 0)
