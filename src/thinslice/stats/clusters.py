"""Units that were randomized together: the cluster is what counts, however many units it holds."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from thinslice.errors import StatisticsError, TooFewUnits
from thinslice.stats.effects import Effect, effect
from thinslice.stats.moments import Moments, moments
from thinslice.stats.samples import Quotient, sample

CLUSTER_UNITS = "cluster_units"
"""The column of `cluster_totals` that holds how many units a cluster has."""


class Clustering(NamedTuple):
    """How alike the units of a cluster are, and what that costs.

    Attributes:
        icc: The intraclass correlation: the share of the variance that lies between clusters.
        mean_size: Units a cluster.
        design_effect: How many times as many units are needed as if each had been randomized alone.
    """

    icc: float
    mean_size: float
    design_effect: float


def cluster_totals(columns: Mapping[str, ArrayLike], cluster: ArrayLike) -> dict[str, NDArray[np.float64]]:
    """Unit rows summed to one row a cluster, with the number of units as the column `cluster_units`.

    Clusters come in sorted order. A mean over units is then the ratio Quotient("orders", "cluster_units").

    >>> totals = cluster_totals({"orders": [1, 0, 2]}, ["a", "a", "b"])
    >>> totals["orders"].tolist(), totals["cluster_units"].tolist()
    ([1.0, 2.0], [2.0, 1.0])
    """
    _, code = np.unique(np.asarray(cluster), return_inverse=True)
    code = code.ravel()
    totals: dict[str, NDArray[np.float64]] = {CLUSTER_UNITS: np.bincount(code).astype(np.float64)}
    for name, values in columns.items():
        data = np.asarray(values, dtype=np.float64)
        if data.size != code.size:
            raise StatisticsError(f"column {name!r} has {data.size} rows, but {code.size} clusters are named.")
        totals[name] = np.bincount(code, weights=data).astype(np.float64)
    return totals


def cluster_effect(control: Moments, treatment: Moments, metric: Quotient, *, alpha: float = 0.05) -> Effect:
    """The effect when whole clusters were randomized, from moments whose rows are clusters.

    A mean over units is a ratio of cluster totals; t with clusters - 2 degrees of freedom. With fewer than about ten
    clusters a variant the interval is too narrow: `switchback_effect` re-randomizes instead, and so can you.

    Args:
        control: Moments of `cluster_totals` of control.
        treatment: The same of treatment.
        metric: A mean over units has the denominator `cluster_units`, which is added where there is none.
        alpha: One minus the confidence of the intervals.

    Raises:
        TooFewUnits: Fewer than two clusters in a variant.

    Source: Donner and Klar, Design and analysis of cluster randomization trials (2000); Deng, Knoblich and Lu (2018).
    """
    for of in (control, treatment):
        if of.n < 2:
            raise TooFewUnits(needed=2, got=of.n, what="clusters")
    quotient = metric if metric.denominator else Quotient(metric.numerator, CLUSTER_UNITS)
    df = float(control.n + treatment.n - 2)
    return effect(sample(control, quotient), sample(treatment, quotient), alpha=alpha, df=df)


def clustering(values: ArrayLike, cluster: ArrayLike) -> Clustering:
    """The intraclass correlation by analysis of variance, and the design effect with unequal sizes.

    Args:
        values: Shape (units,), one variant's metric, or the past's.
        cluster: Shape (units,), which cluster each unit belongs to.

    Raises:
        TooFewUnits: Fewer than two clusters, or no cluster with two units.

    Source: Donner and Koval, The estimation of intraclass correlation in the analysis of family data (1980);
    Eldridge, Ashby and Kerry, Sample size for cluster randomized trials: effect of variation in cluster size (2006).
    """
    data = np.asarray(values, dtype=np.float64)
    of = moments({"values": data})
    _, code = np.unique(np.asarray(cluster), return_inverse=True)
    code = code.ravel()
    if code.size != data.size:
        raise StatisticsError(f"{data.size} values, but {code.size} clusters are named.")
    sizes = np.bincount(code).astype(np.float64)
    count, n = sizes.size, float(of.n)
    if count < 2:
        raise TooFewUnits(needed=2, got=count, what="clusters")
    if n == count:
        raise StatisticsError(f"needs a cluster with at least 2 units, got {count} clusters of 1.")
    means = np.bincount(code, weights=data) / sizes
    between = float(sizes @ (means - of.mean[0]) ** 2) / (count - 1)
    within = float(((data - means[code]) ** 2).sum()) / (n - count)
    typical = (n - float(sizes @ sizes) / n) / (count - 1)
    spread = between + (typical - 1) * within
    icc = (between - within) / spread if spread > 0 else 0.0
    return Clustering(icc, n / count, design_effect(max(icc, 0.0), sizes))


def design_effect(icc: float, sizes: ArrayLike) -> float:
    """1 + (m - 1) icc, where m is the size of the cluster that a typical unit is in.

    >>> round(design_effect(0.05, [100] * 40), 2)
    5.95
    """
    each = np.atleast_1d(np.asarray(sizes, dtype=np.float64))
    return 1 + (float(each @ each) / float(each.sum()) - 1) * icc
