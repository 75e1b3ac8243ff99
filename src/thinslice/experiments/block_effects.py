"""A switchback in a report: blocks of time against blocks of time, tested by drawing the assignment again."""

from collections.abc import Mapping

import msgspec
import numpy as np
from numpy.typing import NDArray

from thinslice.errors import StatisticsError
from thinslice.experiments.readings import read
from thinslice.records import MetricResult
from thinslice.stats import Blocks, Interval, redraw, switchback_effect

HALVINGS = 30
"""So often the search for an end of the relative interval is halved."""

WIDEST = 64.0
"""An end of the relative interval beyond 64 times (or a 64th) is unbounded."""


def block_result(
    empty: MetricResult, blocks: Mapping[str, Mapping[str, Blocks]], redrawn: NDArray[np.bool_] | None, alpha: float
) -> MetricResult:
    """One metric of a switchback.

    Without `redrawn` the assignment is drawn again by shuffling the sides over the blocks, with as many treated blocks
    as there were, from a fixed start, so that a report can be recomputed. The relative interval holds every constant
    relative effect that this test does not reject; there is none where control's mean is not positive.

    Args:
        empty: The row without numbers.
        blocks: Metric → treatment → its blocks.
        redrawn: Shape (draws, blocks), assignments that the design could have drawn; None to shuffle.
        alpha: One minus the confidence of the intervals.
    """
    if empty.name not in blocks:
        return msgspec.structs.replace(empty, why="caps and quantiles are of units, and a switchback compares blocks")
    of = blocks[empty.name][empty.variant]
    drawn = redrawn
    if drawn is None:
        drawn = redraw(of.treated, rng=np.random.default_rng(0), strata=np.zeros(of.treated.size))
    try:
        got = switchback_effect(of, drawn, alpha=alpha)
    except StatisticsError as error:
        return msgspec.structs.replace(empty, why=str(error).removesuffix("."))
    means = {"mean_control": got.mean_control, "mean_treatment": got.mean_treatment, "effect_size": got.effect_size}
    if not np.ptp(of.numerator):
        return msgspec.structs.replace(empty, **means, why=f"all blocks have the same {empty.name}")
    relative, ci = None, None
    if got.mean_control > 0:
        relative = got.effect_size / got.mean_control
        ci = _relative_ci(of, drawn, 1 + relative, alpha) if relative > -1 else None
    reading = read(got.effect_size_ci, direction=empty.direction)
    if ci is not None:
        reading = read(ci, margin=empty.margin, direction=empty.direction)
    return msgspec.structs.replace(
        empty, **means, effect_size_ci=got.effect_size_ci, rel_effect_size=relative, rel_effect_size_ci=ci,
        pvalue=got.pvalue, reading=reading,
    )  # fmt: skip


def _relative_ci(blocks: Blocks, drawn: NDArray[np.bool_], ratio: float, alpha: float) -> Interval:
    """All ratios by which treated blocks can be divided without the two sides differing."""
    ends: list[float | None] = []
    for direction in (-1, 1):
        inside, outside = 0.0, 0.02
        while outside < np.log(WIDEST) and _accepted(blocks, drawn, ratio * np.exp(direction * outside), alpha):
            inside, outside = outside, outside * 2
        if outside >= np.log(WIDEST):
            ends.append(None)
            continue
        for _ in range(HALVINGS):
            middle = (inside + outside) / 2
            if _accepted(blocks, drawn, ratio * np.exp(direction * middle), alpha):
                inside = middle
            else:
                outside = middle
        ends.append(float(ratio * np.exp(direction * outside)) - 1)
    return (ends[0], ends[1])


def _accepted(blocks: Blocks, drawn: NDArray[np.bool_], ratio: float, alpha: float) -> bool:
    scaled = blocks._replace(numerator=np.where(blocks.treated, blocks.numerator / ratio, blocks.numerator))
    return switchback_effect(scaled, drawn, alpha=alpha).pvalue > alpha
