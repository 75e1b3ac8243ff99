"""Rehearses the feedback loop: a ranker judged by the log that it made itself, and by an experiment."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from thinslice.evaluation.off_policy import off_policy
from thinslice.experiments.analyze import analyze
from thinslice.jobs.rehearsal.crowd import CLICK_THROUGH, SIDES, end_of, two_variants
from thinslice.jobs.rehearsal.learning import (
    RANKERS,
    Lived,
    World,
    assigned,
    live_through,
    lived_alone,
    make_world,
    rate_of,
    teaching_of,
    units_of,
)
from thinslice.jobs.rehearsal.trials import Play, Trial, trial_of
from thinslice.recommend.explore import BetaThompson
from thinslice.records import Arrays
from thinslice.simulate.scenario import Replaying
from thinslice.simulate.worlds import attention

SLATES = 2_000
"""So many slates of a ranker are drawn to see what it would show."""


def stage(scenario: Replaying, rng: int) -> Callable[[int], Play]:
    """Control's own log says what each ranker's slates would bring; an experiment measures it."""

    def play(run: int) -> Play:
        world = make_world(scenario, rng, run)
        alone = {name: lived_alone(world, scenario, name, rng, run) for name in SIDES}
        control, treatment = (rate_of(world, scenario, alone[name]) for name in SIDES)
        truth = treatment - control
        trials: list[Trial] = []
        for design in scenario.designs:
            if design == "log":
                trials.append(_from_log(world, scenario, alone[SIDES[0]], truth, rng))
                continue
            teaching = teaching_of(design)
            variant = assigned(scenario, run)
            experiment = two_variants(f"run-{run}", scenario.days, metrics=[CLICK_THROUGH], training=teaching.training)
            lived = live_through(world, scenario, variant, experiment, teaching, rng, run)
            units = units_of(world, scenario, lived, variant)
            trials.append(trial_of(analyze(units, experiment, end_of(scenario.days)), design, truth))
        return Play(control, treatment, trials)

    BetaThompson.warm()
    return play


def _from_log(world: World, scenario: Replaying, lived: Lived, truth: float, rng: int) -> Trial:
    """What the last day's beliefs of the logging ranker promise of both rankers' slates; it warns when it cannot tell.

    The log holds the slates of control's ranker alone. What is believed of items that it never showed is what it
    expects of all: the explorer's slates look no better than that.
    """
    arrays = lived.arrays[SIDES[0]]
    live = world.shelf.live(scenario.days - 1)
    ids = [world.items[code].item_id for code in live.tolist()]
    promised = [
        _promise(arrays, RANKERS[kind](arrays, ids, scenario.places, SLATES, rng))
        for kind in (scenario.control, scenario.treatment)
    ]
    explored = RANKERS[scenario.treatment](arrays, ids, 1, SLATES, rng)[:, 0]
    chance = np.bincount(explored, minlength=len(live)) / SLATES
    yesterday = world.visits.day == scenario.days - 1
    place = {int(code): at for at, code in enumerate(live.tolist())}
    action = np.array([place[code] for code in lived.item[yesterday, 0].tolist()], dtype=np.int64)
    log = {"reward": lived.clicked[yesterday, 0], "propensity": np.ones(len(action)), "action": action}
    found = off_policy(log, probabilities=chance, bootstraps=50)
    refused = tuple(gate["name"] for gate in found["gates"] if not gate["passed"])
    return Trial("log", truth, promised[1] - promised[0], None, True, refused)


def _promise(arrays: Arrays, slates: NDArray[np.int64]) -> float:
    """The share of slates with a click, if what is believed were true."""
    belief = arrays["belief"]
    rate = belief[:, 0] / belief.sum(axis=1)
    return float((1.0 - np.prod(1.0 - rate[slates] * attention(slates.shape[1]), axis=1)).mean())
