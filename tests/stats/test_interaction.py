import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thinslice.errors import StatisticsError, TooFewUnits
from thinslice.stats import Sample, Stage, effect, interaction, ramp, spillover


def drawn(rng, mean, n=2_000):
    values = rng.normal(mean, 1, n)
    return Sample(n, float(values.mean()), float(values.var(ddof=1)))


samples = st.builds(Sample, st.integers(2, 500), st.floats(-10, 10), st.floats(0.1, 50))


@given(samples, samples, samples, samples)
def test_two_by_two_is_the_difference_of_the_two_effects(a, b, c, d):
    got = interaction([(a, b), (c, d)])
    one, other = effect(a, b), effect(c, d)
    assert got.differences[0].value == pytest.approx(other.effect_size - one.effect_size, abs=1e-9)
    assert got.differences[0].se == pytest.approx((one.se**2 + other.se**2) ** 0.5)
    assert got.statistic == pytest.approx((got.differences[0].value / got.differences[0].se) ** 2, abs=1e-6)
    assert got.pvalue == got.differences[0].pvalue


def test_the_error_of_a_difference_of_differences_is_that_of_four_means():
    rng = np.random.default_rng(0)
    pairs = [(drawn(rng, 0), drawn(rng, 0.3)), (drawn(rng, 0), drawn(rng, 0.1))]
    parts = [of.var / of.n for pair in pairs for of in pair]
    assert interaction(pairs).differences[0].se == pytest.approx(sum(parts) ** 0.5)


@pytest.mark.parametrize("variants", [2, 3])
def test_experiments_that_do_not_meet_show_no_interaction_and_others_do(variants):
    rng = np.random.default_rng(0)
    calm, disturbed = [], []
    for _ in range(400):
        calm.append(interaction([(drawn(rng, 0), drawn(rng, 0.1)) for _ in range(variants)]).pvalue < 0.05)
        pairs = [(drawn(rng, 0), drawn(rng, 0.1 + 0.2 * (place == 1))) for place in range(variants)]
        disturbed.append(interaction(pairs).pvalue < 0.05)
    assert 0.02 <= np.mean(calm) <= 0.08
    assert np.mean(disturbed) > 0.9


def test_own_and_pooled_training_are_compared_by_the_same_arithmetic():
    """The treatment gains 3.5 points alone, and loses 3.7 when it feeds the other: the case of shared training."""
    rng = np.random.default_rng(0)
    own, pooled = (drawn(rng, 0.054), drawn(rng, 0.089)), (drawn(rng, 0.127), drawn(rng, 0.090))
    bias = interaction([own, pooled]).differences[0]
    assert bias.value == pytest.approx(-0.072, abs=3 * bias.se)


def stages(rng, slope=0.0, drift=0.0, reference=True):
    rows = []
    for place, share in enumerate((0.05, 0.2, 0.5)):
        now = drift * place
        rows.append(
            Stage(share, drawn(rng, now + slope * share), drawn(rng, now), drawn(rng, now) if reference else None)
        )
    return rows


def test_control_that_lives_on_the_treatment_is_found():
    rng = np.random.default_rng(0)
    got = [ramp(stages(rng, slope=0.5)) for _ in range(100)]
    assert np.mean([row.slope.pvalue < 0.05 for row in got]) > 0.95
    assert np.mean([row.slope.value for row in got]) == pytest.approx(0.5, abs=0.03)
    calm = [ramp(stages(rng)).slope.pvalue < 0.05 for _ in range(400)]
    assert 0.02 <= np.mean(calm) <= 0.08


def test_units_outside_take_the_calendar_out():
    rng = np.random.default_rng(0)
    assert ramp(stages(rng, drift=0.3, reference=False)).slope.pvalue < 0.01
    assert np.mean([ramp(stages(rng, drift=0.3)).slope.pvalue < 0.05 for _ in range(200)]) < 0.1


def test_an_effect_that_turns_over_the_ramp_is_an_alarm_only_if_both_signs_are_sure():
    rng = np.random.default_rng(0)
    turned = [Stage(0.1, drawn(rng, 0), drawn(rng, 0.3)), Stage(0.5, drawn(rng, 0), drawn(rng, -0.3))]
    assert ramp(turned).turned
    assert not ramp([turned[0], Stage(0.5, drawn(rng, 0), drawn(rng, -0.01))]).turned


def test_spillover_is_the_slope_of_a_robust_regression():
    rng = np.random.default_rng(0)
    share = rng.beta(2, 2, 5_000)
    outcome = 1 + 0.4 * share + rng.normal(size=5_000) * (0.5 + share)
    got = spillover(outcome, share)
    design = np.column_stack([np.ones(5_000), share])
    found, *_ = np.linalg.lstsq(design, outcome, rcond=None)
    rest = outcome - design @ found
    bread = np.linalg.inv(design.T @ design)
    sandwich = bread @ (design.T * rest**2) @ design @ bread
    assert got.value == pytest.approx(found[1])
    assert got.se == pytest.approx(sandwich[1, 1] ** 0.5, rel=1e-3)
    assert got.ci[0] <= 0.4 <= got.ci[1]


def test_neighbors_that_are_alike_are_no_evidence_on_their_own():
    rng = np.random.default_rng(0)
    wrong = np.zeros(2)
    for _ in range(200):
        group = np.repeat(np.arange(50), 20)
        share, outcome = rng.random(50)[group], rng.normal(size=50)[group] + rng.normal(size=1_000)
        wrong += [spillover(outcome, share).pvalue < 0.05, spillover(outcome, share, cluster=group).pvalue < 0.05]
    assert wrong[0] / 200 > 0.3
    assert wrong[1] / 200 < 0.11


def test_nothing_to_compare_is_refused():
    pair = (Sample(10, 1.0, 1.0), Sample(10, 1.0, 1.0))
    with pytest.raises(TooFewUnits, match="needs at least 2 variants of the other experiment, got 1"):
        interaction([pair])
    with pytest.raises(TooFewUnits, match="needs at least 2 treatment shares, got 1"):
        ramp([Stage(0.5, *pair), Stage(0.5, *pair)])
    with pytest.raises(StatisticsError, match="same share of treated neighbors"):
        spillover([1, 2, 3], [0.5, 0.5, 0.5])
    with pytest.raises(TooFewUnits, match="needs at least 3 units, got 2"):
        spillover([1, 2], [0.1, 0.2])
    with pytest.raises(StatisticsError, match="finite"):
        spillover([1, 2, 3], [0.1, 0.2, float("nan")])
    flat = Sample(10, 1.0, 0.0)
    assert interaction([(flat, flat), (flat, flat)]).pvalue is None
    assert ramp([Stage(0.1, flat, flat), Stage(0.5, flat, flat)]).slope.pvalue is None
