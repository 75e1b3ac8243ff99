"""Interaction: an effect that depends on another experiment is found, and one that does not raises no alarm."""

import numpy as np

from thinslice.experiments.interactions import interaction_check
from thinslice.records import Experiment, Metric, Variant
from thinslice.stats import moments

METRIC = Metric(name="views_per_visitor", numerator="views", role="goal")
GUARD = Metric(name="orders_per_visitor", numerator="orders", role="guardrail", margin=0.02)


def experiment(name, *variants, metrics=(METRIC, GUARD)):
    names = variants or ("old", "new")
    return Experiment(
        name=name, tenant="shop", metrics=list(metrics),
        variants=[Variant(name=each, policy="popular", weight=1 / len(names)) for each in names],
    )  # fmt: skip


def cells(rng, extra, n=500, others=("a", "b"), names=("old", "new")):
    """The new variant brings one more view, and `extra` more where the other experiment shows its second variant."""
    found = {}
    for other in others:
        mean = {"old": 5.0, "new": 6.0 + (extra if other == "b" else 0.0), "third": 5.0}
        found[other] = {name: moments({"views": rng.normal(mean[name], 1, n), "orders": np.zeros(n)}) for name in names}
    return found


def test_an_effect_that_another_experiment_doubles_is_found_and_said_with_both_numbers():
    found = interaction_check(experiment("one"), experiment("two", "a", "b"), cells(np.random.default_rng(0), 1.0))
    assert (found.name, found.passed) == ("interaction_two", False)
    assert "beside two: the effect of new on views_per_visitor is" in found.detail
    assert "one layer" in found.advice


def test_experiments_that_do_not_meddle_alarm_as_seldom_as_promised():
    rng = np.random.default_rng(0)
    checks = [
        interaction_check(experiment("one"), experiment("two", "a", "b"), cells(rng, 0.0, n=150)) for _ in range(400)
    ]
    assert sum(not check.passed for check in checks) <= 3
    below = np.mean([check.pvalue < 0.05 for check in checks])
    assert 0.02 <= below <= 0.09


def test_of_several_treatments_the_one_that_is_disturbed_most_is_named():
    one = experiment("one", "old", "third", "new")
    got = cells(np.random.default_rng(0), 1.0, names=("old", "new", "third"))
    assert "effect of new" in interaction_check(one, experiment("two", "a", "b"), got).detail


def test_with_few_units_without_a_goal_or_where_nothing_varies_nothing_is_said():
    rng, two = np.random.default_rng(0), experiment("two", "a", "b")
    assert interaction_check(experiment("one"), two, cells(rng, 1.0, n=99)) is None
    assert interaction_check(experiment("one"), two, cells(rng, 1.0, others=("a",))) is None
    assert interaction_check(experiment("one", metrics=(GUARD,)), two, cells(rng, 1.0)) is None
    still = {other: {name: moments({"views": np.ones(200)}) for name in ("old", "new")} for other in "ab"}
    assert interaction_check(experiment("one"), two, still) is None
