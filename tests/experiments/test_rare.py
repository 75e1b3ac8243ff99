"""Where results steered the shares and few units did anything, no effect is shown, and a check says why."""

import numpy as np
import pytest

from thinslice.experiments.compare import compare
from thinslice.experiments.evidence import Units, gather
from thinslice.experiments.rare import rare_outcomes, worth
from thinslice.jobs.rehearsal.allocation import steered
from thinslice.jobs.rehearsal.crowd import NAMES, SIDES
from thinslice.records import Experiment, Metric, Variant
from thinslice.stats import cells_of

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


@pytest.mark.parametrize(("buys", "fine"), [((20, 20), True), ((1, 1), False), ((40, 0), True)])
def test_a_handful_of_buyers_is_told_and_has_no_effect(buys, fine):
    evidence = bandit(buys)
    check = rare_outcomes(evidence, PLAN)
    assert check.passed is fine
    assert "buys of b" in check.detail
    assert bool(check.advice) is not fine
    (row,) = compare(evidence.variants, PLAN, evidence, whole=True)
    assert (row.effect_size is not None) is fine
    assert (row.pvalue is not None) is fine
    assert ("where weights changed an interval needs 5 of them in each variant" in row.why) is not fine


def test_with_even_shares_a_share_is_worth_its_buyers_over_the_share_that_buys_not():
    rng = np.random.default_rng(0)
    buys = rng.random(4_000) < 0.1
    cells = cells_of(
        {"buys": buys}, np.array(["a", "b"] * 2_000), np.full((4_000, 2), 0.5), np.zeros(4_000), ("a", "b")
    )
    expected = buys.sum() / 2 / (1 - buys.mean())
    assert worth(cells, "buys", ("a", "b")) == pytest.approx({"a": expected, "b": expected}, rel=0.001)


@pytest.mark.slow
@pytest.mark.parametrize(("chance", "batch"), [(0.01, 100), (0.01, 200), (0.02, 100)])
def test_a_bandit_without_effect_and_with_few_buyers_is_refused_or_right(chance, batch):
    """600 runs: 6.3 % and two standard errors."""
    rejected = 0
    plan = Experiment(name="t", tenant="", metrics=[Metric(name="buys", numerator="buys", role="goal")],
                      variants=[Variant(name=name, policy="", weight=0.5) for name in SIDES])  # fmt: skip
    for run in range(600):
        draw, n = np.random.default_rng([0, run]), 20 * batch
        buys = (draw.random(n) < chance).astype(float)
        got = steered(draw.random(n), np.stack([buys, buys]), batches=20, floor=0.1, draw=draw)
        evidence = gather(
            Units(NAMES[got.code], {"buys": buys}, propensities=got.propensities, batch=got.batch), plan
        )  # fmt: skip
        (row,) = compare(evidence.variants, plan, evidence, whole=True)
        rejected += row.pvalue is not None and row.pvalue < 0.05
    assert rejected / 600 <= 0.083


def test_where_nobody_buys_or_shares_were_constant_nothing_is_said():
    assert rare_outcomes(bandit((0, 0)), PLAN) is None
    assert rare_outcomes(gather(Units(np.array(["a", "b"] * 50), {"buys": np.arange(100) % 2}), PLAN), PLAN) is None
