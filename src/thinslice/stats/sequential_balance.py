"""Did every variant get its share, asked after every batch of units? Right however often one looks."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import gammaln

from thinslice.errors import StatisticsError


class BalanceOverTime(NamedTuple):
    """Evidence against the shares after each look.

    Attributes:
        log_evidence: Shape (looks,), log of the evidence; if the shares hold it ever exceeds log(1 / alpha) with chance
            alpha at most.
        pvalues: Shape (looks,), one over the largest evidence so far, at most 1: valid at every look at once.
    """

    log_evidence: NDArray[np.float64]
    pvalues: NDArray[np.float64]

    @property
    def pvalue(self) -> float:
        """What all looks together say."""
        return float(self.pvalues[-1])

    def alarm(self, alpha: float = 0.001) -> int | None:
        """The first look that finds a mismatch; None when none does."""
        found = np.flatnonzero(self.pvalues <= alpha)
        return int(found[0]) if found.size else None


def sequential_ratio(counts: ArrayLike, shares: ArrayLike, *, concentration: float = 10_000.0) -> BalanceOverTime:
    """The Bayes factor of "some other shares" against the planned ones, after each look.

    It depends on the counts so far alone, not on the order of the units. A variant with share 0 and no unit does not
    count.

    Args:
        counts: Shape (looks, variants), units seen *until* each look (cumulative).
        shares: Shape (variants,), planned shares; they sum to one.
        concentration: How close to the planned ones other shares are looked for: large values find small mismatches of
            large experiments, small values find large mismatches soon.

    Raises:
        StatisticsError: Shares that are no shares, counts that fall, or no look.

    Source: Lindon and Malek, Anytime-valid inference for multinomial count data (arXiv 2011.03567).
    """
    seen, planned = np.atleast_2d(np.asarray(counts, dtype=np.float64)), np.asarray(shares, dtype=np.float64)
    _check(seen, planned[None, :])
    if (np.diff(seen, axis=0) < 0).any():
        raise StatisticsError("counts have to be those until each look; they fall from one look to the next.")
    impossible = (seen[:, planned == 0] > 0).any(axis=1)
    kept, p = seen[:, planned > 0], planned[planned > 0]
    prior = concentration * p
    total = kept.sum(axis=1)
    evidence = (gammaln(prior + kept) - gammaln(prior)).sum(axis=1) - kept @ np.log(p)
    evidence += gammaln(concentration) - gammaln(concentration + total)
    return _over_time(np.where(impossible, np.inf, evidence))


def logged_evidence(counts: ArrayLike, propensities: ArrayLike, *, strength: float = 1_000.0) -> BalanceOverTime:
    """Bets against the logged probabilities, batch after batch; the capital is the evidence.

    Each batch bets on the variants that were seen too often before: q is proportional to p (seen + strength) /
    (expected + strength), from earlier batches alone. If units are assigned by the logged probabilities, whatever they
    follow (a bandit, a ramp), the expected capital never grows (Ville), so an alarm at 1 / alpha is false with chance
    alpha at most, over all looks together.

    Args:
        counts: Shape (batches, variants), units *in* each batch, in order of time.
        propensities: Shape (batches, variants), the probabilities in force; each row sums to one.
        strength: Units until the bets follow what was seen: small is bold.

    Raises:
        StatisticsError: Rows that are no probabilities, or no batch.
    """
    seen = np.atleast_2d(np.asarray(counts, dtype=np.float64))
    p = np.atleast_2d(np.asarray(propensities, dtype=np.float64))
    _check(seen, p)
    impossible = np.logical_or.accumulate(((seen > 0) & (p == 0)).any(axis=1))
    before = seen.cumsum(axis=0) - seen
    expected = seen.sum(axis=1, keepdims=True) * p
    expected = expected.cumsum(axis=0) - expected
    bets = (before + strength) / (expected + strength)
    gain = np.log(bets) - np.log((p * bets).sum(axis=1, keepdims=True))
    return _over_time(np.where(impossible, np.inf, (seen * gain).sum(axis=1).cumsum()))


def _check(counts: NDArray[np.float64], shares: NDArray[np.float64]) -> None:
    if counts.shape[-1] != shares.shape[-1] or len(shares) not in (1, len(counts)):
        raise StatisticsError(f"counts have shape {counts.shape}, but shares have shape {shares.shape}.")
    if len(counts) == 0:
        raise StatisticsError("needs at least 1 look, got 0.")
    if not np.isfinite(shares).all() or (shares < 0).any() or (np.abs(shares.sum(axis=1) - 1) > 1e-6).any():
        raise StatisticsError("shares have to lie between 0 and 1 and sum to 1 in every row.")
    if not np.isfinite(counts).all() or (counts < 0).any():
        raise StatisticsError("counts have to be numbers that are not negative.")


def _over_time(log_evidence: NDArray[np.float64]) -> BalanceOverTime:
    return BalanceOverTime(log_evidence, np.exp(-np.maximum(np.maximum.accumulate(log_evidence), 0.0)))
