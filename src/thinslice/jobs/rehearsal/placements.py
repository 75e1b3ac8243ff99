"""Rehearses a shelf that wins by taking clicks from its neighbors: counted by itself, and by the page."""

from collections.abc import Callable

import msgspec
import numpy as np

from thinslice.experiments.analyze import analyze, report
from thinslice.experiments.checks import check_all
from thinslice.experiments.evidence import Units, gather
from thinslice.experiments.placements import judged_by_page
from thinslice.jobs.rehearsal.crowd import CLICK_THROUGH, NAMES, assigned_pool, end_of, some_of, two_variants
from thinslice.jobs.rehearsal.own_shoppers import BASE_UNITS, PLACEMENTS, columns
from thinslice.jobs.rehearsal.trials import Play, trial_of
from thinslice.simulate.scenario import Stealing


def stage(scenario: Stealing, rng: int) -> Callable[[int], Play]:
    """The shelf's own click-through rate, and that of all slates of the page; the truth is the page's."""
    alone = two_variants(f"stealing-{rng}", scenario.days, metrics=[CLICK_THROUGH])
    of_page = judged_by_page(msgspec.structs.replace(alone, placement="shelf"))
    pool = assigned_pool(alone, 4 * scenario.units)
    nobody = columns(np.random.default_rng([rng, 0, 9]), np.zeros(BASE_UNITS))
    rate = float(nobody["page_clicks"].sum() / nobody["page_exposures"].sum())
    truth = rate * scenario.effect / PLACEMENTS * (1.0 - scenario.stolen)
    now = end_of(scenario.days)

    def play(run: int) -> Play:
        draw = np.random.default_rng([rng, run])
        code = some_of(pool, scenario.units, draw)
        steals = draw.random(scenario.units) < scenario.stolen
        lift = scenario.effect * (code == 1)
        taken = columns(np.random.default_rng([rng, run, 1]), lift, steals=True)
        gained = columns(np.random.default_rng([rng, run, 2]), lift)
        table = {name: np.where(steals, taken[name], gained[name]) for name in taken}
        units = Units(variant=NAMES[code], columns=table)
        trials = [trial_of(analyze(units, alone, now), "shelf", truth)]
        evidence = gather(units, of_page)
        found = report(evidence, of_page, now, check_all(evidence, of_page))
        trials.append(trial_of(found, "page", truth))
        return Play(rate, rate + truth, [trial for trial in trials if trial.design in scenario.designs])

    return play
