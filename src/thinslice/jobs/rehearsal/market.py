"""Rehearses experiments whose units meet: they buy from one stock, or do what their neighbors do."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from thinslice.experiments.analyze import report
from thinslice.experiments.checks import check_all
from thinslice.experiments.evidence import WEIGHT, Evidence, Spillover, Units, gather, planned_shares
from thinslice.experiments.sharing import spillover_of
from thinslice.jobs.rehearsal.crowd import CONVERSION, NAMES, SIDES, assigned_pool, end_of, some_of, two_variants
from thinslice.jobs.rehearsal.trials import Play, Trial, trial_of
from thinslice.simulate.scenario import Meeting
from thinslice.stats import moments


def stage(scenario: Meeting, rng: int) -> Callable[[int], Play]:
    """Visitors randomized one by one, or whole cities; truth is all cities in treatment against all in control."""
    experiment = two_variants(f"meeting-{rng}", scenario.days, metrics=[CONVERSION])
    rows, width = scenario.cities * scenario.days, scenario.shoppers_per_day
    pool = assigned_pool(experiment, 4 * rows * width)
    now = end_of(scenario.days)
    city = np.repeat(np.arange(scenario.cities), scenario.days)

    def play(run: int) -> Play:
        draw = np.random.default_rng([rng, run])
        mood = np.maximum(1.0 + scenario.mood * draw.standard_normal(scenario.cities), 0.1)
        luck = draw.random((rows, width))
        alone = [sold(scenario, mood[city], luck, np.full((rows, width), side)).mean() for side in (0, 1)]
        truth = float(alone[1] - alone[0])
        by_visitor = some_of(pool, rows * width, draw).reshape(rows, width)
        by_city = some_of(pool, scenario.cities, draw)
        trials: list[Trial] = []
        for design in scenario.designs:
            if design == "visitors":
                bought = sold(scenario, mood[city], luck, by_visitor).astype(np.float64)
                units = Units(variant=NAMES[by_visitor.ravel()], columns={"converted": bought.ravel()})
                evidence = gather(units, experiment)
                spills = probed(scenario, by_visitor, bought, city)
                evidence = evidence._replace(spillovers=() if spills is None else (spills,))
                said = report(evidence, experiment, now, check_all(evidence, experiment))
                trials.append(trial_of(said, design, truth))
                continue
            side = np.broadcast_to(by_city[city][:, None], (rows, width))
            bought = sold(scenario, mood[city], luck, side).reshape(scenario.cities, -1).sum(axis=1)
            shoppers = np.full(scenario.cities, float(scenario.days * width))
            evidence = Evidence(
                variants={
                    name: moments({"converted": bought[by_city == at] * 1.0, WEIGHT: shoppers[by_city == at]})
                    for at, name in enumerate(SIDES)
                },
                counts=np.bincount(by_city, minlength=2)[None, :].astype(np.float64),
                propensities=planned_shares(experiment),
                units={name: int((by_city == at).sum()) * scenario.days * width for at, name in enumerate(SIDES)},
                clusters=True,
            )
            found = report(evidence, experiment, now, check_all(evidence, experiment))
            trials.append(trial_of(found, design, truth))
        return Play(float(alone[0]), float(alone[1]), trials)

    return play


def probed(
    scenario: Meeting, side: NDArray[np.int64], bought: NDArray[np.float64], city: NDArray[np.int64]
) -> Spillover | None:
    """What the report is told of control's shoppers and their neighbors: those of the same circle on the same day.

    Args:
        scenario: The market.
        side: Shape (rows, shoppers), 1 is treatment.
        bought: Shape (rows, shoppers).
        city: Shape (rows,), which units belong together.
    """
    control = side == 0
    share = treated_around(scenario, side)
    neighbors = "shoppers of the same stock on the same day" if scenario.stock > 0 else "friends"
    together = np.broadcast_to(city[:, None], side.shape)
    return spillover_of(neighbors, bought[control], share[control], together[control])


def treated_around(scenario: Meeting, side: NDArray[np.int64]) -> NDArray[np.float64]:
    """Shape (rows, shoppers): the share of each shopper's neighbors that are in treatment."""
    rows, width = side.shape
    size = scenario.circle or width
    circles = side.reshape(rows, width // size, size)
    others = (circles.sum(axis=2, keepdims=True) - circles) / max(size - 1, 1)
    return np.asarray(others.reshape(rows, width))


def sold(
    scenario: Meeting, mood: NDArray[np.float64], luck: NDArray[np.float64], side: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Who buys: who wants to, in the order of the day, as long as there is stock; a row is a city's day.

    Args:
        scenario: The market.
        mood: Shape (rows,), how much the city buys.
        luck: Shape (rows, shoppers), 0..1.
        side: Shape (rows, shoppers), 1 is treatment.
    """
    around = treated_around(scenario, side)
    chance = scenario.conversion * (1.0 + scenario.effect * side) * (1.0 + scenario.social * around)
    wants = luck < chance * mood[:, None]
    if scenario.stock <= 0:
        return np.asarray(wants)
    stock = np.round(scenario.stock * scenario.conversion * side.shape[1])
    return np.asarray(wants & (np.cumsum(wants, axis=1) <= stock))
