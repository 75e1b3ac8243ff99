"""How well each recommender foresees the next click on public data sets, all of them in the same run.

`python -m benchmarks.quality [SET ...] [--models A,B] [--data FOLDER] [--json]`. Every query of the shipped test part,
full ranking, ties ranked against the model; the default pipeline tunes itself on the train part, with no setting by
hand. Peers that take long to ask (`implicit-als`, `implicit-bpr`) run when they are named.
"""

import argparse
import json
import os
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from benchmarks.machine import describe
from thinslice.evaluation import evaluate

SETS = ("diginetica", "yoochoose1_64", "tmall", "yoochoose_100k")
GOALS = {"diginetica": (0.560, 0.203), "yoochoose1_64": (0.728, 0.327), "tmall": (0.535, 0.245),
         "yoochoose_100k": (0.711, 0.383)}  # fmt: skip
"""HR@20 and MRR@20 that the default pipeline must reach."""

MODELS = "popular,markov,implicit-cosine,implicit-tfidf,ease,session-knn,session-ranker"
COLUMNS = ("session_id", "item_id", "ts", "event", "split")


def columns(path: Path) -> dict[str, Any]:
    """A log as NumPy columns."""
    table = pq.read_table(path)
    found = {}
    for name in COLUMNS:
        if name in table.column_names:
            column = table.column(name)
            found[name] = (column.cast("string") if "dictionary" in str(column.type) else column).to_numpy()
    return found


def main() -> None:
    """Prints one table a set: the models, what they cost, and how far the default pipeline stands before each."""
    home = Path(__file__).parents[1] / ".." / "shared" / "data"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="*", default=SETS)
    parser.add_argument("--models", default=MODELS)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("THINSLICE_DATA", home)))
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    results = {}
    if not options.json:
        print("machine:", describe(), flush=True)
    for name in options.sets:
        found = evaluate(columns(options.data / name / "events.parquet"), options.models.split(","))
        results[name] = found
        if not options.json:
            show(name, found)
    if options.json:
        print(json.dumps({"machine": describe(), "sets": results}))


def show(name: str, found: dict[str, Any]) -> None:
    """One set's table."""
    protocol = found["protocol"]
    print(f"\n{name}: {protocol['queries']:,} queries, {protocol['train_clicks']:,} clicks learned from")
    print(f"  {'model':16} {'HR@20':>7} {'MRR@20':>7} {'± se':>7} {'fit CPU s':>9} {'p50 us':>7} {'p99 us':>7}")
    for row in found["models"]:
        us = row["query_us"]
        print(
            f"  {row['name']:16} {row['hr']:7.4f} {row['mrr']:7.4f} {row['mrr_se']:7.4f} {row['fit_cpu_s']:9.1f} "
            f"{us['p50']:7.0f} {us['p99']:7.0f}"
        )
    for each in found["skipped"]:
        print(f"  {each['name']}: {each['reason']}")
    last = found["models"][-1]
    if name in GOALS and last["name"] == "session-ranker":
        goal = GOALS[name]
        met = last["hr"] >= goal[0] and last["mrr"] >= goal[1]
        per_million = last["fit_cpu_s"] / protocol["train_clicks"] * 1e6
        print(f"  goal {goal[0]:.3f}/{goal[1]:.3f}: {'met' if met else 'NOT met'}; ", end="")
        print(f"training {per_million:.0f} CPU s a million clicks")
    print(f"  {found['sentence']}", flush=True)


if __name__ == "__main__":
    main()
