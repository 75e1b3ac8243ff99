import numpy as np
import pyarrow as pa
import pytest
import tea_tasting as tt
from hypothesis import given, settings
from hypothesis import strategies as st

from thinslice.errors import StatisticsError
from thinslice.stats import (
    Quotient,
    Sample,
    days_needed,
    design_effect,
    effect,
    merge,
    moments,
    power,
    sample,
    smallest_effect,
    smallest_margin,
    units_needed,
    with_correlation,
)

NOW = Sample(1_000, 10.0, 4.0)


def history(n=2_000):
    rng = np.random.default_rng(0)
    taste = rng.gamma(2, 1, n)
    return {"y": rng.poisson(taste) * 2.0, "sessions": rng.poisson(taste) + 1.0, "before": rng.poisson(taste) * 2.0}


def test_power_is_that_of_statsmodels():
    """Constants: statsmodels 0.15, TTestIndPower at d = 0.25, 0.1 and 0.02."""
    assert power(NOW, 0.5, 253, 253) == pytest.approx(0.8013583525736324, rel=1e-9)
    assert power(Sample(10, 0.0, 1.0), 0.1, 1_000, 3_000) == pytest.approx(0.7817141253638936, rel=1e-9)
    assert units_needed(NOW, 0.5) == 505
    assert units_needed(NOW, 0.04, power=0.9) == 105_077
    assert smallest_effect(Sample(9, 0.0, 1.0), 2_000) == pytest.approx(0.12535080529703696, rel=1e-6)


@pytest.mark.parametrize("metric", ["mean", "ratio", "cuped"])
def test_power_is_that_of_tea_tasting(metric):
    columns = history()
    asked = {"rel_effect_size": 0.05, "equal_var": True}
    theirs, ours = {
        "mean": (tt.Mean("y", **asked), (Quotient("y"), None)),
        "ratio": (tt.RatioOfMeans("y", "sessions", **asked), (Quotient("y", "sessions"), None)),
        "cuped": (tt.Mean("y", "before", **asked), (Quotient("y"), Quotient("before"))),
    }[metric]
    needed = tt.Experiment(m=theirs).solve_power(pa.table(columns), "n_obs")["m"][0].n_obs
    of = moments(columns)
    baseline = sample(of, ours[0], covariate=ours[1], pooled=of)
    assert units_needed(baseline, 0.05 * baseline.mean) == pytest.approx(needed, abs=2)


@settings(max_examples=25)
@given(st.floats(0.02, 2.0), st.floats(0.5, 0.95), st.floats(0.1, 0.9))
def test_units_and_smallest_effect_are_each_others_inverse(size, chance, share):
    total = units_needed(NOW, size, power=chance, share=share)
    assert power(NOW, size, total * (1 - share), total * share) >= chance
    assert smallest_effect(NOW, total, power=chance, share=share) <= size * (1 + 1e-9)
    if total > 100:
        assert smallest_effect(NOW, total, power=chance, share=share) == pytest.approx(size, rel=0.05)


@settings(max_examples=25)
@given(st.floats(0.01, 0.3), st.floats(0.5, 0.95))
def test_units_and_smallest_margin_are_each_others_inverse(margin, chance):
    total = units_needed(NOW, 0.0, power=chance, margin=margin)
    assert smallest_margin(NOW, total, power=chance) <= margin * (1 + 1e-9)
    assert smallest_margin(NOW, total - max(total // 10, 2), power=chance) > margin * 0.99


@pytest.mark.parametrize("shift", [-40.0, -38.0, -37.7, 37.7, 38.0, 38.5, 40.0])
def test_a_shift_of_many_standard_errors_is_found_for_sure_and_never_on_the_wrong_side(shift):
    baseline, n = Sample(1000, 0.0, 1.0), 1478.0
    found = power(baseline._replace(mean=10.0), shift * (2 / n) ** 0.5, n, n, margin=1e-9)
    assert found == pytest.approx(float(shift > 0), abs=1e-9)


def test_a_correlated_past_saves_units_and_clusters_cost_them():
    plain = units_needed(NOW, 0.1)
    assert units_needed(with_correlation(NOW, 0.6), 0.1) == pytest.approx(plain * 0.64, abs=3)
    assert units_needed(NOW, 0.1, design_effect=design_effect(0.05, [20])) == pytest.approx(plain * 1.95, abs=3)


def test_the_power_that_was_promised_is_the_share_of_experiments_that_find_the_effect():
    rng = np.random.default_rng(0)
    total = units_needed(NOW, 0.3, power=0.8)
    found = []
    for _ in range(500):
        sides = [rng.normal(10 + shift, 2, total // 2) for shift in (0, 0.3)]
        found.append(effect(*(sample(moments({"y": side}), Quotient("y")) for side in sides)).pvalue < 0.05)
    assert np.mean(found) == pytest.approx(0.8, abs=0.05)


def not_worse(rng, runs, total, truth, margin):
    """How often the low end of the relative interval lies above minus the margin; normal metrics, by their moments."""
    n, held = total // 2, 0
    for _ in range(runs):
        sides = [
            Sample(n, float(rng.normal(mean, 2 / n**0.5)), float(4 * rng.chisquare(n - 1) / (n - 1)))
            for mean in (10, truth)
        ]
        held += effect(*sides).rel_effect_size_ci[0] > -margin
    return held / runs


def test_a_margin_is_proven_as_often_as_promised_and_seldom_by_chance():
    rng = np.random.default_rng(0)
    total = units_needed(NOW, 0.0, margin=0.02, power=0.8)
    assert not_worse(rng, 1_000, total, 10.0, 0.02) == pytest.approx(0.8, abs=0.04)
    assert 0.019 <= not_worse(rng, 6_000, total, 9.8, 0.02) <= 0.031


def test_days_follow_the_pace_of_the_past():
    assert days_needed(100, [60, 60, 60]) == 2
    assert days_needed(250, [100, 60, 60]) == 4
    assert days_needed(1_000, [100.0] * 7) == 10
    assert days_needed(0, [5]) == 0
    assert days_needed(10, [0.0] * 7) is None
    assert days_needed(10, []) is None


def test_the_moments_of_all_variants_plan_a_cuped_test():
    columns = history()
    of = moments(columns)
    parts = merge(
        [moments({k: v[:900] for k, v in columns.items()}), moments({k: v[900:] for k, v in columns.items()})]
    )
    one, other = (sample(x, Quotient("y"), covariate=Quotient("before"), pooled=x) for x in (of, parts))
    assert one == pytest.approx(other)
    rho = np.corrcoef(columns["y"], columns["before"])[0, 1]
    assert one.var == pytest.approx(with_correlation(sample(of, Quotient("y")), rho).var)


def test_what_no_number_of_units_can_do_is_refused():
    with pytest.raises(StatisticsError, match="no number of units finds an effect of 0 "):
        units_needed(NOW, 0.0)
    with pytest.raises(StatisticsError, match="no number of units"):
        units_needed(NOW, -0.5, margin=0.01)
    with pytest.raises(StatisticsError, match="got 1 units"):
        power(NOW, 0.1, 1, 50)
    with pytest.raises(StatisticsError, match="variance of 0"):
        power(Sample(100, 1.0, 0.0), 0.1, 50, 50)
    with pytest.raises(StatisticsError, match=r"got 1\.2 and 0\.5"):
        smallest_effect(NOW, 100, power=1.2)
    with pytest.raises(StatisticsError, match="correlation"):
        with_correlation(NOW, 1.0)
    assert smallest_margin(Sample(10, 0.0, 1.0), 100) is None
    assert smallest_margin(Sample(10, 0.1, 4.0), 20) is None
