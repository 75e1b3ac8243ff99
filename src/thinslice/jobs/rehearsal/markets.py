"""Rehearses an experiment on two rankers that learn while it runs: assign, recommend, expose, train, analyze.

A ranker that finds one good item shows it to a whole market for days, so one market says little, however many visit it.
So an experiment can run in several markets, each with items, visitors and models of its own, under one report.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from thinslice.experiments.analyze import report
from thinslice.experiments.checks import check_all
from thinslice.experiments.evidence import Daily, Units, gather
from thinslice.jobs.rehearsal.crowd import CLICK_THROUGH, SIDES, end_of, two_variants
from thinslice.jobs.rehearsal.learning import (
    POOLED_MARK,
    POOLED_SHARE,
    RAMP_FROM,
    Lived,
    Teaching,
    World,
    assigned,
    live_through,
    lived_alone,
    make_world,
    ramp_day,
    rate_of,
    teaching_of,
    units_of,
)
from thinslice.jobs.rehearsal.trials import Play, Trial, trial_of
from thinslice.recommend.explore import BetaThompson
from thinslice.records import Experiment, Report
from thinslice.simulate.scenario import Learning
from thinslice.stats import Moments, moments

DAYS_BEFORE = 14
"""So many days before the start are compared with those after it."""

BURN_IN_DAYS = 7
"""What the design `late` leaves out at the beginning."""


class Market(NamedTuple):
    """One market and what happened in it.

    Attributes:
        world: Its items and visits.
        variant: Shape (visitors,), who gets what.
        lived: What was shown and clicked.
    """

    world: World
    variant: NDArray[np.str_]
    lived: Lived


def stage(scenario: Learning, rng: int) -> Callable[[int], Play]:
    """Each design lives through every market; one report is made of all of them."""

    def play(run: int) -> Play:
        numbers = [run * scenario.markets + number for number in range(scenario.markets)]
        worlds = [make_world(scenario, rng, number) for number in numbers]
        control, treatment = (_alone(scenario, worlds, numbers, name, rng) for name in SIDES)
        lives: dict[Teaching, list[Market]] = {}
        trials: list[Trial] = []
        for design in scenario.designs:
            teaching = teaching_of(design)
            experiment = _plan(scenario, run, teaching)
            if teaching not in lives:
                lives[teaching] = [
                    _live(scenario, world, number, teaching, rng) for world, number in zip(worlds, numbers, strict=True)
                ]
            skipped = BURN_IN_DAYS if design == "late" else 0
            found = report_of(lives[teaching], scenario, experiment, teaching, skipped)
            trials.append(trial_of(found, design, treatment - control))
        return Play(control, treatment, trials)

    BetaThompson.warm()
    return play


def _plan(scenario: Learning, number: int, teaching: Teaching) -> Experiment:
    share = POOLED_SHARE if teaching.cells else 0.0
    return two_variants(
        f"run-{number}", scenario.days, metrics=[CLICK_THROUGH], training=teaching.training, pooled_share=share
    )


def _live(scenario: Learning, world: World, number: int, teaching: Teaching, rng: int) -> Market:
    variant = assigned(scenario, number)
    lived = live_through(world, scenario, variant, _plan(scenario, number, teaching), teaching, rng, number)
    return Market(world, variant, lived)


def _alone(scenario: Learning, worlds: Sequence[World], numbers: Sequence[int], name: str, rng: int) -> float:
    """The truth of one ranker: the click-through rate where it serves everybody in every market."""
    rates = [
        rate_of(world, scenario, lived_alone(world, scenario, name, rng, number))
        for world, number in zip(worlds, numbers, strict=True)
    ]
    return float(np.mean(rates))


def report_of(
    markets: Sequence[Market], scenario: Learning, experiment: Experiment, teaching: Teaching, skipped_days: int = 0
) -> Report:
    """The production report of what happened: effects, and the checks that look for what variants share.

    Args:
        markets: One or more.
        scenario: Their numbers.
        experiment: What ran.
        teaching: Who learned from what.
        skipped_days: So many first days of the experiment are left out.
    """
    parts = []
    for world, variant, lived in markets:
        during = lived.inside & (world.visits.day >= scenario.days_before + skipped_days)
        parts.append(units_of(world, scenario, lived, variant, during & ~_pooled(lived, teaching)))
    units = Units(
        variant=np.concatenate([np.asarray(part.variant) for part in parts]),
        columns={name: np.concatenate([np.asarray(part.columns[name]) for part in parts]) for name in parts[0].columns},
        contamination={
            name: float(np.mean([part.contamination[name] for part in parts if name in part.contamination]))
            for name in parts[0].contamination
        },
        explorers=parts[0].explorers,
    )
    daily = daily_of(markets, scenario, teaching)
    evidence = gather(units, experiment)._replace(
        daily=[row for row in daily if row.day < 0 or row.day >= skipped_days]
    )
    return report(evidence, experiment, end_of(scenario.days), check_all(evidence, experiment))


def daily_of(markets: Sequence[Market], scenario: Learning, teaching: Teaching) -> list[Daily]:
    """Slates and clicks day by day, with the planned share of the traffic that treatment had; before the start, all."""
    found = []
    before = scenario.days_before
    for day in range(-min(before, DAYS_BEFORE), scenario.days):
        if day < 0:
            found.append(Daily(day, {SIDES[0]: _sums(markets, before + day)}, 0.0))
            continue
        own = {name: _sums(markets, before + day, name, teaching, pooled=False) for name in SIDES}
        apart = {name: _sums(markets, before + day, name, teaching, pooled=True) for name in SIDES}
        coverage = RAMP_FROM if teaching.ramp and day < ramp_day(scenario) else 1.0
        found.append(Daily(day, own, 0.5 * coverage, apart if teaching.cells else {}))
    return found


def _sums(
    markets: Sequence[Market], day: int, name: str = "", teaching: Teaching | None = None, *, pooled: bool = False
) -> Moments:
    """A row a visitor of one day: everybody, or those of one variant and one kind of model."""
    exposures, clicks = [], []
    for world, variant, lived in markets:
        rows = world.visits.day == day
        if teaching is not None:
            rows &= lived.inside & (variant[world.visits.visitor] == name) & (_pooled(lived, teaching) == pooled)
        _, code = np.unique(world.visits.visitor[rows], return_inverse=True)
        exposures.append(np.bincount(code))
        clicks.append(np.bincount(code, weights=lived.clicked[rows].any(axis=1)))
    return moments({"exposures": np.concatenate(exposures), "clicks": np.concatenate(clicks)})


def _pooled(lived: Lived, teaching: Teaching) -> NDArray[np.bool_]:
    """Shape (visits,): served beside own models by one that learned from everybody."""
    return np.char.endswith(lived.server, POOLED_MARK) & teaching.cells
