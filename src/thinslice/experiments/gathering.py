"""From exact counts to the evidence of an experiment: the last step, where whole numbers become averages."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from thinslice.experiments.evidence import WEIGHT, Ages, Evidence, Split, planned_shares, quantile_of
from thinslice.experiments.tallies import Counts, Tally, moments_of, with_constant
from thinslice.records import Experiment
from thinslice.stats import EARLY_DAYS, LATE_FROM, Cell, Moments, Sample, merge

Vector = tuple[float, ...]

ALL = slice(0, 0)
"""Everything in one group, by no part of a key (variant, vector of probabilities, …)."""

THIRD = slice(2, 3)
"""Groups by what stands third in a key."""


def gather_tally(
    tally: Tally, experiment: Experiment, columns: Sequence[str], pasts: Mapping[str, str],
    goal: Sequence[str], start: float, ends: Sequence[datetime], tilt: int,
) -> Evidence:  # fmt: skip
    """The evidence in what was counted.

    Args:
        tally: As `thinslice.jobs.measure_parts` counts it.
        experiment: Caps are numbers by now.
        columns: The columns of `units`, segments and curve.
        pasts: Metric column → the column that counts the same before.
        goal: The columns of the goal.
        start: The moment (seconds) that days are counted from.
        ends: When each period of the curve ended.
        tilt: Steps in which days on the log scale are counted.
    """
    names = [variant.name for variant in experiment.variants]
    units = tally.of("units")
    vectors = {key[1] for key in units}
    weighted = len(vectors) > 1
    by_variant = _moments(units, columns, weighted, names, ALL)
    whole = _splits(units, names, ALL)
    splits = {"entry day": {_day(start, entry): of for (entry,), of in _splits(units, names, THIRD).items()}}
    segments = {}
    for at, name in enumerate(experiment.segments):
        counted = tally.of(f"segment {at}")
        segments[name] = {str(value): of for (value,), of in _moments(counted, columns, weighted, names, THIRD).items()}
        splits[name] = {str(value): of for (value,), of in _splits(counted, names, THIRD).items()}
    found = {name: sum(counts[0] for key, counts in units.items() if key[0] == name) for name in names}
    return Evidence(
        variants=by_variant.get((), {}),
        counts=whole[()].counts if whole else np.zeros((1, len(names))),
        propensities=whole[()].propensities if whole else planned_shares(experiment),
        units=found,
        mixed_units=tally.total("mixed"),
        weighted=weighted,
        segments=segments,
        cumulative=_curve(tally, columns, weighted, names, ends),
        pasts=pasts,
        cells=_cells(units, columns, names) if weighted else (),
        quantiles=_quantiles(tally, experiment, names),
        splits=splits if units else {},
        ages=_ages(tally, units, goal, start, tilt) if units and not weighted else None,
        served={key[0]: moments_of(["served", "seen"], counts) for key, counts in _added(tally.of("served")).items()}
        if tally.total("seen")
        else {},
        bots=bots_of(tally, names),
    )


def bots_of(tally: Tally, names: Sequence[str]) -> Split | None:
    """How the units that were left out as bots had been assigned; None without any."""
    return _splits(tally.of("bots"), names, ALL).get(())


def _added(counted: Mapping[tuple[Any, ...], Counts]) -> dict[tuple[Any, ...], Counts]:
    """Without the vectors: counts by variant and what follows."""
    tally = Tally()
    tally.add("", [((key[0], *key[2:]), counts) for key, counts in counted.items()])
    return tally.of("")


def _moments(
    counted: Mapping[tuple[Any, ...], Counts], columns: Sequence[str], weighted: bool, names: Sequence[str],
    by: slice,
) -> dict[tuple[Any, ...], dict[str, Moments]]:  # fmt: skip
    """Group → variant → moments; where units are weighted, each by one over its probability."""
    cells = Tally()
    cells.add("", [((key[by], key[0], key[1]), counts) for key, counts in counted.items()])
    parts: dict[tuple[Any, ...], dict[str, list[Moments]]] = {}
    for (of, variant, vector), counts in cells.of("").items():
        parts.setdefault(of, {}).setdefault(variant, []).append(
            _weighed(counts, columns, vector[names.index(variant)] if weighted else None)
        )
    return {of: {name: merge(found) for name, found in sides.items()} for of, sides in parts.items()}


def _weighed(counts: Counts, columns: Sequence[str], probability: float | None) -> Moments:
    if probability is None:
        return moments_of(columns, counts)
    weight = 1 / probability
    return with_constant(moments_of(columns, counts, [weight] * len(columns)), WEIGHT, weight)


def _splits(counted: Mapping[tuple[Any, ...], Counts], names: Sequence[str], by: slice) -> dict[tuple[Any, ...], Split]:
    """Group → how its units fell, by vector of probabilities."""
    found: dict[tuple[Any, ...], dict[Vector, list[float]]] = {}
    for key, counts in counted.items():
        row = found.setdefault(key[by], {}).setdefault(key[1], [0.0] * len(names))
        row[names.index(key[0])] += counts[0]
    return {
        of: Split(np.array([rows[vector] for vector in sorted(rows)]), np.array(sorted(rows)))
        for of, rows in sorted(found.items())
    }


def _curve(
    tally: Tally, columns: Sequence[str], weighted: bool, names: Sequence[str], ends: Sequence[datetime]
) -> list[tuple[datetime, dict[str, Moments]]]:
    """What was known at the end of each period in which somebody did something."""
    counted = tally.of("curve")
    running = Tally()
    points = []
    for period in sorted({key[2] for key in counted}):
        running.add("", [(key[:2], counts) for key, counts in counted.items() if key[2] == period])
        so_far = _moments(running.of(""), columns, weighted, names, ALL)
        points.append((ends[period], so_far.get((), {})))
    return points


def _cells(units: Mapping[tuple[Any, ...], Counts], columns: Sequence[str], names: Sequence[str]) -> list[Cell]:
    """Units by day of entry and logged probabilities, unweighted."""
    found = _moments(units, columns, False, names, slice(1, 3))
    return [
        Cell(int(entry), dict(zip(names, vector, strict=True)), sides)
        for (vector, entry), sides in sorted(found.items(), key=lambda row: row[0][::-1])
    ]


def _quantiles(tally: Tally, experiment: Experiment, names: Sequence[str]) -> dict[str, dict[str, Sample | str]]:
    found: dict[str, dict[str, Sample | str]] = {}
    for metric in experiment.metrics:
        if metric.quantile is None:
            continue
        counted = _added(tally.of(f"values {metric.name}"))
        for name in names:
            of = [(key[1], counts[0]) for key, counts in counted.items() if key[0] == name]
            values = np.repeat([float(value) for value, _ in of], [number for _, number in of])
            found.setdefault(metric.name, {})[name] = quantile_of(values, metric.quantile)
    return found


def _ages(tally: Tally, units: Mapping[tuple[Any, ...], Counts], goal: Sequence[str], start: float, tilt: int) -> Ages:
    """The goal by days since the first exposure; a unit that did nothing on a day counts with zeros."""
    by_age: dict[int, dict[str, Moments]] = {}
    sums = _added(tally.of("ages"))
    nothing = (0,) * (1 + len(goal) + len(goal) * (len(goal) + 1) // 2)
    for variant, age in sorted(_added(tally.of("active"))):
        n = sum(counts[0] for key, counts in units.items() if key[0] == variant and key[3] > age)
        of = moments_of(goal, sums.get((variant, age), nothing), n=n)
        by_age.setdefault(int(age), {})[variant] = of
    named = [f"{word} {name}" for name in goal for word in ("early", "late", "tilt")]
    parts: dict[int, dict[str, list[Moments]]] = {}
    for (variant, entry, seen), counts in _added(tally.of("change")).items():
        steps = np.log1p(np.arange(seen))
        steps = np.round((steps - steps.mean()) * tilt) / tilt
        scale = [1 / EARLY_DAYS, 1 / (seen - LATE_FROM), 1 / tilt] * len(goal)
        of = with_constant(moments_of(named, counts, scale), "tilt scale", float((steps**2).sum()))
        parts.setdefault(entry, {}).setdefault(variant, []).append(of)
    cohorts = [
        (_day(start, entry), {name: merge(found) for name, found in sorted(sides.items())})
        for entry, sides in sorted(parts.items())
    ]
    change: dict[str, list[Moments]] = {}
    for _, sides in cohorts:
        for name, of in sides.items():
            change.setdefault(name, []).append(of)
    return Ages(sorted(by_age.items()), {name: merge(found) for name, found in change.items()}, cohorts)


def _day(start: float, entry: int) -> str:
    return (datetime.fromtimestamp(start, UTC) + timedelta(days=entry)).date().isoformat()
