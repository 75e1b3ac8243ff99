import json
from datetime import UTC, datetime, timedelta

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thinslice.errors import BadInput, StatisticsError
from thinslice.experiments.analyze import analyze, report_json
from thinslice.experiments.checks import isolated_training
from thinslice.experiments.decide import decide, has_ended
from thinslice.experiments.evidence import Units
from thinslice.experiments.readings import read
from thinslice.records import Check, Experiment, Metric, MetricResult, Variant

NOW = datetime(2026, 3, 20, tzinfo=UTC)


def experiment(*names, **fields):
    names = names or ("old", "new")
    variants = [Variant(name=name, policy="popular", weight=1 / len(names)) for name in names]
    metrics = [
        Metric(name="revenue", numerator="revenue", role="goal"),
        Metric(name="click_through", numerator="clicks", denominator="slates"),
        Metric(name="views", numerator="views", role="guardrail", margin=0.05),
    ]
    return Experiment(**{"name": "x", "tenant": "shop", "variants": variants, "metrics": metrics, **fields})


def units(rng, n=2_000, lift=1.0, names=("old", "new")):
    variant = np.resize(names, n)
    better = np.where(variant == names[0], 1.0, lift)
    slates = rng.poisson(3, n) + 1
    columns = {
        "revenue": rng.binomial(1, 0.3, n) * rng.lognormal(3, 0.5, n) * better,
        "clicks": rng.binomial(slates, np.minimum(0.2 * better, 1)),
        "slates": slates,
        "views": rng.poisson(20, n),
    }
    return Units(variant=variant, columns=columns)


@pytest.mark.parametrize(
    ("ci", "margin", "direction", "reading"),
    [
        ((0.01, 0.05), None, "up", "better"),
        ((0.01, 0.05), 0.02, "down", "worse"),
        ((-0.05, -0.01), None, "down", "better"),
        ((-0.01, 0.05), 0.02, "up", "not_worse"),
        ((-0.02, 0.05), 0.02, "up", "cannot_say"),
        ((-0.015, -0.005), 0.02, "up", "not_worse"),
        ((-0.05, -0.03), 0.02, "up", "worse"),
        ((0.0, 0.05), None, "up", "cannot_say"),
        ((None, -0.1), 0.02, "up", "worse"),
        ((0.1, None), None, "up", "better"),
        ((None, None), 0.02, "up", "cannot_say"),
        (None, 0.02, "up", "cannot_say"),
    ],
)
def test_the_first_reading_that_matches_holds(ci, margin, direction, reading):
    assert read(ci, margin=margin, direction=direction) == reading


ends = st.floats(-2, 2)


@given(st.tuples(ends, ends).map(sorted), st.none() | st.floats(0.001, 0.5))
def test_a_reading_turned_around_is_the_reading_of_the_mirrored_interval(ci, margin):
    low, high = ci
    assert read((low, high), margin=margin) == read((-high, -low), margin=margin, direction="down")


def test_a_large_true_effect_ships_and_says_so_with_numbers():
    got = analyze(units(np.random.default_rng(0), lift=1.5), experiment(), NOW)
    assert got.decision.action == "ship"
    assert got.decision.variant == "new"
    assert got.decision.sentence.startswith("Ship new: revenue changed by +")
    assert "95 % interval +" in got.decision.sentence
    assert got.decision.sentence.endswith("and its guardrail held.")
    assert [row.reading for row in got.metrics] == ["better", "better", "not_worse"]
    assert got.units == {"old": 1000, "new": 1000}


def test_a_large_true_harm_stops():
    got = analyze(units(np.random.default_rng(0), lift=0.6), experiment(), NOW)
    assert got.decision.action == "stop"
    assert got.decision.variant == "old"


@pytest.mark.parametrize("lift", [0.6, 1.0, 1.5])
def test_before_the_planned_end_nothing_but_extend_is_said(lift):
    running = experiment(started_at=NOW - timedelta(days=3), ends_at=NOW + timedelta(days=4))
    got = analyze(units(np.random.default_rng(0), lift=lift), running, NOW)
    assert got.decision.action == "extend"
    assert "4 days to go" in got.decision.sentence


def test_one_that_was_stopped_before_its_end_is_not_said_to_go_on():
    stopped = experiment(
        started_at=NOW - timedelta(days=3), ends_at=NOW + timedelta(days=4), stopped_at=NOW - timedelta(days=1)
    )
    got = analyze(units(np.random.default_rng(0), lift=1.5), stopped, NOW)
    assert got.decision.action == "extend"
    assert "Nothing is decided: it was stopped 5 days before its planned end" in got.decision.sentence


def test_an_experiment_without_an_end_is_open_until_it_is_stopped():
    running = experiment(started_at=NOW - timedelta(days=3))
    assert not has_ended(running, NOW)
    assert has_ended(msgspec.structs.replace(running, stopped_at=NOW), NOW)
    early = msgspec.structs.replace(running, ends_at=NOW + timedelta(days=1), stopped_at=NOW)
    assert not has_ended(early, NOW)
    assert has_ended(experiment(), NOW)


def test_an_uneven_split_is_invalid_whatever_the_effect():
    data = units(np.random.default_rng(0), n=3_000, lift=1.5, names=("old", "old", "new"))
    for started in ({}, {"started_at": NOW, "ends_at": NOW + timedelta(days=9)}):
        got = analyze(data, experiment(**started), NOW)
        assert got.decision.action == "invalid"
        assert "sample_ratio failed" in got.decision.sentence
        assert [check.passed for check in got.checks if check.name == "sample_ratio"] == [False]


def test_an_all_zero_metric_cannot_be_read():
    data = Units(["old", "new"] * 50, {name: np.zeros(100) for name in ("revenue", "clicks", "views")})
    data = data._replace(columns={**data.columns, "slates": np.ones(100)})
    got = analyze(data, experiment(), NOW)
    assert {row.reading for row in got.metrics} == {"cannot_say"}
    assert {row.pvalue for row in got.metrics} == {None}
    assert {row.effect_size for row in got.metrics} == {0.0}
    assert b"NaN" not in report_json(got)


@pytest.mark.parametrize("labels", [[], ["old"], ["old", "new"], ["old", "old", "new"]])
def test_too_few_units_give_a_report_without_guesses(labels):
    data = Units(labels, {name: np.ones(len(labels)) for name in ("revenue", "clicks", "slates", "views")})
    got = analyze(data, experiment(), NOW)
    assert {row.pvalue for row in got.metrics} == {None}
    assert {row.mean_treatment for row in got.metrics} == {None}
    assert got.decision.action == "extend"
    json.loads(report_json(got))


def test_a_control_that_never_earned_is_compared_without_percents():
    rng = np.random.default_rng(0)
    columns = dict(units(rng).columns)
    columns["revenue"] = np.where(np.resize([False, True], 2_000), rng.binomial(1, 0.2, 2_000), 0)
    got = analyze(Units(np.resize(["old", "new"], 2_000), columns), experiment(), NOW)
    goal = got.metrics[0]
    assert (goal.rel_effect_size, goal.rel_effect_size_ci) == (None, None)
    assert goal.reading == "better"
    assert goal.effect_size_ci[0] > 0
    json.loads(report_json(got))


def test_nan_is_refused_and_so_is_an_unknown_variant_or_column():
    data = units(np.random.default_rng(0))
    broken = {**data.columns, "revenue": np.where(np.arange(2_000) == 7, np.nan, 1.0)}
    with pytest.raises(StatisticsError, match="'revenue' has 1 of 1000 values"):
        analyze(data._replace(columns=broken), experiment(), NOW)
    with pytest.raises(BadInput, match="variant 'new' is not in the experiment"):
        analyze(data, experiment("old", "other"), NOW)
    with pytest.raises(StatisticsError, match="column 'revenue' is missing"):
        analyze(data._replace(columns={"clicks": []}), experiment(), NOW)
    with pytest.raises(StatisticsError, match="too large to be squared"):
        analyze(data._replace(columns={**data.columns, "revenue": np.resize([1e200, 2e200], 2_000)}), experiment(), NOW)


def test_every_interval_holds_its_effect_and_the_always_valid_one_is_wider():
    got = analyze(units(np.random.default_rng(3), lift=1.1), experiment(), NOW)
    for row in got.metrics:
        assert row.effect_size_ci[0] < row.effect_size < row.effect_size_ci[1]
        assert row.rel_effect_size_ci[0] < row.rel_effect_size < row.rel_effect_size_ci[1]
        assert row.always_valid_ci[0] < row.effect_size_ci[0]
        assert row.always_valid_ci[1] > row.effect_size_ci[1]


def test_units_in_another_order_give_the_same_report():
    data = units(np.random.default_rng(1), lift=1.2)
    order = np.random.default_rng(2).permutation(2_000)
    shuffled = Units(np.asarray(data.variant)[order], {name: of[order] for name, of in data.columns.items()})
    one, other = (msgspec.to_builtins(analyze(of, experiment(), NOW).metrics) for of in (data, shuffled))
    for a, b in zip(one, other, strict=True):
        assert a["pvalue"] == pytest.approx(b["pvalue"], rel=1e-6)
        assert a["rel_effect_size_ci"] == pytest.approx(b["rel_effect_size_ci"], rel=1e-6)


def test_with_several_treatments_each_is_compared_and_the_p_values_are_corrected():
    names = ("old", "new", "newest")
    got = analyze(units(np.random.default_rng(0), n=6_000, lift=1.5, names=names), experiment(*names), NOW)
    goals = [row for row in got.metrics if row.role == "goal"]
    assert {row.variant for row in goals} == {"new", "newest"}
    assert all(row.pvalue_adjusted >= row.pvalue for row in goals)
    assert got.decision.action == "ship"


def test_shared_training_is_told_as_a_warning():
    shared = experiment(training="shared")
    assert not isolated_training(shared).passed
    got = analyze(units(np.random.default_rng(0), lift=1.5), shared, NOW)
    assert got.decision.action == "ship"
    assert any("wrong sign" in reason for reason in got.decision.reasons)


def row(role, reading, **fields):
    return MetricResult(
        **{
            "name": role, "role": role, "variant": "new", "n_control": 9, "n_treatment": 9, "mean_control": 1.0,
            "mean_treatment": 1.1, "effect_size": 0.1, "effect_size_ci": (0.0, 0.2), "rel_effect_size": 0.1,
            "rel_effect_size_ci": (0.0, 0.2), "pvalue": 0.01, "pvalue_adjusted": 0.01, "margin": 0.05,
            "reading": reading, **fields,
        }
    )  # fmt: skip


@pytest.mark.parametrize(
    ("goal", "driver", "guardrail", "action"),
    [
        ("better", "cannot_say", "not_worse", "ship"),
        ("better", "better", "better", "ship"),
        ("better", "cannot_say", "cannot_say", "extend"),
        ("better", "cannot_say", "worse", "keep"),
        ("better", "worse", "not_worse", "keep"),
        ("not_worse", "better", "better", "keep"),
        ("cannot_say", "better", "better", "extend"),
        ("worse", "better", "better", "stop"),
    ],
)
def test_what_ships_is_better_and_harms_nothing(goal, driver, guardrail, action):
    rows = [row("goal", goal), row("driver", driver), row("guardrail", guardrail), row("diagnostic", "worse")]
    checks = [Check(name="sample_ratio", passed=True, statistic=0.0, pvalue=1.0, detail="")]
    got = decide(experiment(), checks, rows, NOW)
    assert got.action == action
    assert got.sentence.endswith(".")
    assert "%" in got.sentence


def test_a_winner_among_many_needs_the_corrected_p_value():
    rows = [row("goal", "better", pvalue_adjusted=0.08), row("guardrail", "not_worse")]
    assert decide(experiment(), [], rows, NOW).action == "extend"


def bandit(rng, batches=20, size=500):
    """An A/A test in which the allocation follows earlier rewards while the base rate drifts upward."""
    share, wins, seen = 0.5, np.ones(2), np.full(2, 2.0)
    arms, rewards, shares = [], [], []
    for batch in range(batches):
        rate = 0.05 + 0.05 * batch / batches
        arm = rng.binomial(1, share, size)
        reward = rng.binomial(1, rate, size)
        arms.append(arm)
        rewards.append(reward)
        shares.append(np.tile([1 - share, share], (size, 1)))
        for which in (0, 1):
            wins[which] += reward[arm == which].sum()
            seen[which] += (arm == which).sum()
        draws = rng.beta(wins[:, None], (seen - wins)[:, None], (2, 200))
        share = float(np.clip((draws[1] > draws[0]).mean(), 0.05, 0.95))
    return np.concatenate(arms), np.concatenate(rewards), np.concatenate(shares)


@pytest.mark.slow
def test_a_bandits_allocation_fakes_neither_a_mismatch_nor_an_effect():
    rng, runs = np.random.default_rng(0), 400
    plan = experiment(metrics=[Metric(name="reward", numerator="reward", role="goal")])
    found = {"naive effect": 0, "naive mismatch": 0, "effect": 0, "mismatch": 0}
    for _ in range(runs):
        arm, reward, shares = bandit(rng)
        data = Units(np.array(["old", "new"])[arm], {"reward": reward})
        for prefix, of in (("naive ", data), ("", data._replace(propensities=shares))):
            got = analyze(of, plan, NOW)
            found[f"{prefix}effect"] += got.metrics[0].pvalue < 0.05
            found[f"{prefix}mismatch"] += not got.checks[0].passed
    assert found["naive effect"] / runs > 0.15
    assert found["naive mismatch"] / runs > 0.5
    assert 0.02 <= found["effect"] / runs <= 0.085
    assert found["mismatch"] / runs <= 0.01


def test_constant_probabilities_change_nothing():
    data = units(np.random.default_rng(5), lift=1.2)
    one = analyze(data, experiment(), NOW)
    other = analyze(data._replace(propensities=np.full((2_000, 2), 0.5)), experiment(), NOW)
    assert one.checks == other.checks
    for a, b in zip(one.metrics, other.metrics, strict=True):
        assert (a.effect_size, a.pvalue, a.reading) == (
            pytest.approx(b.effect_size),
            pytest.approx(b.pvalue),
            b.reading,
        )


def test_a_probability_of_zero_for_what_was_served_is_refused():
    data = units(np.random.default_rng(5))
    with pytest.raises(BadInput, match="1000 units were served a variant that had probability 0"):
        analyze(data._replace(propensities=np.tile([1.0, 0.0], (2_000, 1))), experiment(), NOW)


def test_a_covariate_makes_intervals_narrower_and_moves_nothing():
    rng = np.random.default_rng(0)
    before = rng.normal(10, 3, 4_000)
    columns = {"y": before + rng.normal(0, 1, 4_000)}
    plan = experiment(metrics=[Metric(name="y", numerator="y", role="goal")])
    data = Units(np.resize(["old", "new"], 4_000), columns)
    plain, cuped = (analyze(of, plan, NOW).metrics[0] for of in (data, data._replace(covariate=before)))
    widths = [of.effect_size_ci[1] - of.effect_size_ci[0] for of in (plain, cuped)]
    assert widths[1] < 0.4 * widths[0]
    assert abs(cuped.effect_size) < 0.1


def test_segments_are_reported_apart_and_corrected_together():
    data = units(np.random.default_rng(0), lift=1.3)
    got = analyze(data._replace(segments={"device": np.repeat(["phone", "desk"], 1_000)}), experiment(), NOW)
    assert {(row["segment"], row["value"]) for row in got.segments} == {("device", "phone"), ("device", "desk")}
    assert sum(row["n_control"] for row in got.segments if row["name"] == "revenue") == 1_000
    assert all(row["pvalue_adjusted"] >= row["pvalue"] for row in got.segments)


def test_a_ratio_without_any_denominator_cannot_say_and_says_why():
    drawn = units(np.random.default_rng(0), n=400)
    nothing = np.where(drawn.variant == "new", 0, drawn.columns["slates"])
    columns = {**drawn.columns, "slates": nothing, "clicks": np.minimum(nothing, drawn.columns["clicks"])}
    goal = Metric(name="click_through", numerator="clicks", denominator="slates", role="goal")
    got = analyze(Units(drawn.variant, columns), experiment(metrics=[goal]), NOW)
    (row,) = got.metrics
    assert (row.reading, row.effect_size, row.pvalue) == ("cannot_say", None, None)
    assert row.why == "new: 'slates' sums to zero over 200 units: the ratio does not exist"
    assert row.why in got.decision.sentence
    assert row.why in got.decision.reasons[0]
    assert got.decision.action == "extend"
    json.loads(report_json(got))


@pytest.mark.parametrize(
    ("variant", "values", "why"),
    [
        (["old"] * 4, [1, 2, 3, 4], "new has no unit yet"),
        (["old", "old", "new"], [1, 2, 3], "new: needs at least 2 units, got 1"),
        (["old", "old", "new", "new"], [0, 0, 0, 0], "all units have the same revenue within their variant"),
    ],
)
def test_what_cannot_be_computed_says_why(variant, values, why):
    plan = experiment(metrics=[Metric(name="revenue", numerator="revenue", role="goal")])
    (row,) = analyze(Units(np.array(variant), {"revenue": np.array(values)}), plan, NOW).metrics
    assert (row.reading, row.why, row.pvalue) == ("cannot_say", why, None)
