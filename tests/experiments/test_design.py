"""What traffic can show before an experiment begins."""

import msgspec
import numpy as np
import pytest
from scipy.stats import ttest_ind

from thinslice.errors import StatisticsError
from thinslice.experiments.design import History, design
from thinslice.experiments.evidence import WEIGHT
from thinslice.records import Experiment, Metric, Variant

TWO = [Variant(name="old", policy="popular", weight=0.5), Variant(name="new", policy="newest", weight=0.5)]


def experiment(*metrics, variants=TWO, **fields):
    return Experiment(name="plan", tenant="shop", variants=variants, metrics=list(metrics), **fields)


GOAL = Metric(name="views", numerator="views", role="goal", mde=0.05)
GUARD = Metric(name="carts", numerator="carts", role="guardrail", margin=0.1)


def history(units=4_000, days=10, seed=0):
    rng = np.random.default_rng(seed)
    habit = rng.gamma(4.0, 2.5, units)
    columns = {
        "views": rng.poisson(habit).astype(float), "past_views": rng.poisson(habit).astype(float),
        "carts": rng.binomial(1, 0.4, units).astype(float),
    }  # fmt: skip
    return History(columns, [units / days] * days)


def test_what_is_planned_is_found_as_often_as_planned():
    past = history()
    row = design(experiment(GOAL), past, days=10).rows[0]
    rng = np.random.default_rng(1)
    found = 0
    for _ in range(400):
        drawn = rng.choice(past.columns["views"], 4_000)
        new = rng.random(4_000) < 0.5
        found += ttest_ind(drawn[~new], drawn[new] + row.mde * past.columns["views"].mean()).pvalue < 0.05
    assert abs(found / 400 - 0.8) < 0.07  # three and a half standard errors


def test_days_follow_the_traffic_the_coverage_and_the_layer():
    past = history()
    whole = design(experiment(GOAL), past).rows[0].days_for_wanted
    half = design(experiment(GOAL, coverage=0.5), past).rows[0].days_for_wanted
    layer = design(experiment(GOAL, layer="home", layer_range=(0.0, 0.5)), past).rows[0].days_for_wanted
    assert half == layer
    assert abs(half - 2 * whole) <= 1
    assert design(experiment(GOAL), past._replace(new_units=[40.0] * 10)).rows[0].days_for_wanted > 9 * whole


def test_a_small_share_takes_longer_than_halves():
    few = [msgspec.structs.replace(TWO[0], weight=0.9), msgspec.structs.replace(TWO[1], weight=0.1)]
    assert (
        design(experiment(GOAL, variants=few), history()).rows[0].mde > design(experiment(GOAL), history()).rows[0].mde
    )


def test_an_own_past_makes_it_shorter_by_what_it_explains():
    past = history()
    plain = design(experiment(GOAL), past).rows[0]
    adjusted = design(experiment(GOAL, covariate_days=14.0), past).rows[0]
    rho = np.corrcoef(past.columns["views"], past.columns["past_views"])[0, 1]
    assert plain.variance_left == 1
    assert adjusted.variance_left == pytest.approx(1 - rho**2, rel=1e-6)
    assert adjusted.days_for_wanted < plain.days_for_wanted


def test_not_worse_is_planned_for_and_more_guardrails_take_longer():
    past = history()
    one = design(experiment(GOAL, GUARD), past)
    guard = one.rows[1]
    assert guard.days_for_margin > 0
    assert guard.mde is not None
    assert f"to prove it not worse by 10.0 % takes {guard.days_for_margin} days" in guard.sentence
    second = msgspec.structs.replace(GUARD, name="more")
    assert design(experiment(GOAL, GUARD, second), past).rows[1].days_for_margin > guard.days_for_margin


def test_several_treatments_and_planned_looks_are_judged_more_strictly():
    past = history()
    three = [Variant(name=name, policy="popular", weight=1 / 3) for name in "abc"]
    alone = design(experiment(GOAL), past).rows[0].mde
    rows = design(experiment(GOAL, variants=three), past).rows
    assert [row.variant for row in rows] == ["b", "c"]
    assert rows[0].mde > alone * np.sqrt(1.5)
    assert alone < design(experiment(GOAL, looks=5, days=10.0), past, days=14).rows[0].mde < 1.1 * alone


def test_traffic_that_cannot_show_it_is_told_so():
    tiny = msgspec.structs.replace(GOAL, mde=0.0005)
    plan = design(experiment(tiny), history())
    assert plan.rows[0].days_for_wanted is None
    assert not plan.enough
    assert plan.sentence.startswith(
        "This traffic cannot show it: views: a change of 0.1 % would take more than a year."
    )


def test_days_that_are_too_few_are_told_so_and_enough_days_too():
    past = history()
    needed = design(experiment(GOAL), past).rows[0].days_for_wanted
    assert design(experiment(GOAL), past, days=needed).enough
    short = design(experiment(GOAL), past, days=needed - 1)
    assert not short.enough
    assert short.sentence == f"Too short: it takes {needed} days, {needed - 1} are planned."


def test_a_metric_that_is_always_zero_or_never_varies_plans_nothing():
    past = history()
    for value, words in ((0.0, "is zero for every unit"), (3.0, "does not vary")):
        flat = past._replace(columns=past.columns | {"views": np.full(4_000, value)})
        plan = design(experiment(GOAL), flat)
        assert words in plan.sentence
        assert plan.rows[0].mde is None
        assert not plan.enough


def test_a_cap_makes_a_wild_metric_quieter_and_a_quantile_can_be_planned():
    rng = np.random.default_rng(0)
    past = History({"views": rng.lognormal(0, 2, 4_000)}, [400.0] * 10)
    wild = design(experiment(GOAL), past).rows[0].mde
    assert design(experiment(msgspec.structs.replace(GOAL, cap_quantile=0.99)), past).rows[0].mde < wild
    assert design(experiment(msgspec.structs.replace(GOAL, quantile=0.5)), past).rows[0].mde < wild


def test_clusters_show_less_than_their_visitors_would():
    rng = np.random.default_rng(0)
    city = np.repeat(np.arange(40), 100)
    values = 5 + rng.normal(0, 1, 40)[city] + rng.normal(0, 2, 4_000)
    alone = design(experiment(GOAL), History({"views": values}, [400.0] * 10)).rows[0].mde
    totals = {"views": np.bincount(city, weights=values), WEIGHT: np.full(40, 100.0)}
    clustered = design(experiment(GOAL, unit="cluster", cluster="city"), History(totals, [40.0, *[0.0] * 9])).rows[0]
    assert clustered.mean == pytest.approx(values.mean())
    assert clustered.mde > 3 * alone
    assert clustered.days_for_wanted is None


def test_one_unit_is_no_history():
    with pytest.raises(StatisticsError, match="needs at least 2 visitors in the history, got 1"):
        design(experiment(GOAL), History({"views": np.array([1.0])}, [1.0]))
