"""Before it runs: how many units it takes, what can be found with those there are, and how sure one can be of it."""

import math
from collections.abc import Callable, Sequence

from scipy.special import nctdtr, ndtr

from thinslice.errors import StatisticsError
from thinslice.stats.estimates import t_quantile
from thinslice.stats.samples import Sample

MOST_UNITS = 10**12
"""Who needs more units than this needs another metric."""


def power(
    baseline: Sample, effect_size: float, n_control: float, n_treatment: float, *, alpha: float = 0.05,
    margin: float | None = None, design_effect: float = 1.0,
) -> float:  # fmt: skip
    """The chance that the experiment finds an effect of this size, or with a margin, that it proves "not worse".

    Args:
        baseline: The metric as it is now: `sample` of a mean, of a ratio, or with a covariate (then CUPED's variance).
        effect_size: The true difference of the means, on the metric's scale; for a margin usually 0.
        n_control: Units of control.
        n_treatment: Units of the treatment.
        alpha: Of the two-sided test; a margin uses the low end of the two-sided interval.
        margin: How much worse is still accepted, relative and positive: up is good (give -effect_size if it is not).
        design_effect: How many times the variance is larger because clusters were randomized.

    Raises:
        StatisticsError: Fewer than two units, or a metric that does not vary.

    >>> round(power(Sample(1000, 10.0, 4.0), 0.5, 253, 253), 2)
    0.8
    """
    df = n_control + n_treatment - 2
    if min(n_control, n_treatment) <= 1 or baseline.var <= 0:
        raise StatisticsError(
            f"needs at least 2 units a variant and a metric that varies, got {min(n_control, n_treatment):g} units and "
            f"a variance of {baseline.var:g}."
        )
    quantile = t_quantile(1 - alpha / 2, df)
    var = baseline.var * design_effect
    if margin is None:
        shift = abs(effect_size) / math.sqrt(var / n_control + var / n_treatment)
        return _above(quantile, df, shift) + _above(quantile, df, -shift)
    gap = effect_size + margin * abs(baseline.mean)
    shift = gap / math.sqrt((1 - margin) ** 2 * var / n_control + var / n_treatment)
    return _above(quantile, df, shift)


def units_needed(
    baseline: Sample, effect_size: float, *, alpha: float = 0.05, power: float = 0.8, share: float = 0.5,
    margin: float | None = None, design_effect: float = 1.0,
) -> int:  # fmt: skip
    """How many units, of both variants together, until an effect of this size is found with this chance.

    Args:
        baseline: As in `power`.
        effect_size: As in `power`.
        alpha: As in `power`.
        power: The chance wanted.
        share: The treatment's share of the units of both.
        margin: As in `power`.
        design_effect: As in `power`.

    Raises:
        StatisticsError: No number of units is enough: no effect, or one that is worse than the margin.
    """
    _chance(power, share)

    def chance(total: float) -> float:
        return _power(baseline, effect_size, total, share, alpha, margin, design_effect)

    least = math.ceil(2 / min(share, 1 - share))
    if chance(MOST_UNITS) < power:
        raise StatisticsError(f"no number of units finds an effect of {effect_size:g} with chance {power:g}.")
    return _first(chance, power, least)


def smallest_effect(
    baseline: Sample, total: float, *, alpha: float = 0.05, power: float = 0.8, share: float = 0.5,
    design_effect: float = 1.0,
) -> float:  # fmt: skip
    """The minimum detectable effect: the smallest that this many units find with this chance, on the metric's scale."""
    _chance(power, share)
    low, high = 0.0, math.sqrt(baseline.var * design_effect / total)
    while _power(baseline, high, total, share, alpha, None, design_effect) < power:
        high *= 2
    for _ in range(200):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        enough = _power(baseline, middle, total, share, alpha, None, design_effect) >= power
        low, high = (low, middle) if enough else (middle, high)
    return high


def smallest_margin(
    baseline: Sample, total: float, *, alpha: float = 0.05, power: float = 0.8, share: float = 0.5,
    effect_size: float = 0.0, design_effect: float = 1.0,
) -> float | None:  # fmt: skip
    """The smallest relative margin that this many units prove with this chance; None when it would be 1 or more."""
    _chance(power, share)
    if baseline.mean == 0:
        return None
    low, high = 0.0, 1.0
    if _power(baseline, effect_size, total, share, alpha, high, design_effect) < power:
        return None
    for _ in range(60):
        middle = (low + high) / 2
        enough = _power(baseline, effect_size, total, share, alpha, middle, design_effect) >= power
        low, high = (low, middle) if enough else (middle, high)
    return high


def days_needed(units: float, new_units: Sequence[float]) -> int | None:
    """The day on which that many units have entered; None when the history's pace never gets there.

    Args:
        units: How many are needed.
        new_units: New units of each day since a start, as history counted them; then its last seven days go on.

    >>> days_needed(250, [100, 60, 60])
    4
    """
    total, day = 0.0, 0
    for count in new_units:
        if total >= units:
            return day
        total, day = total + count, day + 1
    pace = sum(new_units[-7:]) / max(len(new_units[-7:]), 1)
    if total >= units:
        return day
    return day + math.ceil((units - total) / pace - 1e-9) if pace > 0 else None


def with_correlation(baseline: Sample, rho: float) -> Sample:
    """A metric after CUPED with a covariate of this correlation: variance times 1 - rho squared."""
    if not -1 < rho < 1:
        raise StatisticsError(f"a correlation has to lie between -1 and 1, got {rho:g}.")
    return baseline._replace(var=baseline.var * (1 - rho**2))


def _power(
    baseline: Sample, effect_size: float, total: float, share: float, alpha: float, margin: float | None,
    design_effect: float,
) -> float:  # fmt: skip
    sizes = (total * (1 - share), total * share)
    return power(baseline, effect_size, *sizes, alpha=alpha, margin=margin, design_effect=design_effect)


def _above(quantile: float, df: float, shift: float) -> float:
    """The chance that a t variable around `shift` exceeds the quantile.

    Where the series of the distribution breaks down (a shift near 38 standard errors), its normal approximation.

    Source: Johnson, Kotz and Balakrishnan, Continuous univariate distributions, volume 2, section 31.6 (1995).
    """
    found = float(1 - nctdtr(df, shift, quantile))
    if not math.isnan(found):
        return found
    return float(ndtr((shift * (1 - 1 / (4 * df)) - quantile) / math.sqrt(1 + quantile**2 / (2 * df))))


def _chance(power: float, share: float) -> None:
    if not (0 < power < 1 and 0 < share < 1):
        raise StatisticsError(f"power and share have to lie between 0 and 1, got {power:g} and {share:g}.")


def _first(chance: Callable[[float], float], wanted: float, least: int) -> int:
    low, high = least, least
    if chance(least + 1e-9) >= wanted:
        return least
    while chance(high) < wanted:
        low, high = high, min(2 * high, MOST_UNITS)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if chance(middle) >= wanted else (middle, high)
    return high
