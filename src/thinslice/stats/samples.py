"""One metric of one variant: a mean or a ratio of two means, adjusted by what was known before if one wishes."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from thinslice.errors import StatisticsError, TooFewUnits
from thinslice.stats.moments import Moments


class Sample(NamedTuple):
    """What a test needs of one variant: `var` is the variance of one unit, so `var / n` is that of the mean."""

    n: int
    mean: float
    var: float


class Quotient(NamedTuple):
    """A numerator column over a denominator column; without a denominator it is the numerator's mean."""

    numerator: str
    denominator: str | None = None


def sample(
    of: Moments, metric: Quotient, *, covariate: Quotient | None = None, pooled: Moments | None = None
) -> Sample:
    """A metric of one variant, by the delta method on one row per unit.

    With a covariate the result is CUPED: value - theta * (covariate - its mean over all variants), theta pooled.

    Args:
        of: The variant's moments.
        metric: Which columns.
        covariate: Columns that were known before the unit was assigned.
        pooled: The moments of all variants together; needed with a covariate.

    Raises:
        TooFewUnits: Fewer than two units.
        StatisticsError: The denominator sums to zero.

    Source: Deng, Xu, Kohavi and Walker, Improving the sensitivity of online controlled experiments (2013);
    Deng, Knoblich and Lu, Applying the delta method in metric analytics (2018).
    """
    if of.n < 2:
        raise TooFewUnits(needed=2, got=of.n)
    value, slope = linear(of, metric)
    if covariate is not None:
        if pooled is None:
            raise StatisticsError("a covariate needs the moments of all variants together.")
        theta = cuped_theta(pooled, metric, covariate)
        before, before_slope = linear(of, covariate)
        value -= theta * (before - linear(pooled, covariate)[0])
        slope = slope - theta * before_slope
    return Sample(of.n, value, quadratic(of, slope, slope))


def cuped_theta(pooled: Moments, metric: Quotient, covariate: Quotient) -> float:
    """How much of the covariate to take off: covariance with the metric over variance, all variants together."""
    slope, before = linear(pooled, metric)[1], linear(pooled, covariate)[1]
    variance = quadratic(pooled, before, before)
    return quadratic(pooled, slope, before) / variance if variance > 0 else 0.0


def linear(of: Moments, metric: Quotient) -> tuple[float, NDArray[np.float64]]:
    """The value and its gradient by the column means."""
    slope = np.zeros(len(of.names))
    top = of.mean_of(metric.numerator)
    if metric.denominator is None:
        slope[of.names.index(metric.numerator)] = 1.0
        return top, slope
    bottom = of.mean_of(metric.denominator)
    if bottom == 0:
        raise StatisticsError(f"{metric.denominator!r} sums to zero over {of.n} units: the ratio does not exist.")
    slope[of.names.index(metric.numerator)] += 1 / bottom
    slope[of.names.index(metric.denominator)] -= top / bottom**2
    return top / bottom, slope


def quadratic(of: Moments, left: NDArray[np.float64], right: NDArray[np.float64]) -> float:
    """The product left' cov right, with what is only rounding set to zero."""
    terms = left[:, None] * of.cov * right[None, :]
    total = float(terms.sum())
    weight = np.abs(left * of.mean) @ np.abs(right * of.mean)
    if abs(total) <= 1e-13 * float(np.abs(terms).sum()) + 1e-24 * float(weight):
        return 0.0
    return total
