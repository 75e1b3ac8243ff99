"""Session kNN in process: quality, time and size of the same settings, and how fast its index is built.

`python -m benchmarks.knn [FOLDER OF DATA SETS] [--json]`. Latencies are CPU time of the asking thread per call of
`recommend_codes` (item codes in and out), with the wall clock beside them; the queries are all 60,858 of diginetica.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from benchmarks.machine import describe
from thinslice.evaluation import evaluate
from thinslice.models import SessionKNN
from thinslice.records import Interactions

SETTINGS = {"fast": {"sample": 500, "neighbors": 100}, "thorough": {"sample": 5000, "neighbors": 1500}}
SYNTHETIC_CLICKS = 45_000_000
SYNTHETIC_ITEMS = 100_000


def main() -> None:
    """Prints what was measured."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--json"]
    home = Path(__file__).parents[1] / ".." / "shared" / "data"
    data = Path(arguments[0] if arguments else os.environ.get("THINSLICE_DATA", home))
    found = {"machine": describe(), "diginetica": on_diginetica(data), "synthetic": on_synthetic()}
    if "--json" in sys.argv:
        print(json.dumps(found))
        return
    print(f"session kNN ({found['machine']})")
    for name, row in found["diginetica"].items():
        cpu, wall = ("/".join(map(str, row[clock].values())) for clock in ("query_us", "query_wall_us"))
        print(
            f"  {name:<9} {row['settings']}: HR@20 {row['hr']:.4f}, MRR@20 {row['mrr']:.4f} (n {row['n']:,}), "
            f"CPU µs p50/p90/p99 {cpu}, wall {wall}, "
            f"{row['bytes_per_event']} bytes/click, {row['queries_per_s']:,.0f} queries/s"
        )
    for name, row in found["synthetic"].items():
        print(f"  {name}: " + ", ".join(f"{key} {value:,}" for key, value in row.items()))


def on_diginetica(data: Path) -> dict[str, Any]:
    """Both settings over all queries."""
    table = pq.read_table(data / "diginetica" / "events.parquet")
    columns = {name: table[name].to_numpy() for name in ("session_id", "item_id", "ts", "event", "split")}
    return {
        name: evaluate(columns, ["session-knn"], settings={"session-knn": settings})["models"][0]
        for name, settings in SETTINGS.items()
    }


def on_synthetic() -> dict[str, dict[str, float]]:
    """Builds the index of 45 M clicks from sorted arrays, compiled, and asks it a few thousand times."""
    SessionKNN.warm()
    world = synthetic(SYNTHETIC_CLICKS, SYNTHETIC_ITEMS)
    rows = {}
    for name, settings in SETTINGS.items():
        wall, cpu = time.perf_counter(), time.thread_time()
        model = SessionKNN.fit(world, **settings)
        cpu, wall = time.thread_time() - cpu, time.perf_counter() - wall
        size = sum(array.nbytes for array in model.arrays().values())
        draw = np.random.default_rng(1)
        taken = []
        for start in draw.integers(0, SYNTHETIC_CLICKS - 5, 3000).tolist():
            session = [world.item_ids[code] for code in world.item[start : start + 1 + start % 5].tolist()]
            begun = time.thread_time_ns()
            model.recommend(session, 20)
            taken.append((time.thread_time_ns() - begun) / 1000)
        p50, p90, p99 = np.quantile(taken, [0.5, 0.9, 0.99]).tolist()
        rows[name] = {
            "clicks": SYNTHETIC_CLICKS,
            "million_clicks_per_cpu_s": round(SYNTHETIC_CLICKS / cpu / 1e6, 1),
            "million_clicks_per_s": round(SYNTHETIC_CLICKS / wall / 1e6, 1),
            "bytes_per_click": round(size / SYNTHETIC_CLICKS, 2),
            "p50_us": round(p50, 1),
            "p90_us": round(p90, 1),
            "p99_us": round(p99, 1),
        }
        del model
    return rows


def synthetic(clicks: int, items: int) -> Interactions:
    """Sessions of 2 to 7 clicks; items by a power law; a click a millisecond."""
    draw = np.random.default_rng(0)
    length = draw.integers(2, 8, clicks // 2 + 1, dtype=np.int64)
    ends = np.cumsum(length)
    ends = ends[: int(np.searchsorted(ends, clicks)) + 1]
    ends[-1] = clicks
    item = np.minimum(items * draw.random(clicks, dtype=np.float32) ** 3, items - 1).astype(np.int32)
    time_s = 1.7e9 + 0.001 * np.arange(clicks)
    return Interactions(np.concatenate([[0], ends]), item, time_s, [str(code) for code in range(items)])


if __name__ == "__main__":
    main()
