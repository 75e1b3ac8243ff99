"""An experiment's own rehearsal in blocks of time: everybody switched back and forth, by production's own schedule."""

import numpy as np
from numpy.typing import NDArray

from thinslice.experiments.analyze import report
from thinslice.experiments.assign import bucket
from thinslice.experiments.block_effects import BlockSums, block_evidence, capped, sums_of
from thinslice.experiments.checks import check_all
from thinslice.experiments.evidence import Look, raw_columns
from thinslice.experiments.switchback import block_of, block_start, schedule
from thinslice.jobs.measure_blocks import redrawn
from thinslice.jobs.rehearsal.crowd import STARTED_AT, end_of
from thinslice.jobs.rehearsal.own_shoppers import columns, segments, with_caps
from thinslice.jobs.rehearsal.own_units import Told, World
from thinslice.records import Experiment, Report

MOOD, MEMORY = 0.1, 0.7
"""Standard deviation of how much is bought in one hour and another, and what is left of it in the next hour."""


def block_world(experiment: Experiment, units: int) -> World:
    """Shoppers come by day more than by night; an hour is like the one before; each block is one variant's.

    What the variant before left behind lasts as long as the file's burn-in, and what happens in that time is left out.

    Args:
        experiment: A switchback with a start and an end.
        units: How many come.
    """
    days, control = experiment.days or 1.0, experiment.control_name
    first = block_of(experiment, STARTED_AT.timestamp())
    last = block_of(experiment, end_of(days).timestamp())
    ends = np.array([block_start(experiment, block + 1).timestamp() for block in range(first, last)])
    number = first + np.arange(ends.size)
    drawn = redrawn(experiment, number.tolist())
    width, late_s = (experiment.block_minutes or 1.0) * 60, experiment.burn_in_minutes * 60

    def play(effect: float, steals: bool, draw: np.random.Generator, run: str) -> Told:
        hours = int(np.ceil(days * 24)) + 1
        mood = np.zeros(hours)
        noise = draw.standard_normal(hours)
        mood[0] = noise[0]
        for each in range(1, hours):
            mood[each] = MEMORY * mood[each - 1] + np.sqrt(1 - MEMORY**2) * noise[each]
        rhythm = 1.0 - 0.6 * np.cos(2 * np.pi * (np.arange(hours - 1) - 3) / 24)
        hour = np.sort(draw.choice(hours - 1, size=units, p=rhythm / rhythm.sum()))
        at = STARTED_AT.timestamp() + 3_600 * (hour + draw.random(units))
        place = np.searchsorted(ends, at, side="right")
        side = np.array(schedule(experiment, [first - 1, *number.tolist()], bucket, f"rehearsal-{run}"))
        kept = place < ends.size
        early = np.zeros(units, dtype=bool)
        early[kept] = at[kept] - (ends[place[kept]] - width) < late_s
        acts = side[np.minimum(place, ends.size - 1) + np.where(early, 0, 1)]
        lift, of_hour = np.where(acts == control, 0.0, effect), np.maximum(1.0 + MOOD * mood[hour], 0.05)
        table = columns(draw, lift, of_hour, steals=steals)
        parts = segments(draw, experiment, units)
        counted = kept & ~early

        def told(share: float, look: Look | None) -> Report:
            until = STARTED_AT.timestamp() + 86_400 * days * share
            blocks = int((ends <= until + 1e-6).sum())
            rows = counted & (place < blocks)
            mine = {name: table[name][rows] for name in raw_columns(experiment)}
            plan = with_caps(experiment, mine) if rows.any() else experiment
            sums = capped(mine, plan) | {"units": np.ones(int(rows.sum()))}
            of = BlockSums(
                number[:blocks], side[1 : blocks + 1], sums_of(sums, place[rows], blocks),
                segments={
                    name: {
                        value: sums_of(_only(sums, values[rows] == value), place[rows][values[rows] == value], blocks)
                        for value in np.unique(values).tolist()
                    }
                    for name, values in parts.items()
                },
                values={
                    metric.name: (mine[metric.numerator], place[rows])
                    for metric in plan.metrics
                    if metric.quantile is not None
                },
            )  # fmt: skip
            evidence = block_evidence(of, plan, redrawn=None if drawn is None else drawn[:, :blocks])
            evidence = evidence._replace(look=look)
            now = end_of(days) if share >= 1 else block_start(experiment, first + blocks)
            return report(evidence, plan, now, check_all(evidence, plan))

        return told

    return play


def _only(table: dict[str, NDArray[np.float64]], rows: NDArray[np.bool_]) -> dict[str, NDArray[np.float64]]:
    return {name: values[rows] for name, values in table.items()}
