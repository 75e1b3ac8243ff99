"""Quantiles of a switchback: blocks are dealt out again, so that an hour's mood is no effect."""

import numpy as np
import pytest

from thinslice.errors import StatisticsError, TooFewUnits
from thinslice.stats import BlockValues, block_quantile_effect, redraw


def blocks(seed, lift=0.0, mood=1.0, size=40, rows=30):
    rng = np.random.default_rng(seed)
    treated = rng.permutation(np.arange(size) % 2 == 0)
    place = np.repeat(np.arange(size), rows)
    values = 50 + mood * rng.standard_normal(size)[place] + rng.standard_normal(size * rows) + lift * treated[place]
    return BlockValues(treated, place, values), redraw(treated, rng=rng, strata=np.zeros(size), draws=400)


def test_the_difference_is_that_of_the_two_sides_quantiles():
    of, drawn = blocks(0)
    got = block_quantile_effect(of, 0.5, drawn)
    on = of.treated[of.place]
    assert got.mean_treatment == np.quantile(of.values[on], 0.5, method="inverted_cdf")
    assert got.effect_size == got.mean_treatment - got.mean_control
    assert got.rel_effect_size == pytest.approx(got.mean_treatment / got.mean_control - 1)


def test_where_nothing_acts_it_sees_something_as_often_as_it_says():
    found = [block_quantile_effect(*_with(0.5, seed)) for seed in range(200)]
    assert sum(got.pvalue < 0.05 for got in found) <= 20
    assert sum(not (got.effect_size_ci[0] <= 0 <= got.effect_size_ci[1]) for got in found) <= 20


def _with(share, seed, **world):
    of, drawn = blocks(seed, **world)
    return of, share, drawn


def test_an_effect_is_found_and_its_intervals_hold_it():
    found = [block_quantile_effect(*_with(0.9, seed, lift=2.0)) for seed in range(60)]
    assert sum(got.pvalue < 0.05 for got in found) >= 55
    assert sum(got.effect_size_ci[0] <= 2 <= got.effect_size_ci[1] for got in found) >= 53
    center = [got.rel_effect_size_ci[0] <= got.rel_effect_size <= got.rel_effect_size_ci[1] for got in found]
    assert all(center)


def test_many_different_values_are_read_off_a_grid_with_the_same_result():
    of, drawn = blocks(3, lift=1.0, rows=400)
    fine = block_quantile_effect(of, 0.5, drawn)
    assert fine.effect_size == pytest.approx(1.0, abs=1.0)
    rounded = block_quantile_effect(of._replace(values=of.values.round(1)), 0.5, drawn)
    assert rounded.pvalue == pytest.approx(fine.pvalue, abs=0.1)


def test_where_values_are_few_and_whole_an_interval_reaches_the_next_one():
    of, drawn = blocks(0, mood=0.0)
    whole = of._replace(values=np.where(of.values > 48, 7.0, 6.0))
    got = block_quantile_effect(whole, 0.9, drawn)
    assert got.effect_size == 0
    assert got.effect_size_ci == (-1.0, 1.0)
    assert got.rel_effect_size_ci[0] < -0.1


def test_what_cannot_be_compared_is_refused():
    of, drawn = blocks(0)
    with pytest.raises(StatisticsError, match="between 0 and 1"):
        block_quantile_effect(of, 1.0, drawn)
    holed = of.values.copy()
    holed[0] = np.nan
    with pytest.raises(StatisticsError, match="1 of 1200 values"):
        block_quantile_effect(of._replace(values=holed), 0.5, drawn)
    with pytest.raises(TooFewUnits):
        block_quantile_effect(of._replace(treated=np.arange(40) < 2), 0.5, drawn)
