"""All that a report is made of: what was counted for each variant, and how units were allocated."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from thinslice.errors import BadInput, StatisticsError, TooFewUnits
from thinslice.records import Check, Experiment, Metric, Variant
from thinslice.stats import Blocks, BlockValues, Cell, Estimate, Moments, Sample, cells_of, moments, quantile_sample

WEIGHT = "unit_weight"
"""The column that stands for one unit where units do not all count the same: 1 / propensity, or a cluster's units."""


class Look(NamedTuple):
    """Which of the planned looks a report is: 1 is the first, `of` the last."""

    number: int
    of: int


class Split(NamedTuple):
    """Units of one slice as they were assigned, for a sample-ratio test.

    Attributes:
        counts: Shape (groups, variants), units seen; variants in the experiment's order.
        propensities: Shape (groups, variants), the probabilities under which each group was assigned.
    """

    counts: NDArray[np.float64]
    propensities: NDArray[np.float64]


class Ages(NamedTuple):
    """What units did by whole days since their first exposure; who did nothing counts with zeros.

    Attributes:
        by_age: (age, variant → moments) of the units that could be seen at that age, youngest first.
        change: Variant → moments of the units that could be seen early and late: `early COLUMN` and `late COLUMN`
            (averages a day), `tilt COLUMN` and `tilt scale` (their quotient is the slope by log(1 + age) within units).
        cohorts: (day of the first exposure, the same moments), oldest first.
    """

    by_age: Sequence[tuple[int, Mapping[str, Moments]]]
    change: Mapping[str, Moments]
    cohorts: Sequence[tuple[Any, Mapping[str, Moments]]] = ()


class Daily(NamedTuple):
    """What happened on one day of the calendar.

    Attributes:
        day: Whole days since the start; days before it are negative, and only control's.
        variants: Variant → moments of the goal's columns, a row for each unit (or cluster) that did something that day.
        share: The treatments' share of all traffic on that day, 0..1; None when it changed or is not known.
        pooled: The same as `variants` of units that were served by models that learned from everybody.
    """

    day: int
    variants: Mapping[str, Moments]
    share: float | None = None
    pooled: Mapping[str, Moments] = {}


class Spillover(NamedTuple):
    """What control's units do, by the share of their neighbors that got a treatment.

    Attributes:
        neighbors: Who is a neighbor, as it stands in a sentence: `units that came for the same item on the same day`.
        units: So many units of control have a neighbor.
        level: The goal's mean over them.
        slope: Change of the goal from no treated neighbor to treated neighbors only.
    """

    neighbors: str
    units: int
    level: float
    slope: Estimate


class Evidence(NamedTuple):
    """Sufficient statistics of one experiment.

    Attributes:
        variants: Variant → moments of its metric columns; a variant without units may be absent.
        counts: Shape (groups, variants), units seen; variants in the experiment's order.
        propensities: Shape (groups, variants), the probabilities under which each group was assigned.
        units: Variant → how many units.
        mixed_units: Units that were seen in more than one variant (they are in no moments).
        weighted: The column `unit_weight` stands for one unit.
        covariate: A column known before the assignment; results are CUPED with it.
        clusters: Rows are clusters of units, so degrees of freedom are clusters - 2.
        segments: Segment → value → variant → moments.
        cumulative: (until, variant → moments) of growing periods, oldest first.
        pasts: Metric column → the column that counts the same before the first exposure; results are CUPED with it.
        cells: Units by time and logged probabilities; when there, effects are AIPW.
        quantiles: Quantile metric → variant → its sample, or why there is none.
        blocks: Metric → treatment → the time blocks of a switchback, its own and control's.
        block_segments: Segment → value → the same of that value's units alone.
        block_values: Quantile metric → treatment → what units did in blocks.
        redrawn: Shape (draws, blocks), other assignments that the switchback's design could have drawn; None shuffles.
        splits: Slice (`entry day` or a segment) → value → how its units fell; days oldest first.
        look: Which of the planned looks this is; None without a plan.
        planned_units: How many units were planned; the always-valid interval is narrowest there. 0 is unknown.
        ages: Effect by days since the first exposure; None where days are unknown.
        findings: Checks that only the reader of the raw rows can make.
        served: Variant → moments of `served` and `seen`, slates of a unit and those of which an impression arrived.
        bots: How the units that were left out as bots had been assigned.
        contamination: Variant → share of its model's training rows that another variant caused.
        explorers: Variants that try what they do not know yet; others may harvest what they find.
        daily: The goal day by day, the first day first; empty where days are unknown.
        spillovers: What neighbors do to control, by kind of neighbor.
        served_by: Segment → value → the same as `served` of its units.
        duplicates: Variant → (slates that were looked at, those of them that were logged more than once).
    """

    variants: Mapping[str, Moments]
    counts: NDArray[np.float64]
    propensities: NDArray[np.float64]
    units: Mapping[str, int]
    mixed_units: int = 0
    weighted: bool = False
    covariate: str | None = None
    clusters: bool = False
    segments: Mapping[str, Mapping[str, Mapping[str, Moments]]] = {}
    cumulative: Sequence[tuple[Any, Mapping[str, Moments]]] = ()
    pasts: Mapping[str, str] = {}
    cells: Sequence[Cell] = ()
    quantiles: Mapping[str, Mapping[str, Sample | str]] = {}
    blocks: Mapping[str, Mapping[str, Blocks]] = {}
    block_segments: Mapping[str, Mapping[str, Mapping[str, Mapping[str, Blocks]]]] = {}
    block_values: Mapping[str, Mapping[str, BlockValues]] = {}
    redrawn: NDArray[np.bool_] | None = None
    splits: Mapping[str, Mapping[str, Split]] = {}
    look: Look | None = None
    planned_units: int = 0
    ages: Ages | None = None
    findings: Sequence[Check] = ()
    served: Mapping[str, Moments] = {}
    bots: Split | None = None
    contamination: Mapping[str, float] = {}
    explorers: frozenset[str] = frozenset()
    daily: Sequence[Daily] = ()
    spillovers: Sequence[Spillover] = ()
    served_by: Mapping[str, Mapping[str, Mapping[str, Moments]]] = {}
    duplicates: Mapping[str, tuple[int, int]] = {}


class Units(NamedTuple):
    """One row a unit, as columns.

    Attributes:
        variant: Shape (units,), the variant's name.
        columns: Metric columns, shape (units,) each.
        propensities: Shape (units, variants) in the experiment's order; None when the planned shares held throughout.
        covariate: Shape (units,), known before the assignment, or None.
        segments: Segment → shape (units,), known before the assignment.
        batch: Shape (units,), whole numbers that grow whenever the allocation may have followed results; None is one.
        contamination: Variant → share of its model's training rows that another variant caused.
        explorers: Variants that try what they do not know yet.
    """

    variant: ArrayLike
    columns: Mapping[str, ArrayLike]
    propensities: ArrayLike | None = None
    covariate: ArrayLike | None = None
    segments: Mapping[str, ArrayLike] = {}
    batch: ArrayLike | None = None
    contamination: Mapping[str, float] = {}
    explorers: frozenset[str] = frozenset()


def planned_shares(experiment: Experiment) -> NDArray[np.float64]:
    """Shape (1, variants), as the experiment file says."""
    return np.array([[variant.weight for variant in experiment.variants]], dtype=np.float64)


def column_of(metric: Metric) -> str:
    """The column that a metric's numerator is read from: its own when a unit's sum is capped.

    >>> column_of(Metric(name="revenue", numerator="revenue_minor", cap=50_000.0))
    'revenue_minor up to 50000.0'
    """
    return metric.numerator if metric.cap is None else f"{metric.numerator} up to {metric.cap!r}"


def raw_columns(experiment: Experiment) -> list[str]:
    """The columns that an experiment's metrics are counted from, each once, in order."""
    used = [column for metric in experiment.metrics for column in (metric.numerator, metric.denominator)]
    return list(dict.fromkeys(column for column in used if column is not None))


def capped_columns(experiment: Experiment) -> dict[str, tuple[str, float]]:
    """Capped column → what it is made of and the cap of a unit's sum."""
    capped = [(metric, metric.cap) for metric in experiment.metrics if metric.cap is not None]
    return {column_of(metric): (metric.numerator, cap) for metric, cap in capped}


def metric_columns(experiment: Experiment) -> list[str]:
    """The columns that an experiment's metrics are compared by, each once, in order."""
    used = [column for metric in experiment.metrics for column in (column_of(metric), metric.denominator)]
    return list(dict.fromkeys(column for column in used if column is not None))


def treatments(experiment: Experiment) -> list[Variant]:
    """The variants that are compared with control; a share of zero is none."""
    return [v for v in experiment.variants if v.name != experiment.control_name and v.weight > 0]


def gather(units: Units, experiment: Experiment) -> Evidence:
    """Evidence from unit rows in memory.

    Raises:
        BadInput: A variant that the experiment does not know, or a probability of zero for what was served.
        StatisticsError: A column that is missing, too short or holds NaN.
    """
    names = [variant.name for variant in experiment.variants]
    labels = np.asarray(units.variant, dtype=str)
    unknown = sorted(set(np.unique(labels).tolist()) - set(names))
    if unknown:
        raise BadInput(f"variant {unknown[0]!r} is not in the experiment (there is: {', '.join(names)}).")
    code = np.searchsorted(np.sort(names), labels)
    code = np.argsort(names)[code]
    columns = _columns(units, experiment)
    counts, shares = _allocation(code, units.propensities, experiment)
    weighted, raw = len(shares) > 1, columns
    cells: Sequence[Cell] = ()
    if weighted:
        logged = np.asarray(units.propensities, dtype=np.float64)
        batch = np.zeros(labels.size) if units.batch is None else units.batch
        cells = cells_of(columns, labels, logged, batch, names)
        weight = 1 / logged[np.arange(labels.size), code]
        columns = {name: values * weight for name, values in columns.items()} | {WEIGHT: weight}
    everyone = np.ones(labels.size, dtype=bool)
    segments, splits = {}, {}
    for segment, values in units.segments.items():
        of = np.asarray(values, dtype=str)
        masks = {value: of == value for value in np.unique(of).tolist()}
        segments[segment] = {value: _by_variant(columns, code, names, mask) for value, mask in masks.items()}
        splits[segment] = {value: _split(code, units.propensities, experiment, mask) for value, mask in masks.items()}
    return Evidence(
        variants=_by_variant(columns, code, names, everyone),
        counts=counts,
        propensities=shares,
        units={name: int((code == place).sum()) for place, name in enumerate(names)},
        weighted=weighted,
        covariate=None if units.covariate is None else "covariate",
        segments=segments,
        cells=cells,
        splits=splits,
        contamination=units.contamination,
        explorers=units.explorers,
        quantiles={
            metric.name: {
                name: quantile_of(raw[metric.numerator][code == place], metric.quantile)
                for place, name in enumerate(names)
            }
            for metric in experiment.metrics
            if metric.quantile is not None
        },
    )


def quantile_of(values: ArrayLike, share: float) -> Sample | str:
    """A quantile of one variant, or why there is none."""
    try:
        return quantile_sample(values, share)
    except TooFewUnits as error:
        return str(error).removesuffix(".")


def _split(
    code: NDArray[np.intp], propensities: ArrayLike | None, experiment: Experiment, mask: NDArray[np.bool_]
) -> Split:
    shares = None if propensities is None else np.asarray(propensities)[mask]
    return Split(*_allocation(code[mask], shares, experiment))


def _columns(units: Units, experiment: Experiment) -> dict[str, NDArray[np.float64]]:
    columns = {}
    for name in raw_columns(experiment):
        if name not in units.columns:
            raise StatisticsError(f"column {name!r} is missing (there is: {', '.join(units.columns)}).")
        columns[name] = np.asarray(units.columns[name], dtype=np.float64)
    for name, (raw, cap) in capped_columns(experiment).items():
        columns[name] = np.minimum(columns[raw], cap)
    if units.covariate is not None:
        columns["covariate"] = np.asarray(units.covariate, dtype=np.float64)
    return columns


def _allocation(
    code: NDArray[np.intp], propensities: ArrayLike | None, experiment: Experiment
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    size = len(experiment.variants)
    if propensities is None:
        return np.bincount(code, minlength=size)[None, :].astype(np.float64), planned_shares(experiment)
    shares = np.asarray(propensities, dtype=np.float64)
    served = shares[np.arange(code.size), code]
    if (served <= 0).any():
        raise BadInput(f"{int((served <= 0).sum())} units were served a variant that had probability 0.")
    groups, group = np.unique(shares, axis=0, return_inverse=True)
    counts = np.zeros(groups.shape)
    np.add.at(counts, (group.ravel(), code), 1)
    return counts, groups


def _by_variant(
    columns: Mapping[str, NDArray[np.float64]], code: NDArray[np.intp], names: Sequence[str], mask: NDArray[np.bool_]
) -> dict[str, Moments]:
    rows = {name: np.flatnonzero(mask & (code == place)) for place, name in enumerate(names)}
    return {name: moments({key: values[which] for key, values in columns.items()}) for name, which in rows.items()}
