"""All benchmarks, one after the other: `make bench`."""

import subprocess
import sys

from benchmarks.machine import describe

print("machine:", describe(), flush=True)
failed = [
    name
    for name in ("quality", "knn", "known_users", "assignment", "service")
    if subprocess.call([sys.executable, "-m", f"benchmarks.{name}"])
]
sys.exit(f"failed: {', '.join(failed)}" if failed else 0)
