"""Do segments differ, or is it noise? A test, and how much of each segment's effect to believe."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import chdtrc

from thinslice.errors import StatisticsError, TooFewUnits
from thinslice.stats.estimates import Estimate
from thinslice.stats.hierarchy import Hierarchy, hierarchy, measured


class Heterogeneity(NamedTuple):
    """Whether effects differ more than their errors explain.

    Attributes:
        statistic: Cochran's Q.
        df: Effects - 1.
        pvalue: Of "all are the same"; None with fewer than two effects.
        i_squared: The share of the spread that noise does not explain, 0 to 1.
        tau: The standard deviation of the true effects (Paule and Mandel).
        mean: Their mean, each weighed by how surely it is known.
        mean_se: Its standard error.
    """

    statistic: float
    df: int
    pvalue: float | None
    i_squared: float
    tau: float
    mean: float
    mean_se: float


def heterogeneity(effects: ArrayLike, ses: ArrayLike) -> Heterogeneity:
    """Cochran's Q test that all effects are the same, and how far they are apart.

    Args:
        effects: Shape (segments,).
        ses: Shape (segments,), their standard errors.

    Raises:
        StatisticsError: No effect, or a standard error that is not positive.

    Source: Cochran, The combination of estimates from different experiments (1954); Higgins and Thompson (2002) for
    I squared; Paule and Mandel, Consensus values and weighting factors (1982).

    >>> round(heterogeneity([1.0, 3.0], [1.0, 1.0]).statistic, 3)
    2.0
    """
    x, se = measured(effects, ses)
    weight = 1 / se**2
    center = float(weight @ x / weight.sum())
    statistic, df = float(weight @ (x - center) ** 2), x.size - 1
    tau = paule_mandel(x, se)
    total = 1 / (se**2 + tau**2)
    return Heterogeneity(
        statistic,
        df,
        float(chdtrc(df, statistic)) if df else None,
        max(0.0, (statistic - df) / statistic) if statistic > 0 else 0.0,
        tau,
        float(total @ x / total.sum()),
        float(total.sum() ** -0.5),
    )


def dersimonian_laird(effects: ArrayLike, ses: ArrayLike) -> float:
    """The standard deviation of the true effects in one step, from Cochran's Q.

    Source: DerSimonian and Laird, Meta-analysis in clinical trials (1986).
    """
    x, se = measured(effects, ses)
    weight = 1 / se**2
    statistic = float(weight @ (x - weight @ x / weight.sum()) ** 2)
    scale = float(weight.sum() - weight @ weight / weight.sum())
    return max(0.0, (statistic - (x.size - 1)) / scale) ** 0.5 if scale > 0 else 0.0


def paule_mandel(effects: ArrayLike, ses: ArrayLike) -> float:
    """The standard deviation of the true effects that makes Cochran's Q what is expected of it.

    Source: Paule and Mandel, Consensus values and weighting factors (1982).
    """
    x, se = measured(effects, ses)

    def excess(tau_squared: float) -> float:
        weight = 1 / (se**2 + tau_squared)
        return float(weight @ (x - weight @ x / weight.sum()) ** 2) - (x.size - 1)

    low, high = 0.0, float(se.max() ** 2)
    if excess(0.0) <= 0:
        return 0.0
    while excess(high) > 0:
        high *= 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if excess(middle) > 0 else (low, middle)
    return math.sqrt((low + high) / 2)


def shrink(effects: ArrayLike, ses: ArrayLike, *, alpha: float = 0.05) -> list[Estimate]:
    """Each segment's effect, pulled towards the mean of all as far as noise explains the difference.

    The largest of many noisy effects is too large, and the smallest too small; shrunken ones can be compared. The
    intervals know that mean and spread of the segments are estimated. Fewer than three segments tell nothing about how
    segments spread, so they stay as they are. The p-value is twice the posterior chance of the less likely sign.

    Source: Rubin, Estimation in parallel randomized experiments (1981); the model is that of `hierarchy`.
    """
    x, se = measured(effects, ses)
    model = hierarchy(x, se)
    return [model.mixture(*_one(model, place)).summary(alpha) for place in range(x.size)]


def worst(estimates: Sequence[Estimate], *, direction: str = "up") -> int:
    """The place of the effect that is worst; with shrunken effects, the worst that noise does not explain."""
    if not estimates:
        raise TooFewUnits(needed=1, got=0, what="segments")
    if direction not in ("up", "down"):
        raise StatisticsError(f"direction is up or down, not {direction!r}.")
    sign = 1 if direction == "up" else -1
    return min(range(len(estimates)), key=lambda place: sign * estimates[place].value)


def _one(model: Hierarchy, place: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    which = np.zeros(model.effects.size)
    which[place] = 1.0
    return model.sum_of(which)
