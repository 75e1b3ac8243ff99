"""An experiment's own rehearsal on shoppers or clusters of them: who has come by a moment, and what is known then."""

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta

import msgspec
import numpy as np
from numpy.typing import NDArray

from thinslice.experiments import assign
from thinslice.experiments.analyze import report
from thinslice.experiments.checks import check_all
from thinslice.experiments.evidence import (
    WEIGHT,
    Evidence,
    Look,
    Split,
    capped_columns,
    metric_columns,
    planned_shares,
    quantile_of,
)
from thinslice.experiments.steering import thompson_weights
from thinslice.jobs.rehearsal.crowd import STARTED_AT, end_of
from thinslice.jobs.rehearsal.own_shoppers import PAST, columns, segments, with_caps
from thinslice.metrics.unit_table import PAST_COLUMNS
from thinslice.records import Experiment, Report
from thinslice.stats import Moments, cells_of, moments

Floats = NDArray[np.float64]

Told = Callable[[float, Look | None], Report]
"""The report at a share of the time, as one of the planned looks."""

World = Callable[[float, bool, np.random.Generator, str], Told]
"""An effect, whether it is only stolen clicks, chance and a name of the run → what is told of it."""

LIKENESS = 0.3
"""How much of what a shopper does is that of the cluster."""


def unit_world(experiment: Experiment, units: int, cluster_shares: Sequence[float]) -> World:
    """Shoppers come evenly over the days and do all they do when they come.

    Clusters differ in mood by a standard deviation of 30 %. With `allocation = "thompson"` production's rule sets the
    weights once a day.

    Args:
        experiment: With a start and an end.
        units: How many come.
        cluster_shares: How the shoppers are spread over the clusters; empty where each is randomized alone.
    """
    days = experiment.days or 1.0
    control = experiment.control_name
    names = np.array([variant.name for variant in experiment.variants])

    def play(effect: float, steals: bool, draw: np.random.Generator, run: str) -> Told:
        crowd = _Crowd(experiment, units, cluster_shares, draw, run)
        luck = draw.bit_generator.state

        def table(code: NDArray[np.int64]) -> dict[str, Floats]:
            draw.bit_generator.state = luck
            lift = np.where((code < 0) | (names[code] == control), 0.0, effect)
            return columns(draw, lift, crowd.mood, steals=steals)

        if experiment.allocation == "thompson":
            steered = experiment
            for day in range(1, int(np.ceil(days))):
                crowd.draw_in(day - 1, steered)
                known = crowd.report(table(crowd.code), day, None)
                weights = thompson_weights(experiment, known.metrics, rng=np.random.default_rng([0, day]))
                if weights is not None:
                    shares = [msgspec.structs.replace(each, weight=weights[each.name]) for each in experiment.variants]
                    steered = msgspec.structs.replace(experiment, variants=shares)
            crowd.draw_in(int(np.ceil(days)) - 1, steered)
        found = table(crowd.code)
        return lambda share, look: crowd.report(found, days * share, look)

    return play


class _Crowd:
    """Who comes when, in which cluster, under which variant and probabilities."""

    def __init__(
        self, experiment: Experiment, units: int, shares: Sequence[float], draw: np.random.Generator, run: str
    ) -> None:
        self.experiment, self.run = experiment, run
        self.day = np.sort(draw.uniform(0.0, experiment.days or 1.0, size=units))
        self.segments = segments(draw, experiment, units)
        self.cluster = draw.choice(len(shares), size=units, p=shares) if len(shares) else np.zeros(0, dtype=np.int64)
        moods = np.maximum(1.0 + LIKENESS * draw.standard_normal(max(len(shares), 1)), 0.05)
        self.mood: Floats | float = moods[self.cluster] if len(shares) else 1.0
        self.code = np.full(units, -1, dtype=np.int64)
        self.logged = np.repeat(planned_shares(experiment), units, axis=0)
        self.place = {variant.name: at for at, variant in enumerate(experiment.variants)}
        if experiment.allocation != "thompson":
            self._assign(np.arange(units), experiment)

    def draw_in(self, day: int, experiment: Experiment) -> None:
        """Assigns those who come on one day, by these weights."""
        rows = np.flatnonzero(np.floor(self.day) == day)
        self._assign(rows, experiment)
        self.logged[rows] = planned_shares(experiment)

    def _assign(self, rows: NDArray[np.int64], experiment: Experiment) -> None:
        if self.cluster.size:
            sides = [self._side(experiment, f"cluster-{at}", 0.0) for at in range(int(self.cluster.max()) + 1)]
            self.code = np.array(sides)[self.cluster]
            return
        start = STARTED_AT.timestamp()
        for row in rows.tolist():
            self.code[row] = self._side(experiment, f"{row}", start + 86_400 * float(self.day[row]))

    def _side(self, experiment: Experiment, unit: str, at: float) -> int:
        name = assign(experiment, f"rehearsal-{self.run}-{unit}", at).variant
        return -1 if name is None else self.place[name]

    def report(self, table: Mapping[str, Floats], day: float, look: Look | None) -> Report:
        """What a report says of those who have come before a day of the experiment."""
        inside = (self.day < day) & (self.code >= 0)
        found = {name: values[inside] for name, values in table.items()}
        experiment = with_caps(self.experiment, found) if inside.any() else self.experiment
        evidence = self._evidence(experiment, found, inside)._replace(look=look)
        now = end_of(experiment.days or 1.0) if day >= (experiment.days or 1.0) else STARTED_AT + timedelta(days=day)
        return report(evidence, experiment, now, check_all(evidence, experiment))

    def _evidence(self, experiment: Experiment, table: dict[str, Floats], inside: NDArray[np.bool_]) -> Evidence:
        names = list(self.place)
        code, logged = self.code[inside], self.logged[inside]
        weighted = experiment.allocation == "thompson" and len(np.unique(logged, axis=0)) > 1
        pasts = {}
        if experiment.covariate_days is not None:
            raw = [metric.numerator for metric in experiment.metrics]
            pasts = {name: f"{PAST}{name}" for name in raw if name in PAST_COLUMNS}
        wide = dict(table)
        wide |= {name: np.minimum(table[of], cap) for name, (of, cap) in capped_columns(experiment).items()}
        kept = {name: wide[name] for name in [*metric_columns(experiment), *dict.fromkeys(pasts.values())]}
        cells = cells_of(kept, np.array(names)[code], logged, np.floor(self.day[inside]), names) if weighted else ()
        if weighted:
            weight = 1 / logged[np.arange(code.size), code]
            kept = {name: values * weight for name, values in kept.items()} | {WEIGHT: weight}
        parts = {name: values[inside] for name, values in self.segments.items()}
        cluster = self.cluster[inside] if self.cluster.size else None
        counted = code if cluster is None else code[np.unique(cluster, return_index=True)[1]]
        groups, group = (planned_shares(experiment), np.zeros(counted.size, dtype=np.int64))
        if weighted:
            groups, group = np.unique(logged, axis=0, return_inverse=True)
        return Evidence(
            variants=_by_variant(kept, code, names, cluster),
            counts=_counts(group.ravel(), counted, len(groups), len(names)),
            propensities=groups,
            units={name: int((code == at).sum()) for at, name in enumerate(names)},
            weighted=weighted, clusters=cluster is not None, pasts=pasts, cells=cells,
            segments={
                segment: {
                    value: _by_variant(
                        {name: of[values == value] for name, of in kept.items()}, code[values == value], names,
                        None if cluster is None else cluster[values == value],
                    )
                    for value in np.unique(values).tolist()
                }
                for segment, values in parts.items()
            },
            splits={} if cluster is not None or weighted else {
                segment: {
                    value: Split(_counts(group[values == value], code[values == value], 1, len(names)), groups)
                    for value in np.unique(values).tolist()
                }
                for segment, values in parts.items()
            },
            quantiles={
                metric.name: {
                    name: quantile_of(table[metric.numerator][code == at], metric.quantile)
                    for at, name in enumerate(names)
                }
                for metric in experiment.metrics
                if metric.quantile is not None
            },
        )  # fmt: skip


def _counts(group: NDArray[np.int64], code: NDArray[np.int64], groups: int, variants: int) -> Floats:
    counts = np.zeros((groups, variants))
    np.add.at(counts, (group, code), 1)
    return counts


def _by_variant(
    table: Mapping[str, Floats], code: NDArray[np.int64], names: Sequence[str], cluster: NDArray[np.int64] | None
) -> dict[str, Moments]:
    """Moments of each variant, of its units or of its clusters' sums."""
    if cluster is not None and code.size:
        keys, first, place = np.unique(cluster, return_index=True, return_inverse=True)
        sums: dict[str, Floats] = {
            name: np.bincount(place, weights=values, minlength=keys.size).astype(np.float64)
            for name, values in table.items()
        }
        table, code = sums | {WEIGHT: np.bincount(place).astype(np.float64)}, code[first]
    elif cluster is not None:
        table = {**table, WEIGHT: np.zeros(0)}
    return {name: moments({key: values[code == at] for key, values in table.items()}) for at, name in enumerate(names)}
