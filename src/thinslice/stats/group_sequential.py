"""Looks that were planned: how much evidence each needs so that all of them together are wrong as seldom as one."""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from thinslice.errors import StatisticsError

LEAST_SPENT = 1e-12
"""No look spends less than this: its interval would have no end that a computer can write down."""

MOST_LOOKS = 1_000


class Looks(NamedTuple):
    """What each planned look needs, one entry a look.

    Attributes:
        fractions: The share of the planned units that is there at each look.
        spent: How much of alpha all looks until then may have used.
        critical: The standard score beyond which a look says that there is an effect, in either direction.
        nominal: The two-sided alpha of that look's own interval: `effect(…, alpha=nominal[k])` gives its interval, and
            all intervals together miss the truth with chance alpha.
    """

    fractions: tuple[float, ...]
    spent: tuple[float, ...]
    critical: tuple[float, ...]
    nominal: tuple[float, ...]


def obrien_fleming_looks(fractions: Sequence[float] | int, *, alpha: float = 0.05, ended: bool = False) -> Looks:
    """Critical values by Lan and DeMets' spending function of the kind of O'Brien and Fleming, two-sided.

    Each side spends 2 - 2 Phi(z / sqrt(t)) with z the normal quantile of 1 - alpha / 4, so next to nothing is spent
    early and the last look needs hardly more than a single one would (1.04 times for 5 looks, 1.10 for 14). Looks may
    come at any time and need not be equally far apart; a look that did not happen is left out.

    Args:
        fractions: The share of the planned units at each look so far, increasing; beyond 1 nothing is left to spend. A
            number stands for that many looks, equally far apart.
        alpha: Chance that any look finds an effect where there is none.
        ended: The last look is the end, whatever its fraction: what is left of alpha is spent there.

    Raises:
        StatisticsError: Fractions that do not increase or are not positive, or none.

    Source: Lan and DeMets, Discrete sequential boundaries for clinical trials (1983); the recursion is that of
    Armitage, McPherson and Rowe, Repeated significance tests on accumulating data (1969).

    >>> [round(z, 3) for z in obrien_fleming_looks(5).critical]
    [4.877, 3.357, 2.68, 2.29, 2.031]
    """
    if isinstance(fractions, int):
        times = tuple((look + 1) / fractions for look in range(fractions))
    else:
        times = tuple(float(fraction) for fraction in fractions)
    if not 0 < len(times) <= MOST_LOOKS:
        raise StatisticsError(f"needs 1 to {MOST_LOOKS} looks, got {len(times)}.")
    if not (np.isfinite(times).all() and times[0] > 0 and (np.diff(times) > 1e-9).all()):
        raise StatisticsError(f"fractions have to be positive and increase, got {', '.join(map(str, times))}.")
    if not 0 < alpha < 1:
        raise StatisticsError(f"alpha has to lie between 0 and 1, got {alpha}.")
    return _looks(times, alpha, ended)


@lru_cache(maxsize=512)
def _looks(times: tuple[float, ...], alpha: float, ended: bool) -> Looks:
    spent = [4 * float(ndtr(float(ndtri(alpha / 4)) / math.sqrt(min(time, 1.0)))) for time in times]
    if ended:
        spent[-1] = alpha
    critical: list[float] = []
    places, mass = np.zeros(1), np.ones(1)
    before = 0.0
    for look, time in enumerate(times):
        share = max(spent[look] - (spent[look - 1] if look else 0.0), LEAST_SPENT)
        step, root = math.sqrt(time - before), math.sqrt(time)
        bound = _bound(places, mass, step, share)
        critical.append(bound / root)
        if look + 1 < len(times):
            finest = min(step, math.sqrt(times[look + 1] - time))
            nodes, weights = _nodes(min(bound, 9 * root), finest)
            kernel = np.exp(-0.5 * ((nodes[:, None] - places[None, :]) / step) ** 2)
            places, mass = nodes, weights * (kernel @ mass) / (step * math.sqrt(2 * math.pi))
            before = time
    nominal = tuple(2 * float(ndtr(-z)) for z in critical)
    return Looks(times, tuple(spent), tuple(critical), nominal)


def _bound(places: NDArray[np.float64], mass: NDArray[np.float64], step: float, share: float) -> float:
    """The distance from zero that the process exceeds for the first time now, in either direction, with this chance."""
    low, high = 0.0, float(np.abs(places).max()) + 40 * step
    for _ in range(80):
        middle = (low + high) / 2
        outside = ndtr((-middle - places) / step) + ndtr((places - middle) / step)
        low, high = (middle, high) if float(mass @ outside) > share else (low, middle)
    return (low + high) / 2


def _nodes(end: float, finest: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Gauss-Legendre nodes in panels narrow enough for a normal density with standard deviation `finest`."""
    base, base_weights = np.polynomial.legendre.leggauss(10)
    panels = min(math.ceil(2 * end / (1.5 * finest)) + 1, 400)
    width = 2 * end / panels
    starts = -end + width * np.arange(panels)
    return (starts[:, None] + width * (base + 1) / 2).ravel(), np.tile(base_weights * width / 2, panels)
