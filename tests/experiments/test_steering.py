import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from thinslice.experiments.steering import thompson_weights
from thinslice.records import Experiment, MetricResult, Variant


def experiment(count=2, floor=0.1, **fields):
    variants = [Variant(name=f"v{n}", policy="popular", weight=1 / count) for n in range(count)]
    return Experiment(
        name="bandit", tenant="shop", variants=variants, allocation="thompson", allocation_floor=floor, **fields
    )


def result(variant, effect, se, n=5_000, direction="up"):
    ci = None if se is None else (effect - 1.959964 * se, effect + 1.959964 * se)
    return MetricResult(
        name="goal", role="goal", variant=variant, n_control=n, n_treatment=n, mean_control=1.0,
        mean_treatment=None if effect is None else 1.0 + effect, effect_size=effect, effect_size_ci=ci,
        rel_effect_size=None, rel_effect_size_ci=None, pvalue=None, direction=direction,
    )  # fmt: skip


@pytest.mark.parametrize("z", [-2.0, -0.5, 0.0, 1.0, 3.0])
def test_a_treatment_gets_the_chance_that_it_is_better_between_the_floors(z):
    got = thompson_weights(experiment(), [result("v1", 0.1 * z, 0.1)], rng=np.random.default_rng(0))
    assert got["v1"] == pytest.approx(0.1 + 0.8 * norm.cdf(z), abs=0.012)  # three standard errors of the draws


def test_where_less_is_good_the_better_one_is_the_lower_one():
    row = result("v1", -0.3, 0.1, direction="down")
    assert thompson_weights(experiment(), [row], rng=np.random.default_rng(0))["v1"] > 0.85


@given(st.lists(st.tuples(st.floats(-5, 5), st.floats(0.001, 3)), min_size=1, max_size=5), st.floats(0.001, 0.15))
def test_weights_sum_to_one_and_nobody_dies_out(effects, floor):
    of = experiment(len(effects) + 1, floor)
    rows = [result(f"v{n + 1}", effect, se) for n, (effect, se) in enumerate(effects)]
    got = thompson_weights(of, rows, rng=np.random.default_rng(0))
    assert sum(got.values()) == pytest.approx(1, abs=1e-9)
    assert min(got.values()) >= floor - 2e-4


def test_a_variant_that_is_off_stays_off():
    variants = [
        Variant(name=name, policy="popular", weight=weight) for name, weight in (("a", 0.5), ("b", 0.5), ("c", 0.0))
    ]
    of = Experiment(name="x", tenant="shop", variants=variants, allocation="thompson")
    assert thompson_weights(of, [result("b", 0.0, 0.1)], rng=np.random.default_rng(0))["c"] == 0.0


@pytest.mark.parametrize(
    "rows",
    [[], [result("v1", None, None)], [result("v1", 0.1, None)], [result("v1", 0.1, 0.1, n=99)]],
    ids=["none", "empty", "no-interval", "few"],
)
def test_too_little_steers_nothing(rows):
    assert thompson_weights(experiment(), rows, rng=np.random.default_rng(0)) is None
