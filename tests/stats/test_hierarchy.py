import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thinslice.errors import StatisticsError, TooFewUnits
from thinslice.stats import (
    agreement,
    benjamini_hochberg,
    cumulative,
    dersimonian_laird,
    estimate,
    heterogeneity,
    paule_mandel,
    shrink,
    worst,
)

SCHOOLS = ([28.0, 8, -3, 7, -1, 1, 18, 12], [15.0, 10, 16, 11, 9, 11, 10, 18])
"""Rubin's eight schools: effects of coaching and their standard errors."""

FIVE = ([0.1, 0.3, 0.05, 0.4, -0.1], [0.05, 0.08, 0.06, 0.1, 0.07])

some = st.lists(st.tuples(st.floats(-5, 5), st.floats(0.1, 3)), min_size=3, max_size=12)


def test_the_eight_schools_shrink_as_in_the_books():
    """Bayesian Data Analysis, table 5.3 (by simulation): means 10, 8, 6, 7, 5, 6, 10, 8; the first from -2 to 31."""
    got = shrink(*SCHOOLS)
    assert [row.value for row in got] == pytest.approx([11.4, 7.9, 6.1, 7.6, 5.1, 6.1, 10.7, 8.5], abs=0.15)
    assert got[0].ci == pytest.approx((-2.4, 32.1), abs=1.5)


def test_heterogeneity_is_that_of_statsmodels():
    """Constants: statsmodels 0.15, combine_effects with method_re chi2 and iterated."""
    got = heterogeneity(*FIVE)
    assert got.statistic == pytest.approx(24.070073469896016, rel=1e-12)
    assert got.i_squared == pytest.approx(0.8338185379864866, rel=1e-12)
    assert dersimonian_laird(*FIVE) ** 2 == pytest.approx(0.02325899273827184, rel=1e-12)
    assert paule_mandel(*FIVE) ** 2 == pytest.approx(0.033077091591, rel=1e-8)
    assert (got.mean, got.mean_se) == pytest.approx((0.14146570572715972, 0.08762160579939995), rel=1e-8)
    alike = heterogeneity(*SCHOOLS)
    assert (alike.statistic, alike.tau, alike.i_squared) == (pytest.approx(4.707078864400158), 0, 0)


@settings(max_examples=40)
@given(some)
def test_shrunken_effects_lie_between_the_estimate_and_the_others_and_know_their_sign(rows):
    effects, ses = np.array(rows).T
    for row, x in zip(shrink(effects, ses), effects, strict=True):
        assert min(effects.min(), x) - 1e-6 <= row.value <= max(effects.max(), x) + 1e-6
        assert row.ci[0] < row.value < row.ci[1]
        assert (row.pvalue < 0.05) == (row.ci[0] > 0 or row.ci[1] < 0) or abs(row.pvalue - 0.05) < 1e-6


@settings(max_examples=20)
@given(some, st.floats(0.01, 100))
def test_percent_or_shares_are_the_same_program(rows, scale):
    effects, ses = np.array(rows).T
    shipped = effects >= np.median(effects)
    plain, other = cumulative(effects, ses, shipped), cumulative(effects * scale, ses * scale, shipped)
    assert other.total.value == pytest.approx(plain.total.value * scale, rel=1e-6, abs=1e-9 * scale)
    assert other.total.ci == pytest.approx([end * scale for end in plain.total.ci], rel=1e-6, abs=1e-6 * scale)


def test_two_segments_tell_nothing_about_segments_and_stay_as_they_are():
    got = shrink([1.0, 5.0], [1.0, 2.0])
    assert [row.value for row in got] == [1.0, 5.0]
    assert got[0].ci == pytest.approx((1 - 1.959964, 1 + 1.959964), abs=1e-6)
    two = cumulative([1.0, 5.0], [1.0, 2.0], [True, True])
    assert (two.total.value, two.tau) == (6.0, None)
    assert two.total.ci == pytest.approx(two.naive.ci)


def programs(runs, spread, experiments=60, se=0.005):
    """How often the interval of the sum of what was shipped holds the truth: ours and the plain sum's."""
    rng = np.random.default_rng(0)
    held = np.zeros(2)
    for _ in range(runs):
        truth = rng.normal(0, spread, experiments)
        seen = rng.normal(truth, se)
        shipped = seen / se > 1.645
        got = cumulative(seen, np.full(experiments, se), shipped)
        brought = truth[shipped].sum()
        held += [got.total.ci[0] <= brought <= got.total.ci[1], got.naive.ci[0] <= brought <= got.naive.ci[1]]
    return held / runs


def test_what_was_shipped_brought_less_than_it_looked_like():
    ours, naive = programs(60, 0.005)
    assert ours >= 0.88
    assert naive <= 0.3


@pytest.mark.slow
def test_over_400_programs_the_cumulative_interval_holds_the_truth_and_the_naive_one_does_not():
    ours, naive = programs(400, 0.005)
    assert 0.92 <= ours <= 0.98
    assert naive <= 0.2


def test_segments_are_covered_after_shrinking():
    rng = np.random.default_rng(0)
    held = []
    for _ in range(100):
        truth, ses = rng.normal(0.02, 0.01, 8), rng.uniform(0.005, 0.02, 8)
        rows = shrink(rng.normal(truth, ses), ses)
        held += [row.ci[0] <= value <= row.ci[1] for row, value in zip(rows, truth, strict=True)]
    assert 0.93 <= np.mean(held) <= 0.98


def test_cochrans_test_is_wrong_in_5_percent():
    rng = np.random.default_rng(0)
    ses = rng.uniform(0.5, 2, 6)
    pvalues = [heterogeneity(rng.normal(1, ses), ses).pvalue for _ in range(600)]
    assert 0.03 <= np.mean(np.array(pvalues) < 0.05) <= 0.07


def test_a_holdout_agrees_or_does_not():
    program, holdout = estimate(0.10, 0.02), estimate(0.07, 0.02)
    assert agreement(program, holdout).agrees
    far = agreement(program, estimate(-0.05, 0.02))
    assert not far.agrees
    assert far.statistic == pytest.approx(0.15 / (0.02 * 2**0.5))
    with pytest.raises(StatisticsError, match="without standard errors"):
        agreement(estimate(1.0, 0.0), estimate(2.0, 0.0))


def test_the_worst_segment_is_named_by_the_direction():
    rows = [estimate(value, 1.0) for value in (0.2, -0.4, 0.9)]
    assert (worst(rows), worst(rows, direction="down")) == (1, 2)
    with pytest.raises(TooFewUnits, match="got 0"):
        worst([])
    with pytest.raises(StatisticsError, match="'left'"):
        worst(rows, direction="left")


def test_benjamini_and_hochberg_is_that_of_statsmodels():
    """Constants: statsmodels 0.15, multipletests with fdr_bh, on the paper's kind of example."""
    pvalues = [0.001, 0.008, 0.039, 0.041, 0.042, 0.06, 0.074, 0.205, 0.212, 0.216]
    expected = [0.01, 0.04, 0.084, 0.084, 0.084, 0.1, 0.10571428571428572, 0.216, 0.216, 0.216]
    assert benjamini_hochberg(pvalues) == pytest.approx(expected)
    assert benjamini_hochberg([None, 0.3, None]) == [None, 0.3, None]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=10))
def test_benjamini_and_hochberg_keeps_the_order_and_never_helps(pvalues):
    adjusted = benjamini_hochberg(pvalues)
    assert all(p <= a + 1e-12 and a <= 1 for p, a in zip(pvalues, adjusted, strict=True))
    assert [a for _, a in sorted(zip(pvalues, adjusted, strict=True))] == sorted(adjusted)


def test_numbers_that_are_no_effects_are_refused():
    with pytest.raises(StatisticsError, match="got 1 and 2"):
        heterogeneity([1, 2], [1])
    with pytest.raises(StatisticsError, match="positive"):
        shrink([1, 2], [1, 0])
    with pytest.raises(TooFewUnits, match="needs at least 1 shipped experiments, got 0"):
        cumulative([1, 2, 3], [1, 1, 1], [False] * 3)
    with pytest.raises(StatisticsError, match="3 effects, but 2 marks"):
        cumulative([1, 2, 3], [1, 1, 1], [True] * 2)
