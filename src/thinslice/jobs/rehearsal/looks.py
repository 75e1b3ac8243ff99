"""Rehearses peeking: a test that is looked at again and again, and stopped as soon as it shows a difference."""

from collections.abc import Callable

import numpy as np

from thinslice.experiments.compare import compare, look_alpha
from thinslice.experiments.evidence import Evidence, Look, planned_shares
from thinslice.jobs.rehearsal.crowd import CLICK_THROUGH, SIDES, assigned_pool, columns_of, some_of, two_variants
from thinslice.jobs.rehearsal.trials import Play, Trial
from thinslice.records import MetricResult
from thinslice.simulate.scenario import Peeking
from thinslice.simulate.worlds import MEAN_CLICKS, MEAN_EXPOSURES, shop
from thinslice.stats import Interval, merge, moments


def stage(scenario: Peeking, rng: int) -> Callable[[int], Play]:
    """Three ways to look: as if it were the only look, at an interval that is always valid, at planned looks."""
    experiment = two_variants(f"peeking-{rng}", scenario.days, metrics=[CLICK_THROUGH])
    pool = assigned_pool(experiment, 4 * scenario.units)
    rate = MEAN_CLICKS / MEAN_EXPOSURES
    truth = rate * scenario.effect
    looks = [Look(number, scenario.looks) for number in range(1, scenario.looks + 1)]
    shares = planned_shares(experiment)
    nothing = Evidence({}, np.zeros((1, 2)), shares, {}, planned_units=scenario.units)
    alphas = [look_alpha(experiment, nothing._replace(look=look)) for look in looks]

    def play(run: int) -> Play:
        draw = np.random.default_rng([rng, run])
        code = some_of(pool, scenario.units, draw)
        columns = columns_of(shop(draw, scenario.units, scenario.effect * (code == 1)))
        batch = np.arange(scenario.units) * scenario.looks // scenario.units
        so_far = {name: moments({key: column[:0] for key, column in columns.items()}) for name in SIDES}
        plain: list[MetricResult] = []
        planned: list[MetricResult] = []
        for look in looks:
            here = batch == look.number - 1
            for at, name in enumerate(SIDES):
                own = here & (code == at)
                so_far[name] = merge([so_far[name], moments({key: column[own] for key, column in columns.items()})])
            known = nothing._replace(variants=dict(so_far))
            plain += compare(so_far, experiment, known)
            planned += compare(so_far, experiment, known._replace(look=look))
        naive_ci = [row.effect_size_ci for row in plain]
        always_ci = [row.always_valid_ci for row in plain]
        planned_ci = [row.effect_size_ci for row in planned]
        usual = _width(naive_ci[-1])
        rejected = {
            "naive": [row.pvalue is not None and row.pvalue < experiment.alpha for row in plain],
            "sequence": [_leaves_out_zero(ci) for ci in always_ci],
            "planned": [
                row.pvalue is not None and row.pvalue < alpha for row, alpha in zip(planned, alphas, strict=True)
            ],
        }
        intervals = {"naive": naive_ci, "sequence": always_ci, "planned": planned_ci}
        trials = []
        for design in scenario.designs:
            stop = next((at for at, seen in enumerate(rejected[design]) if seen), scenario.looks - 1)
            width = _width(intervals[design][-1])
            trials.append(
                Trial(
                    design, truth, plain[stop].effect_size, intervals[design][stop], any(rejected[design]), (),
                    width=width / usual if width and usual else None,
                )
            )  # fmt: skip
        return Play(rate, rate + truth, trials)

    return play


def _leaves_out_zero(ci: Interval | None) -> bool:
    if ci is None:
        return False
    low, high = ci
    return (low is not None and low > 0) or (high is not None and high < 0)


def _width(ci: Interval | None) -> float | None:
    if ci is None or ci[0] is None or ci[1] is None:
        return None
    return ci[1] - ci[0]
