"""A switchback in a report: blocks of time against blocks of time, tested by drawing the assignment again."""

from collections.abc import Mapping

import msgspec
import numpy as np
from numpy.typing import NDArray

from thinslice.errors import StatisticsError
from thinslice.experiments.readings import read
from thinslice.records import MetricResult
from thinslice.stats import Blocks, redraw, switchback_effect


def block_result(
    empty: MetricResult, blocks: Mapping[str, Mapping[str, Blocks]], redrawn: NDArray[np.bool_] | None, alpha: float
) -> MetricResult:
    """One metric of a switchback.

    Without `redrawn` the assignment is drawn again by shuffling the sides over the blocks, with as many treated blocks
    as there were, from a fixed start, so that a report can be recomputed. The relative interval holds every constant
    relative effect that this test does not reject; there is none where a side's mean is not positive.

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
    relative, ci = got.rel_effect_size, got.rel_effect_size_ci
    reading = read(got.effect_size_ci, direction=empty.direction)
    if ci is not None:
        reading = read(ci, margin=empty.margin, direction=empty.direction)
    return msgspec.structs.replace(
        empty, **means, effect_size_ci=got.effect_size_ci, rel_effect_size=relative, rel_effect_size_ci=ci,
        pvalue=got.pvalue, reading=reading,
    )  # fmt: skip
