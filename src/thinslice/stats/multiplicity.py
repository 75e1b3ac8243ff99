"""Many questions at once: p-values corrected for how many were asked."""

from collections.abc import Sequence

import numpy as np
from scipy.special import ndtr, ndtri


def holm(pvalues: Sequence[float | None]) -> list[float | None]:
    """Holm's correction: controls the chance of any false alarm; None stays None and is not counted.

    >>> holm([0.01, None, 0.04])
    [0.02, None, 0.04]
    """
    order = sorted((p, place) for place, p in enumerate(pvalues) if p is not None)
    adjusted: list[float | None] = [None] * len(pvalues)
    floor = 0.0
    for rank, (p, place) in enumerate(order):
        floor = max(floor, min(1.0, p * (len(order) - rank)))
        adjusted[place] = floor
    return adjusted


def benjamini_hochberg(pvalues: Sequence[float | None]) -> list[float | None]:
    """Benjamini and Hochberg's correction: controls the share of false alarms among all alarms.

    For many segments or diagnostics, where a few false ones among the found are acceptable; None stays None and is not
    counted.

    Source: Benjamini and Hochberg, Controlling the false discovery rate (1995).

    >>> benjamini_hochberg([0.01, None, 0.04])
    [0.02, None, 0.04]
    """
    order = sorted(((p, place) for place, p in enumerate(pvalues) if p is not None), reverse=True)
    adjusted: list[float | None] = [None] * len(pvalues)
    ceiling = 1.0
    for rank, (p, place) in enumerate(order):
        ceiling = min(ceiling, p * (len(order) / (len(order) - rank)))
        adjusted[place] = ceiling
    return adjusted


def smaller_of_two(pvalues: tuple[float, float], correlation: float) -> float:
    """The p-value of "neither": how often the smaller of two correlated two-sided p-values would be as small by chance.

    Two tests that say nearly the same are not two questions, and Holm's correction, which takes them for such, finds
    less than it may: here the correlation of both statistics counts. Without any this is Sidak's correction.

    Args:
        pvalues: Both, two-sided, of statistics that are normal together.
        correlation: Of the statistics.

    Source: Hothorn, Bretz and Westfall, Simultaneous inference in general parametric models (2008): the largest
    absolute statistic.

    >>> round(smaller_of_two((0.03, 0.8), 0.0), 4), round(smaller_of_two((0.03, 0.8), 1.0), 4)
    (0.0591, 0.03)
    """
    least = min(pvalues)
    rest = max(1.0 - correlation**2, 0.0) ** 0.5
    if rest < 1e-6 or least <= 0 or least >= 1:
        return least
    edge = -float(ndtri(least / 2))
    place, weight = np.polynomial.legendre.leggauss(256)
    first = edge * place
    beyond = ndtr((correlation * first - edge) / rest) + ndtr((-edge - correlation * first) / rest)
    density = np.exp(-(first**2) / 2) / np.sqrt(2 * np.pi)
    return min(1.0, least + edge * float(weight @ (density * beyond)))
