import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from thinslice.errors import StatisticsError, TooFewUnits
from thinslice.stats import Quotient, effect, moments, pooled_cap, quantile_sample, sample, winsorize


def test_the_error_of_a_median_is_that_of_the_textbook():
    """Of normal values: sqrt(pi / 2n)."""
    rng = np.random.default_rng(0)
    found = [quantile_sample(rng.normal(size=4_000), 0.5) for _ in range(50)]
    assert np.mean([(of.var / of.n) ** 0.5 for of in found]) == pytest.approx((np.pi / 8_000) ** 0.5, rel=0.04)
    assert np.std([of.mean for of in found]) == pytest.approx((np.pi / 8_000) ** 0.5, rel=0.3)


def test_the_interval_is_that_of_the_bootstrap():
    values = np.random.default_rng(0).lognormal(0, 1, 2_000)
    of = quantile_sample(values, 0.9)
    resampled = scipy.stats.bootstrap(
        (values,), lambda x, axis: np.quantile(x, 0.9, axis=axis), n_resamples=2_000, rng=np.random.default_rng(0)
    )
    assert (of.var / of.n) ** 0.5 == pytest.approx(resampled.standard_error, rel=0.15)


@given(st.lists(st.floats(-1e6, 1e6), min_size=40, max_size=80), st.floats(0.1, 10), st.floats(-100, 100))
def test_another_currency_changes_the_unit_and_nothing_else(values, scale, shift):
    plain, other = quantile_sample(values, 0.5), quantile_sample(np.array(values) * scale + shift, 0.5)
    assert other.mean == pytest.approx(plain.mean * scale + shift, rel=1e-6, abs=1e-3)
    assert other.var == pytest.approx(plain.var * scale**2, rel=1e-6, abs=1e-3)


def test_rows_of_a_unit_count_once():
    """Every row three times under the same unit is no more evidence than once."""
    values = np.random.default_rng(0).normal(size=500)
    once = quantile_sample(values, 0.5, unit=np.arange(500))
    thrice = quantile_sample(np.repeat(values, 3), 0.5, unit=np.repeat(np.arange(500), 3))
    assert (thrice.n, thrice.mean) == (500, pytest.approx(once.mean, abs=0.01))
    assert thrice.var == pytest.approx(once.var, rel=0.1)
    assert quantile_sample(np.repeat(values, 3), 0.5).var / 1_500 < 0.5 * once.var / 500


def runs_of(rng, share, runs, rows_of_unit):
    """Whether each of many intervals of a 10 % slower treatment covers the truth, and each A/A test is wrong."""
    covered, wrong = [], []
    truth = 0.1 * np.exp(scipy.stats.norm.ppf(share))
    for _ in range(runs):
        sides, units = [], None
        for factor in (1.0, 1.1, 1.0):
            if rows_of_unit == 1:
                values = rng.lognormal(0, 1, 1_500)
            else:
                counts = rng.poisson(rows_of_unit - 1, 300) + 1
                units = np.repeat(np.arange(300), counts)
                shared = rng.normal(size=300)[units] * 0.6
                values = np.exp(shared + rng.normal(size=units.size) * 0.8)
            sides.append(quantile_sample(values * factor, share, unit=units))
        low, high = effect(sides[0], sides[1]).effect_size_ci
        covered.append(low <= truth <= high)
        wrong.append(effect(sides[0], sides[2]).pvalue < 0.05)
    return np.mean(covered), np.mean(wrong)


@pytest.mark.parametrize(("share", "rows"), [(0.5, 1), (0.9, 1), (0.9, 5)])
def test_intervals_of_quantiles_cover_as_often_as_they_say(share, rows):
    covered, wrong = runs_of(np.random.default_rng(0), share, 200, rows)
    assert covered >= 0.91
    assert wrong <= 0.09


@pytest.mark.slow
@pytest.mark.parametrize(("share", "rows"), [(0.5, 1), (0.9, 5)])
def test_over_2000_runs_they_cover_in_95_percent(share, rows):
    covered, wrong = runs_of(np.random.default_rng(0), share, 2_000, rows)
    assert 0.937 <= covered <= 0.963
    assert 0.037 <= wrong <= 0.063


def test_a_cap_takes_a_whale_out_and_leaves_the_rest():
    rng = np.random.default_rng(0)
    values = np.append(rng.gamma(1, 10, 9_999), 1e6)
    cap = pooled_cap(values, 0.999)
    capped = winsorize(values, cap)
    assert capped.max() == cap < 200
    assert (capped[values <= cap] == values[values <= cap]).all()
    before, after = (sample(moments({"y": column}), Quotient("y")) for column in (values, capped))
    assert after.var < before.var / 100


def test_a_cap_among_buyers_ignores_who_bought_nothing():
    values = np.append(np.zeros(900), np.arange(1, 101))
    assert pooled_cap(values, 0.95) < 60
    assert pooled_cap(values, 0.95, only_positive=True) == pytest.approx(95, abs=1)


def test_too_little_is_refused_with_what_it_takes():
    with pytest.raises(TooFewUnits, match="needs at least 2 units, got 1"):
        quantile_sample([1.0], 0.5)
    with pytest.raises(TooFewUnits, match="needs at least 382 units, got 100"):
        quantile_sample(np.arange(100), 0.99)
    with pytest.raises(TooFewUnits, match="needs at least 2 units, got 1"):
        quantile_sample([1.0, 2, 3], 0.5, unit=["a"] * 3)
    with pytest.raises(StatisticsError, match="between 0 and 1, got 1"):
        quantile_sample([1.0, 2.0], 1.0)
    with pytest.raises(StatisticsError, match="1 of 3 values"):
        quantile_sample([1.0, 2.0, float("nan")], 0.5)
    with pytest.raises(StatisticsError, match="3 values, but 2 units"):
        quantile_sample([1.0, 2.0, 3.0], 0.5, unit=[1, 2])
    with pytest.raises(StatisticsError, match="finite number, got inf"):
        winsorize([1.0], float("inf"))
    with pytest.raises(TooFewUnits, match="needs at least 1 units, got 0"):
        pooled_cap([0.0], only_positive=True)
