"""An interval that stays right however often one looks; the price is its width."""

import math


def always_valid_half_width(se: float, n: int, *, alpha: float = 0.05, tuned_for: int = 5_000) -> float:
    """Half the width of an asymptotic confidence sequence around any estimate with a standard error.

    Args:
        se: Standard error of the estimate now.
        n: Units behind it, all variants compared.
        alpha: Chance that the interval ever misses the truth.
        tuned_for: The number of units at which it is narrowest.

    Source: Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas, Time-uniform central limit theory (arXiv 2103.06476).
    """
    log_alpha = -2 * math.log(alpha)
    rho_squared = (log_alpha + math.log(log_alpha + 1)) / tuned_for
    scaled = n * rho_squared + 1
    return se * math.sqrt(n) * math.sqrt(2 * scaled / (n**2 * rho_squared) * math.log(math.sqrt(scaled) / alpha))
