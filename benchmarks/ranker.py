"""The two-stage session ranker in process: what a query costs, what training costs, how much memory it takes.

`python -m benchmarks.ranker [FOLDER OF DATA SETS] [--neural] [--json]`, on diginetica; `--neural`: the neural ranker.
It runs in a process of its own, so that its peak of memory is its own; `benchmarks.knn` starts it.
"""

import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import describe
from benchmarks.queries import Asked, ask, first_answer_s, load, spent
from thinslice.models import MODELS
from thinslice.records import Interactions

QUERIES = 10_000


def main() -> None:
    """Prints what was measured."""
    arguments = [argument for argument in sys.argv[1:] if not argument.startswith("--")]
    home = Path(__file__).parents[1] / ".." / "shared" / "data"
    data = Path(arguments[0] if arguments else os.environ.get("THINSLICE_DATA", home))
    name = "neural-ranker" if "--neural" in sys.argv else "session-ranker"
    found = measure(*load(data, "diginetica", QUERIES), name)
    if "--json" in sys.argv:
        print(json.dumps(found))
        return
    print(f"{name} on diginetica ({describe()})")
    for name, value in found.items():
        print(f"  {name}: {value}")


def measure(train: Interactions, asked: Asked, name: str) -> dict[str, Any]:
    """Trains with default settings, asks every question alone, and builds the index anew under what was learned."""
    kind: Any = MODELS[name]
    kind.warm()
    before = peak_mb()
    wall = time.perf_counter()
    process = time.process_time()
    model, fit_s = spent(lambda: kind.fit(train, rng=0))
    wall, process = time.perf_counter() - wall, time.process_time() - process
    clicks, sessions = len(train.item), len(train.session_ptr) - 1
    refit, refit_s = spent(lambda: model.refit(train, rng=0))
    measured = ask(lambda codes: model.recommend_codes(codes, 20)[0], asked)
    return {
        **measured,
        "queries": len(asked.sessions),
        "queries_per_cpu_s": round(1e6 / mean_us(model, asked)),
        "fit_cpu_s": round(max(fit_s, process), 1),
        "fit_wall_s": round(wall, 1),
        "fit_cpu_s_per_million_clicks": round(max(fit_s, process) / clicks * 1e6, 1),
        "refit_cpu_s": round(refit_s, 2),
        "refit_cpu_s_per_million_sessions": round(refit_s / sessions * 1e6, 2),
        "bytes_per_click": round(sum(array.nbytes for array in refit.arrays().values()) / clicks, 1),
        "first_answer_s": first_answer_s(refit),
        "peak_mb_before_training": before,
        "peak_mb": peak_mb(),
    }


def mean_us(model: Any, asked: Asked) -> float:
    """CPU time per query of many in a row, without a look at the clock between them."""
    count = min(len(asked.sessions), 3000)

    def all_of_them() -> None:
        for session in asked.sessions[:count]:
            model.recommend_codes(session, 20)

    return float(spent(all_of_them)[1] / count * 1e6)


def peak_mb() -> int:
    """The most memory that this process ever held."""
    return int(np.rint(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000))


if __name__ == "__main__":
    main()
