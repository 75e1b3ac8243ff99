"""Rehearses a year of experiments: what was shipped because it looked good, and what it really brought."""

import math
from collections.abc import Callable

import numpy as np

from thinslice.experiments.analyze import report
from thinslice.experiments.checks import check_all
from thinslice.experiments.evidence import Evidence, planned_shares
from thinslice.jobs.rehearsal.crowd import SIDES, end_of, two_variants
from thinslice.jobs.rehearsal.trials import Play, Trial
from thinslice.simulate.scenario import Program
from thinslice.stats import Moments, cumulative

UNITS = 20_000
"""Units of each variant of each experiment; their variance is such that the standard error is as the scenario says."""


def stage(scenario: Program, rng: int) -> Callable[[int], Play]:
    """All reports of a program; what is decided to ship is added up as measured, and by the hierarchical model."""
    now = end_of(scenario.days)
    plans = [two_variants(f"test-{number}", scenario.days) for number in range(scenario.experiments)]
    variance = scenario.noise**2 * UNITS / 2.0
    shares = planned_shares(plans[0])

    def play(run: int) -> Play:
        draw = np.random.default_rng([rng, run])
        truth = scenario.spread * draw.standard_normal(scenario.experiments)
        means = 1.0 + draw.standard_normal((scenario.experiments, 2)) * scenario.noise / math.sqrt(2.0)
        means[:, 1] += truth
        changes, ses, shipped = [], [], []
        for plan, pair in zip(plans, means.tolist(), strict=True):
            sides = {
                name: Moments(("revenue_minor",), UNITS, np.array([mean]), np.array([[variance]]))
                for name, mean in zip(SIDES, pair, strict=True)
            }
            evidence = Evidence(
                sides, np.array([[UNITS, UNITS]], dtype=np.float64), shares, dict.fromkeys(SIDES, UNITS)
            )
            found = report(evidence, plan, now, check_all(evidence, plan))
            goal = found.metrics[0]
            changes.append(goal.effect_size or 0.0)
            ses.append(scenario.noise)
            shipped.append(found.decision.action == "ship")
        brought = float(truth[shipped].sum())
        if not any(shipped):
            return Play(1.0, 1.0, [])
        got = cumulative(changes, ses, shipped)
        added = {"sum": got.naive, "hierarchy": got.total}
        trials = [
            Trial(name, brought, of.value, of.ci, of.pvalue is not None and of.pvalue < 0.05, ())
            for name, of in ((name, added[name]) for name in scenario.designs)
        ]
        return Play(1.0, 1.0 + brought, trials)

    return play
