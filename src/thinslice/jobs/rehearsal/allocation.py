"""Rehearses allocation that follows results, and logs that get lost: the sample ratio and what it does to a test."""

from collections.abc import Callable
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from thinslice.experiments.analyze import analyze, report
from thinslice.experiments.checks import check_all
from thinslice.experiments.compare import compare
from thinslice.experiments.evidence import Evidence, Split, Units, gather, planned_shares
from thinslice.experiments.health import DAY
from thinslice.experiments.steering import thompson_weights
from thinslice.jobs.rehearsal.crowd import (
    CLICK_THROUGH,
    CONVERSION,
    NAMES,
    SIDES,
    assigned_pool,
    buckets,
    columns_of,
    end_of,
    some_of,
    two_variants,
)
from thinslice.jobs.rehearsal.trials import Play, Trial, trial_of
from thinslice.records import Experiment
from thinslice.simulate.scenario import LostLogs, Switching
from thinslice.simulate.worlds import MEAN_CLICKS, MEAN_EXPOSURES, shop
from thinslice.stats import Cell, Moments, cells_of, merge, moments

DRAWS = 400
"""So often the better variant is drawn from what is believed, for its share of the next batch."""


class Steered(NamedTuple):
    """Who got what where results steered.

    Attributes:
        code: Shape (units,), the variant.
        propensities: Shape (units, 2).
        batch: Shape (units,).
    """

    code: NDArray[np.int64]
    propensities: NDArray[np.float64]
    batch: NDArray[np.int64]


def steered(
    where: NDArray[np.float64], outcomes: NDArray[np.float64], *, batches: int, floor: float, draw: np.random.Generator
) -> Steered:
    """Thompson sampling in batches: treatment's share is how often its mean is drawn as the larger one.

    Args:
        where: Shape (units,), 0..1: where the hash puts them; below control's share is control.
        outcomes: Shape (2, units): what each would do under each variant.
        batches: How often the shares change.
        floor: No variant gets less than this share.
        draw: Randomness.
    """
    units = len(where)
    code = np.zeros(units, dtype=np.int64)
    propensities = np.empty((units, 2))
    batch = np.arange(units) * batches // units
    share = 0.5
    sums = np.zeros((2, 3))
    for number in range(batches):
        rows = np.flatnonzero(batch == number)
        code[rows] = where[rows] >= 1.0 - share
        propensities[rows] = 1.0 - share, share
        for side in (0, 1):
            own = outcomes[side, rows[code[rows] == side]]
            sums[side] += len(own), own.sum(), (own**2).sum()
        if (sums[:, 0] < 2).any():
            continue
        mean = sums[:, 1] / sums[:, 0]
        se = np.sqrt(np.maximum(sums[:, 2] / sums[:, 0] - mean**2, 1e-12) / sums[:, 0])
        believed = mean[:, None] + se[:, None] * draw.standard_normal((2, DRAWS))
        share = float(np.clip((believed[1] > believed[0]).mean(), floor, 1.0 - floor))
    return Steered(code, propensities, batch)


def conducted(
    experiment: Experiment, where: NDArray[np.float64], outcomes: NDArray[np.float64], *,
    batches: int | NDArray[np.int64], draw: np.random.Generator,
) -> Steered:  # fmt: skip
    """The same by production's rule: after each batch a report by logged probabilities says the next weights.

    Args:
        experiment: `allocation = "thompson"`, two variants, one metric.
        where: Shape (units,), 0..1: where the hash puts them; below control's share is control.
        outcomes: Shape (2, units): what each would do under each variant.
        batches: How often the weights change, or shape (units,), the batch of each unit, rising from 0.
        draw: Randomness.
    """
    units, column = len(where), experiment.metrics[0].numerator
    code = np.zeros(units, dtype=np.int64)
    propensities = np.empty((units, 2))
    batch = np.arange(units) * batches // units if isinstance(batches, int) else batches
    share = experiment.variants[1].weight
    cells: list[Cell] = []
    so_far: dict[str, Moments] = {}
    for number in range(int(batch[-1]) + 1):
        rows = np.flatnonzero(batch == number)
        code[rows] = where[rows] >= 1.0 - share
        propensities[rows] = 1.0 - share, share
        seen = outcomes[code[rows], rows]
        cells += cells_of({column: seen}, NAMES[code[rows]], propensities[rows], batch[rows], SIDES)
        for side, name in enumerate(SIDES):
            new = moments({column: seen[code[rows] == side]})
            so_far[name] = merge([so_far[name], new]) if name in so_far else new
        known = Evidence(so_far, np.zeros((1, 2)), planned_shares(experiment), {}, weighted=True, cells=cells)
        weights = thompson_weights(experiment, compare(so_far, experiment, known, whole=True), rng=draw)
        if weights is not None:
            share = weights[SIDES[1]]
    return Steered(code, propensities, batch)


def stage_switching(scenario: Switching, rng: int) -> Callable[[int], Play]:
    """A bandit shares out shoppers while what they do drifts; read as if shares were fixed, and as logged."""
    experiment = two_variants(
        f"switching-{rng}", scenario.days, metrics=[CONVERSION], allocation="thompson", allocation_floor=scenario.floor
    )
    places = buckets(experiment, 4 * scenario.units)
    batch = np.arange(scenario.units) * scenario.batches // scenario.units
    base = np.linspace(scenario.base_start, scenario.base_end, scenario.batches)[batch]
    truth = float(base.mean()) * scenario.effect
    now = end_of(scenario.days)

    def play(run: int) -> Play:
        draw = np.random.default_rng([rng, run])
        luck = draw.random(scenario.units)
        outcomes = np.stack([luck < base, luck < base * (1.0 + scenario.effect)]).astype(np.float64)
        where = some_of(places, scenario.units, draw)
        if scenario.rule == "weighted":
            got = conducted(experiment, where, outcomes, batches=scenario.batches, draw=draw)
        else:
            got = steered(where, outcomes, batches=scenario.batches, floor=scenario.floor, draw=draw)
        units = Units(variant=NAMES[got.code], columns={"converted": outcomes[got.code, np.arange(scenario.units)]})
        trials: list[Trial] = []
        for design in scenario.designs:
            logged = units._replace(propensities=got.propensities, batch=got.batch) if design == "aipw" else units
            trials.append(trial_of(analyze(logged, experiment, now), design, truth))
        return Play(float(base.mean()), float(base.mean()) + truth, trials)

    return play


def stage_lost_logs(scenario: LostLogs, rng: int) -> Callable[[int], Play]:
    """A test whose split is broken in one browser: read without looking at the checks, and with them."""
    experiment = two_variants(f"lost-{rng}", scenario.days, metrics=[CLICK_THROUGH])
    experiment = msgspec.structs.replace(experiment, segments=["browser"])
    pool = assigned_pool(experiment, 4 * scenario.units)
    rate = MEAN_CLICKS / MEAN_EXPOSURES
    others = (1.0 - scenario.browser_share * scenario.browser_clicks) / (1.0 - scenario.browser_share)
    lost_there = min(1.0, scenario.lost / scenario.browser_share)
    names = np.array(["chromium", "webkit"])
    now = end_of(scenario.days)

    def play(run: int) -> Play:
        draw = np.random.default_rng([rng, run])
        code = some_of(pool, scenario.units, draw)
        there = draw.random(scenario.units) < scenario.browser_share
        usual = np.where(there, scenario.browser_clicks, others) * (1.0 + scenario.effect * (code == 1))
        shoppers = shop(draw, scenario.units, usual - 1.0)
        day = draw.integers(0, scenario.days, size=scenario.units)
        kept = ~(there & (code == 1) & (draw.random(scenario.units) < lost_there))
        units = Units(
            variant=NAMES[code[kept]],
            columns={name: column[kept] for name, column in columns_of(shoppers).items()},
            segments={"browser": names[there[kept].astype(np.int64)]},
        )
        evidence = gather(units, experiment)
        by_day = np.zeros((scenario.days, 2))
        np.add.at(by_day, (day[kept], code[kept]), 1)
        fair = np.array([[0.5, 0.5]])
        days = {str(number): Split(row[None, :], fair) for number, row in enumerate(by_day)}
        evidence = evidence._replace(splits={**evidence.splits, DAY: days})
        found = report(evidence, experiment, now, check_all(evidence, experiment))
        read = trial_of(found, "checked", rate * scenario.effect)
        believed = read.rejected and read.action != "invalid"
        by_design = {
            "unchecked": read._replace(design="unchecked", warnings=(), action=""),
            "checked": read._replace(rejected=believed),
        }
        return Play(rate, rate * (1.0 + scenario.effect), [by_design[name] for name in scenario.designs])

    return play
