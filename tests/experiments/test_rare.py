import numpy as np
import pytest

from thinslice.experiments.evidence import Units, gather
from thinslice.experiments.rare import rare_outcomes
from thinslice.records import Experiment, Metric, Variant

PLAN = Experiment(
    name="test", tenant="", metrics=[Metric(name="buys", numerator="buys", role="goal")],
    variants=[Variant(name="a", policy="", weight=0.5), Variant(name="b", policy="", weight=0.5)],
)  # fmt: skip


def bandit(buys, n=2_000, share=0.05):
    """Two batches: even, then b gets a small share; so many of a hundred buy in a and in b."""
    rng = np.random.default_rng(0)
    shares = np.repeat([0.5, share], [n // 10, n - n // 10])
    second = rng.random(n) < shares
    outcome = rng.random(n) < np.where(second, buys[1], buys[0]) / 100
    return gather(
        Units(np.where(second, "b", "a"), {"buys": outcome}, np.column_stack([1 - shares, shares]),
              batch=np.repeat([0, 1], [n // 10, n - n // 10])), PLAN,
    )  # fmt: skip


@pytest.mark.parametrize(("buys", "fine"), [((20, 20), True), ((1, 1), False), ((5, 0), False)])
def test_a_handful_of_buyers_is_told(buys, fine):
    check = rare_outcomes(bandit(buys), PLAN)
    assert check.passed is fine
    assert "buys of b" in check.detail
    assert bool(check.advice) is not fine


def test_where_nobody_buys_or_shares_were_constant_nothing_is_said():
    assert rare_outcomes(bandit((0, 0)), PLAN) is None
    assert rare_outcomes(gather(Units(np.array(["a", "b"] * 50), {"buys": np.arange(100) % 2}), PLAN), PLAN) is None
