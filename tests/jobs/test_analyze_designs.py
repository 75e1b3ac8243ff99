"""Files of harder designs: looks, quantiles, caps, allocations that follow results, switchbacks, days that go wrong."""

from datetime import UTC, date, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tea_tasting as tt

from thinslice.errors import BadInput
from thinslice.experiments.analyze import analyze, report_json
from thinslice.experiments.compare import compare
from thinslice.experiments.evidence import Look, Units, gather
from thinslice.jobs.analyze_file import Question, analyze_file
from thinslice.records import Experiment, Metric, Variant
from thinslice.stats import obrien_fleming_looks

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def ask(**fields):
    return Question(**{"unit": "user", "variant": "arm", "control": "a", "metrics": ["money=money"], **fields})


def write(tmp_path, columns, name="test.parquet"):
    path = tmp_path / name
    pq.write_table(pa.table({key: pa.array(list(values)) for key, values in columns.items()}), path)
    return path


def units(n=4_000, seed=0, lift=1.0):
    rng = np.random.default_rng(seed)
    arm = rng.integers(0, 2, n)
    money = rng.lognormal(2, 1, n) * rng.binomial(1, 0.3, n) * np.where(arm == 1, lift, 1.0)
    return {
        "user": np.arange(n), "arm": np.array(["a", "b"])[arm], "money": money, "clicks": rng.poisson(1 + arm * 0.1, n),
        "slates": rng.poisson(5, n) + 1, "before": money + rng.normal(0, 5, n),
        "device": rng.choice(["phone", "desk"], n),
    }  # fmt: skip


def check(report, name):
    return next(each for each in report.checks if each.name == name)


def test_means_ratios_and_cuped_are_those_of_tea_tasting(tmp_path):
    columns = units(lift=1.2)
    data = pa.table({key: list(values) for key, values in columns.items()} | {"variant": (columns["arm"] == "b") + 0})
    oracle = tt.Experiment(
        money=tt.Mean("money"), ctr=tt.RatioOfMeans("clicks", "slates"), cuped=tt.Mean("money", "before"),
    ).analyze(data, control=0)  # fmt: skip
    path = write(tmp_path, columns)
    plain = analyze_file(path, ask(metrics=["money=money", "ctr=clicks/slates"]), NOW).metrics
    cuped = analyze_file(path, ask(covariate="before"), NOW).metrics
    for name, mine in (("money", plain[0]), ("ctr", plain[1]), ("cuped", cuped[0])):
        assert mine.effect_size == pytest.approx(oracle[name].effect_size, rel=1e-6)
        assert mine.pvalue == pytest.approx(oracle[name].pvalue, rel=1e-6)
        assert mine.effect_size_ci[0] == pytest.approx(oracle[name].effect_size_ci_lower, rel=1e-6)
        assert mine.rel_effect_size_ci[1] == pytest.approx(oracle[name].rel_effect_size_ci_upper, rel=1e-6)


def test_the_interval_of_a_planned_look_is_that_of_its_own_alpha(tmp_path):
    path = write(tmp_path, units())
    once, last = analyze_file(path, ask(), NOW), analyze_file(path, ask(looks=5), NOW)
    assert last.looks == {"look": 5, "of": 5, "alpha": pytest.approx(obrien_fleming_looks(5).nominal[-1])}
    widths = [np.ptp(of.metrics[0].effect_size_ci) for of in (once, last)]
    assert widths[1] / widths[0] == pytest.approx(2.031 / 1.960, abs=2e-3)
    assert last.metrics[0].pvalue == pytest.approx(once.metrics[0].pvalue, rel=1e-9)
    always = np.ptp(once.metrics[0].always_valid_ci) / widths[0]
    assert 1.4 < always < 1.7


def test_days_tell_which_look_it_is_and_before_the_last_one_nothing_is_decided(tmp_path):
    columns = units(lift=2.0)
    columns["day"] = [date(2026, 1, 1) + timedelta(days=int(at) % 6) for at in columns["user"]]
    path = write(tmp_path, columns)
    early = analyze_file(path, ask(looks=14, day="day"), NOW)
    assert (early.looks["look"], early.looks["of"]) == (6, 14)
    assert early.decision.action == "extend"
    assert "look 6 of 14" in early.decision.sentence
    assert analyze_file(path, ask(looks=3, day="day", planned_days=12), NOW).looks["look"] == 1
    assert analyze_file(path, ask(looks=3, day="day", planned_days=6), NOW).decision.action == "ship"


PLAN = Experiment(
    name="test", tenant="", metrics=[Metric(name="money", numerator="money", role="goal")],
    variants=[Variant(name="a", policy="", weight=0.5), Variant(name="b", policy="", weight=0.5)],
)  # fmt: skip


@pytest.mark.slow
def test_looking_fourteen_times_is_wrong_as_seldom_as_looking_once():
    rng, runs = np.random.default_rng(0), 400
    alarms = {"planned": 0, "unplanned": 0, "always": 0}
    for _ in range(runs):
        arm, money = rng.integers(0, 2, 1_400), rng.normal(5, 2, 1_400)
        found = dict.fromkeys(alarms, False)
        for look in range(1, 15):
            seen = slice(0, 100 * look)
            evidence = gather(Units(np.array(["a", "b"])[arm[seen]], {"money": money[seen]}), PLAN)
            (once,) = compare(evidence.variants, PLAN, evidence)
            (planned,) = compare(evidence.variants, PLAN, evidence._replace(look=Look(look, 14)))
            found["unplanned"] |= once.reading in ("better", "worse")
            found["planned"] |= planned.reading in ("better", "worse")
            found["always"] |= not once.always_valid_ci[0] <= 0 <= once.always_valid_ci[1]
        for name, hit in found.items():
            alarms[name] += hit
    assert alarms["unplanned"] / runs > 0.15
    assert alarms["planned"] / runs <= 0.07
    assert alarms["always"] / runs <= 0.05


def test_quantiles_and_caps_are_metrics_like_others(tmp_path):
    columns = units(lift=1.5)
    path = write(tmp_path, columns)
    got = analyze_file(path, ask(metrics=["money=money"], quantiles=["p90=money@0.9"], caps=["money=20"]), NOW)
    money, p90 = got.metrics
    treated = columns["arm"] == "b"
    capped = np.minimum(columns["money"], 20)
    assert (money.mean_control, money.mean_treatment) == pytest.approx(
        (capped[~treated].mean(), capped[treated].mean())
    )
    assert p90.mean_treatment == pytest.approx(np.quantile(columns["money"][treated], 0.9))
    assert p90.effect_size_ci[0] < p90.effect_size < p90.effect_size_ci[1]
    by_share = analyze_file(path, ask(caps=["money=q0.95"]), NOW).metrics[0]
    pooled = np.quantile(columns["money"], 0.95)
    assert by_share.mean_control == pytest.approx(np.minimum(columns["money"], pooled)[~treated].mean())
    assert np.ptp(by_share.effect_size_ci) < np.ptp(analyze_file(path, ask(), NOW).metrics[0].effect_size_ci)


def test_a_cap_holds_for_the_sum_of_a_unit_and_the_curve_ends_at_it(tmp_path):
    rng = np.random.default_rng(0)
    n = 400
    columns = {
        "user": np.tile(np.arange(n), 3), "arm": np.tile(np.array(["a", "b"])[np.arange(n) % 2], 3),
        "money": rng.exponential(10, 3 * n), "day": np.repeat([1, 2, 3], n),
    }  # fmt: skip
    got = analyze_file(write(tmp_path, columns), ask(caps=["money=25"], day="day"), NOW)
    sums = np.minimum(columns["money"].reshape(3, n).sum(axis=0), 25)
    assert got.metrics[0].mean_control == pytest.approx(sums[::2].mean())
    assert got.cumulative[-1]["effect_size_ci"] == pytest.approx(list(got.metrics[0].effect_size_ci))


def followed(rng, batches=20, size=500, lift=0.0):
    """An allocation that follows results while the base rate drifts; floor 5 %."""
    share, wins, seen = 0.5, np.ones(2), np.full(2, 2.0)
    parts = []
    for batch in range(batches):
        arm = rng.binomial(1, share, size)
        reward = rng.binomial(1, 0.05 + 0.05 * batch / batches + lift * arm)
        parts.append(
            np.column_stack([np.full(size, batch), arm, reward, np.full(size, 1 - share), np.full(size, share)])
        )
        for which in (0, 1):
            wins[which] += reward[arm == which].sum()
            seen[which] += (arm == which).sum()
        draws = rng.beta(wins[:, None], (seen - wins)[:, None], (2, 200))
        share = float(np.clip((draws[1] > draws[0]).mean(), 0.05, 0.95))
    day, arm, reward, pa_, pb = np.concatenate(parts).T
    return {
        "user": np.arange(day.size), "day": day.astype(int), "arm": np.array(["a", "b"])[arm.astype(int)],
        "money": reward, "pa": pa_, "pb": pb,
    }  # fmt: skip


@pytest.mark.slow
def test_results_that_steer_the_allocation_fool_means_and_not_scores():
    rng, runs = np.random.default_rng(0), 300
    found = {"naive": 0, "ours": 0, "mismatch": 0}
    for _ in range(runs):
        rows = followed(rng)
        naive = Units(rows["arm"], {"money": rows["money"]})
        logged = naive._replace(propensities=np.column_stack([rows["pa"], rows["pb"]]), batch=rows["day"])
        found["naive"] += analyze(naive, PLAN, NOW).metrics[0].pvalue < 0.05
        got = analyze(logged, PLAN, NOW)
        found["ours"] += got.metrics[0].pvalue < 0.05
        found["mismatch"] += not check(got, "sample_ratio").passed
        assert "AIPW" in got.method
    assert found["naive"] / runs > 0.5
    assert 0.02 <= found["ours"] / runs <= 0.085
    assert found["mismatch"] <= 3


def test_scores_use_the_probability_of_the_variant_that_was_served(tmp_path):
    columns = followed(np.random.default_rng(3), lift=0.05)
    got = analyze_file(write(tmp_path, columns), ask(propensity="pa,pb", day="day"), NOW).metrics[0]
    treated = columns["arm"] == "b"
    plain = columns["money"] / np.where(treated, columns["pb"], columns["pa"])
    n = treated.size
    assert got.mean_treatment == pytest.approx(plain[treated].sum() / n, abs=0.02)
    assert got.mean_control == pytest.approx(plain[~treated].sum() / n, abs=0.02)
    assert got.effect_size_ci[0] < 0.05 < got.effect_size_ci[1]
    assert got.pvalue < 0.02


def test_segments_and_clusters_are_weighted_by_the_probability_of_the_variant_that_was_served(tmp_path):
    columns = followed(np.random.default_rng(3))
    columns["device"] = np.where(columns["user"] % 2 == 0, "phone", "desk")
    columns["shop"] = columns["user"]
    treated, phone = columns["arm"] == "b", columns["device"] == "phone"
    weight = 1 / np.where(treated, columns["pb"], columns["pa"])
    path = write(tmp_path, columns)
    inside = analyze_file(path, ask(propensity="pa,pb", segments=["device"]), NOW)
    row = next(row for row in inside.segments if row["value"] == "phone")
    for name, who in (("mean_control", ~treated), ("mean_treatment", treated)):
        expected = np.average(columns["money"][who & phone], weights=weight[who & phone])
        assert row[name] == pytest.approx(expected)
        units = Units(columns["arm"], {"money": columns["money"]}, np.column_stack([columns["pa"], columns["pb"]]),
                      segments={"device": columns["device"]})  # fmt: skip
        memory = next(of for of in analyze(units, PLAN, NOW).segments if of["value"] == "phone")
        assert memory[name] == pytest.approx(expected)
    whole = analyze_file(path, ask(propensity="pa,pb", cluster="shop"), NOW).metrics[0]
    assert whole.mean_control == pytest.approx(np.average(columns["money"][~treated], weights=weight[~treated]))


def switched(rng, blocks=56, hours=6, carry=0.0, lift=0.0):
    """Hours whose noise is alike from one to the next, switched in blocks; the old side lasts for two hours."""
    side = rng.permutation(np.arange(blocks) % 2)
    noise = np.zeros(blocks * hours)
    for at in range(1, noise.size):
        noise[at] = 0.7 * noise[at - 1] + rng.normal(0, 1)
    hour = np.arange(noise.size)
    on = side[hour // hours]
    before = np.concatenate([on[:1], on[:-1]])
    earlier = np.concatenate([on[:2], on[:-2]])
    works = np.where((hour % hours == 0), before, np.where(hour % hours == 1, earlier, on)) if carry else on
    return {
        "user": hour, "block": hour // hours, "arm": np.array(["a", "b"])[on], "money": 20 + noise + lift * works,
        "hour": [datetime(2026, 1, 1, tzinfo=UTC) + timedelta(hours=int(at)) for at in hour],
    }  # fmt: skip


def test_a_switchback_leaves_out_what_the_other_side_left_behind(tmp_path):
    path = write(tmp_path, switched(np.random.default_rng(0), carry=1.0, lift=4.0))
    full = analyze_file(path, ask(block="block", day="hour"), NOW).metrics[0]
    burned = analyze_file(path, ask(block="block", day="hour", burn_in=2), NOW).metrics[0]
    assert burned.effect_size == pytest.approx(4.0, abs=0.8)
    assert full.effect_size < burned.effect_size - 0.4
    assert burned.rel_effect_size_ci[0] < 0.2 < burned.rel_effect_size_ci[1]
    assert burned.reading == "better"


def test_a_switchbacks_rows_are_blocks_and_its_split_is_that_of_blocks(tmp_path):
    got = analyze_file(write(tmp_path, switched(np.random.default_rng(0))), ask(block="block", day="hour"), NOW)
    assert got.units == {"a": 28, "b": 28}
    assert got.method.startswith("switchback")
    assert "a 28 (50.0%" in got.checks[0].detail
    assert got.checks[1].detail == "no block in two variants"
    report_json(got)


def test_a_block_in_two_variants_is_told_as_a_block(tmp_path):
    columns = switched(np.random.default_rng(0))
    columns["arm"] = [{"a": "b", "b": "a"}[columns["arm"][0]], *columns["arm"][1:]]
    check = analyze_file(write(tmp_path, columns), ask(block="block", day="hour"), NOW).checks[1]
    assert (check.name, check.detail) == ("mixed_assignment", "1 of 56 blocks held more than one variant")
    assert "block of time" in check.advice
    assert "login" not in check.advice


@pytest.mark.slow
def test_hours_that_are_alike_do_not_fool_a_switchback(tmp_path):
    rng, runs, alarms = np.random.default_rng(0), 60, 0
    for _ in range(runs):
        path = write(tmp_path, switched(rng))
        alarms += analyze_file(path, ask(block="block", day="hour"), NOW).metrics[0].pvalue < 0.05
    assert alarms / runs <= 0.12


def test_a_segment_that_the_treatment_made_is_named_and_not_shown(tmp_path):
    columns = units()
    rng = np.random.default_rng(1)
    columns["buyer"] = np.where(rng.random(4_000) < np.where(columns["arm"] == "b", 0.6, 0.4), "yes", "no")
    got = analyze_file(write(tmp_path, columns), ask(segments=["device", "buyer"]), NOW)
    found = check(got, "segments_before_exposure")
    assert not found.passed
    assert "segment 'buyer' depends on the variant" in found.detail
    assert {row["segment"] for row in got.segments} == {"device"}
    assert got.checks[0].passed


def test_segments_are_shrunken_and_tested_for_being_different(tmp_path):
    columns = units(n=20_000)
    columns["money"] = 10 + np.random.default_rng(0).normal(0, 2, 20_000)
    hit = (columns["device"] == "phone") & (columns["arm"] == "b")
    columns["money"] *= np.where(hit, 0.9, np.where(columns["arm"] == "b", 1.3, 1.0))
    got = analyze_file(write(tmp_path, columns), ask(segments=["device"], margins=["money=0.05"]), NOW)
    assert got.heterogeneity[0]["pvalue"] < 0.001
    phone = next(row for row in got.segments if row["value"] == "phone")
    assert phone["shrunken_rel_effect_size_ci"][1] < 0
    assert phone["pvalue_adjusted"] >= phone["pvalue"]
    assert got.decision.action == "keep"
    assert "where device is phone" in got.decision.sentence


def lived(n=3_000, days=14, fades=0.0, seed=0):
    """One row per unit and day from its first one on; the effect fades with log(1 + days)."""
    rng = np.random.default_rng(seed)
    start, arm, base = rng.integers(0, 4, n), rng.integers(0, 2, n), rng.normal(0, 1, n)
    rows = [(unit, day) for unit in range(n) for day in range(start[unit], days)]
    unit, day = np.array(rows).T
    since = day - start[unit]
    effect = arm[unit] * (0.5 - fades * np.log1p(since))
    return {
        "user": unit, "arm": np.array(["a", "b"])[arm[unit]],
        "day": [date(2026, 1, 1) + timedelta(days=int(each)) for each in day],
        "money": 10 + base[unit] + 0.3 * (day % 7) + effect + rng.normal(0, 1, unit.size),
    }  # fmt: skip


def test_an_effect_that_fades_is_not_stable_and_the_decision_says_so(tmp_path):
    fading = analyze_file(write(tmp_path, lived(fades=0.2)), ask(day="day"), NOW)
    row = fading.novelty["variants"][0]
    assert fading.novelty["stable"] is False
    assert row["late_minus_early"]["value"] < 0
    assert row["trend"]["value"] == pytest.approx(-0.2, abs=0.03)
    assert row["by_day"][0]["effect_size"] > row["by_day"][9]["effect_size"]
    assert row["steady"]["effect_size"] < row["early"]["effect_size"]
    assert {cohort["entered"] for cohort in row["cohorts"]} == {f"2026-01-0{day}" for day in (1, 2, 3, 4)}
    assert "not stable" in fading.decision.sentence
    report_json(fading)
    lasting = analyze_file(write(tmp_path, lived()), ask(day="day"), NOW)
    assert lasting.novelty["stable"] is True
    assert "stable" not in lasting.decision.sentence
    short = analyze_file(write(tmp_path, lived(n=200, days=5)), ask(day="day"), NOW)
    assert short.novelty["stable"] is None
    assert "more than 7 days" in short.novelty["why"]


def test_where_visitors_come_less_often_an_effect_that_keeps_its_share_is_told_from_one_that_fades(tmp_path):
    columns = lived()
    come = np.exp(-0.2 * np.array([(day - date(2026, 1, 1)).days for day in columns["day"]]))
    columns["money"] = columns["money"] * come * np.where(columns["arm"] == "b", 1.3, 1.0)
    got = analyze_file(write(tmp_path, columns), ask(day="day"), NOW)
    row = got.novelty["variants"][0]
    assert (row["stable"], row["same_share"]) == (False, True)
    assert row["late_minus_early"]["value"] < 0
    assert got.decision.action == "ship"
    assert "not stable" not in got.decision.sentence
    faded = analyze_file(write(tmp_path, lived(fades=0.2)), ask(day="day"), NOW)
    assert faded.novelty["variants"][0]["same_share"] is False


def test_where_no_unit_has_later_rows_one_cannot_say_whether_an_effect_lasts(tmp_path):
    columns = units(lift=1.5)
    columns["day"] = [date(2026, 1, 1) + timedelta(days=at % 12) for at in range(4_000)]
    got = analyze_file(write(tmp_path, columns), ask(day="day"), NOW)
    assert got.novelty["variants"][0]["stable"] is None
    assert got.decision.action == "ship"
    assert any("one cannot say whether it lasts" in reason for reason in got.decision.reasons)


@pytest.mark.slow
def test_a_stable_effect_is_called_unstable_as_seldom_as_promised(tmp_path):
    runs = 40
    alarms = sum(
        analyze_file(write(tmp_path, lived(n=400, seed=seed)), ask(day="day"), NOW).novelty["stable"] is False
        for seed in range(runs)
    )
    assert alarms / runs <= 0.12


def test_days_without_rows_and_rows_before_the_exposure_are_named(tmp_path):
    columns = units(n=600)
    columns["day"] = [date(2026, 1, 1) + timedelta(days=[0, 1, 4][at % 3]) for at in range(600)]
    columns["exposed"] = [date(2026, 1, 1) + timedelta(days=int(at % 50 == 0)) for at in range(600)]
    got = analyze_file(write(tmp_path, columns), ask(day="day", exposure="exposed"), NOW)
    missing, early = check(got, "missing_days"), check(got, "outcomes_before_exposure")
    assert (missing.passed, missing.statistic) == (False, 2.0)
    assert "2 of 5 days from 2026-01-01 on have no row (day 3 is the first)" in missing.detail
    late = sum(1 for at in range(600) if at % 50 == 0 and at % 3 == 0)
    assert (early.passed, early.statistic) == (False, late)
    assert sum(got.units.values()) == 600 - late


def test_days_are_those_of_utc_whatever_zone_they_are_written_in(tmp_path):
    columns = units(n=400)
    zones = ["2026-01-01T23:30:00-05:00", "2026-01-02T04:00:00Z"]
    columns["day"] = [zones[at % 2] for at in range(400)]
    got = analyze_file(write(tmp_path, columns), ask(day="day"), NOW)
    assert [row["until"] for row in got.cumulative] == ["2026-01-02"]
    columns["day"][7] = "2026-01-02T04:00:00"
    with pytest.raises(BadInput, match="mixes 399 times with a zone and 1 without"):
        analyze_file(write(tmp_path, columns), ask(day="day"), NOW)


REFUSED = [
    ({"metrics": []}, "at least one --metric"),
    ({"quantiles": ["p=money"]}, "is not NAME=COLUMN@0.9"),
    ({"quantiles": ["p=money@2"]}, "a quantile lies between 0 and 1"),
    ({"quantiles": ["p=money@0.5"], "caps": ["p=3"]}, "a quantile needs no cap"),
    ({"quantiles": ["p=money@0.5"], "cluster": "device"}, "--quantile does not go with"),
    ({"caps": ["other=3"]}, "--cap names metric 'other'"),
    ({"caps": ["money=-1"]}, "a cap is above 0"),
    ({"caps": ["money=q2"]}, "lies between 0.5 and 1"),
    ({"looks": -1}, "--looks is -1"),
    ({"planned_days": 3.0}, "--planned-days tells which"),
    ({"exposure": "user"}, "--exposure needs --day"),
    ({"burn_in": 2}, "--burn-in needs --block"),
    ({"block": "user"}, "--block needs --day"),
    ({"block": "user", "day": "user", "cluster": "device"}, "--cluster does not go with --block"),
    ({"block": "user", "day": "user", "looks": 3}, "as strict as an early look"),
    ({"day": "money"}, "that are no whole days"),
    ({"block": "device", "day": "user"}, "blocks in that order too"),
    ({"day": "user", "exposure": "device"}, "cannot be compared"),
]


@pytest.mark.parametrize(("question", "words"), REFUSED, ids=range(len(REFUSED)))
def test_designs_that_do_not_go_together_are_refused(tmp_path, question, words):
    columns = units(n=400)
    columns["device"] = np.where(columns["arm"] == "a", "x", "y")
    with pytest.raises(BadInput) as caught:
        analyze_file(write(tmp_path, columns), ask(**question), NOW)
    assert words in str(caught.value)
