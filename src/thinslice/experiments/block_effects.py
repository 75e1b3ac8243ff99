"""A switchback in a report: blocks of time against blocks of time, tested by drawing the assignment again."""

from collections.abc import Mapping
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from thinslice.errors import StatisticsError
from thinslice.experiments.evidence import Evidence, capped_columns, column_of, planned_shares, treatments
from thinslice.experiments.readings import read
from thinslice.records import Experiment, MetricResult
from thinslice.stats import (
    Blocks,
    BlockValues,
    Interval,
    block_quantile_effect,
    redraw,
    switchback_effect,
)

Sums = Mapping[str, NDArray[np.float64]]
"""Column → sum of each block, shape (blocks,)."""


class BlockSums(NamedTuple):
    """What each block of time added up to, after its burn-in.

    Attributes:
        number: Shape (blocks,), in order of time.
        variant: Shape (blocks,), the variant's name that was on.
        columns: Sums of the metrics' columns (capped ones under their own names) and of `units`.
        segments: Segment → value → the same sums of that value's units alone.
        values: Quantile metric → (what a unit did in a block, the block's place), shape (rows,) each.
    """

    number: NDArray[np.int64]
    variant: NDArray[np.str_]
    columns: Sums
    segments: Mapping[str, Mapping[str, Sums]] = {}
    values: Mapping[str, tuple[NDArray[np.float64], NDArray[np.int64]]] = {}


def block_evidence(
    of: BlockSums, experiment: Experiment, *, mixed: int = 0, redrawn: NDArray[np.bool_] | None = None
) -> Evidence:
    """The evidence of a switchback; what was randomized is the block, so blocks are what is counted.

    Args:
        of: Blocks that were over, each in one variant.
        experiment: Whose caps are numbers.
        mixed: Blocks that were left out since they held two variants.
        redrawn: Shape (draws, blocks), assignments that the design could have drawn; None to shuffle.
    """
    names = [variant.name for variant in experiment.variants]
    seen = np.array([[float((of.variant == name).sum()) for name in names]])
    units = dict(zip(names, seen[0].astype(int).tolist(), strict=True))
    empty = Evidence({}, seen, planned_shares(experiment), units, mixed)
    if not of.number.size:
        return empty
    return empty._replace(
        blocks=_blocks(of, of.columns, experiment),
        redrawn=redrawn,
        block_segments={
            segment: {value: _blocks(of, sums, experiment) for value, sums in values.items()}
            for segment, values in of.segments.items()
        },
        block_values={name: _values(of, name, experiment) for name in of.values},
    )


def sums_of(values: Mapping[str, NDArray[np.float64]], place: NDArray[np.int64], blocks: int) -> Sums:
    """Rows of units summed to blocks.

    Args:
        values: Columns of rows.
        place: Shape (rows,), the place of each row's block.
        blocks: How many there are.
    """
    return {
        name: np.bincount(place, weights=column, minlength=blocks).astype(np.float64) for name, column in values.items()
    }


def capped(columns: Mapping[str, NDArray[np.float64]], experiment: Experiment) -> dict[str, NDArray[np.float64]]:
    """Rows of units with a further column for each sum that is capped; caps are numbers by now."""
    cut = {name: np.minimum(columns[raw], cap) for name, (raw, cap) in capped_columns(experiment).items()}
    return {**columns, **cut}


def block_result(empty: MetricResult, evidence: Evidence, quantile: float | None, alpha: float) -> MetricResult:
    """One metric of a switchback.

    Without `redrawn` the assignment is drawn again by shuffling the sides over the blocks, with as many treated blocks
    as there were, from a fixed start, so that a report can be recomputed. The relative interval holds every constant
    relative effect that this test does not reject; there is none where a side's mean is not positive.

    Args:
        empty: The row without numbers.
        evidence: With `blocks`.
        quantile: The metric's, where it is one.
        alpha: One minus the confidence of the intervals.
    """
    try:
        if empty.name in evidence.block_values:
            values = evidence.block_values[empty.name][empty.variant]
            got = block_quantile_effect(values, quantile or 0.5, _drawn(evidence, values.treated), alpha=alpha)
            spread = float(np.ptp(values.values))
        else:
            of = evidence.blocks[empty.name][empty.variant]
            got = switchback_effect(of, _drawn(evidence, of.treated), alpha=alpha)
            spread = float(np.ptp(of.numerator))
    except StatisticsError as error:
        return msgspec.structs.replace(empty, why=str(error).removesuffix("."))
    means = {"mean_control": got.mean_control, "mean_treatment": got.mean_treatment, "effect_size": got.effect_size}
    if not spread:
        return msgspec.structs.replace(empty, **means, why=f"all blocks have the same {empty.name}")
    return msgspec.structs.replace(
        empty, **means, effect_size_ci=got.effect_size_ci, rel_effect_size=got.rel_effect_size,
        rel_effect_size_ci=got.rel_effect_size_ci, pvalue=got.pvalue,
        reading=_reading(empty, got.effect_size_ci, got.rel_effect_size_ci),
    )  # fmt: skip


def moves_segment(evidence: Evidence, segment: str, alpha: float) -> bool:
    """Whether the treatment changes how many units each value of a segment has: then it is a result, not a cause."""
    for by_metric in evidence.block_segments[segment].values():
        for treatment, of in by_metric[UNITS_OF].items():
            drawn = _drawn(evidence, of.treated)
            whole = evidence.block_segments[segment]
            every = sum((each[UNITS_OF][treatment].numerator for each in whole.values()), np.zeros(of.numerator.size))
            try:
                if switchback_effect(of._replace(denominator=every), drawn, alpha=alpha).pvalue < alpha:
                    return True
            except StatisticsError:
                continue
    return False


UNITS_OF = " units"
"""The name under which a segment's own units are counted; no metric can be called so."""


def _reading(empty: MetricResult, absolute: Interval | None, relative: Interval | None) -> str:
    if relative is not None:
        return read(relative, margin=empty.margin, direction=empty.direction)
    return read(absolute, direction=empty.direction)


def _drawn(evidence: Evidence, treated: NDArray[np.bool_]) -> NDArray[np.bool_]:
    if evidence.redrawn is not None:
        return evidence.redrawn
    return redraw(treated, rng=np.random.default_rng(0), strata=np.zeros(treated.size))


def _blocks(of: BlockSums, sums: Sums, experiment: Experiment) -> dict[str, dict[str, Blocks]]:
    """A mean is over the units of a block; a ratio is of sums."""
    asked = {
        metric.name: (column_of(metric), metric.denominator or "units")
        for metric in experiment.metrics
        if metric.quantile is None
    }
    asked[UNITS_OF] = ("units", "units")
    found: dict[str, dict[str, Blocks]] = {}
    for variant in treatments(experiment):
        both = np.isin(of.variant, [experiment.control_name, variant.name])
        for name, (top, bottom) in asked.items():
            found.setdefault(name, {})[variant.name] = Blocks(
                of.number[both], of.variant[both] == variant.name, sums[top][both], sums[bottom][both]
            )
    return found


def _values(of: BlockSums, name: str, experiment: Experiment) -> dict[str, BlockValues]:
    values, place = of.values[name]
    found = {}
    for variant in treatments(experiment):
        both = np.isin(of.variant, [experiment.control_name, variant.name])
        kept = both[place]
        found[variant.name] = BlockValues(
            of.variant[both] == variant.name, (both.cumsum() - 1)[place[kept]], values[kept]
        )
    return found
