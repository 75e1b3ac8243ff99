"""Did every variant get its share of the units? If not, something loses units, and no effect can be trusted."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import chdtrc

from thinslice.errors import StatisticsError


class Balance(NamedTuple):
    """`statistic` is None when units turned up where none could be (probability zero); then `pvalue` is 0."""

    statistic: float | None
    df: int
    pvalue: float


def sample_ratio(observed: ArrayLike, shares: ArrayLike) -> Balance:
    """Pearson's chi-square of unit counts against planned shares, without continuity correction.

    A variant with share 0 and no unit has no degree of freedom.

    Args:
        observed: Shape (variants,), units seen.
        shares: Shape (variants,), planned shares; they sum to one.

    Raises:
        StatisticsError: Shares that are no shares, or no units at all.

    >>> round(sample_ratio([44_700, 45_489], [0.5, 0.5]).pvalue, 4)
    0.0086
    """
    return logged_ratio(np.atleast_2d(observed), np.atleast_2d(shares))


def logged_ratio(observed: ArrayLike, propensities: ArrayLike) -> Balance:
    """Unit counts against the probabilities that were in force when each unit was assigned.

    Units with the same probabilities form a group (a row). The sum over groups of (seen - expected) is compared with
    the sum of the multinomial covariances, variants - 1 degrees of freedom: with one group this is Pearson's
    chi-square, and with many (bandits, ramps) it keeps its power where a test per group would lose it.

    Args:
        observed: Shape (groups, variants), units seen.
        propensities: Shape (groups, variants), each row sums to one.

    Raises:
        StatisticsError: Rows that are no probabilities, or no units at all.
    """
    counts = np.asarray(observed, dtype=np.float64)
    shares = np.asarray(propensities, dtype=np.float64)
    if counts.shape != shares.shape:
        raise StatisticsError(f"{counts.shape[-1]} variants were seen, but {shares.shape[-1]} shares are given.")
    if not np.isfinite(shares).all() or (shares < 0).any() or (np.abs(shares.sum(axis=1) - 1) > 1e-6).any():
        raise StatisticsError("shares have to lie between 0 and 1 and sum to 1 in every row.")
    if counts.sum() == 0:
        raise StatisticsError("needs at least 1 unit, got 0.")
    units = counts.sum(axis=1)
    possible = (units @ shares) > 0
    df = int(possible.sum()) - 1
    if ((counts > 0) & (shares == 0)).any():
        return Balance(None, df, 0.0)
    if df < 1:
        return Balance(0.0, 0, 1.0)
    gap = (counts - units[:, None] * shares).sum(axis=0)[possible]
    kept = shares[:, possible]
    spread = np.diag(units @ kept) - (kept * units[:, None]).T @ kept
    statistic = float(gap @ np.linalg.pinv(spread, hermitian=True) @ gap)
    return Balance(statistic, df, float(chdtrc(df, statistic)))
