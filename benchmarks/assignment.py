"""How long it takes to say which variant a visitor sees: `python -m benchmarks.assignment`."""

import time
from datetime import UTC, datetime

import numpy as np

from benchmarks.machine import describe
from thinslice.experiments import assign, with_allocation, with_start
from thinslice.experiments.unit_map import UnitMap
from thinslice.records import Experiment, Variant

NOW = datetime(2026, 3, 2, tzinfo=UTC)
CALLS = 100_000
GOAL_US = 200.0


def quantiles(experiment: Experiment, kept: UnitMap | None) -> tuple[float, float, float]:
    """p50, p99 and p99.9 in microseconds over ids as browsers make them."""
    look, at = None if kept is None else kept.get, NOW.timestamp()
    block = experiment.unit == "block"
    units = [
        str(495_000 + n % 1_000) if block else f"{n:08x}-4c1e-4b7a-9d2f-{n * 2_654_435_761 % 2**48:012x}"
        for n in range(CALLS)
    ]
    took = np.empty(CALLS)
    for n, unit in enumerate(units):
        began = time.perf_counter_ns()
        assign(experiment, unit, at, look)
        took[n] = time.perf_counter_ns() - began
    p50, p99, p999 = np.quantile(took / 1_000, [0.5, 0.99, 0.999])
    return float(p50), float(p99), float(p999)


def main() -> None:
    """Prints one line a design."""
    variants = [Variant(name=name, policy="popular", weight=0.25) for name in "abcd"]
    plain = with_start(Experiment(name="ranker", tenant="shop", variants=variants), NOW)
    layered = with_start(
        Experiment(name="ranker", tenant="shop", variants=variants, layer="home", rerandomize_days=7.0), NOW
    )
    ramped = with_allocation(plain, NOW, weights={"a": 0.1, "b": 0.4})
    kept = UnitMap({f"visitor-{n}": "1:a" for n in range(1_000_000)})
    blocks = with_start(
        Experiment(name="fares", tenant="shop", variants=variants, unit="block", block_minutes=60.0), NOW
    )
    print("machine:", describe())
    print(f"{'assignment (microseconds)':<44} {'p50':>7} {'p99':>7} {'p99.9':>7}")
    slowest = 0.0
    for name, experiment, known in [
        ("four variants", plain, None),
        ("in a layer, drawn anew by the week", layered, None),
        ("beside a million units that keep theirs", ramped, kept),
        ("block of time", blocks, None),
    ]:
        p50, p99, p999 = quantiles(experiment, known)
        slowest = max(slowest, p99)
        print(f"{name:<44} {p50:>7.1f} {p99:>7.1f} {p999:>7.1f}")
    print(f"goal: p99 up to {GOAL_US:g} microseconds: {'met' if slowest <= GOAL_US else 'missed'}")


if __name__ == "__main__":
    main()
