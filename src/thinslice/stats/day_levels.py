"""How levels go from day to day: does an effect change with the calendar, and a level with another one's share?"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from thinslice.errors import StatisticsError, TooFewUnits
from thinslice.stats.estimates import Estimate, estimate

MOST_ALIKE = 0.9
"""A day is never taken to be more like the day before than this (the correlation of neighboring days)."""


class DayTrend(NamedTuple):
    """How an effect went from the first days to the last ones.

    Attributes:
        slope: Change by log(1 + day), in the unit of the effect.
        early: The effect of the first third of the days.
        late: The effect of the last third.
        days: So many days are in each of the two.
    """

    slope: Estimate
    early: Estimate
    late: Estimate
    days: int


def day_trend(day: ArrayLike, value: ArrayLike, variance: ArrayLike, *, alpha: float = 0.05) -> DayTrend:
    """Was an effect the same on every day? Weighted least squares on log(1 + day), errors by what units differ.

    A unit that comes on several days makes its days alike, and a slope is a difference of days: the true error is the
    same or smaller, so the test is right or careful.

    Args:
        day: Shape (days,), whole days since the start, rising.
        value: Shape (days,), the effect of each day.
        variance: Shape (days,), of each effect.
        alpha: One minus the confidence of the intervals.

    Raises:
        TooFewUnits: Fewer than five days.
        StatisticsError: A variance that is not above 0, or NaN.

    Source: Kohavi, Tang and Xu, Trustworthy online controlled experiments (2020), chapter 23.
    """
    when, y, var = _days(day, value, variance, needed=5)
    weight, x = 1.0 / var, np.log1p(when)
    centered = x - weight @ x / weight.sum()
    information = float(weight @ centered**2)
    if information <= 0:
        raise StatisticsError("all days are the same day: nothing can change.")
    slope = estimate(float(weight @ (centered * y)) / information, information**-0.5, alpha=alpha)
    third = len(y) // 3
    ends = []
    for rows in (slice(0, third), slice(len(y) - third, None)):
        total = float(weight[rows].sum())
        ends.append(estimate(float(weight[rows] @ y[rows]) / total, total**-0.5, alpha=alpha))
    return DayTrend(slope, ends[0], ends[1], third)


def share_step(
    day: ArrayLike, value: ArrayLike, variance: ArrayLike, share: ArrayLike, *, alpha: float = 0.05
) -> Estimate:
    """Does a level follow another variant's share of the traffic? At its largest share against its smallest.

    What lies between has levels of its own, so nothing is said of the way there: a little of a treatment that explores
    can already bring control all there is.

    Args:
        day: Shape (days,), whole days since the start, rising; days before it are negative.
        value: Shape (days,), the level of each day.
        variance: Shape (days,), of each level, by what units differ.
        share: Shape (days,), 0..1, of the other variant.
        alpha: One minus the confidence of the interval.

    Raises:
        TooFewUnits: Fewer than five days, or all of them with the same share.
        StatisticsError: A variance that is not above 0, or NaN.

    Source: Han, Li, Mao and Wu, Detecting interference in online controlled experiments with increasing allocation
    (arXiv 2211.03262); errors: `fit_days`.
    """
    when, y, var = _days(day, value, variance, needed=5)
    of = np.asarray(share, dtype=np.float64)
    stages = np.unique(of)
    if stages.size < 2:
        raise TooFewUnits(needed=2, got=int(stages.size), what="treatment shares")
    design = np.stack([*(of == stage for stage in stages[:0:-1]), np.ones(len(y))], axis=1).astype(np.float64)
    return fit_days(design, y, var, when, alpha=alpha)


def day_mean(day: ArrayLike, value: ArrayLike, variance: ArrayLike, *, alpha: float = 0.05) -> Estimate:
    """The mean of what was measured day by day; errors as in `fit_days`.

    Raises:
        TooFewUnits: Fewer than five days.
        StatisticsError: A variance that is not above 0, or NaN.
    """
    when, y, var = _days(day, value, variance, needed=5)
    return fit_days(np.ones((len(y), 1)), y, var, when, alpha=alpha)


def fit_days(
    design: NDArray[np.float64], value: NDArray[np.float64], variance: NDArray[np.float64], day: NDArray[np.float64],
    *, alpha: float = 0.05,
) -> Estimate:  # fmt: skip
    """Least squares over days of which each is like the one before; the first column's coefficient.

    Days differ by more than their units do: a ranker that found a good item shows it for a week. So the error comes
    from how days scatter, with the correlation of neighboring days taken one standard error larger than it is estimated
    (and corrected for being estimated too low), and t with as many degrees of freedom as so many independent days would
    have; it is never smaller than what the units' own variance gives.

    Args:
        design: Shape (days, columns), what the level depends on.
        value: Shape (days,).
        variance: Shape (days,), of each value, by what units differ.
        day: Shape (days,), rising; gaps weaken the correlation.
        alpha: One minus the confidence of the interval.

    Source: the bias of the correlation: Kendall, Note on bias in the estimation of autocorrelation (1954); degrees of
    freedom: Satterthwaite, An approximate distribution of estimates of variance components (1946).
    """
    days, columns = design.shape
    inverse = np.linalg.pinv(design.T @ design)
    weights = inverse @ design.T
    found = weights @ value
    rest = value - design @ found
    total = float(rest @ rest)
    near = np.diff(day) == 1
    raw = float(rest[1:][near] @ rest[:-1][near]) / total if total > 0 else 0.0
    alike = min(max(raw + (columns + 3.0 * max(raw, 0.0)) / days + days**-0.5, 0.0), MOST_ALIKE)
    errors = alike ** np.abs(day[:, None] - day[None, :])
    maker = np.eye(days) - design @ weights
    spread = maker @ errors
    trace = float(np.trace(spread))
    df = trace**2 / float((spread * spread.T).sum())
    scattered = total / trace * float(weights[0] @ errors @ weights[0])
    by_units = float(weights[0] ** 2 @ variance)
    return estimate(float(found[0]), math.sqrt(max(scattered, by_units)), df=df, alpha=alpha)


def _days(
    day: ArrayLike, value: ArrayLike, variance: ArrayLike, *, needed: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    when, y, var = (np.asarray(of, dtype=np.float64) for of in (day, value, variance))
    if len(y) < needed:
        raise TooFewUnits(needed=needed, got=len(y), what="days")
    if not (np.isfinite(y).all() and np.isfinite(var).all() and (var > 0).all()):
        raise StatisticsError("levels have to be finite and their variances above 0.")
    return when, y, var
