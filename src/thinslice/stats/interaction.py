"""Do experiments disturb each other, or variants their neighbors? Differences of effects, ramps, spillover."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import chdtrc

from thinslice.errors import StatisticsError, TooFewUnits
from thinslice.stats.effects import satterthwaite
from thinslice.stats.estimates import Estimate, estimate
from thinslice.stats.samples import Sample


class Interaction(NamedTuple):
    """Whether an effect depends on where a unit is in another experiment.

    Attributes:
        differences: The effect in each other variant of the other experiment minus that in its control.
        statistic: Chi-square of "the effect is the same everywhere".
        df: Variants of the other experiment - 1.
        pvalue: With one difference, its own.
    """

    differences: list[Estimate]
    statistic: float
    df: int
    pvalue: float | None


class Ramp(NamedTuple):
    """Whether what one side gets depends on how large the other side is.

    Attributes:
        slope: Change of control's mean per unit of treatment share; not zero when variants share something.
        effects: The effect at each stage.
        turned: The effect changed its sign from one stage to a later one, each sure of its sign.
    """

    slope: Estimate
    effects: list[Estimate]
    turned: bool


class Stage(NamedTuple):
    """One step of a ramp: the treatment's share of traffic, and what was seen meanwhile.

    `reference` are units outside the experiment at the same time (a holdout): it takes the calendar out.
    """

    share: float
    control: Sample
    treatment: Sample
    reference: Sample | None = None


def interaction(cells: Sequence[tuple[Sample, Sample]], *, alpha: float = 0.05) -> Interaction:
    """The difference of an experiment's effects across the variants of another one that shares its units.

    The same arithmetic compares own with pooled training: the two pairs are then the effects under each.

    Args:
        cells: One (control, treatment) pair per variant of the other experiment, its control first.
        alpha: One minus the confidence of the intervals.

    Raises:
        TooFewUnits: Fewer than two pairs.

    Source: Welch (1947) for each difference; a generalized Wald test for several.
    """
    if len(cells) < 2:
        raise TooFewUnits(needed=2, got=len(cells), what="variants of the other experiment")
    effects = np.array([treatment.mean - control.mean for control, treatment in cells])
    parts = [[of.var / of.n for of in pair] for pair in cells]
    sizes = [[of.n for of in pair] for pair in cells]
    differences = []
    for place in range(1, len(cells)):
        both, counts = parts[0] + parts[place], sizes[0] + sizes[place]
        se = math.sqrt(sum(both))
        df = satterthwaite(both, counts) if se else math.inf
        differences.append(estimate(float(effects[place] - effects[0]), se, df=df, alpha=alpha))
    variances = np.array([sum(pair) for pair in parts])
    if (variances == 0).any():
        return Interaction(differences, 0.0, len(cells) - 1, None)
    weight = 1 / variances
    statistic = float(weight @ (effects - weight @ effects / weight.sum()) ** 2)
    pvalue = differences[0].pvalue if len(cells) == 2 else float(chdtrc(len(cells) - 1, statistic))
    return Interaction(differences, statistic, len(cells) - 1, pvalue)


def ramp(stages: Sequence[Stage], *, alpha: float = 0.05) -> Ramp:
    """Does control change when the treatment grows? Then they share something: training data, stock, or each other.

    Args:
        stages: At least two different treatment shares. Without `reference` in all of them, whatever the calendar did
            between stages is in the slope, too.
        alpha: One minus the confidence of the intervals, and how sure of its sign an effect has to be.

    Raises:
        TooFewUnits: Fewer than two shares.

    Source: Han, Li, Mao and Wu, Detecting interference in online controlled experiments with increasing allocation
    (arXiv 2211.03262); sign changes: Li, Wang and Wang (arXiv 2507.11891).
    """
    shares = np.array([stage.share for stage in stages])
    if np.unique(shares).size < 2:
        raise TooFewUnits(needed=2, got=int(np.unique(shares).size), what="treatment shares")
    referred = all(stage.reference is not None for stage in stages)
    values, variances = [], []
    for stage in stages:
        value, var = stage.control.mean, stage.control.var / stage.control.n
        if referred and stage.reference is not None:
            value, var = value - stage.reference.mean, var + stage.reference.var / stage.reference.n
        values.append(value)
        variances.append(var)
    effects = []
    for stage in stages:
        se = math.sqrt(stage.control.var / stage.control.n + stage.treatment.var / stage.treatment.n)
        effects.append(estimate(stage.treatment.mean - stage.control.mean, se, alpha=alpha))
    signs = {math.copysign(1, of.value) for of in effects if of.pvalue is not None and of.pvalue < alpha}
    if min(variances) <= 0:
        return Ramp(estimate(0.0, 0.0), effects, len(signs) > 1)
    weight = 1 / np.asarray(variances)
    centered = shares - weight @ shares / weight.sum()
    information = float(weight @ centered**2)
    slope = float(weight @ (centered * np.asarray(values))) / information
    return Ramp(estimate(slope, information**-0.5, alpha=alpha), effects, len(signs) > 1)


def spillover(
    outcome: ArrayLike, exposed_share: ArrayLike, *, cluster: ArrayLike | None = None, alpha: float = 0.05
) -> Estimate:
    """Control units' outcome against the share of their neighbors that got the treatment: the slope, robust.

    Args:
        outcome: Shape (units,), of control units that have neighbors.
        exposed_share: Shape (units,), the share of a unit's neighbors in the treatment.
        cluster: Shape (units,), which units belong together; left out, each stands for itself.
        alpha: One minus the confidence of the interval.

    Raises:
        TooFewUnits: Fewer than three units or clusters.
        StatisticsError: All units have the same share, or NaN.

    Source: Aronow and Samii, Estimating average causal effects under general interference (2017), for exposure;
    Liang and Zeger (1986) for the standard error.
    """
    y, x = np.asarray(outcome, dtype=np.float64), np.asarray(exposed_share, dtype=np.float64)
    if not (np.isfinite(y).all() and np.isfinite(x).all() and y.shape == x.shape):
        raise StatisticsError("outcomes and shares have to be finite numbers, one of each per unit.")
    code = np.arange(y.size) if cluster is None else np.unique(np.asarray(cluster), return_inverse=True)[1].ravel()
    count = int(code.max(initial=-1)) + 1
    if count < 3:
        raise TooFewUnits(needed=3, got=count, what="units" if cluster is None else "clusters")
    centered = x - x.mean()
    information = float(centered @ centered)
    if information <= 1e-24 * x.size:
        raise StatisticsError("all units have the same share of treated neighbors: nothing can be compared.")
    slope = float(centered @ y) / information
    rest = y - y.mean() - slope * centered
    scores = np.bincount(code, weights=centered * rest)
    correction = count / (count - 1) * (y.size - 1) / (y.size - 2)
    se = math.sqrt(correction * float(scores @ scores)) / information
    return estimate(slope, se, df=count - (2.0 if cluster is None else 1.0), alpha=alpha)
