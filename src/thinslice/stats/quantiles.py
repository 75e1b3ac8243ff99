"""Medians, tails and caps: what the typical or the slowest unit sees, and means that one buyer cannot move."""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri

from thinslice.errors import StatisticsError, TooFewUnits
from thinslice.stats.moments import moments
from thinslice.stats.samples import Sample


def quantile_sample(values: ArrayLike, share: float, *, unit: ArrayLike | None = None, alpha: float = 0.05) -> Sample:
    """A quantile of one variant as a sample, so that `effect` compares two of them.

    Its standard error is half the distance between the order statistics at the ends of the interval for "how many
    values lie below", over the normal quantile: no density has to be estimated. With several rows a unit that count is
    clustered by unit.

    Args:
        values: Shape (rows,).
        share: Which quantile, between 0 and 1: 0.5 is the median.
        unit: Shape (rows,), whose row it is; left out, each row is a unit.
        alpha: The interval that the ends are taken from.

    Raises:
        TooFewUnits: So few units that the interval leaves the data.
        StatisticsError: NaN, or a share that is none.

    Source: Deng, Knoblich and Lu, Applying the delta method in metric analytics (2018), section 4;
    Schultzberg and Ankargren, Resampling-free bootstrap inference for quantiles (arXiv 2202.10992).
    """
    data = np.sort(np.asarray(values, dtype=np.float64))
    if not 0 < share < 1:
        raise StatisticsError(f"a quantile has to lie between 0 and 1, got {share}.")
    if not np.isfinite(data).all():
        bad = int(data.size - np.isfinite(data).sum())
        raise StatisticsError(f"{bad} of {data.size} values are no finite numbers.")
    if data.size < 2:
        raise TooFewUnits(needed=2, got=data.size)
    at = float(np.quantile(data, share))
    n, se_share = _share_error(np.asarray(values, dtype=np.float64), at, share, unit)
    if n < 2:
        raise TooFewUnits(needed=2, got=n)
    z = float(ndtri(1 - alpha / 2))
    low, high = share - z * se_share, share + z * se_share
    if low <= 0 or high >= 1:
        needed = math.ceil(n * (z * se_share / min(share, 1 - share)) ** 2) + 1
        raise TooFewUnits(needed=needed, got=n)
    ends = np.quantile(data, [low, high])
    se = float(ends[1] - ends[0]) / (2 * z)
    return Sample(n, at, se * se * n)


def winsorize(values: ArrayLike, cap: float) -> NDArray[np.float64]:
    """Values with everything above the cap set to the cap; the cap was declared before, or is pooled over variants.

    >>> winsorize([1.0, 2.0, 900.0], 10.0).tolist()
    [1.0, 2.0, 10.0]
    """
    data = np.asarray(values, dtype=np.float64)
    if not math.isfinite(cap):
        raise StatisticsError(f"a cap has to be a finite number, got {cap}.")
    return np.where(data > cap, cap, data)


def pooled_cap(values: ArrayLike, share: float = 0.999, *, only_positive: bool = False) -> float:
    """The cap that this share of all units stays under, every variant together (one alone would hide itself).

    Args:
        values: Shape (units,), all variants, or the time before.
        share: The quantile.
        only_positive: Take the quantile of values above zero, where most units have none.

    Raises:
        TooFewUnits: No value.
    """
    of = moments({"values": values})
    data = np.asarray(values, dtype=np.float64)
    data = data[data > 0] if only_positive else data
    if of.n == 0 or data.size == 0:
        raise TooFewUnits(needed=1, got=0)
    return float(np.quantile(data, share))


def _share_error(values: NDArray[np.float64], at: float, share: float, unit: ArrayLike | None) -> tuple[int, float]:
    """Units, and the standard error of the share of rows at or below `at`."""
    if unit is None:
        return values.size, math.sqrt(share * (1 - share) / values.size)
    _, code = np.unique(np.asarray(unit), return_inverse=True)
    code = code.ravel()
    if code.size != values.size:
        raise StatisticsError(f"{values.size} values, but {code.size} units are named.")
    rows = np.bincount(code).astype(np.float64)
    n = rows.size
    gap = np.bincount(code, weights=(values <= at) - share)
    gap -= rows * gap.sum() / rows.sum()
    return n, math.sqrt(float(gap @ gap) * n / max(n - 1, 1)) / float(rows.sum())
