"""What many experiments brought together, without the luck of those that looked best."""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr

from thinslice.errors import StatisticsError, TooFewUnits
from thinslice.stats.estimates import Estimate, estimate
from thinslice.stats.relative import Interval

GRID = 600
"""Values of tau that are tried; more change no digit that is shown."""


class Mixture(NamedTuple):
    """Normal distributions, each with its chance.

    Attributes:
        chance: Shape (parts,); sums to one.
        mean: Shape (parts,).
        sd: Shape (parts,).
    """

    chance: NDArray[np.float64]
    mean: NDArray[np.float64]
    sd: NDArray[np.float64]

    def below(self, value: float) -> float:
        """The chance of a value below."""
        return float(self.chance @ ndtr((value - self.mean) / self.sd))

    def quantile(self, share: float) -> float:
        """The value that lies above this share."""
        low = float((self.mean - 40 * self.sd).min())
        high = float((self.mean + 40 * self.sd).max())
        for _ in range(80):
            middle = (low + high) / 2
            if middle in (low, high):
                break
            low, high = (middle, high) if self.below(middle) < share else (low, middle)
        return (low + high) / 2

    def summary(self, alpha: float = 0.05) -> Estimate:
        """Mean, standard deviation, interval, and twice the chance of the less likely sign."""
        mean = float(self.chance @ self.mean)
        var = float(self.chance @ (self.sd**2 + (self.mean - mean) ** 2))
        ci = (self.quantile(alpha / 2), self.quantile(1 - alpha / 2))
        negative = self.below(0.0)
        return Estimate(mean, math.sqrt(var), ci, min(1.0, 2 * min(negative, 1 - negative)), math.inf)


class Hierarchy(NamedTuple):
    """True effects theta_k ~ N(mu, tau squared), seen as x_k ~ N(theta_k, se_k squared).

    Attributes:
        effects: Shape (experiments,).
        ses: Shape (experiments,).
        tau: Shape (grid,), standard deviations of the true effects that were tried.
        chance: Shape (grid,), how likely each is; sums to one.
        mu: Shape (grid,), the mean of the true effects, given tau.
        mu_var: Shape (grid,), its variance, given tau; 0 in both where there is no common mean to shrink to.
    """

    effects: NDArray[np.float64]
    ses: NDArray[np.float64]
    tau: NDArray[np.float64]
    chance: NDArray[np.float64]
    mu: NDArray[np.float64]
    mu_var: NDArray[np.float64]

    def sum_of(self, share: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean and standard deviation, shape (grid,), of a weighted sum of the true effects, given tau.

        Args:
            share: Shape (experiments,), how much of each effect is in the sum: 1 or 0 for all of it or none.
        """
        inside = share != 0
        x, var, part = self.effects[inside], self.ses[inside] ** 2, share[inside]
        pull = np.where(np.isinf(self.tau)[:, None], 0.0, var / (var + self.tau[:, None] ** 2))
        mean = ((1 - pull) * x * part).sum(axis=1) + (pull * part).sum(axis=1) * self.mu
        spread = ((1 - pull) * var * part**2).sum(axis=1) + (pull * part).sum(axis=1) ** 2 * self.mu_var
        return mean, np.sqrt(spread)

    def mixture(self, mean: NDArray[np.float64], sd: NDArray[np.float64]) -> Mixture:
        """The distribution over all tau."""
        return Mixture(self.chance, mean, sd)


class Cumulative(NamedTuple):
    """What was shipped brought in all.

    Attributes:
        shipped: How many experiments.
        total: Sum of their true effects.
        naive: Sum of their estimates, which is too large: luck was shipped, too.
        mean: Mean of the true effects of all experiments, shipped or not.
        tau: Standard deviation of the true effects of all experiments (posterior mean); None below three experiments.
    """

    shipped: int
    total: Estimate
    naive: Estimate
    mean: Estimate
    tau: float | None


class Agreement(NamedTuple):
    """Two independent answers to one question; `agrees` when they are less than two standard errors apart."""

    difference: float
    ci: Interval
    statistic: float
    pvalue: float
    agrees: bool


def hierarchy(effects: ArrayLike, ses: ArrayLike) -> Hierarchy:
    """The hierarchical model of many effects: flat over mu and over tau, mu integrated, tau on a grid.

    With fewer than three effects nothing is known about their spread: tau is infinite and nothing is shrunk.

    Args:
        effects: Shape (experiments,), all of them, shipped or not: then it does not matter how the shipped were
            chosen.
        ses: Shape (experiments,), their standard errors.

    Raises:
        StatisticsError: No effect, or a standard error that is not positive.

    Source: Gelman, Prior distributions for variance parameters in hierarchical models (2006); Gelman and others,
    Bayesian data analysis, section 5.4.
    """
    x, se = measured(effects, ses)
    if x.size < 3:
        none = np.zeros(1)
        return Hierarchy(x, se, np.array([np.inf]), np.ones(1), none, none)
    scale = float(np.sqrt((se**2).mean() + x.var()))
    place = (np.arange(GRID) + 0.5) / GRID
    tau = scale * place**2 / (1 - place)
    total = se**2 + tau[:, None] ** 2
    weight = 1 / total
    mu_var = 1 / weight.sum(axis=1)
    mu = mu_var * (weight @ x)
    log_chance = 0.5 * np.log(mu_var) - 0.5 * np.log(total).sum(axis=1) - 0.5 * (weight * (x - mu[:, None]) ** 2).sum(1)
    log_chance += np.log((2 * place - place**2) / (1 - place) ** 2)
    chance = np.exp(log_chance - log_chance.max())
    return Hierarchy(x, se, tau, chance / chance.sum(), mu, mu_var)


def cumulative(effects: ArrayLike, ses: ArrayLike, shipped: ArrayLike, *, alpha: float = 0.05) -> Cumulative:
    """What all shipped treatments brought together.

    Give relative effects as log(1 + change), so that they add up. All experiments belong into it, also those that were
    not shipped: they tell what luck looks like.

    Args:
        effects: Shape (experiments,), estimates at each planned end.
        ses: Shape (experiments,), their standard errors.
        shipped: Shape (experiments,), whether it was shipped.
        alpha: One minus the confidence of the intervals.

    Raises:
        TooFewUnits: Nothing was shipped.
    """
    model = hierarchy(effects, ses)
    which = np.asarray(shipped).astype(bool)
    if which.shape != model.effects.shape:
        raise StatisticsError(f"{model.effects.size} effects, but {which.size} marks of what was shipped.")
    if not which.any():
        raise TooFewUnits(needed=1, got=0, what="shipped experiments")
    few = model.effects.size < 3
    weight = 1 / model.ses**2
    mean = (
        estimate(float(weight @ model.effects / weight.sum()), float(weight.sum() ** -0.5), alpha=alpha)
        if few
        else model.mixture(model.mu, np.sqrt(model.mu_var)).summary(alpha)
    )
    return Cumulative(
        int(which.sum()),
        model.mixture(*model.sum_of(which.astype(np.float64))).summary(alpha),
        estimate(float(model.effects[which].sum()), math.sqrt(float((model.ses[which] ** 2).sum())), alpha=alpha),
        mean,
        None if few else float(model.chance @ model.tau),
    )


def partial_sum(effects: ArrayLike, ses: ArrayLike, share: ArrayLike, *, alpha: float = 0.05) -> Estimate:
    """What parts of all true effects sum to: what a holdout shows that saw each shipped effect for a part of its time.

    Args:
        effects: Shape (experiments,), all of them.
        ses: Shape (experiments,), their standard errors.
        share: Shape (experiments,), 0..1: which part of each is in the sum.
        alpha: One minus the confidence of the interval.

    Raises:
        TooFewUnits: No effect is in the sum.
    """
    model, part = hierarchy(effects, ses), np.asarray(share, dtype=np.float64)
    if not part.any():
        raise TooFewUnits(needed=1, got=0, what="effects in the sum")
    return model.mixture(*model.sum_of(part)).summary(alpha)


def agreement(first: Estimate, second: Estimate, *, alpha: float = 0.05) -> Agreement:
    """Whether the cumulative effect and a holdout, or a release and its reverse experiment, say the same.

    Raises:
        StatisticsError: Neither has a standard error.
    """
    gap = estimate(first.value - second.value, math.hypot(first.se, second.se), alpha=alpha)
    if gap.ci is None or gap.pvalue is None:
        raise StatisticsError("two numbers without standard errors cannot be compared.")
    statistic = gap.value / gap.se
    return Agreement(gap.value, gap.ci, statistic, gap.pvalue, abs(statistic) < 2)


def measured(effects: ArrayLike, ses: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Estimates and standard errors as arrays, or a refusal."""
    x, se = np.asarray(effects, dtype=np.float64).ravel(), np.asarray(ses, dtype=np.float64).ravel()
    if x.size == 0 or x.size != se.size:
        raise StatisticsError(f"needs as many standard errors as effects and at least 1, got {se.size} and {x.size}.")
    if not (np.isfinite(x).all() and np.isfinite(se).all() and (se > 0).all()):
        raise StatisticsError("effects have to be finite numbers, and standard errors positive ones.")
    return x, se
