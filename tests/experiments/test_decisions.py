"""What a report says to do: three-way readings at the planned end, and effects that go with the days."""

from datetime import UTC, datetime, timedelta

import pytest

from thinslice.experiments.decide import Doubts, decide
from thinslice.experiments.readings import read
from thinslice.records import Check, Experiment, Metric, MetricResult, Variant

START = datetime(2026, 3, 1, tzinfo=UTC)
END = START + timedelta(days=14)
PLAN = Experiment(
    name="a", tenant="shop", started_at=START, ends_at=END,
    variants=[Variant(name="old", policy="a", weight=0.5), Variant(name="new", policy="b", weight=0.5)],
    metrics=[Metric(name="revenue", numerator="revenue_minor", role="goal", margin=0.02),
             Metric(name="views", numerator="views", role="guardrail", margin=0.05)],
)  # fmt: skip


def row(name, low, high, role="goal", margin=0.02):
    change = (low + high) / 2
    return MetricResult(
        name=name, role=role, variant="new", n_control=500, n_treatment=500, mean_control=1.0, margin=margin,
        mean_treatment=1 + change, effect_size=change, effect_size_ci=(low, high), rel_effect_size=change,
        rel_effect_size_ci=(low, high), pvalue=0.001, pvalue_adjusted=0.001, reading=read((low, high), margin=margin),
    )  # fmt: skip


def told(goal, guard=(-0.01, 0.01), now=END, checks=(), **doubts):
    rows = [row("revenue", *goal), row("views", *guard, role="guardrail", margin=0.05)]
    return decide(PLAN, list(checks), rows, now, Doubts(0.05, **doubts))


@pytest.mark.parametrize(("goal", "action", "variant"), [
    ((0.01, 0.05), "ship", "new"), ((-0.01, 0.03), "keep", "old"), ((-0.05, 0.03), "extend", None),
    ((-0.05, -0.01), "stop", "old"),
])  # fmt: skip
def test_at_the_end_the_goals_reading_decides(goal, action, variant):
    got = told(goal)
    assert (got.action, got.variant) == (action, variant)
    assert told(goal, now=END - timedelta(days=1)).action == "extend"


@pytest.mark.parametrize(
    ("guard", "action"), [((-0.01, 0.02), "ship"), ((-0.09, 0.02), "extend"), ((-0.2, -0.1), "keep")]
)
def test_a_guardrail_has_to_be_shown_not_worse(guard, action):
    assert told((0.01, 0.05), guard).action == action


def test_a_failed_check_makes_everything_else_silent():
    broken = Check(name="sample_ratio", passed=False, statistic=20.0, pvalue=1e-6, detail="52 to 48")
    got = told((0.01, 0.05), checks=[broken])
    assert got.action == "invalid"
    assert "do not read the effects" in got.sentence


def fading(early, late, *, same_share=False):
    def of(low, high):
        return {"effect_size": (low + high) / 2, "effect_size_ci": (low, high), "rel_effect_size": (low + high) / 2,
                "rel_effect_size_ci": (low, high)}  # fmt: skip

    never = {"effect_size": 0.0, "effect_size_ci": None, "rel_effect_size": None, "rel_effect_size_ci": None}
    steady = never if late is None else of(*late)
    return {"early_days": 3, "late_from": 7, "variants": [{"variant": "new", "stable": False, "early": of(*early),
                                                           "steady": steady, "same_share": same_share}]}  # fmt: skip


def test_an_effect_that_was_only_new_is_not_shipped():
    got = told((0.01, 0.05), novelty=fading((0.06, 0.10), (-0.02, 0.02)))
    assert got.action == "extend"
    assert "not stable" in got.sentence


def test_visitors_who_come_less_often_do_not_make_an_effect_unstable():
    got = told((0.01, 0.05), novelty=fading((0.02, 0.06), (-0.03, 0.10), same_share=True))
    assert got.action == "ship"
    assert any("not shown to be another one" in reason for reason in got.reasons)


def test_what_says_that_the_effect_may_be_another_one_is_read_before_the_verdict():
    neighbors = Check(name="spillover", passed=False, statistic=4.0, pvalue=1e-5, detail="treated neighbors matter")
    got = told((0.01, 0.05), checks=[neighbors])
    assert got.action == "ship"
    assert got.sentence.endswith("Read first why spillover failed: the effect may be another one.")


def test_where_nobody_does_anything_later_one_cannot_say_whether_it_lasts():
    got = told((0.01, 0.05), novelty=fading((0.02, 0.06), None))
    assert got.action == "ship"
    assert any("cannot say whether it lasts" in reason for reason in got.reasons)
