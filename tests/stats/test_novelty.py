import numpy as np
import pytest

from thinslice.errors import StatisticsError, TooFewUnits
from thinslice.stats import EARLY_DAYS, LATE_FROM, Cohort, Quotient, late_minus_early, moments, trend

DAYS = 14
Z = np.log1p(np.arange(DAYS))
FALL = (Z - Z[:EARLY_DAYS].mean()) / (Z[LATE_FROM:].mean() - Z[:EARLY_DAYS].mean())
"""0 on the average early day, 1 on the average late day."""


def panel(rng, units, start=0.05, decay=0.0, alike=0.3):
    """Units on 14 days, standard deviation 1, of which a share `alike` stays with the unit: (treated, days)."""
    treated = np.arange(2 * units) % 2 == 1
    values = rng.normal(size=(2 * units, 1)) * alike**0.5 + rng.normal(size=(2 * units, DAYS)) * (1 - alike) ** 0.5
    weekday = 0.3 * np.sin(np.arange(DAYS))
    return treated, values + weekday + treated[:, None] * (start - decay * FALL)


def columns(values):
    return {"early": values[:, :EARLY_DAYS].mean(axis=1), "late": values[:, LATE_FROM:].mean(axis=1)}


def changed(treated, values):
    cohort = Cohort(moments(columns(values[~treated])), moments(columns(values[treated])))
    return late_minus_early([cohort], Quotient("early"), Quotient("late"))


def followed(treated, values, **settings):
    units, days = values.shape
    day = np.tile(np.arange(days), units)
    return trend(values.ravel(), np.repeat(np.arange(units), days), np.repeat(treated, days), day, day, **settings)


def staggered():
    """40 units on 6 days each, that entered on three different days."""
    row = np.arange(240)
    unit, since = row // 6, row % 6
    value = np.sin(row * 1.7) + 0.3 * (unit % 2) - 0.1 * (unit % 2) * np.log1p(since) + np.cos(unit * 2.1)
    return value, unit, unit % 2, unit % 3 + since, since


def test_late_minus_early_is_welchs_test_of_the_change():
    treated, values = panel(np.random.default_rng(0), 200)
    got, made = changed(treated, values), columns(values)
    gap = made["late"] - made["early"]
    assert got.value == pytest.approx(gap[treated].mean() - gap[~treated].mean())
    assert got.se == pytest.approx((gap[treated].var(ddof=1) / 200 + gap[~treated].var(ddof=1) / 200) ** 0.5)


def test_cohorts_count_by_their_size_and_tiny_ones_not():
    rng = np.random.default_rng(0)
    cohorts = [
        Cohort(*(moments(columns(rng.normal(size=(n, DAYS)) + shift)) for shift in (0, 1))) for n in (100, 300, 1)
    ]
    alone = [late_minus_early([cohort], Quotient("early"), Quotient("late")).value for cohort in cohorts[:2]]
    both = late_minus_early(cohorts, Quotient("early"), Quotient("late"))
    assert both.value == pytest.approx(0.25 * alone[0] + 0.75 * alone[1])


def test_a_ratio_can_wear_off_as_well():
    rng = np.random.default_rng(0)

    def side(early, late):
        shown = rng.poisson(20, (4_000, 2)) + 1
        clicks = rng.binomial(shown, [early, late])
        return moments({"clicks": clicks[:, 0], "shown": shown[:, 0], "clicks2": clicks[:, 1], "shown2": shown[:, 1]})

    cohort = Cohort(side(0.10, 0.10), side(0.13, 0.11))
    got = late_minus_early([cohort], Quotient("clicks", "shown"), Quotient("clicks2", "shown2"))
    assert got.ci[0] <= -0.02 <= got.ci[1]
    assert got.pvalue < 0.001


def test_the_regressions_are_those_of_statsmodels():
    """Constants: statsmodels 0.15, OLS on all dummies, covariance clustered by unit without correction."""
    correction = (40 / 39) ** 0.5
    between = trend(*staggered(), within_units=False)
    assert (between.start.value, between.slope.value) == pytest.approx((-0.354268073112, 0.482827462240), rel=1e-9)
    ses = [of.se / correction for of in (between.start, between.slope)]
    assert ses == pytest.approx((0.192799970116, 0.128043999213), rel=1e-9)
    within = trend(*staggered())
    assert within.slope.value == pytest.approx(-0.0944095550421, rel=1e-7)
    assert within.slope.se / correction == pytest.approx(0.0923893851375, rel=1e-7)


def test_the_steady_effect_is_the_start_and_the_slope_together():
    treated, values = panel(np.random.default_rng(0), 3_000, start=0.5, decay=0.3)
    for within in (True, False):
        got = followed(treated, values, within_units=within, steady_day=9)
        assert got.steady.value == pytest.approx(got.start.value + got.slope.value * np.log(10))
        assert got.steady.ci[0] <= 0.5 - 0.3 * FALL[9] <= got.steady.ci[1]
        assert got.start.ci[0] <= 0.5 - 0.3 * FALL[0] <= got.start.ci[1]


def test_changes_within_units_are_surer_when_units_differ_and_miss_days():
    rng = np.random.default_rng(0)
    treated, values = panel(rng, 2_000, alike=0.8)
    seen = rng.random(values.shape) < 0.5
    unit, day = np.nonzero(seen)
    rows = (values[seen], unit, treated[unit], day, day)
    within, between = trend(*rows), trend(*rows, within_units=False)
    assert within.slope.se < 0.8 * between.slope.se
    assert within.steady.ci[0] <= 0.05 <= within.steady.ci[1]


def test_a_small_decay_is_found_and_none_is_not():
    """A decay of 0.02 standard deviations of a unit-day from early to late days, 20,000 units a variant."""
    rng = np.random.default_rng(0)
    found = [changed(*panel(rng, 20_000, decay=0.02)).pvalue < 0.05 for _ in range(15)]
    assert np.mean(found) >= 0.8
    calm = [changed(*panel(rng, 500)).pvalue < 0.05 for _ in range(300)]
    assert 0.02 <= np.mean(calm) <= 0.09


@pytest.mark.slow
def test_the_power_is_80_percent_and_over_2000_runs_the_test_is_wrong_in_5_percent():
    """Unit-days that are independent within a unit: the hardest case."""
    rng = np.random.default_rng(0)
    units, pairs = 20_000, 400
    side = np.sqrt(1 / EARLY_DAYS + 1 / (DAYS - LATE_FROM))
    found = 0
    for _ in range(pairs):
        gaps = [rng.normal(-0.02 * w, side, units) for w in (0, 1)]
        cohort = Cohort(*(moments({"early": np.zeros(units), "late": gap}) for gap in gaps))
        found += late_minus_early([cohort], Quotient("early"), Quotient("late")).pvalue < 0.05
    assert found / pairs >= 0.8
    assert 0.037 <= np.mean([changed(*panel(rng, 300)).pvalue < 0.05 for _ in range(2_000)]) <= 0.063
    slopes = [followed(*panel(rng, 100)).slope.pvalue < 0.05 for _ in range(2_000)]
    assert 0.037 <= np.mean(slopes) <= 0.063


def test_what_cannot_show_a_trend_is_refused():
    alone = moments({"early": [1.0], "late": [2.0]})
    with pytest.raises(TooFewUnits, match="active early and late, got 0"):
        late_minus_early([Cohort(alone, alone)], Quotient("early"), Quotient("late"))
    with pytest.raises(TooFewUnits, match="needs at least 2 units, got 1"):
        trend([1, 2, 3], [0, 1, 2], [0, 0, 1], [0, 0, 0], [0, 0, 0])
    with pytest.raises(StatisticsError, match="several days"):
        trend([1, 2, 3, 4], [0, 1, 2, 3], [0, 0, 1, 1], [0, 0, 0, 0], [0, 0, 0, 0])
    with pytest.raises(StatisticsError, match="finite"):
        trend([1, float("nan")], [0, 1], [0, 1], [0, 0], [0, 1])
    with pytest.raises(StatisticsError, match="different lengths"):
        trend([1, 2, 3], [0, 1], [0, 1], [0, 0], [0, 1])
