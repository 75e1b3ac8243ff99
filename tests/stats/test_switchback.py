import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thinslice.errors import StatisticsError, TooFewUnits
from thinslice.stats import Sample, carry_over_effect, effect, redraw, switchback_blocks, switchback_effect

HOURS = 4


def street(rng, days, effect_size=0.0, memory=0.7, left_over=0.0):
    """Hours of a shop: noise with a memory, blocks of four hours by a coin; a share of the effect stays an hour."""
    total = days * 24
    shocks, noise = rng.normal(size=total), np.zeros(total)
    for hour in range(1, total):
        noise[hour] = memory * noise[hour - 1] + shocks[hour]
    block = np.repeat(np.arange(total // HOURS), HOURS)
    treated = (rng.random(total // HOURS) < 0.5)[block]
    felt = treated * (1 - left_over) + np.concatenate([[treated[0]], treated[:-1]]) * left_over
    return 20 + noise + effect_size * felt, block, treated


def judged(rng, days, draws=400, burn_in=1, **world):
    y, block, treated = street(rng, days, **world)
    blocks = switchback_blocks(y, block, treated, burn_in=burn_in)
    return switchback_effect(blocks, redraw(blocks.treated, rng=rng, draws=draws))


def test_blocks_are_sums_without_the_first_periods():
    got = switchback_blocks(
        [9, 1, 2, 9, 3, 4], [0, 0, 0, 5, 5, 5], [0, 0, 0, 1, 1, 1], denominator=[1, 2, 3, 4, 5, 6], burn_in=1
    )
    assert got.block.tolist() == [0, 5]
    assert got.treated.tolist() == [False, True]
    assert got.numerator.tolist() == [3, 7]
    assert got.denominator.tolist() == [5, 11]


def test_with_all_assignments_the_test_is_fishers():
    """Six blocks, three treated, the largest three: only 2 of the 20 ways are as far apart."""
    blocks = switchback_blocks([1, 2, 3, 11, 12, 13], range(6), [0, 0, 0, 1, 1, 1])
    drawn = redraw(blocks.treated, rng=np.random.default_rng(0), strata=np.zeros(6), draws=20_000)
    got = switchback_effect(blocks, drawn)
    assert got.effect_size == 10
    assert got.pvalue == pytest.approx(0.1, abs=0.01)


@settings(max_examples=20)
@given(st.integers(0, 10**6), st.floats(-5, 5), st.floats(0.1, 10))
def test_shifting_the_treatment_shifts_the_interval_and_money_scales_it(seed, shift, scale):
    rng = np.random.default_rng(seed)
    treated = np.tile([False, True], 20)
    y = rng.normal(100, 1, 40)
    drawn = redraw(treated, rng=rng, strata=np.repeat(np.arange(20), 2), draws=200)
    first = switchback_effect(switchback_blocks(y, range(40), treated), drawn)
    second = switchback_effect(switchback_blocks(scale * (y + shift * treated), range(40), treated), drawn)
    assert second.effect_size == pytest.approx(scale * (first.effect_size + shift), abs=1e-6)
    ends = [scale * (end + shift) for end in first.effect_size_ci]
    assert second.effect_size_ci == pytest.approx(ends, abs=1e-5 * scale)


def test_the_relative_interval_is_the_same_test_on_percentages():
    got = judged(np.random.default_rng(0), 28, effect_size=2.0)
    assert got.rel_effect_size == pytest.approx(got.effect_size / got.mean_control)
    low, high = got.rel_effect_size_ci
    assert low < got.rel_effect_size < high
    assert (low, high) == pytest.approx([end / 20 for end in got.effect_size_ci], abs=0.01)


def test_the_interval_is_the_test_turned_around():
    rng = np.random.default_rng(0)
    y, block, treated = street(rng, 28, effect_size=0.5)
    blocks = switchback_blocks(y, block, treated)
    drawn = redraw(blocks.treated, rng=rng, draws=300)
    low, high = switchback_effect(blocks, drawn).effect_size_ci
    for end, inward in ((low, 1e-6), (high, -1e-6)):
        shifted = [
            switchback_effect(blocks._replace(numerator=blocks.numerator - at * 4 * blocks.treated), drawn).pvalue
            for at in (end + inward, end - inward)
        ]
        assert shifted[0] > 0.05 >= shifted[1]


def test_shuffles_stay_within_their_stratum():
    treated, strata = np.array([1, 0, 0, 1, 1, 0]), np.array([0, 0, 0, 1, 1, 1])
    drawn = redraw(treated, rng=np.random.default_rng(0), strata=strata, draws=50)
    assert (drawn[:, :3].sum(axis=1) == 1).all()
    assert (drawn[:, 3:].sum(axis=1) == 2).all()
    assert len(np.unique(drawn, axis=0)) == 9


def hourly(rng, days):
    y, _, treated = street(rng, days)
    sides = [y[~treated], y[treated]]
    return effect(*(Sample(side.size, float(side.mean()), float(side.var(ddof=1))) for side in sides))


def test_hours_as_units_lie_and_blocks_do_not():
    rng = np.random.default_rng(0)
    assert np.mean([hourly(rng, 14).pvalue < 0.05 for _ in range(150)]) > 0.15
    assert 0.01 <= np.mean([judged(rng, 14).pvalue <= 0.05 for _ in range(200)]) <= 0.1


def test_without_burn_in_what_the_other_side_left_behind_makes_the_effect_smaller():
    rng = np.random.default_rng(0)
    kept = [judged(rng, 28, burn_in=0, effect_size=2.0, left_over=0.6).effect_size for _ in range(60)]
    dropped = [judged(rng, 28, burn_in=1, effect_size=2.0, left_over=0.6).effect_size for _ in range(60)]
    assert np.mean(kept) < 1.85
    assert np.mean(dropped) == pytest.approx(2.0, abs=0.1)


def test_blocks_that_were_dealt_out_by_the_hour_are_drawn_again_by_the_hour():
    """The same hour of two successive days gets each side once; a shuffle over all blocks would find nothing."""
    rng = np.random.default_rng(0)
    hours, days = 6, 20
    strata = (np.arange(days)[:, None] // 2 * hours + np.arange(hours)).ravel()
    dealt, shuffled = [], []
    for _ in range(300):
        first = rng.random((days // 2, hours)) < 0.5
        treated = np.stack([first, ~first], axis=1).reshape(-1)
        y = np.tile(10 * np.sin(np.arange(hours)), days) + rng.normal(size=hours * days)
        blocks = switchback_blocks(y + 0.3 * treated, range(hours * days), treated)
        again = redraw(treated, rng=rng, strata=strata, draws=199)
        dealt.append(switchback_effect(blocks, again))
        shuffled.append(switchback_effect(blocks, redraw(treated, rng=rng, strata=np.zeros(y.size), draws=199)))
    for rows, low, high in ((dealt, 0.91, 0.98), (shuffled, 0.999, 1.0)):
        assert low <= np.mean([row.effect_size_ci[0] <= 0.3 <= row.effect_size_ci[1] for row in rows]) <= high
    assert np.mean([row.pvalue <= 0.05 for row in dealt]) > 5 * np.mean([row.pvalue <= 0.05 for row in shuffled]) + 0.2


@pytest.mark.slow
def test_over_2000_runs_the_test_is_wrong_in_5_percent_and_intervals_cover_95():
    rng = np.random.default_rng(0)
    runs = [judged(rng, 14, draws=999, effect_size=0.3) for _ in range(2_000)]
    covered = np.mean([row.effect_size_ci[0] <= 0.3 <= row.effect_size_ci[1] for row in runs])
    assert 0.937 <= covered <= 0.963
    wrong = np.mean([judged(rng, 14, draws=399).pvalue <= 0.05 for _ in range(2_000)])
    assert 0.037 <= wrong <= 0.063


def coins(rng, periods, length):
    decisions = np.arange(periods) % length == 0
    return decisions, np.repeat(rng.random(-(-periods // length)) < 0.5, length)[:periods]


def test_horvitz_and_thompson_by_hand():
    """Two blocks of two, one on, one off, without carry-over, around a mean of 5: the steady periods weigh 2."""
    got = carry_over_effect([4, 4, 6, 6, 4, 4, 6, 6], [0, 0, 1, 1, 0, 0, 1, 1], [1, 0, 1, 0, 1, 0, 1, 0], carry_over=0)
    assert got.value == pytest.approx((4 * 2 + 4 * 2) / 8)
    later = carry_over_effect(
        [4, 4, 6, 6, 4, 4, 6, 6], [0, 0, 1, 1, 0, 0, 1, 1], [1, 0, 1, 0, 1, 0, 1, 0], carry_over=1
    )
    mean = 36 / 7
    assert later.value == pytest.approx(2 * (4 + 0 * mean + (6 - mean) * 2 - (4 - mean) * 2 - 4) / 7)


def test_an_effect_that_lasts_is_found_without_bias():
    rng = np.random.default_rng(0)
    found = []
    for _ in range(300):
        decisions, on = coins(rng, 480, 6)
        level = 0.5 * on + 0.5 * np.concatenate([on[:1], on[:-1]])
        y = 3 + level + rng.normal(size=480)
        found.append(carry_over_effect(y, on, decisions, carry_over=1))
    values = [row.value for row in found]
    assert np.mean(values) == pytest.approx(1.0, abs=4 * np.std(values) / 300**0.5)
    assert 0.9 <= np.mean([row.ci[0] <= 1 <= row.ci[1] for row in found]) <= 0.99


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"treated": [0, 1, 1, 1]}, "block 0 has control and treatment"),
        ({"block": [1, 1, 0, 0]}, "order of time"),
        ({"burn_in": 2}, "2 of 2 blocks have no period left"),
        ({"numerator": [1, 2, 3]}, "different lengths"),
        ({"numerator": [1, 2, 3, float("nan")]}, "finite"),
    ],
    ids=["mixed block", "order", "burn-in", "lengths", "nan"],
)
def test_periods_that_make_no_blocks_are_refused(change, words):
    given = {"numerator": [1, 2, 3, 4], "block": [0, 0, 1, 1], "treated": [0, 0, 1, 1]} | change
    with pytest.raises(StatisticsError, match=words):
        switchback_blocks(**given)


def test_too_few_blocks_are_refused():
    blocks = switchback_blocks([1, 2, 3], range(3), [0, 0, 1])
    drawn = redraw(blocks.treated, rng=np.random.default_rng(0))
    with pytest.raises(TooFewUnits, match="needs at least 2 blocks on each side, got 1"):
        switchback_effect(blocks, drawn)
    empty = switchback_blocks([1, 2, 3, 4], range(4), [0, 0, 1, 1], denominator=[0, 0, 1, 1])
    with pytest.raises(StatisticsError, match="denominator sums to zero"):
        switchback_effect(empty, redraw(empty.treated, rng=np.random.default_rng(0)))
    with pytest.raises(TooFewUnits, match="needs at least 4 decisions, got 2"):
        carry_over_effect([1, 2], [0, 1], [1, 1], carry_over=0)
    with pytest.raises(StatisticsError, match="no decision was taken"):
        carry_over_effect(range(6), [0, 1, 0, 1, 0, 0], [1, 0, 1, 1, 1, 1], carry_over=0)
