"""All traffic switched back and forth in blocks of time: effects where units meet and cannot be kept apart."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from thinslice.errors import StatisticsError, TooFewUnits
from thinslice.stats.estimates import Estimate, estimate
from thinslice.stats.relative import Interval

DRAWS = 2_000

WIDEST = 10.0
"""A relative interval ends nowhere if it reaches a factor of exp(10)."""


class Blocks(NamedTuple):
    """What was left of each block of time after its burn-in.

    Attributes:
        block: Shape (blocks,), in order of time.
        treated: Shape (blocks,), whether the treatment was on.
        numerator: Shape (blocks,), the sum of the outcome.
        denominator: Shape (blocks,), what it is divided by: units, sessions, or periods.
    """

    block: NDArray[np.int64]
    treated: NDArray[np.bool_]
    numerator: NDArray[np.float64]
    denominator: NDArray[np.float64]


class SwitchbackEffect(NamedTuple):
    """Treatment against control over blocks of time.

    `pvalue` and the intervals come from drawing the assignment again as the design would have: `effect_size_ci` holds
    every constant effect that this test does not reject, `rel_effect_size_ci` every constant percentage, with None
    where there is no end. The relative effect is None unless both means are positive.
    """

    mean_control: float
    mean_treatment: float
    effect_size: float
    effect_size_ci: Interval
    pvalue: float
    blocks: int
    rel_effect_size: float | None = None
    rel_effect_size_ci: Interval | None = None


def switchback_blocks(
    numerator: ArrayLike, block: ArrayLike, treated: ArrayLike, *, denominator: ArrayLike | None = None,
    burn_in: int = 0,
) -> Blocks:  # fmt: skip
    """Periods (hours, say) summed to blocks, without the first ones of each block: what the other side left behind.

    The same periods are dropped in every block, switched or not, so that blocks can be compared whatever came before.

    Args:
        numerator: Shape (periods,), outcome of each period, in order of time.
        block: Shape (periods,), which block a period belongs to; numbers that grow with time.
        treated: Shape (periods,), whether the treatment was on.
        denominator: Shape (periods,), what the outcome is divided by; 1 a period when left out.
        burn_in: How many periods to drop at the start of each block.

    Raises:
        StatisticsError: A block with both sides, blocks out of order, NaN, or a burn-in that leaves nothing.
    """
    top, side = np.asarray(numerator, dtype=np.float64), np.asarray(treated).astype(bool)
    which = np.asarray(block, dtype=np.int64)
    bottom = np.ones(top.size) if denominator is None else np.asarray(denominator, dtype=np.float64)
    if not top.size == side.size == which.size == bottom.size:
        raise StatisticsError(f"columns have different lengths: {top.size}, {bottom.size}, {which.size}, {side.size}.")
    if not (np.isfinite(top).all() and np.isfinite(bottom).all()):
        raise StatisticsError("outcomes have to be finite numbers in every period.")
    if (np.diff(which) < 0).any():
        raise StatisticsError("periods have to be in order of time, and blocks in that order too.")
    names, start, code = np.unique(which, return_index=True, return_inverse=True)
    if (side != side[start][code]).any():
        raise StatisticsError(f"block {which[int(np.argmax(side != side[start][code]))]} has control and treatment.")
    kept = np.arange(top.size) - start[code] >= burn_in
    size = names.size
    left = np.bincount(code[kept], minlength=size)
    if (left == 0).any():
        raise StatisticsError(f"{int((left == 0).sum())} of {size} blocks have no period left after {burn_in} dropped.")
    return Blocks(
        names,
        side[start],
        np.bincount(code[kept], weights=top[kept], minlength=size).astype(np.float64),
        np.bincount(code[kept], weights=bottom[kept], minlength=size).astype(np.float64),
    )


def redraw(
    treated: ArrayLike, *, rng: np.random.Generator, share: float = 0.5, strata: ArrayLike | None = None,
    draws: int = DRAWS,
) -> NDArray[np.bool_]:  # fmt: skip
    """Assignments of the blocks as the design could have drawn them.

    Args:
        treated: Shape (blocks,), what was drawn.
        rng: Where chance comes from.
        share: The chance of treatment, when every block was drawn by itself.
        strata: Shape (blocks,): blocks of a stratum (the same hour on two days) were shuffled among themselves; then
            `share` is not used.
        draws: How many.

    Returns:
        Shape (draws, blocks).
    """
    real = np.asarray(treated).astype(bool)
    if strata is None:
        return rng.random((draws, real.size)) < share
    _, code = np.unique(np.asarray(strata), return_inverse=True)
    keys = rng.random((draws, real.size)) + code.ravel()[None, :]
    order = np.argsort(keys, axis=1)
    by_stratum = real[np.argsort(code.ravel(), kind="stable")]
    drawn = np.empty((draws, real.size), dtype=bool)
    np.put_along_axis(drawn, order, np.broadcast_to(by_stratum, drawn.shape), axis=1)
    return drawn


def switchback_effect(blocks: Blocks, drawn: NDArray[np.bool_], *, alpha: float = 0.05) -> SwitchbackEffect:
    """The difference of the two sides' ratios, tested by re-randomization, with the interval of that test.

    Args:
        blocks: From `switchback_blocks`.
        drawn: Shape (draws, blocks), from `redraw`: other assignments that the design could have drawn.
        alpha: One minus the confidence of the interval.

    Raises:
        TooFewUnits: Fewer than two blocks on a side.
        StatisticsError: A denominator that sums to zero on a side.

    Source: Bojinov, Simchi-Levi and Zhao, Design and analysis of switchback experiments (arXiv 2009.00148); for the
    interval Rosenbaum, Observational studies, section 2.6 (2002).
    """
    real = blocks.treated
    for count in (int((~real).sum()), int(real.sum())):
        if count < 2:
            raise TooFewUnits(needed=2, got=count, what="blocks on each side")
    means = [blocks.numerator[at].sum() / _positive(blocks.denominator[at]) for at in (~real, real)]
    difference = float(means[1] - means[0])
    usable = drawn[drawn.any(axis=1) & ~drawn.all(axis=1)]
    sides = (usable.astype(np.float64), (~usable).astype(np.float64))
    bottoms = [side @ blocks.denominator for side in sides]
    fine = (bottoms[0] > 0) & (bottoms[1] > 0)

    def statistic(top: NDArray[np.float64]) -> NDArray[np.float64]:
        return ((sides[0] @ top)[fine] / bottoms[0][fine]) - ((sides[1] @ top)[fine] / bottoms[1][fine])

    plain, tilt = statistic(blocks.numerator), statistic(blocks.denominator * real)
    on, off = statistic(blocks.numerator * real), statistic(blocks.numerator * ~real)

    def of_difference(shift: float) -> float:
        return _share(plain - shift * tilt, difference - shift)

    def of_log_ratio(shift: float) -> float:
        ratio = math.exp(min(max(shift, -700.0), 700.0))
        return _share(off + on / ratio, float(means[1]) / ratio - float(means[0]))

    scale = max(float(plain.std()), abs(difference) * 1e-3, 1e-300)
    ci = (_end(of_difference, difference, -scale, alpha), _end(of_difference, difference, scale, alpha))
    relative, relative_ci = None, None
    if min(means) > 0:
        center = math.log(means[1] / means[0])
        low, high = (_end(of_log_ratio, center, step, alpha, bound=WIDEST) for step in (-0.01, 0.01))
        relative = math.exp(center) - 1
        relative_ci = (None if low is None else math.expm1(low), None if high is None else math.expm1(high))
    return SwitchbackEffect(
        float(means[0]), float(means[1]), difference, ci, of_difference(0.0), real.size, relative, relative_ci
    )


def carry_over_effect(
    outcome: ArrayLike, treated: ArrayLike, decisions: ArrayLike, *, carry_over: int, share: float = 0.5,
    alpha: float = 0.05,
) -> Estimate:  # fmt: skip
    """Horvitz and Thompson's effect of "always on" against "always off" when effects last some periods.

    A period counts when the last `carry_over` periods and itself were all on, or all off, divided by the chance of
    that: (1 / (T - m)) sum of Y_t [1{on} / P(on) - 1{off} / P(off)]. Outcomes are centered first, which takes out
    noise. The variance sums the products of stretches between decisions that share a decision.

    Args:
        outcome: Shape (periods,), in order of time.
        treated: Shape (periods,), whether the treatment was on.
        decisions: Shape (periods,), whether a coin was thrown at the start of that period; the first always counts.
        carry_over: For how many further periods a period's treatment acts (m).
        share: The chance of treatment at each decision.
        alpha: One minus the confidence of the interval.

    Raises:
        TooFewUnits: Fewer than four decisions.

    Source: Bojinov, Simchi-Levi and Zhao, Design and analysis of switchback experiments (arXiv 2009.00148).
    """
    y, on = np.asarray(outcome, dtype=np.float64), np.asarray(treated).astype(bool)
    coin = np.asarray(decisions).astype(bool).copy()
    coin[0] = True
    number = coin.cumsum() - 1
    count = int(number[-1]) + 1
    if count < 4:
        raise TooFewUnits(needed=4, got=count, what="decisions")
    if (on[1:] != on[:-1])[~coin[1:]].any():
        raise StatisticsError("the treatment changes where no decision was taken.")
    now = np.arange(carry_over, y.size)
    coins = number[now] - number[now - carry_over] + 1
    switches = np.concatenate([[0], (on[1:] != on[:-1]).cumsum()])
    steady = switches[now] == switches[now - carry_over]
    all_on, all_off = steady & on[now], steady & ~on[now]
    centered = y[now] - y[now].mean()
    weight = np.where(all_on, 1 / share**coins, 0.0) - np.where(all_off, 1 / (1 - share) ** coins, 0.0)
    value = float(centered @ weight) / now.size
    parts = np.bincount(number[now], weights=centered * weight - value, minlength=count)
    reach = int(coins.max()) - 1
    products = [float(parts[lag:] @ parts[: count - lag]) * (1 if lag == 0 else 2) for lag in range(reach + 1)]
    var = sum(products)
    return estimate(value, float(np.sqrt(var if var > 0 else products[0])) / now.size, alpha=alpha)


def _positive(values: NDArray[np.float64]) -> float:
    total = float(values.sum())
    if total <= 0:
        raise StatisticsError("the denominator sums to zero on one side.")
    return total


def _share(drawn: NDArray[np.float64], seen: float) -> float:
    """How often chance alone is as far from zero as what was seen; what was seen counts as one draw."""
    return float((1 + (np.abs(drawn) >= abs(seen) * (1 - 1e-12)).sum()) / (1 + drawn.size))


def _end(
    pvalue: Callable[[float], float], start: float, step: float, alpha: float, *, bound: float = math.inf
) -> float | None:
    """Where the test begins to reject, walking from the estimate in steps that grow, then halving."""
    inside, outside = start, start + step
    for _ in range(40):
        if pvalue(outside) <= alpha:
            break
        inside, outside = outside, outside + 2 * (outside - inside)
        if abs(outside - start) > bound:
            return None
    else:
        return None
    for _ in range(40):
        middle = (inside + outside) / 2
        inside, outside = (inside, middle) if pvalue(middle) <= alpha else (middle, outside)
    return outside
