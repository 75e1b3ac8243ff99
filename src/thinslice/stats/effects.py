"""Did it help and by how much: the difference of two variants, its intervals and its one p-value."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from scipy.special import stdtr

from thinslice.errors import TooFewUnits
from thinslice.stats.estimates import t_quantile
from thinslice.stats.moments import Moments
from thinslice.stats.relative import Interval, relative_change
from thinslice.stats.samples import Quotient, Sample, linear, quadratic


class Effect(NamedTuple):
    """Treatment against control.

    `pvalue` belongs to the absolute difference, and there is no other; it and the intervals are None when neither
    variant varies. `se` is the standard error of `effect_size`.
    """

    mean_control: float
    mean_treatment: float
    effect_size: float
    effect_size_ci: Interval | None
    rel_effect_size: float | None
    rel_effect_size_ci: Interval | None
    pvalue: float | None
    se: float
    df: float


def effect(control: Sample, treatment: Sample, *, alpha: float = 0.05, df: float | None = None) -> Effect:
    """Welch's unequal-variances test on two samples (for ratios: on their linear form), with both intervals.

    Args:
        control: What is compared against.
        treatment: What is new.
        alpha: One minus the confidence of the intervals.
        df: Degrees of freedom, when the design fixes them (clusters: clusters - 2); else Welch-Satterthwaite.

    Source: Welch (1947); relative interval: `thinslice.stats.relative`.
    """
    parts = (control.var / control.n, treatment.var / treatment.n)
    difference = treatment.mean - control.mean
    se = math.sqrt(sum(parts))
    if se == 0:
        rel = relative_change(control.mean, 0.0, treatment.mean, 0.0, log_quantile=0.0, quantile=0.0)
        return Effect(control.mean, treatment.mean, difference, None, rel.change, None, None, 0.0, math.inf)
    sizes = (control.n, treatment.n)
    freedom = satterthwaite(parts, sizes) if df is None else df
    quantile = t_quantile(1 - alpha / 2, freedom)
    log_quantile = quantile
    if df is None and control.mean > 0 and treatment.mean > 0:
        log_parts = (parts[0] / control.mean / control.mean, parts[1] / treatment.mean / treatment.mean)
        log_quantile = t_quantile(1 - alpha / 2, satterthwaite(log_parts, sizes))
    rel = relative_change(
        control.mean, parts[0], treatment.mean, parts[1], log_quantile=log_quantile, quantile=quantile
    )
    ci = (difference - quantile * se, difference + quantile * se)
    pvalue = 2 * float(stdtr(freedom, -abs(difference) / se))
    return Effect(control.mean, treatment.mean, difference, ci, rel.change, rel.ci, pvalue, se, freedom)


def paired_effect(of: Moments, control: Quotient, treatment: Quotient, *, alpha: float = 0.05) -> Effect:
    """The effect where every unit holds a column for each side: scores under logged propensities, before and after.

    Raises:
        TooFewUnits: Fewer than two units.
        StatisticsError: A denominator sums to zero.
    """
    if of.n < 2:
        raise TooFewUnits(needed=2, got=of.n)
    (mean_control, slope_control), (mean_treatment, slope_treatment) = linear(of, control), linear(of, treatment)
    slope = slope_treatment - slope_control
    var = quadratic(of, slope, slope) / of.n
    difference, freedom = mean_treatment - mean_control, float(of.n - 1)
    quantile = t_quantile(1 - alpha / 2, freedom) if var else 0.0
    rel = relative_change(
        mean_control, quadratic(of, slope_control, slope_control) / of.n,
        mean_treatment, quadratic(of, slope_treatment, slope_treatment) / of.n,
        log_quantile=quantile, quantile=quantile, covariance=quadratic(of, slope_control, slope_treatment) / of.n,
    )  # fmt: skip
    if var == 0:
        return Effect(mean_control, mean_treatment, difference, None, rel.change, None, None, 0.0, math.inf)
    se = math.sqrt(var)
    ci = (difference - quantile * se, difference + quantile * se)
    pvalue = 2 * float(stdtr(freedom, -abs(difference) / se))
    return Effect(mean_control, mean_treatment, difference, ci, rel.change, rel.ci, pvalue, se, freedom)


def satterthwaite(parts: Sequence[float], sizes: Sequence[int]) -> float:
    """Welch-Satterthwaite degrees of freedom from the variances of independent means that are added or subtracted."""
    total = sum(parts)  # dividing first keeps the squares of very small and very large variances
    return 1 / sum((part / total) ** 2 / (n - 1) for part, n in zip(parts, sizes, strict=True))
