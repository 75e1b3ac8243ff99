"""An interval that stays right however often one looks; the price is its width."""

import math
from typing import Literal

from scipy.special import ndtr

from thinslice.errors import StatisticsError
from thinslice.stats.relative import Interval

Side = Literal["both", "low", "high"]


def always_valid_half_width(
    se: float, n: int, *, alpha: float = 0.05, tuned_for: int = 5_000, one_sided: bool = False
) -> float:
    """How far an asymptotic confidence sequence reaches from any estimate with a standard error.

    Args:
        se: Standard error of the estimate now.
        n: Units behind it, all variants compared.
        alpha: Chance that the interval ever misses the truth.
        tuned_for: The number of units at which it is narrowest: the planned size; there it is 1.55 times as wide as a
            single look at 5 %, at a tenth of that size 1.97 times, at ten times of it 1.65 times.
        one_sided: Only one end is used (a margin): the distance at which that end misses with chance `alpha`.

    Raises:
        StatisticsError: No unit, or an alpha that is no chance.

    Source: Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas, Time-uniform central limit theory (arXiv 2103.06476).
    """
    rho_squared = _rho_squared(n, 2 * alpha if one_sided else alpha, tuned_for)
    scaled = n * rho_squared + 1
    log_term = math.log1p(math.sqrt(scaled) / (2 * alpha)) if one_sided else math.log(math.sqrt(scaled) / alpha)
    return se * math.sqrt(2 * scaled / (n * rho_squared) * log_term)


def always_valid_ci(
    effect_size: float, se: float, n: int, *, alpha: float = 0.05, tuned_for: int = 5_000, side: Side = "both"
) -> Interval:
    """The confidence sequence around an estimate; with `side` only its low or its high end, as a margin needs.

    >>> low, high = always_valid_ci(0.0, 1.0, 5_000)
    >>> round(high, 3)
    3.035
    """
    half = always_valid_half_width(se, n, alpha=alpha, tuned_for=tuned_for, one_sided=side != "both")
    return (None if side == "high" else effect_size - half, None if side == "low" else effect_size + half)


def always_valid_pvalue(
    effect_size: float, se: float, n: int, *, alpha: float = 0.05, tuned_for: int = 5_000
) -> float | None:
    """The smallest alpha at which the two-sided sequence leaves out zero; the minimum over all looks is valid as well.

    None when the estimate has no standard error. `alpha` only fixes the tuning, so that at this alpha p-value and
    interval say the same.
    """
    if se == 0:
        return None
    spread = n * _rho_squared(n, alpha, tuned_for)
    exponent = 0.5 * math.log(spread + 1) - (effect_size / se) ** 2 * spread / (spread + 1) / 2
    return math.exp(min(exponent, 0.0))


def always_valid_alpha(n: int, *, alpha: float = 0.05, tuned_for: int = 5_000) -> float:
    """The alpha of an ordinary interval that is as wide as the sequence is now.

    With it every interval that takes an alpha (relative, of a ratio, of a quantile) becomes one for looking whenever
    one likes: `effect(control, treatment, alpha=always_valid_alpha(n))`.
    """
    return 2 * float(ndtr(-always_valid_half_width(1.0, n, alpha=alpha, tuned_for=tuned_for)))


def _rho_squared(n: int, alpha: float, tuned_for: int) -> float:
    if n < 1 or tuned_for < 1:
        raise StatisticsError(f"needs at least 1 unit, got {min(n, tuned_for)}.")
    if not 0 < alpha < 1:
        raise StatisticsError(f"alpha has to lie between 0 and 1, got {alpha}.")
    log_alpha = -2 * math.log(alpha)
    return (log_alpha + math.log(log_alpha + 1)) / tuned_for
