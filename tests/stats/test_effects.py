import math

import numpy as np
import pyarrow as pa
import pytest
import scipy.stats
import tea_tasting as tt
from hypothesis import given
from hypothesis import strategies as st

from thinslice.errors import StatisticsError, TooFewUnits
from thinslice.stats import (
    Quotient,
    Sample,
    always_valid_ci,
    always_valid_pvalue,
    cuped_theta,
    effect,
    fieller,
    log_ratio,
    merge,
    moments,
    sample,
)

COLUMNS = ("orders", "revenue", "sessions", "before", "sessions_before")


def shop(rng, n, lift=1.0):
    taste = rng.gamma(2.0, 1.0, n)
    sessions_before = rng.poisson(taste) + 1
    sessions = rng.poisson(taste) + 1
    orders = rng.binomial(sessions, 0.2 * lift)
    return {
        "orders": orders, "revenue": orders * rng.lognormal(3, 1, n), "sessions": sessions,
        "before": rng.binomial(sessions_before, 0.2) * 20.0, "sessions_before": sessions_before,
    }  # fmt: skip


def two_arms():
    rng = np.random.default_rng(7)
    return shop(rng, 1_500), shop(rng, 1_200, 1.15)


def tea(metric):
    control, treatment = two_arms()
    sizes = (len(control["orders"]), len(treatment["orders"]))
    table = {name: np.concatenate([control[name], treatment[name]]) for name in COLUMNS}
    table |= {"variant": np.repeat([0, 1], sizes), "user": np.arange(sum(sizes))}
    return tt.Experiment(m=metric).analyze(pa.table(table))["m"]


def ours(metric, covariate=None):
    arms = [moments(arm) for arm in two_arms()]
    return effect(*(sample(arm, metric, covariate=covariate, pooled=merge(arms)) for arm in arms))


@pytest.mark.parametrize(
    ("metric", "mine"),
    [
        (tt.Mean("revenue"), (Quotient("revenue"),)),
        (tt.RatioOfMeans("orders", "sessions"), (Quotient("orders", "sessions"),)),
        (tt.Mean("revenue", "before"), (Quotient("revenue"), Quotient("before"))),
        (
            tt.RatioOfMeans("orders", "sessions", "before", "sessions_before"),
            (Quotient("orders", "sessions"), Quotient("before", "sessions_before")),
        ),
    ],
    ids=["mean", "ratio", "mean with covariate", "ratio with covariate"],
)
def test_every_number_is_that_of_tea_tasting(metric, mine):
    theirs, got = tea(metric), ours(*mine)
    assert got.mean_control == pytest.approx(theirs.control, rel=1e-9)
    assert got.mean_treatment == pytest.approx(theirs.treatment, rel=1e-9)
    assert got.effect_size == pytest.approx(theirs.effect_size, rel=1e-9)
    assert got.effect_size_ci == pytest.approx((theirs.effect_size_ci_lower, theirs.effect_size_ci_upper), rel=1e-9)
    assert got.rel_effect_size == pytest.approx(theirs.rel_effect_size, rel=1e-9)
    relative = (theirs.rel_effect_size_ci_lower, theirs.rel_effect_size_ci_upper)
    assert got.rel_effect_size_ci == pytest.approx(relative, rel=1e-9)
    assert got.pvalue == pytest.approx(theirs.pvalue, rel=1e-9)


@given(st.lists(st.floats(-100, 100), min_size=2, max_size=30), st.lists(st.floats(-100, 100), min_size=2, max_size=30))
def test_the_p_value_is_welchs(first, second):
    got = effect(*(sample(moments({"y": arm}), Quotient("y")) for arm in (first, second)))
    if min(np.var(first), np.var(second)) < 1e-6:
        return
    theirs = scipy.stats.ttest_ind(second, first, equal_var=False)
    assert got.pvalue == pytest.approx(theirs.pvalue, rel=1e-6, abs=1e-12)
    low, high = theirs.confidence_interval(0.95)
    assert got.effect_size_ci == pytest.approx((low, high), rel=1e-6, abs=1e-6)


@given(st.floats(0.1, 50), st.floats(0.1, 50), st.floats(0.01, 100), st.floats(0.01, 100), st.integers(2, 500))
def test_swapping_the_sides_turns_the_effect_around(one, other, var_one, var_other, n):
    a, b = Sample(n, one, var_one), Sample(n + 3, other, var_other)
    there, back = effect(a, b), effect(b, a)
    assert there.effect_size == -back.effect_size
    assert there.pvalue == pytest.approx(back.pvalue)
    assert there.effect_size_ci[0] == pytest.approx(-back.effect_size_ci[1])
    ends = [0.0 if end in (None, -1) else 1 / (1 + end) - 1 for end in back.rel_effect_size_ci]
    if None not in there.rel_effect_size_ci and all(
        end is not None and -0.999 < end < 1e3 for end in back.rel_effect_size_ci
    ):
        assert there.rel_effect_size_ci == pytest.approx((ends[1], ends[0]), rel=1e-5)


@given(st.floats(0.001, 1000))
def test_money_in_cents_or_in_euros_reads_the_same(scale):
    a, b = Sample(100, 5.0, 9.0), Sample(120, 5.5, 8.0)
    small = effect(a, b)
    large = effect(*(Sample(s.n, s.mean * scale, s.var * scale**2) for s in (a, b)))
    assert large.pvalue == pytest.approx(small.pvalue)
    assert large.rel_effect_size_ci == pytest.approx(small.rel_effect_size_ci)


def test_fieller_is_the_test_turned_around():
    mean_c, var_c, mean_t, var_t, quantile = 4.0, 0.3, -1.0, 0.2, 1.96
    got = fieller(mean_c, var_c, mean_t, var_t, quantile=quantile)
    for end in got.ci:
        ratio = 1 + end
        assert abs(mean_t - ratio * mean_c) / math.sqrt(var_t + ratio**2 * var_c) == pytest.approx(quantile)


def test_fieller_and_log_ratio_agree_where_both_are_right():
    numbers = (10.0, 0.01, 10.5, 0.012)
    assert fieller(*numbers, quantile=1.96).ci == pytest.approx(log_ratio(*numbers, quantile=1.96).ci, abs=2e-4)


def test_a_relative_change_of_nothing_does_not_exist():
    got = effect(Sample(50, 0.0, 0.0), Sample(50, 0.2, 0.16))
    assert (got.rel_effect_size, got.rel_effect_size_ci) == (None, None)
    assert got.effect_size_ci[0] > 0
    assert fieller(0.1, 1.0, -0.3, 1.0, quantile=1.96).ci == (None, None)


def test_an_all_zero_metric_has_no_p_value():
    zero = sample(moments({"y": [0, 0, 0]}), Quotient("y"))
    got = effect(zero, zero)
    assert (got.effect_size, got.effect_size_ci, got.pvalue) == (0.0, None, None)


def test_a_constant_that_is_no_round_number_varies_by_nothing():
    constant = moments({"y": np.full(1000, 0.1), "x": np.full(1000, 0.3)})
    assert sample(constant, Quotient("y")).var == 0
    doubled = moments({"x": np.arange(1, 50) / 7, "y": 2 * np.arange(1, 50) / 7})
    assert sample(doubled, Quotient("y", "x")).var == 0


def test_one_unit_is_not_enough():
    with pytest.raises(TooFewUnits, match="needs at least 2 units, got 1"):
        sample(moments({"y": [1.0]}), Quotient("y"))


def test_a_ratio_over_nothing_is_refused():
    with pytest.raises(StatisticsError, match="'x' sums to zero over 2 units"):
        sample(moments({"y": [1, 2], "x": [0, 0]}), Quotient("y", "x"))
    with pytest.raises(StatisticsError, match="all variants together"):
        sample(moments({"y": [1, 2], "x": [0, 1]}), Quotient("y"), covariate=Quotient("x"))


def test_theta_is_the_slope_of_a_regression():
    rng = np.random.default_rng(1)
    x = rng.normal(size=200)
    y = 3 * x + rng.normal(size=200)
    theta = cuped_theta(moments({"x": x, "y": y}), Quotient("y"), Quotient("x"))
    assert theta == pytest.approx(scipy.stats.linregress(x, y).slope)
    assert cuped_theta(moments({"x": np.ones(9), "y": np.arange(9)}), Quotient("y"), Quotient("x")) == 0


@pytest.mark.slow
@pytest.mark.parametrize("lift", [1.0, 1.2])
def test_intervals_of_means_and_ratios_cover_in_95_percent(lift):
    rng = np.random.default_rng(0)
    runs, truths = 2_000, {"mean": 0.2 * 3, "ratio": 0.2}
    covered = dict.fromkeys(["mean", "ratio", "mean %", "ratio %"], 0)
    for _ in range(runs):
        arms = [moments(shop(rng, 500)), moments(shop(rng, 500, lift))]
        for name, metric in [("mean", Quotient("orders")), ("ratio", Quotient("orders", "sessions"))]:
            got = effect(*(sample(arm, metric) for arm in arms))
            covered[name] += got.effect_size_ci[0] <= truths[name] * (lift - 1) <= got.effect_size_ci[1]
            covered[f"{name} %"] += got.rel_effect_size_ci[0] <= lift - 1 <= got.rel_effect_size_ci[1]
    assert all(0.937 <= count / runs <= 0.963 for count in covered.values()), covered


@given(st.sampled_from([1e-150, 1e-60, 1e-10, 1e10, 1e55]))
def test_very_small_and_very_large_numbers_are_numbers_all_the_same(scale):
    arms = [moments({"y": np.array([1.0, 2.0, 4.0]) * scale}), moments({"y": np.array([2.0, 3.0, 7.0, 1.0]) * scale})]
    got = effect(*(sample(arm, Quotient("y")) for arm in arms))
    assert got.pvalue == pytest.approx(effect(Sample(3, 7 / 3, 7 / 3), Sample(4, 3.25, 83 / 12)).pvalue, rel=1e-6)
    assert all(math.isfinite(end) for end in (*got.effect_size_ci, *got.rel_effect_size_ci))


def waves():
    """Two variants whose outcome and covariate are plain formulas, so that another program can be given the same."""
    arms = []
    for n, height, turn, before in ((400, 10.0, 1.3, 0.7), (500, 10.8, 1.9, 0.3)):
        row = np.arange(n)
        y = np.abs(np.sin(row * turn)) * height
        arms.append(moments({"y": y, "x": np.abs(np.cos(row * before)) + 0.1 * y}))
    return arms


@pytest.mark.parametrize(
    ("metric", "covariate", "effect_size", "ci", "pvalue"),
    [
        (Quotient("y"), None, 0.5178838829434502, (0.096651340223461, 0.9391164256634394), 0.01602567878795269),
        (
            Quotient("y", "x"),
            None,
            0.2027793153962003,
            (-0.023655171742825776, 0.4292138025352264),
            0.07915653179216475,
        ),
        (
            Quotient("y"),
            Quotient("x"),
            0.255494345939244,
            (-0.03778293208548389, 0.5487716239639719),
            0.08765161160204649,
        ),
    ],
    ids=["mean", "ratio", "cuped"],
)
def test_absolute_effects_are_those_of_growthbook(metric, covariate, effect_size, ci, pvalue):
    """Constants: gbstats 0.8.0, TwoSidedTTest, absolute. Its relative test has another p-value; ours has one only."""
    arms = waves()
    got = effect(*(sample(arm, metric, covariate=covariate, pooled=merge(arms)) for arm in arms))
    assert got.effect_size == pytest.approx(effect_size, rel=1e-9)
    assert got.effect_size_ci == pytest.approx(ci, rel=1e-9)
    assert got.pvalue == pytest.approx(pvalue, rel=1e-9)


def test_the_sequence_is_that_of_growthbook():
    """Constants: gbstats 0.8.0, SequentialTwoSidedTTest tuned for 5,000."""
    got = effect(*(sample(arm, Quotient("y")) for arm in waves()))
    assert always_valid_ci(got.effect_size, got.se, 900) == pytest.approx((-0.21605123069429977, 1.2518189965812003))
    assert always_valid_pvalue(got.effect_size, got.se, 900) == pytest.approx(0.28115388677388226)


def test_cuped_is_lins_regression_with_robust_errors():
    """Outcome on variant, centered covariate and both together, HC2 errors: the same effect but for noise in theta."""
    control, treatment = two_arms()
    y = np.concatenate([control["revenue"], treatment["revenue"]])
    x = np.concatenate([control["before"], treatment["before"]])
    w = np.repeat([0.0, 1.0], (len(control["revenue"]), len(treatment["revenue"])))
    x = x - x.mean()
    design = np.column_stack([np.ones(y.size), w, x, w * x])
    bread = np.linalg.inv(design.T @ design)
    found = bread @ design.T @ y
    leverage = np.einsum("ij,jk,ik->i", design, bread, design)
    robust = bread @ (design.T * ((y - design @ found) ** 2 / (1 - leverage))) @ design @ bread
    got = ours(Quotient("revenue"), Quotient("before"))
    assert got.effect_size == pytest.approx(found[1], abs=0.05 * got.se)
    assert got.se == pytest.approx(robust[1, 1] ** 0.5, rel=0.01)


def test_a_covariate_that_is_a_ratio_takes_its_share_off_a_ratio():
    rng = np.random.default_rng(0)
    arms = []
    for _ in range(2):
        liking, before, sessions = rng.beta(2, 8, 3_000), rng.poisson(10, 3_000) + 1, rng.poisson(10, 3_000) + 1
        arms.append(
            moments(
                {
                    "orders": rng.binomial(sessions, liking), "sessions": sessions,
                    "orders_before": rng.binomial(before, liking), "before": before,
                }
            )
        )  # fmt: skip
    metric, past = Quotient("orders", "sessions"), Quotient("orders_before", "before")
    plain = effect(*(sample(arm, metric) for arm in arms))
    helped = effect(*(sample(arm, metric, covariate=past, pooled=merge(arms)) for arm in arms))
    assert helped.se < 0.9 * plain.se
    assert helped.effect_size_ci[0] <= 0 <= helped.effect_size_ci[1]


def spending(rng, n, lift=1.0):
    """One in ten buys, a few buy very much; who did so before does so again."""
    liking = rng.normal(size=n)
    buys = rng.random(n) < 0.1
    sessions = rng.poisson(2, n) + 1
    return {
        "revenue": lift * buys * np.exp(3 + 0.7 * liking + 0.7 * rng.normal(size=n)), "sessions": sessions,
        "before": np.exp(0.7 * liking),
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("lift", [1.0, 1.05, 1.2])
def test_revenue_with_many_zeros_and_long_tails_is_judged_as_often_right_as_promised(lift):
    """2,000 runs each: rejection at no effect and coverage of the absolute and relative interval."""
    rng = np.random.default_rng(0)
    runs, mean = 2_000, 0.1 * math.exp(3 + 0.49)
    questions = {
        "mean": (Quotient("revenue"), None, mean),
        "ratio": (Quotient("revenue", "sessions"), None, mean / 3),
        "cuped": (Quotient("revenue"), Quotient("before"), mean),
    }
    missed = dict.fromkeys([f"{name} {scale}" for name in questions for scale in ("", "%")], 0)
    for _ in range(runs):
        arms = [moments(spending(rng, 2_000)), moments(spending(rng, 2_000, lift))]
        for name, (metric, covariate, truth) in questions.items():
            got = effect(*(sample(arm, metric, covariate=covariate, pooled=merge(arms)) for arm in arms))
            low, high = got.effect_size_ci
            missed[f"{name} "] += not low <= truth * (lift - 1) <= high
            missed[f"{name} %"] += not got.rel_effect_size_ci[0] <= lift - 1 <= got.rel_effect_size_ci[1]
    assert all(0.037 <= count / runs <= 0.063 for count in missed.values()), missed
