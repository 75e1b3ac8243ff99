"""How often each detector alarms falsely and what it finds: section `detectors` of `python -m benchmarks.trust`."""

from collections.abc import Iterator, Mapping
from functools import partial

import msgspec
import numpy as np
from numpy.typing import NDArray

from benchmarks.figures import SHARE, Figure, Part, played
from thinslice.experiments.evidence import Daily, Evidence, Spillover
from thinslice.experiments.over_time import effect_over_time
from thinslice.experiments.sharing import control_over_ramp, own_against_pooled, spillover_check, spillover_of
from thinslice.jobs.rehearsal.crowd import CLICK_THROUGH, CONVERSION, SIDES, two_variants
from thinslice.jobs.rehearsal.learning import Teaching, assigned, lived_alone, make_world, takes_part
from thinslice.jobs.rehearsal.markets import Market, daily_of
from thinslice.records import Experiment
from thinslice.simulate.scenarios import find_scenario
from thinslice.stats import Moments, moments

RATE, UNITS = 0.2, 400
"""Click rate of a slate, and visitors of one day in one variant."""

LUCK, ALIKE = 0.01, 0.5
"""What a ranker's luck adds to a day's click rate (standard deviation), and how much of it is left on the next day."""

NOBODY = np.array([[0.5, 0.5]])


def visitors(draw: np.random.Generator, rate: float) -> Moments:
    """One day of one variant."""
    exposures = draw.poisson(3, UNITS) + 1
    return moments({"exposures": exposures, "clicks": draw.binomial(exposures, min(max(rate, 0.0), 1.0))})


def luck(draw: np.random.Generator, days: int) -> NDArray[np.float64]:
    """Shape (days,): what a ranker happened to find stays for days."""
    found = np.empty(days)
    found[0] = draw.standard_normal()
    for day in range(1, days):
        found[day] = ALIKE * found[day - 1] + np.sqrt(1 - ALIKE**2) * draw.standard_normal()
    return LUCK * found


def lived(
    draw: np.random.Generator,
    rates: Mapping[str, NDArray[np.float64]],
    share: NDArray[np.float64],
    *,
    lucky: bool = True,
) -> Evidence:
    """Days of variants (`control`, `treatment`, the same with ` pooled`) with these rates and luck of their own."""
    days = len(share)
    rates = {name: rate + lucky * luck(draw, days) for name, rate in rates.items()}
    rows = []
    for day in range(days):
        today = {name: visitors(draw, float(rate[day])) for name, rate in rates.items()}
        pooled = {name: today[f"{name} pooled"] for name in SIDES if f"{name} pooled" in today}
        rows.append(Daily(day, {name: today[name] for name in SIDES}, float(share[day]), pooled))
    return Evidence({}, NOBODY, NOBODY, {}, daily=rows)


def plan(**fields: object) -> Experiment:
    """Whose report it is."""
    return two_variants("detectors", 28, metrics=[CLICK_THROUGH], **fields)


def cells(moves: float, runs: int) -> Iterator[Figure]:
    """Own against pooled models, 28 days: how often it is told that sharing moves the effect by so much."""
    draw, alarms, even = np.random.default_rng(0), 0, np.full(28, 0.5)
    level = np.full(28, RATE)
    for _ in range(runs):
        rates = {"control": level, "treatment": 1.1 * level, "control pooled": level,
                 "treatment pooled": (1.1 + moves) * level}  # fmt: skip
        found = own_against_pooled(lived(draw, rates, even), plan())
        alarms += found is not None and not found.passed
    yield told(
        "own_against_pooled", f"sharing moves the effect by {moves:+.0%} of control" if moves else "", alarms, runs, 1.5
    )


def ramped(moves: float, runs: int) -> Iterator[Figure]:
    """Control over a ramp, 9 days without treatment, 9 with a tenth, 10 with half of the traffic."""
    draw, alarms = np.random.default_rng(0), 0
    share = np.repeat([0.0, 0.1, 0.5], [9, 9, 10])
    level = np.full(28, RATE)
    for _ in range(runs):
        rates = {"control": level * (1 + moves * (share > 0)), "treatment": 1.1 * level}
        found = control_over_ramp(lived(draw, rates, share), plan(training="shared"))
        alarms += found is not None and not found.passed
    yield told("control_over_ramp", f"treatment moves control by {moves:+.0%}" if moves else "", alarms, runs, 1.5)


def changing(moves: float, runs: int, lucky: bool) -> Iterator[Figure]:
    """An effect that grows with log(1 + day) until day 27."""
    draw, alarms, even = np.random.default_rng(0), 0, np.full(28, 0.5)
    level, age = np.full(28, RATE), np.log1p(np.arange(28)) / np.log(28)
    for _ in range(runs):
        rates = {"control": level, "treatment": level * (1 + moves * age)}
        found = effect_over_time(lived(draw, rates, even, lucky=lucky), plan())
        alarms += found is not None and not found.passed
    if lucky:
        words = f"effect_over_time, equal rankers whose luck lasts for days ({runs:,} runs): alarms, %"
        yield Figure(words, SHARE * alarms / runs)
    else:
        yield told(
            "effect_over_time", f"an effect that grows from 0 to {moves:+.0%}" if moves else "", alarms, runs, 0.3
        )


def neighbors(moves: float, runs: int, units: int = 10_000, size: int = 5) -> Iterator[Figure]:
    """Circles of five friends whose circles differ; treated friends move what one does."""
    draw, alarms = np.random.default_rng(0), 0
    experiment = two_variants("detectors", 14, metrics=[CONVERSION])
    for _ in range(runs):
        spills = circles(draw, moves, units, size)
        found = spillover_check(Evidence({}, NOBODY, NOBODY, {}, spillovers=[spills] if spills else []), experiment)
        alarms += found is not None and not found.passed
    yield told("spillover", f"treated friends bring {moves:+.0%} of conversion" if moves else "", alarms, runs, 0.3)


def circles(draw: np.random.Generator, moves: float, units: int, size: int) -> Spillover | None:
    """What the probe sees of control's units."""
    treated = draw.random((units // size, size)) < 0.5
    around = (treated.sum(axis=1, keepdims=True) - treated) / (size - 1)
    usual = 0.1 * np.clip(1 + 0.3 * draw.standard_normal((units // size, 1)), 0.1, None)
    bought = draw.random(treated.shape) < usual * (1 + moves * around)
    circle = np.broadcast_to(np.arange(units // size)[:, None], treated.shape)
    return spillover_of("friends", bought[~treated], around[~treated], circle[~treated])


def placebo(ranker: str, runs: int) -> Iterator[Figure]:
    """One ranker serves everybody and visitors are only labeled as on a ramp: nothing can reach control."""
    scenario, teaching = find_scenario("shared-training-detected"), Teaching("shared", ramp=True)
    expects = {"greedy": scenario.control_expects, "thompson": scenario.treatment_expects}[ranker]
    scenario = msgspec.structs.replace(scenario, control=ranker, control_expects=expects)
    alarms = dict.fromkeys(("control_over_ramp", "effect_over_time"), 0)
    for run in range(runs):
        markets = []
        for number in range(run * scenario.markets, (run + 1) * scenario.markets):
            world = make_world(scenario, 0, number)
            alone = lived_alone(world, scenario, SIDES[0], 0, number)
            inside = takes_part(world, scenario, two_variants(f"run-{number}", scenario.days), teaching)
            inside &= world.visits.day >= scenario.days_before
            markets.append(Market(world, assigned(scenario, number), alone._replace(inside=inside)))
        evidence = Evidence({}, NOBODY, NOBODY, {}, daily=daily_of(markets, scenario, teaching))
        for check in (control_over_ramp(evidence, plan(training="shared")), effect_over_time(evidence, plan())):
            if check is not None:
                alarms[check.name] += not check.passed
    for name, times in alarms.items():
        yield Figure(
            f"{name}, a {ranker} ranker serves all, labels alone ({runs} runs): alarms, %", SHARE * times / runs
        )


def rankers(runs: int, designs: tuple[str, ...], words: str, **numbers: object) -> Iterator[Figure]:
    """Rankers that learn in six small markets: what the report of each design warns of."""
    scenario = find_scenario("shared-training-detected")
    kept = {name: said for name, said in scenario.designs.items() if name in designs}
    found = played("shared-training-detected", runs, designs=kept, **numbers)
    for each in found.designs:
        for name in ("control_over_ramp", "own_against_pooled", "effect_over_time"):
            if (name == "own_against_pooled") == (each.name == "cells"):
                share = SHARE * each.warnings.get(name, 0.0)
                yield Figure(f"{name}, {words}, {each.name} ({runs} runs): alarms, %", share)


def told(name: str, moved: str, alarms: int, runs: int, most: float) -> Figure:
    """False alarms with their bound, or what was found."""
    rate = SHARE * alarms / runs
    if moved:
        return Figure(f"{name}, {moved} ({runs:,} runs): found, %", rate)
    return Figure(f"{name}, nothing to find ({runs:,} runs): false alarms, %", rate, None, most)


ALIKE_RANKERS = {"control": "thompson", "control_expects": 0.05}
"""Both variants explore alike: neither gains by what the other finds."""

DETECTORS: list[Part] = [
    partial(rankers, 12, ("pooled-ramp",), "an explorer against a greedy ranker"),
    partial(rankers, 12, ("isolated-ramp",), "an explorer against a greedy ranker"),
    partial(rankers, 12, ("cells",), "an explorer against a greedy ranker"),
    partial(rankers, 12, ("cells",), "two explorers that are the same", **ALIKE_RANKERS),
    partial(placebo, "greedy", 30), partial(placebo, "thompson", 30),
    partial(cells, 0.0, 2_000), partial(cells, -0.2, 300), partial(ramped, 0.0, 2_000), partial(ramped, 0.25, 300),
    partial(changing, 0.0, 2_000, False), partial(changing, 0.25, 300, False), partial(changing, 0.0, 1_000, True),
    partial(neighbors, 0.0, 2_000), partial(neighbors, 1.0, 300),
]  # fmt: skip
"""Nothing to find: at most one false alarm in a hundred where days are compared, in a thousand elsewhere, and luck."""
