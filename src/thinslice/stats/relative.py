"""By how many percent: intervals for the ratio of two means, minus one."""

import math
from typing import NamedTuple

Interval = tuple[float | None, float | None]
"""[low, high]; None where it is unbounded."""


class Relative(NamedTuple):
    """A relative change and its interval; None where it does not exist (a control mean of zero)."""

    change: float | None
    ci: Interval | None


def relative_change(
    mean_control: float, var_control: float, mean_treatment: float, var_treatment: float, *, log_quantile: float,
    quantile: float, covariance: float = 0.0,
) -> Relative:  # fmt: skip
    """The relative change of two means: log-ratio when both are positive, else Fieller.

    The absolute interval is never divided by the control mean: that ignores that the control mean varies too.

    Args:
        mean_control: Mean of control.
        var_control: Variance of that mean (squared standard error).
        mean_treatment: Mean of treatment.
        var_treatment: Variance of that mean.
        log_quantile: The critical value on the log scale.
        quantile: The critical value on the scale of the means.
        covariance: Of the two means; 0 when they come from different units.

    >>> relative_change(2.0, 0.0, 3.0, 0.0, log_quantile=1.96, quantile=1.96)
    Relative(change=0.5, ci=(0.5, 0.5))
    """
    if mean_control > 0 and mean_treatment > 0:
        return log_ratio(
            mean_control, var_control, mean_treatment, var_treatment, quantile=log_quantile, covariance=covariance
        )
    return fieller(mean_control, var_control, mean_treatment, var_treatment, quantile=quantile, covariance=covariance)


def log_ratio(
    mean_control: float, var_control: float, mean_treatment: float, var_treatment: float, *, quantile: float,
    covariance: float = 0.0,
) -> Relative:  # fmt: skip
    """The delta method on log(treatment / control), turned back; needs positive means."""
    ratio = mean_treatment / mean_control
    var = var_control / mean_control / mean_control + var_treatment / mean_treatment / mean_treatment
    se = math.sqrt(max(var - 2 * covariance / mean_control / mean_treatment, 0.0))
    exponent = quantile * se
    high = ratio * math.exp(min(exponent, 700.0)) - 1
    return Relative(ratio - 1, (ratio * math.exp(-exponent) - 1, high if math.isfinite(high) else None))


def fieller(
    mean_control: float, var_control: float, mean_treatment: float, var_treatment: float, *, quantile: float,
    covariance: float = 0.0,
) -> Relative:  # fmt: skip
    """All ratios that a test at this critical value does not reject; relative to the size of the control mean.

    Unbounded on both sides when control itself cannot be told from zero.

    Source: Fieller, Some problems in interval estimation (1954).
    """
    if mean_control == 0:
        return Relative(None, None)
    squared = quantile**2
    a = mean_control**2 - squared * var_control
    b = mean_control * mean_treatment - squared * covariance
    c = mean_treatment**2 - squared * var_treatment
    sign = math.copysign(1.0, mean_control)
    change = (mean_treatment - mean_control) / abs(mean_control)
    if a <= 0:
        return Relative(change, (None, None))
    root = math.sqrt(max(b * b - a * c, 0.0))
    ends = sorted(sign * ((b + side * root) / a - 1) for side in (-1, 1))
    return Relative(change, (ends[0], ends[1]))
