"""A number that was estimated, how sure one is of it, and whether it could be zero."""

import math
from typing import NamedTuple

from scipy.special import stdtr, stdtrit

from thinslice.stats.relative import Interval


class Estimate(NamedTuple):
    """`ci` and `pvalue` (of "it is zero") are None when nothing varies."""

    value: float
    se: float
    ci: Interval | None
    pvalue: float | None
    df: float


def estimate(value: float, se: float, *, df: float = math.inf, alpha: float = 0.05) -> Estimate:
    """An estimate with a normal or, with degrees of freedom, a t interval.

    >>> round(estimate(2.0, 1.0).pvalue, 4)
    0.0455
    """
    if se == 0:
        return Estimate(value, 0.0, None, None, df)
    half = t_quantile(1 - alpha / 2, df) * se
    return Estimate(value, se, (value - half, value + half), 2 * float(stdtr(df, -abs(value) / se)), df)


def t_quantile(share: float, df: float) -> float:
    """The value that a t variable with `df` degrees of freedom stays under with probability `share`."""
    return float(stdtrit(df, share))
