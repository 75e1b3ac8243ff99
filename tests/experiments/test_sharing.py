"""Checks for what variants share: each finds an injected fault, names it with an interval, and is silent otherwise."""

import msgspec
import numpy as np
import pytest

from thinslice.experiments.evidence import Daily, Evidence
from thinslice.experiments.over_time import effect_over_time
from thinslice.experiments.sharing import control_over_ramp, own_against_pooled, spillover_check, spillover_of
from thinslice.records import Experiment, Metric, Variant
from thinslice.stats import moments

HALF = np.array([[0.5, 0.5]])
PLAN = Experiment(
    name="test", tenant="shop", training="shared",
    metrics=[Metric(name="ctr", numerator="clicks", denominator="exposures", role="goal")],
    variants=[Variant(name="old", policy="a", weight=0.5), Variant(name="new", policy="b", weight=0.5)],
)  # fmt: skip


def evidence(**fields):
    return Evidence({}, np.array([[500.0, 500.0]]), HALF, {"old": 500, "new": 500}, **fields)


def clicks(rng, rate, units=400):
    exposures = rng.poisson(3, units) + 1
    return moments({"exposures": exposures, "clicks": rng.binomial(exposures, rate)})


def days(rng, old=0.2, new=0.2, pooled=(), shares=(0.5,) * 14):
    """Days with rates that may be functions of the day."""

    def rate(of, day):
        return of(day) if callable(of) else of

    return [
        Daily(
            day, {"old": clicks(rng, rate(old, day)), "new": clicks(rng, rate(new, day))}, share,
            {name: clicks(rng, rate) for name, rate in zip(("old", "new"), pooled, strict=False)},
        )
        for day, share in enumerate(shares)
    ]  # fmt: skip


RAMP = (0.0,) * 7 + (0.1,) * 7 + (0.5,) * 7


def test_control_that_rises_with_treatments_share_is_told():
    rng = np.random.default_rng(0)
    found = control_over_ramp(evidence(daily=days(rng, old=lambda day: 0.2 if day < 7 else 0.3, shares=RAMP)), PLAN)
    assert not found.passed
    assert found.detail.startswith("control's ctr while treatments had 50.0 % of the traffic, against the days when")
    assert found.interval[0] < 0.1 < found.interval[1]
    assert "Isolate training" in found.advice
    quiet = control_over_ramp(evidence(daily=days(rng, shares=RAMP)), PLAN)
    assert (quiet.passed, quiet.advice) == (True, "")
    assert control_over_ramp(evidence(daily=days(rng)), PLAN) is None


def test_an_effect_that_turns_around_over_a_ramp_is_told():
    rng = np.random.default_rng(0)
    shares = (0.1,) * 7 + (0.5,) * 7
    found = control_over_ramp(evidence(daily=days(rng, new=lambda d: 0.3 if d < 7 else 0.12, shares=shares)), PLAN)
    assert not found.passed
    assert "the effect of new turned around on the way" in found.detail


def test_isolated_rankers_that_learn_from_fewer_sessions_are_no_sign_of_sharing_and_the_other_way_is():
    rng, isolated = np.random.default_rng(0), msgspec.structs.replace(PLAN, training="isolated")
    learns = {0.0: 0.3, 0.1: 0.2, 0.5: 0.25}
    worse = control_over_ramp(
        evidence(daily=days(rng, old=lambda day: learns[RAMP[day]], new=lambda day: day / 60, shares=RAMP)), isolated
    )  # fmt: skip
    assert (worse.passed, worse.interval[1] < 0) == (True, True)
    assert "as models do that learn from fewer sessions" in worse.detail
    for levels in ({0.0: 0.2, 0.1: 0.2, 0.5: 0.3}, {0.0: 0.3, 0.1: 0.3, 0.5: 0.2}):
        found = control_over_ramp(
            evidence(daily=days(rng, old=lambda day, of=levels: of[RAMP[day]], shares=RAMP)), isolated
        )  # fmt: skip
        assert not found.passed
        assert "fewer sessions to learn from would move control the other way" in found.advice


def test_an_effect_that_pooled_models_turn_around_is_told_and_the_same_one_is_not():
    rng = np.random.default_rng(0)
    found = own_against_pooled(evidence(daily=days(rng, old=0.15, new=0.25, pooled=(0.3, 0.2))), PLAN)
    assert not found.passed
    assert "from everybody's: sharing moves it by -" in found.detail
    assert found.interval[1] < 0
    assert "isolated" in found.advice
    assert own_against_pooled(evidence(daily=days(rng, new=0.3, pooled=(0.2, 0.3))), PLAN).passed
    assert own_against_pooled(evidence(daily=days(rng)), PLAN) is None


def test_an_effect_that_grows_is_told_apart_from_one_that_fades():
    rng = np.random.default_rng(0)
    grows = effect_over_time(evidence(daily=days(rng, new=lambda day: 0.12 + 0.01 * day)), PLAN)
    fades = effect_over_time(evidence(daily=days(rng, new=lambda day: 0.32 - 0.01 * day)), PLAN)
    assert (grows.passed, fades.passed) == (False, False)
    assert "starts cold" in grows.detail
    assert "only new" in fades.detail
    assert "shadow serving" in grows.advice
    assert effect_over_time(evidence(daily=days(rng, new=0.3)), PLAN).passed
    assert effect_over_time(evidence(daily=days(rng, shares=(0.5,) * 4)), PLAN) is None


def neighborhood(rng, spill, units=20_000, size=5):
    treated = rng.random((units // size, size)) < 0.5
    around = (treated.sum(axis=1, keepdims=True) - treated) / (size - 1)
    outcome = rng.random(treated.shape) < 0.1 + spill * around
    circle = np.broadcast_to(np.arange(units // size)[:, None], treated.shape)
    return spillover_of("friends", outcome[~treated], around[~treated], circle[~treated])


def test_neighbors_who_pass_it_on_are_told_with_an_interval_and_others_are_not():
    rng = np.random.default_rng(0)
    found = spillover_check(evidence(spillovers=[neighborhood(rng, 0.1), neighborhood(rng, 0.0)]), PLAN)
    assert not found.passed
    assert "have neighbors (friends); where all of them and not none got a treatment" in found.detail
    assert found.interval[0] < 0.1 < found.interval[1]
    assert 'unit = "cluster"' in found.advice
    assert spillover_check(evidence(spillovers=[neighborhood(rng, 0.0)]), PLAN).passed
    assert spillover_check(evidence(), PLAN) is None


def test_a_ratio_spills_over_by_what_each_unit_adds_to_it():
    rng = np.random.default_rng(0)
    share, below = rng.random(50_000), rng.poisson(3, 50_000) + 1.0
    above = rng.binomial(below.astype(int), 0.1 + 0.05 * share)
    found = spillover_of("friends", above, share, np.arange(50_000), below=below)
    assert found.level == pytest.approx(0.125, abs=0.003)
    assert found.slope.value == pytest.approx(0.05, abs=0.01)
    assert spillover_of("friends", [], [], []) is None
    assert spillover_of("friends", [1.0, 0.0, 1.0], [0.5, 0.5, 0.5], [0, 1, 2]) is None


@pytest.mark.slow
def test_each_of_them_alarms_falsely_as_seldom_as_promised():
    rng, runs = np.random.default_rng(0), 1_000
    alarms = dict.fromkeys(["ramp", "cells", "time", "spillover"], 0)
    for _ in range(runs):
        found = evidence(daily=days(rng, pooled=(0.2, 0.2), shares=RAMP), spillovers=[neighborhood(rng, 0.0, 4_000)])
        alarms["ramp"] += not control_over_ramp(found, PLAN).passed
        alarms["cells"] += not own_against_pooled(found, PLAN).passed
        alarms["time"] += not effect_over_time(found, PLAN).passed
        alarms["spillover"] += not spillover_check(found, PLAN).passed
    assert max(alarms["ramp"], alarms["cells"]) <= 17  # one in a hundred, and room for luck
    assert max(alarms["time"], alarms["spillover"]) <= 5  # one in a thousand
