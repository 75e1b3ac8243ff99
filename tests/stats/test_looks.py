import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import stdtrit

from thinslice.errors import StatisticsError
from thinslice.stats import (
    always_valid_alpha,
    always_valid_ci,
    always_valid_half_width,
    always_valid_pvalue,
    obrien_fleming_looks,
)


def revenue(rng, size):
    """Most buy nothing, some a little, a few very much."""
    return np.where(rng.random(size) < 0.05, rng.lognormal(3, 1.5, size), 0.0)


def any_look(rng, runs, looks, per_look, limit):
    """How often any of the looks at two equal variants goes beyond its limit, and how often a careless one does."""
    found, careless = np.zeros(runs, bool), np.zeros(runs, bool)
    sums, squares = np.zeros((runs, 2)), np.zeros((runs, 2))
    for look in range(looks):
        new = revenue(rng, (runs, 2, per_look))
        sums, squares, n = sums + new.sum(2), squares + (new**2).sum(2), per_look * (look + 1)
        parts = (squares / n - (sums / n) ** 2) / (n - 1)
        score = np.abs(sums[:, 1] - sums[:, 0]) / n / np.sqrt(np.maximum(parts.sum(1), 1e-30))
        df = parts.sum(1) ** 2 / np.maximum((parts**2).sum(1) / (n - 1), 1e-60)
        found |= score > limit(look, n, df)
        careless |= score > 1.96
    return found.mean(), careless.mean()


def planned(looks):
    plan = obrien_fleming_looks(looks)
    return lambda look, n, df: stdtrit(df, 1 - plan.nominal[look] / 2)


def sequence(total):
    return lambda look, n, df: always_valid_half_width(1.0, 2 * n, tuned_for=total)


def test_five_looks_need_what_the_tables_of_the_field_say():
    plan = obrien_fleming_looks(5)
    assert plan.critical == pytest.approx((4.877, 3.357, 2.680, 2.290, 2.031), abs=5e-4)
    assert plan.spent[-1] == pytest.approx(0.05)
    assert obrien_fleming_looks(1).critical == pytest.approx((1.959964,), abs=1e-6)


@settings(max_examples=20)
@given(st.floats(0.15, 0.9), st.floats(0.01, 0.1))
def test_two_looks_together_are_wrong_exactly_as_often_as_allowed(first, alpha):
    plan = obrien_fleming_looks([first, 1.0], alpha=alpha)
    a, b = plan.critical
    both = scipy.stats.multivariate_normal([0, 0], [[1, first**0.5], [first**0.5, 1]])
    inside = both.cdf([a, b]) - both.cdf([-a, b]) - both.cdf([a, -b]) + both.cdf([-a, -b])
    assert 1 - inside == pytest.approx(alpha, abs=1e-5)


@settings(max_examples=30)
@given(st.lists(st.floats(0.02, 1.0), min_size=1, max_size=12, unique=True))
def test_looks_at_any_time_never_spend_more_than_there_is_and_early_ones_need_more(fractions):
    times = [f for f, after in zip(sorted(fractions), [*sorted(fractions)[1:], 9], strict=True) if after - f > 1e-3]
    plan = obrien_fleming_looks(times)
    assert plan.spent[-1] <= 0.05 + 1e-12
    assert all(one >= other - 1e-12 for one, other in zip(plan.spent[1:], plan.spent, strict=False))
    assert all(z > 1.9 for z in plan.critical)
    assert sum(plan.nominal) >= plan.spent[-1] - 1e-9


def test_the_end_spends_what_is_left_wherever_it_comes():
    early = obrien_fleming_looks([0.3, 0.6, 0.8], ended=True)
    assert early.spent[-1] == 0.05
    assert early.critical[-1] < obrien_fleming_looks([0.3, 0.6, 0.8]).critical[-1]
    late = obrien_fleming_looks([0.5, 1.0, 1.3])
    assert late.spent[-1] == pytest.approx(0.05)
    assert late.critical[-1] > 4


def test_planned_looks_cost_less_width_than_looking_whenever_one_likes():
    fixed = 1.959964
    assert obrien_fleming_looks(14).critical[-1] / fixed < 1.10
    assert obrien_fleming_looks(100).critical[-1] / fixed < 1.15
    assert always_valid_half_width(1.0, 5_000) / fixed < 1.7
    assert always_valid_half_width(1.0, 50_000) / fixed < 1.7


@given(st.floats(-6, 6), st.integers(10, 10**6))
def test_interval_p_value_and_nominal_alpha_say_the_same(score, n):
    low, high = always_valid_ci(score, 1.0, n)
    p = always_valid_pvalue(score, 1.0, n)
    assert (p < 0.05) == (low > 0 or high < 0) or abs(p - 0.05) < 1e-9
    assert 0 < p <= 1
    nominal = always_valid_alpha(n)
    assert scipy.stats.norm.isf(nominal / 2) == pytest.approx((high - low) / 2, rel=1e-6)


@given(st.integers(1_000, 10**6), st.floats(0.01, 0.1))
def test_one_end_alone_is_nearer(n, alpha):
    low, none = always_valid_ci(0.0, 1.0, n, alpha=alpha, side="low")
    assert none is None
    assert -always_valid_half_width(1.0, n, alpha=alpha) < low < 0
    assert always_valid_ci(0.0, 1.0, n, alpha=alpha, side="high") == (None, pytest.approx(-low))


def test_no_look_at_revenue_is_wrong_too_often_but_a_careless_one_is():
    rng = np.random.default_rng(0)
    found, careless = any_look(rng, 600, 14, 200, planned(14))
    assert found <= 0.06
    assert careless > 0.12
    assert any_look(rng, 600, 14, 200, sequence(14 * 400))[0] <= 0.02


@pytest.mark.slow
@pytest.mark.parametrize(("looks", "per_look"), [(14, 400), (100, 60)])
def test_over_2000_runs_no_look_at_revenue_is_wrong_more_often_than_6_in_100(looks, per_look):
    rng = np.random.default_rng(0)
    assert any_look(rng, 2_000, looks, per_look, planned(looks))[0] <= 0.06
    assert any_look(rng, 2_000, looks, per_look, sequence(2 * looks * per_look))[0] <= 0.06


def test_a_margin_is_crossed_by_chance_at_one_end_no_more_often_than_allowed():
    rng = np.random.default_rng(0)
    n = 200 * np.arange(1, 31)
    scores = rng.normal(0, 200**0.5, (2_000, 30)).cumsum(axis=1) / np.sqrt(n)
    limit = [always_valid_half_width(1.0, int(k), alpha=0.025, tuned_for=6_000, one_sided=True) for k in n]
    assert (scores > limit).any(axis=1).mean() <= 0.025


@pytest.mark.parametrize(
    ("fractions", "words"),
    [([], "got 0"), ([0.5, 0.4], "increase"), ([0.0, 1.0], "positive"), ([float("nan")], "positive"), (0, "got 0")],
    ids=["none", "falling", "zero", "nan", "no look"],
)
def test_looks_that_cannot_be_are_refused(fractions, words):
    with pytest.raises(StatisticsError, match=words):
        obrien_fleming_looks(fractions)


def test_alphas_and_units_that_cannot_be_are_refused():
    with pytest.raises(StatisticsError, match=r"alpha has to lie between 0 and 1, got 1\.5"):
        obrien_fleming_looks(3, alpha=1.5)
    with pytest.raises(StatisticsError, match="needs at least 1 unit, got 0"):
        always_valid_half_width(1.0, 0)
    with pytest.raises(StatisticsError, match="between 0 and 1"):
        always_valid_pvalue(1.0, 1.0, 10, alpha=0.0)
    assert always_valid_pvalue(1.0, 0.0, 10) is None
