"""Two tests of one question: together they alarm as often as one may."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thinslice.stats import Cohort, Quotient, holm, late_minus_early, moments, shared_variance, smaller_of_two

SHARE = st.floats(1e-9, 1.0)


@given(SHARE, SHARE, st.floats(-1.0, 1.0))
def test_two_p_values_together_lie_between_the_smaller_one_and_holms(first, second, correlation):
    got = smaller_of_two((first, second), correlation)
    assert min(first, second) - 1e-12 <= got <= min(p for p in holm([first, second]) if p is not None) + 1e-9


def test_without_correlation_it_is_sidaks_correction_and_with_all_of_it_none():
    assert smaller_of_two((0.01, 0.4), 0.0) == pytest.approx(1 - 0.99**2)
    assert smaller_of_two((0.01, 0.4), 1.0) == pytest.approx(0.01)
    assert smaller_of_two((0.01, 0.4), -1.0) == pytest.approx(0.01)


@pytest.mark.parametrize("correlation", [0.3, 0.8, -0.95])
def test_correlated_statistics_alarm_in_five_percent(correlation):
    draw = np.random.default_rng(0).multivariate_normal([0, 0], [[1, correlation], [correlation, 1]], 400_000)
    worst = np.abs(draw).max(axis=1)
    p = 0.03
    edge = 2.1700903775845606  # where a two-sided normal p-value is .03
    assert smaller_of_two((p, 0.5), correlation) == pytest.approx((worst > edge).mean(), abs=0.001)


def test_the_covariance_of_both_tests_of_novelty_is_that_of_many_worlds():
    rng = np.random.default_rng(0)
    since = np.log1p(np.arange(14)) - np.log1p(np.arange(14)).mean()
    early, late, tilt = Quotient("early"), Quotient("late"), Quotient("tilt", "scale")

    def side(units):
        views = rng.normal(size=(units, 14))
        return moments({"early": views[:, :3].mean(axis=1), "late": views[:, 7:].mean(axis=1),
                        "tilt": views @ since, "scale": np.full(units, since @ since)})  # fmt: skip

    found, said = [], []
    for _ in range(1_500):
        cohort = Cohort(side(40), side(60))
        slopes = [of.mean_of("tilt") / of.mean_of("scale") for of in cohort]
        found.append((late_minus_early([cohort], early, late).value, slopes[1] - slopes[0]))
        said.append(shared_variance([cohort], cohort, early, late, tilt))
    assert np.mean(said) == pytest.approx(np.cov(np.array(found).T)[0, 1], rel=0.1)
