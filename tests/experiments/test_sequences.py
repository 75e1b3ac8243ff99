"""The always-valid interval of a report: narrowest at the planned end, whatever the size of the shop."""

import numpy as np
import pytest

from thinslice.experiments.compare import compare
from thinslice.experiments.evidence import Evidence, planned_shares
from thinslice.records import Experiment, Metric, Variant
from thinslice.stats import Moments

GOAL = Metric(name="money", numerator="money", role="goal")


def width(n, planned_units, variants=2):
    """The always-valid interval of two variants of n units together, against one that is looked at once."""
    names = "abcd"[:variants]
    plan = Experiment(
        name="test", tenant="", metrics=[GOAL],
        variants=[Variant(name=name, policy="", weight=1 / variants) for name in names],
    )  # fmt: skip
    sides = {name: Moments(("money",), n // 2, np.array([5.0]), np.array([[4.0]])) for name in names}
    evidence = Evidence(sides, np.full((1, variants), n / 2), planned_shares(plan), {}, planned_units=planned_units)
    row = compare(sides, plan, evidence)[0]
    return np.ptp(row.always_valid_ci) / np.ptp(row.effect_size_ci)


@pytest.mark.parametrize("n", [2_000, 100_000, 10_000_000])
def test_at_the_planned_end_it_is_1_55_times_as_wide_as_one_look_and_nothing_makes_it_narrower(n):
    assert width(n, n) == pytest.approx(1.548, abs=2e-3)
    assert all(width(n, planned) > width(n, n) for planned in (n // 4, 4 * n))


def test_without_a_plan_a_large_shop_pays_for_it():
    assert width(10_000_000, 0) > 1.9


def test_of_four_variants_two_are_compared_and_these_are_half_of_the_plan():
    assert width(50_000, 100_000, variants=4) == pytest.approx(width(50_000, 50_000))
