"""Runs one suite (test, slow or faults) and says aloud what is left out on this machine; in CI, nothing may be."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def missing() -> dict[str, str]:
    """Marker → why its tests cannot run here."""
    lacks = {}
    if not (shutil.which("chromium") or shutil.which("google-chrome")):
        lacks["browser"] = "no Chromium on this machine (on Debian: apt install chromium)"
    data = Path(os.environ.get("THINSLICE_DATA", ROOT / ".." / "shared" / "data"))
    if not (data / "diginetica" / "events.parquet").is_file():
        lacks["data"] = f"no data sets in {data} (THINSLICE_DATA names the folder)"
    if importlib.util.find_spec("torch") is None:
        lacks["neural"] = "PyTorch is not installed (pip install -e '.[neural]')"
    return lacks


def unasked() -> dict[str, str]:
    """Marker → why its tests do not run here, which is nobody's fault, not even in CI."""
    lacks = {}
    if importlib.util.find_spec("pyspark") is None or not shutil.which("java"):
        lacks["spark"] = "no Spark on this machine (pip install -e '.[spark]', and Java 17)"
    if sys.platform != "linux":
        lacks["linux"] = "this kernel does not deal connections out to several listeners"
    return lacks


def main(suite: str) -> int:
    """Runs the suite and returns pytest's exit code."""
    lacks = missing()
    for marker, why in lacks.items():
        print(f"deselected: tests marked {marker!r}, {why}", flush=True)
    if lacks and os.environ.get("CI") == "true":
        print("in CI nothing may be deselected", file=sys.stderr)
        return 1
    for marker, why in unasked().items():
        print(f"left out: tests marked {marker!r}, {why}", flush=True)
        lacks[marker] = why
    chosen = {"test": "not slow and not faults", "slow": "slow", "faults": "faults"}[suite]
    expression = " and ".join([f"({chosen})", *(f"not {marker}" for marker in lacks)])
    arguments = ["-m", expression, "-q", "--durations=5"]
    if suite == "test":
        arguments += ["--doctest-modules", "tests", "src", "-n", "2", "--dist", "loadfile"]
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(ROOT / "build" / "numba")}
    return subprocess.call([sys.executable, "-m", "pytest", *arguments], cwd=ROOT, env=environment)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
