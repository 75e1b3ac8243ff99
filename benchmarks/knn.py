"""Session kNN in process: time, size and quality beside its peers, how fast its index is built, and the ranker on top.

`python -m benchmarks.knn [FOLDER OF DATA SETS] [--json]`. Latencies are CPU time of the asking thread per query (codes
in, codes out, nothing batched); peers answer the same questions in the same run, so compare ratios, not machines.
"""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import peers
from benchmarks.machine import describe
from benchmarks.queries import Asked, ask, first_answer_s, load, spent
from thinslice.models import SessionKNN
from thinslice.records import Interactions

SETTINGS = {
    "fast": {"sample": 500, "neighbors": 100},
    "thorough": {"sample": 5000, "neighbors": 500},
    "default": {"sample": 5000, "neighbors": 1500},
}
QUERIES = 20_000
QUERIES_OF_WSKNN = 2_000
SYNTHETIC_CLICKS = 45_000_000
SYNTHETIC_ITEMS = 100_000


def main() -> None:
    """Prints what was measured."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--json"]
    home = Path(__file__).parents[1] / ".." / "shared" / "data"
    data = Path(arguments[0] if arguments else os.environ.get("THINSLICE_DATA", home))
    SessionKNN.warm()
    train, asked = load(data, "diginetica", QUERIES)
    found = {
        "machine": describe(),
        "diginetica": on_diginetica(train, asked),
        "throughput": throughput(train, asked),
        "start": {"first_answer_s": first_answer_s(SessionKNN.fit(train))},
        "rebuild": rebuild(),
        "synthetic": on_synthetic(),
        "session-ranker": ranker(data),
    }
    if "--json" in sys.argv:
        print(json.dumps(found))
        return
    show(found)


def on_diginetica(train: Interactions, asked: Asked) -> dict[str, dict[str, Any]]:
    """Three settings and two peers over the same questions."""
    rows = {}
    for name, settings in SETTINGS.items():
        model, fit_s = spent(lambda settings=settings: SessionKNN.fit(train, **settings))
        size = sum(array.nbytes for array in model.arrays().values()) / len(train.item)
        measured = ask(lambda codes, model=model: model.recommend_codes(codes, 20)[0], asked)
        rows[name] = peers.row(measured, fit_s, size, settings)
    rows["implicit tf-idf"] = peers.implicit_tfidf(train, asked)
    some = Asked(asked.sessions[:QUERIES_OF_WSKNN], asked.targets[:QUERIES_OF_WSKNN])
    rows["wsknn"] = peers.wsknn(train, some)
    for row in rows.values():
        row["times_fast"] = {
            name: round(row[name] / rows["fast"][name], 2) for name in ("p50_us", "p99_us", "fit_cpu_s")
        }
    return rows


def throughput(train: Interactions, asked: Asked) -> dict[str, dict[str, float]]:
    """Queries a second in one call for all, by one thread and by two at the same time."""
    rows = {}
    clicks = np.concatenate(asked.sessions)
    end = np.cumsum([len(session) for session in asked.sessions])
    begin = np.concatenate([[0], end[:-1]])
    half = len(end) // 2
    for name in ("fast", "thorough"):
        model = SessionKNN.fit(train, **SETTINGS[name])

        def work(part: slice, model: SessionKNN = model) -> None:
            for _ in range(5):
                model.recommend_codes_batch(clicks, begin[part], end[part], 20)

        work(slice(0, 100))
        alone = min(spent(lambda work=work: work(slice(None)))[1] for _ in range(3)) / 5
        one = min(together(work, [slice(None)]) for _ in range(3)) / 5
        two = min(together(work, [slice(None, half), slice(half, None)]) for _ in range(3)) / 5
        rows[name] = {
            "queries_per_cpu_s": round(len(end) / alone),
            "queries_per_s_two_threads": round(len(end) / two),
            "two_threads_times": round(one / two, 2),
        }
    return rows


def together(work: Any, parts: list[slice]) -> float:
    """Seconds by the clock on the wall until a thread for each part is done."""
    threads = [threading.Thread(target=work, args=(part,)) for part in parts]
    begun = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - begun


def rebuild() -> dict[str, float]:
    """The index of a million sessions built anew, as every minute of a running shop."""
    world = synthetic(4_500_000, SYNTHETIC_ITEMS)
    fit_s = min(spent(lambda: SessionKNN.fit(world))[1] for _ in range(3))
    return {"cpu_s_per_million_sessions": round(fit_s / (len(world.session_ptr) - 1) * 1e6, 3)}


def ranker(data: Path) -> dict[str, Any]:
    """The two-stage ranker, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.ranker", str(data), "--json"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def on_synthetic() -> dict[str, dict[str, float]]:
    """Builds the index of 45 M clicks from sorted arrays, compiled, and asks it a few thousand times."""
    world = synthetic(SYNTHETIC_CLICKS, SYNTHETIC_ITEMS)
    draw = np.random.default_rng(1)
    starts = draw.integers(0, SYNTHETIC_CLICKS - 5, 5000).tolist()
    asked = Asked([world.item[at : at + 1 + at % 5].copy() for at in starts], [0] * len(starts))
    rows = {}
    for name in ("fast", "thorough"):
        wall = time.perf_counter()
        model, fit_s = spent(lambda name=name: SessionKNN.fit(world, **SETTINGS[name]))
        wall = time.perf_counter() - wall
        measured = ask(lambda codes, model=model: model.recommend_codes(codes, 20)[0], asked)
        rows[name] = {
            "clicks": SYNTHETIC_CLICKS,
            "build_cpu_s": round(fit_s, 2),
            "build_wall_s": round(wall, 2),
            "million_clicks_per_cpu_s": round(SYNTHETIC_CLICKS / fit_s / 1e6, 1),
            "bytes_per_click": round(sum(array.nbytes for array in model.arrays().values()) / SYNTHETIC_CLICKS, 2),
            **{part: measured[part] for part in ("p50_us", "p90_us", "p99_us")},
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


def show(found: dict[str, Any]) -> None:
    """The same as tables."""
    print(f"session kNN and its peers on diginetica ({found['machine']})")
    print(
        "  CPU us a query        p50       p90       p99   fit CPU s   bytes/click   HR@20   MRR@20   p50 and p99 are"
    )
    for name, row in found["diginetica"].items():
        p50, p90, p99 = (f"{row[part]:>8,.1f}" for part in ("p50_us", "p90_us", "p99_us"))
        times = f"{row['times_fast']['p50_us']} and {row['times_fast']['p99_us']} x fast"
        print(
            f"  {name:<16} {p50}  {p90}  {p99}  {row['fit_cpu_s']:>10.2f}  {row['bytes_per_click']:>12.2f}"
            f"  {row['hr']:.4f}   {row['mrr']:.4f}   {times}; {row['settings']}"
        )
    for part in ("throughput", "synthetic"):
        for name, row in found[part].items():
            print(f"  {part}, {name}: " + ", ".join(f"{key} {value:,}" for key, value in row.items()))
    print(f"  first answer of a new process, seconds: {found['start']['first_answer_s']}")
    print(f"  rebuild: {found['rebuild']['cpu_s_per_million_sessions']} CPU s per million sessions")
    print("  session-ranker: " + ", ".join(f"{key} {value:,}" for key, value in found["session-ranker"].items()))


if __name__ == "__main__":
    main()
