"""Days that are alike: a level that steps, an effect that fades, and how often nothing is taken for something."""

import numpy as np
import pytest

from thinslice.errors import StatisticsError, TooFewUnits
from thinslice.stats import day_mean, day_trend, share_step

DAYS = np.arange(28)
SHARE = np.repeat([0.0, 0.1, 0.5], [10, 9, 9])


def alike(rng, days, correlation):
    shock = rng.standard_normal(days) * np.sqrt(1 - correlation**2)
    level = [rng.standard_normal()]
    for each in shock[1:]:
        level.append(correlation * level[-1] + each)
    return np.array(level)


def test_a_step_is_measured_between_the_smallest_and_the_largest_share():
    level = np.repeat([0.2, 0.3, 0.31], [10, 9, 9]) + 0.001 * np.resize([1, -1], 28)
    found = share_step(DAYS, level, np.full(28, 1e-6), SHARE)
    assert found.value == pytest.approx(0.11, abs=0.002)
    assert found.pvalue < 1e-6


def test_a_mean_of_days_that_scatter_only_as_units_do_has_the_units_error():
    found = day_mean(DAYS, np.resize([1.0, 3.0], 28), np.full(28, 28.0))
    assert (found.value, found.se) == (pytest.approx(2.0), pytest.approx(1.0))


def test_an_effect_that_fades_has_a_slope_and_two_ends():
    fades = 0.3 - 0.1 * np.log1p(DAYS)
    found = day_trend(DAYS, fades, np.full(28, 1e-4))
    assert found.slope.value == pytest.approx(-0.1)
    assert found.slope.pvalue < 1e-6
    assert (found.days, found.early.value > 0.1, found.late.value < 0.0) == (9, True, True)


@pytest.mark.parametrize("wrong", ["few", "same", "nan", "zero"])
def test_what_cannot_be_compared_is_refused(wrong):
    level, variance, share = np.full(28, 0.2), np.full(28, 0.01), SHARE
    if wrong == "few":
        with pytest.raises(TooFewUnits, match="days"):
            day_trend([0, 1], [0.1, 0.2], [1.0, 1.0])
        return
    if wrong == "same":
        with pytest.raises(TooFewUnits, match="treatment shares"):
            share_step(DAYS, level, variance, np.full(28, 0.5))
        return
    (level if wrong == "nan" else variance)[3] = np.nan if wrong == "nan" else 0.0
    with pytest.raises(StatisticsError):
        share_step(DAYS, level, variance, share)


@pytest.mark.slow
@pytest.mark.parametrize("correlation", [0.0, 0.3, 0.6])
def test_days_that_are_like_their_neighbors_alarm_seldom(correlation):
    rng, runs = np.random.default_rng(0), 2_000
    alarms = np.zeros(2)
    for _ in range(runs):
        level = alike(rng, 28, correlation)
        variance = np.full(28, 0.001)
        alarms += share_step(DAYS, level, variance, SHARE).pvalue < 0.01, day_mean(DAYS, level, variance).pvalue < 0.01
    assert alarms.max() / runs <= 0.03


@pytest.mark.slow
def test_an_effect_that_is_the_same_every_day_is_told_to_be_so():
    rng, runs = np.random.default_rng(0), 2_000
    low = sum(day_trend(DAYS, rng.standard_normal(28), np.ones(28)).slope.pvalue < 0.05 for _ in range(runs))
    assert 0.037 <= low / runs <= 0.063
