"""How long it takes to say which variant a unit sees, for every kind of unit: `python -m benchmarks.assignment`.

Timed is what a request pays: from what it carries to what is logged with it (the unit's id, its hash, the full vector
of probabilities), through `serving.experiments`, with the experiment's file on the disk.
"""

import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from benchmarks.machine import describe
from thinslice.experiments import dump_experiment, with_allocation, with_start
from thinslice.experiments.unit_map import FirstSeen, UnitMap
from thinslice.records import Experiment, Variant
from thinslice.serving.experiments import ExperimentFiles, Visit
from thinslice.serving.unit_maps import GRAPH, KEPT, SEEN, VISITORS, unit_map_file, write_unit_map

NOW = datetime(2026, 3, 2, tzinfo=UTC)
CALLS = 50_000
KNOWN = 1_000_000
GOAL_US = 200.0
PHONE = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) Mobile/15E148"


def designs() -> list[tuple[str, Experiment, dict[str, Any]]]:
    """What is timed: its name, the experiment, and what a request carries besides its ids."""
    four = [Variant(name=name, policy="popular", weight=0.25) for name in "abcd"]
    plain = Experiment(name="ranker", tenant="shop", variants=four, training="shared")
    ramped = with_allocation(with_start(plain, NOW), NOW, weights={"a": 0.1, "b": 0.4})
    leaves = msgspec.structs.replace(plain, allocation="thompson", leaves=["device", "country"], unit="visitor")
    steered = with_allocation(
        with_start(leaves, NOW), NOW,
        leaves={f"device={d},country={c}": {"a": 0.1, "b": 0.2, "c": 0.3, "d": 0.4}
                for d in ("phone", "desktop") for c in ("AT", "DE", "CH")},
    )  # fmt: skip

    def of(**fields: Any) -> Experiment:
        return with_start(msgspec.structs.replace(plain, **fields), NOW)

    return [
        ("visitor", of(), {}),
        ("visitor, sticky: beside a million that keep theirs", ramped, {}),
        ("visitor, drawn anew by the week", of(rerandomize_days=7.0), {}),
        ("visitor, in a layer", of(layer="home", layer_range=(0.0, 0.9)), {}),
        ("visitor, with a leaf (device, country)", steered, {"context": {"country": "AT"}, "user_agent": PHONE}),
        ("visitor, who is new or returning, of a million", of(segments=["returning"]), {}),
        ("user", of(unit="user"), {}),
        ("session", of(unit="session"), {}),
        ("cluster by the context", of(unit="cluster", cluster="city"), {"context": {"city": "Graz"}}),
        ("cluster by a graph of a million", of(unit="cluster", cluster="item-graph"), {}),
        ("block of time (switchback)", of(unit="block", block_minutes=60.0), {}),
    ]


def quantiles(files: ExperimentFiles, carried: dict[str, Any]) -> tuple[float, float, float]:
    """p50, p99 and p99.9 in microseconds over ids as browsers make them."""
    at = NOW.timestamp() + 60.0
    ids = [f"{n:08x}-4c1e-4b7a-9d2f-{n * 2_654_435_761 % 2**48:012x}" for n in range(CALLS)]
    visits = [
        Visit(
            "home", visitor_id=each, session_id=f"s{each}", user_id=f"u{each}", item_id=f"item-{n % KNOWN}", **carried
        )
        for n, each in enumerate(ids)
    ]
    if not any(files.choose("shop", at, each).exposed for each in visits[:20]):
        raise RuntimeError("nobody takes part, so nothing would be timed")
    took = np.empty(CALLS)
    for n, visit in enumerate(visits):
        began = time.perf_counter_ns()
        files.choose("shop", at, visit)
        took[n] = time.perf_counter_ns() - began
    p50, p99, p999 = np.quantile(took / 1_000, [0.5, 0.99, 0.999])
    return float(p50), float(p99), float(p999)


def main() -> None:
    """Prints one line a design."""
    print("machine:", describe())
    print(f"{'assignment (microseconds)':<52} {'p50':>7} {'p99':>7} {'p99.9':>7}")
    slowest = 0.0
    kept = UnitMap({f"visitor-{n}": "1:a" for n in range(KNOWN)})
    graph = UnitMap({f"item-{n}": f"c{n // 50}" for n in range(KNOWN)})
    seen = FirstSeen({f"visitor-{n}": 1.7e9 for n in range(KNOWN)})
    for name, experiment, carried in designs():
        with tempfile.TemporaryDirectory() as root:
            folder = Path(root) / "shop"
            folder.mkdir()
            (folder / "ranker.toml").write_text(dump_experiment(experiment), encoding="utf-8")
            if experiment.allocation_version > 1:
                write_unit_map(unit_map_file(folder, "ranker", KEPT), kept)
            if experiment.cluster == "item-graph":
                write_unit_map(unit_map_file(folder, "ranker", GRAPH), graph)
            if experiment.segments:
                write_unit_map(unit_map_file(folder, VISITORS, SEEN), seen)
            p50, p99, p999 = quantiles(ExperimentFiles(Path(root)), carried)
        slowest = max(slowest, p99)
        print(f"{name:<52} {p50:>7.1f} {p99:>7.1f} {p999:>7.1f}")
    print(f"goal: p99 up to {GOAL_US:g} microseconds: {'met' if slowest <= GOAL_US else 'missed'}")


if __name__ == "__main__":
    main()
