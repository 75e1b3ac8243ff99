"""Medians and tails of a switchback: the quantile of one side against the other's, by dealing out the blocks again."""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from thinslice.errors import StatisticsError, TooFewUnits
from thinslice.stats.relative import Interval
from thinslice.stats.switchback import SwitchbackEffect

GRID = 2_000
"""A quantile is read off at most so many values of the data, so that dealing out again costs no sorting."""

LEAST_BLOCKS = 4
"""Fewer blocks on a side cannot be dealt out in enough ways."""


class BlockValues(NamedTuple):
    """What units did in blocks of time.

    Attributes:
        treated: Shape (blocks,), whether the treatment was on.
        place: Shape (rows,), the place of the block in `treated`.
        values: Shape (rows,), what one unit did in that block.
    """

    treated: NDArray[np.bool_]
    place: NDArray[np.int64]
    values: NDArray[np.float64]


def block_quantile_effect(
    of: BlockValues, share: float, drawn: NDArray[np.bool_], *, alpha: float = 0.05
) -> SwitchbackEffect:
    """The difference of a quantile between the two sides, tested by re-randomization of whole blocks.

    The p-value is exact for "the treatment does nothing". For the intervals the effect that was found is taken off the
    treated blocks first; they are that effect, plus and minus what dealing out the blocks again then does to it, and at
    least the step to the next value that occurs.

    Args:
        of: Values with their blocks.
        share: Which quantile, between 0 and 1: 0.5 is the median.
        drawn: Shape (draws, blocks), other assignments that the design could have drawn.
        alpha: One minus the confidence of the intervals.

    Raises:
        TooFewUnits: Fewer than four blocks on a side.
        StatisticsError: NaN, or a share that is none.

    Source: Rosenbaum, Observational studies, section 2 (2002).
    """
    if not 0 < share < 1:
        raise StatisticsError(f"a quantile has to lie between 0 and 1, got {share}.")
    if not np.isfinite(of.values).all():
        bad = int(of.values.size - np.isfinite(of.values).sum())
        raise StatisticsError(f"{bad} of {of.values.size} values are no finite numbers.")
    for count in (int((~of.treated).sum()), int(of.treated.sum())):
        if count < LEAST_BLOCKS:
            raise TooFewUnits(needed=LEAST_BLOCKS, got=count, what="blocks on each side")
    on = of.treated[of.place]
    control, treatment = (float(np.quantile(of.values[at], share, method="inverted_cdf")) for at in (~on, on))
    difference = treatment - control
    usable = drawn[drawn.any(axis=1) & ~drawn.all(axis=1)]
    by_chance = np.abs(np.subtract(*_sides(of, of.values, share, usable)))
    pvalue = float((1 + (by_chance >= abs(difference) * (1 - 1e-12)).sum()) / (1 + by_chance.size))
    left, right = _sides(of, of.values - difference * on, share, usable)
    reach = float(np.quantile(np.abs(left - right), 1 - alpha, method="higher"))
    reach = max(reach, *(_step(of.values[at], side) for at, side in ((~on, control), (on, treatment))))
    relative, relative_ci = None, None
    if min(control, treatment) > 0:
        left, right = _sides(of, np.where(on, of.values * (control / treatment), of.values), share, usable)
        fine = (left > 0) & (right > 0)
        center = math.log(treatment / control)
        relative = math.expm1(center)
        if fine.mean() > 1 - alpha / 2:
            far = float(np.quantile(np.abs(np.log(left[fine] / right[fine])), 1 - alpha, method="higher"))
            far = max(far, math.log1p(reach / max(control, treatment)))
            relative_ci = (math.expm1(center - far), math.expm1(center + far))
    ci: Interval = (difference - reach, difference + reach)
    return SwitchbackEffect(control, treatment, difference, ci, pvalue, of.treated.size, relative, relative_ci)


def _step(values: NDArray[np.float64], at: float) -> float:
    """How far the nearest other value lies: where values are few and whole, a quantile is not known any better."""
    others = values[values != at]
    return float(np.abs(others - at).min()) if others.size else 0.0


def _sides(
    of: BlockValues, values: NDArray[np.float64], share: float, drawn: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The quantile of treated and of control blocks under each draw."""
    grid = np.unique(values)
    if grid.size > GRID:
        grid = np.unique(np.quantile(values, np.linspace(0, 1, GRID), method="inverted_cdf"))
    cells = of.place * grid.size + np.searchsorted(grid, values)
    below = np.bincount(cells, minlength=of.treated.size * grid.size).reshape(-1, grid.size).cumsum(axis=1)
    below = below.astype(np.float64)
    treated = drawn.astype(np.float64) @ below
    found = []
    for counts in (treated, below.sum(axis=0) - treated):
        needed = share * counts[:, -1:] - 1e-9
        found.append(grid[np.minimum((counts < needed).sum(axis=1), grid.size - 1)])
    return found[0], found[1]
