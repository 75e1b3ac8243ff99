import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thinslice.stats import always_valid_half_width, holm


def test_the_half_width_is_the_formula_of_the_paper():
    n, r, alpha, se = 2_000, math.sqrt((-2 * math.log(0.05) + math.log(1 - 2 * math.log(0.05))) / 5_000), 0.05, 0.1
    expected = se * math.sqrt(n)
    expected *= math.sqrt(2 * (n * r**2 + 1) / (n * r) ** 2 * math.log(math.sqrt(n * r**2 + 1) / alpha))
    assert always_valid_half_width(se, n) == pytest.approx(expected)


@given(st.integers(10, 10**7))
def test_it_is_always_wider_than_a_single_look(n):
    assert always_valid_half_width(1.0, n) > 2.5


def test_looking_every_day_raises_no_more_false_alarms_than_allowed():
    rng = np.random.default_rng(0)
    days, per_day, runs = 14, 400, 2_000
    totals = rng.normal(0, math.sqrt(per_day), (runs, days)).cumsum(axis=1)
    n = per_day * np.arange(1, days + 1)
    widths = np.array([always_valid_half_width(1 / math.sqrt(k), int(k)) for k in n])
    assert (np.abs(totals / n) > widths).any(axis=1).mean() < 0.05
    assert (np.abs(totals / n) > 1.96 / np.sqrt(n)).any(axis=1).mean() > 0.15


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_never_makes_a_p_value_smaller_and_keeps_the_order(pvalues):
    adjusted = holm(pvalues)
    assert all(p <= a <= 1 for p, a in zip(pvalues, adjusted, strict=True))
    assert [a for _, a in sorted(zip(pvalues, adjusted, strict=True))] == sorted(adjusted)
