"""Does the effect last? Late against early days of the same units, and the trend since a unit first saw it."""

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from thinslice.errors import StatisticsError, TooFewUnits
from thinslice.stats.effects import satterthwaite
from thinslice.stats.estimates import Estimate, estimate
from thinslice.stats.moments import Moments
from thinslice.stats.samples import Quotient, linear, quadratic

EARLY_DAYS = 3
"""Days 0, 1 and 2 since a unit's first exposure are early."""

LATE_FROM = 7
"""Day 7 since a unit's first exposure and all after it are late."""

TURNS = 1_000
"""So often the means of days and of units are taken off in turn, at most; two are enough when all units are seen on the
same days."""


class Cohort(NamedTuple):
    """Units that entered on the same day and were active early and late, as moments of both variants."""

    control: Moments
    treatment: Moments


class Trend(NamedTuple):
    """How the effect moves with log(1 + days since first exposure).

    Attributes:
        start: The effect on the day of the first exposure.
        slope: What a step of 1 on the log scale adds; negative when a good effect wears off.
        steady: The effect at `steady_day`.
        steady_day: Days since first exposure.
        units: How many units.
    """

    start: Estimate
    slope: Estimate
    steady: Estimate
    steady_day: float
    units: int


def late_minus_early(cohorts: Iterable[Cohort], early: Quotient, late: Quotient, *, alpha: float = 0.05) -> Estimate:
    """Did the effect grow or shrink? (late - early) of treatment minus (late - early) of control, cohort by cohort.

    Only units that were seen both early and late belong into the moments. Within an entry cohort days since exposure
    are calendar days, so what a weekday does cancels between the variants. Cohorts are weighed by their size.

    Args:
        cohorts: One per day of entry; a cohort with fewer than two units in a variant is left out.
        early: The metric of the early days.
        late: The metric of the late days.
        alpha: One minus the confidence of the interval.

    Raises:
        TooFewUnits: No cohort has two units in each variant.

    Source: Sadeghi and others, Novelty and primacy: a long-term estimator for online experiments (arXiv 2102.12893).
    """
    gaps, parts, weights, sizes = [], [], [], []
    for cohort in cohorts:
        if min(cohort.control.n, cohort.treatment.n) < 2:
            continue
        weight = cohort.control.n * cohort.treatment.n / (cohort.control.n + cohort.treatment.n)
        gap, sides = 0.0, []
        for of, sign in ((cohort.control, -1.0), (cohort.treatment, 1.0)):
            (before, before_slope), (after, after_slope) = linear(of, early), linear(of, late)
            slope = after_slope - before_slope
            gap += sign * (after - before)
            sides.append((quadratic(of, slope, slope) / of.n, of.n))
        gaps.append(gap)
        weights.append(weight)
        parts.append(sides)
    if not gaps:
        raise TooFewUnits(needed=2, got=0, what="units a variant that were active early and late")
    share = np.asarray(weights) / sum(weights)
    variances = [float(w * w * var) for w, sides in zip(share, parts, strict=True) for var, _ in sides]
    sizes = [n for sides in parts for _, n in sides]
    value, se = float(share @ np.asarray(gaps)), math.sqrt(sum(variances))
    return estimate(value, se, df=satterthwaite(variances, sizes) if se else math.inf, alpha=alpha)


def shared_variance(cohorts: Iterable[Cohort], whole: Cohort, early: Quotient, late: Quotient, tilt: Quotient) -> float:
    """The covariance of `late_minus_early` and of the difference of slopes: both come from the same units.

    Args:
        cohorts: As in `late_minus_early`, with the columns of `tilt`, too.
        whole: All cohorts together, from which the slopes come.
        early: The metric of the early days.
        late: The metric of the late days.
        tilt: The slope within units.
    """
    parts, weights = [], []
    for cohort in cohorts:
        if min(cohort.control.n, cohort.treatment.n) < 2:
            continue
        weights.append(cohort.control.n * cohort.treatment.n / (cohort.control.n + cohort.treatment.n))
        part = 0.0
        for of, everybody in ((cohort.control, whole.control), (cohort.treatment, whole.treatment)):
            changed = linear(of, late)[1] - linear(of, early)[1]
            part += quadratic(of, changed, linear(everybody, tilt)[1]) / everybody.n
        parts.append(part)
    return float(np.asarray(weights) @ np.asarray(parts)) / sum(weights) if weights else 0.0


def trend(
    value: ArrayLike, unit: ArrayLike, treated: ArrayLike, day: ArrayLike, since: ArrayLike, *,
    steady_day: float = 13.0, within_units: bool = True, alpha: float = 0.05,
) -> Trend:  # fmt: skip
    """The regression of unit-days on day, variant, and variant times log(1 + days since exposure), clustered by unit.

    Rows are the unit-days on which a unit was active, or all days since its entry if inactive days count as zero.

    Args:
        value: Shape (rows,), the metric on that day.
        unit: Shape (rows,), whose.
        treated: Shape (rows,), whether that unit is in the treatment.
        day: Shape (rows,), the calendar day, as a number.
        since: Shape (rows,), days since the unit's first exposure, 0 on that day.
        steady_day: Where the effect counts as settled.
        within_units: Take the slope from changes within units, which is surer when units differ; the level comes from
            the differences between units either way.
        alpha: One minus the confidence of the intervals.

    Raises:
        TooFewUnits: Fewer than two units in a variant.
        StatisticsError: NaN, columns of different lengths, or units that were seen on one day only.
    """
    y, z = np.asarray(value, dtype=np.float64), np.log1p(np.asarray(since, dtype=np.float64))
    names, code = np.unique(np.asarray(unit), return_inverse=True)
    code = code.ravel()
    _, date = np.unique(np.asarray(day), return_inverse=True)
    date = date.ravel()
    w = np.asarray(treated).astype(np.float64)
    if not y.size == z.size == code.size == date.size == w.size:
        raise StatisticsError("columns have different lengths.")
    if not (np.isfinite(y).all() and np.isfinite(z).all()):
        raise StatisticsError("values and days since exposure have to be finite numbers.")
    sides = np.zeros(names.size)
    sides[code] = w
    least = int(min(sides.sum(), (1 - sides).sum()))
    if least < 2:
        raise TooFewUnits(needed=2, got=least)
    outcome, plain = _without_days(y, date), [_without_days(w, date), _without_days(w * z, date)]
    level = _regress(outcome, np.stack(plain), code, names.size)
    if within_units:
        inner, moving = (_without_both(values, date, code) for values in (w * z, y))
        moved = _regress(moving, inner[None, :], code, names.size)
        return _within(level, moved, steady_day, names.size, alpha, float(plain[0] @ plain[1] / (plain[0] @ plain[0])))
    return _summary(level, steady_day, names.size, alpha)


class _Fit(NamedTuple):
    value: NDArray[np.float64]
    influence: NDArray[np.float64]


def _without_days(values: NDArray[np.float64], date: NDArray[np.intp]) -> NDArray[np.float64]:
    return np.asarray(values - (np.bincount(date, weights=values) / np.bincount(date))[date])


def _without_both(values: NDArray[np.float64], date: NDArray[np.intp], code: NDArray[np.intp]) -> NDArray[np.float64]:
    """What neither days nor units explain, by taking off their means in turn until nothing moves."""
    rows = np.bincount(code)
    size = float(np.abs(values).max(initial=0.0))
    for _ in range(TURNS):
        inner = values - (np.bincount(code, weights=values) / rows)[code]
        after = _without_days(inner, date)
        moved = float(np.abs(after - values).max(initial=0.0))
        values = after
        if moved <= 1e-10 * size:
            break
    return values


def _regress(y: NDArray[np.float64], columns: NDArray[np.float64], code: NDArray[np.intp], units: int) -> _Fit:
    """Least squares and each unit's influence on the coefficients, shape (coefficients, units)."""
    gram = columns @ columns.T
    if (np.diag(gram) <= 1e-9 * y.size).any() or np.linalg.matrix_rank(gram, hermitian=True) < len(columns):
        raise StatisticsError("the trend needs units that were seen on several days since their exposure.")
    inverse = np.linalg.inv(gram)
    found = inverse @ (columns @ y)
    residual = y - found @ columns
    scores = np.stack([np.bincount(code, weights=column * residual, minlength=units) for column in columns])
    return _Fit(found, inverse @ scores)


def _summary(fit: _Fit, steady_day: float, units: int, alpha: float) -> Trend:
    correction = units / (units - 1)
    cov = correction * fit.influence @ fit.influence.T
    made = []
    for turn in ([1.0, 0.0], [0.0, 1.0], [1.0, math.log1p(steady_day)]):
        by = np.array(turn)
        made.append(estimate(float(by @ fit.value), math.sqrt(float(by @ cov @ by)), df=units - 1.0, alpha=alpha))
    return Trend(made[0], made[1], made[2], steady_day, units)


def _within(level: _Fit, moved: _Fit, steady_day: float, units: int, alpha: float, typical: float) -> Trend:
    """The level where the average unit-day stands, from between units; the slope from within them."""
    average = np.array([1.0, typical])
    value = np.array([average @ level.value - typical * moved.value[0], moved.value[0]])
    influence = np.stack([average @ level.influence - typical * moved.influence[0], moved.influence[0]])
    return _summary(_Fit(value, influence), steady_day, units, alpha)
