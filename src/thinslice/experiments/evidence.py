"""All that a report is made of: what was counted for each variant, and how units were allocated."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from thinslice.errors import BadInput, StatisticsError
from thinslice.records import Experiment, Variant
from thinslice.stats import Moments, moments

WEIGHT = "unit_weight"
"""The column that stands for one unit where units do not all count the same: 1 / propensity, or a cluster's units."""


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


class Units(NamedTuple):
    """One row a unit, as columns.

    Attributes:
        variant: Shape (units,), the variant's name.
        columns: Metric columns, shape (units,) each.
        propensities: Shape (units, variants) in the experiment's order; None when the planned shares held throughout.
        covariate: Shape (units,), known before the assignment, or None.
        segments: Segment → shape (units,), known before the assignment.
    """

    variant: ArrayLike
    columns: Mapping[str, ArrayLike]
    propensities: ArrayLike | None = None
    covariate: ArrayLike | None = None
    segments: Mapping[str, ArrayLike] = {}


def planned_shares(experiment: Experiment) -> NDArray[np.float64]:
    """Shape (1, variants), as the experiment file says."""
    return np.array([[variant.weight for variant in experiment.variants]], dtype=np.float64)


def metric_columns(experiment: Experiment) -> list[str]:
    """The columns that an experiment's metrics are made of, each once, in order."""
    used = [column for metric in experiment.metrics for column in (metric.numerator, metric.denominator)]
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
    if units.propensities is not None:
        weight = 1 / np.asarray(units.propensities, dtype=np.float64)[np.arange(labels.size), code]
        columns = {name: values * weight for name, values in columns.items()} | {WEIGHT: weight}
    everyone = np.ones(labels.size, dtype=bool)
    segments = {
        segment: {
            str(value): _by_variant(columns, code, names, np.asarray(values) == value)
            for value in np.unique(np.asarray(values))
        }
        for segment, values in units.segments.items()
    }
    return Evidence(
        variants=_by_variant(columns, code, names, everyone),
        counts=counts,
        propensities=shares,
        units={name: int((code == place).sum()) for place, name in enumerate(names)},
        weighted=units.propensities is not None,
        covariate=None if units.covariate is None else "covariate",
        segments=segments,
    )


def _columns(units: Units, experiment: Experiment) -> dict[str, NDArray[np.float64]]:
    columns = {}
    for name in metric_columns(experiment):
        if name not in units.columns:
            raise StatisticsError(f"column {name!r} is missing (there is: {', '.join(units.columns)}).")
        columns[name] = np.asarray(units.columns[name], dtype=np.float64)
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
