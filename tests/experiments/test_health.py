"""Checks that look for the cause: each finds what it is for, names it, and is silent when all is well."""

import msgspec
import numpy as np
import pytest

from thinslice.experiments.checks import check_all, check_file
from thinslice.experiments.evidence import Evidence, Split, Units, gather
from thinslice.experiments.health import (
    bots_by_variant,
    contamination,
    covariate_balance,
    duplicate_exposures,
    log_loss_by_segment,
    missing_exposures,
    odd_segments,
    sample_ratio_by_day,
    sample_ratio_by_segment,
    sample_ratio_over_time,
    unknown_segments,
)
from thinslice.records import Experiment, Metric, Variant
from thinslice.stats import moments

HALF = np.array([[0.5, 0.5]])
PLAN = Experiment(
    name="test", tenant="shop", metrics=[Metric(name="y", numerator="y", role="goal")],
    variants=[Variant(name="old", policy="a", weight=0.5), Variant(name="new", policy="b", weight=0.5)],
)  # fmt: skip


def evidence(days=(), **fields):
    counts = np.sum(days, axis=0, keepdims=True) if len(days) else np.array([[500.0, 500.0]])
    splits = {"entry day": {f"day {at}": Split(np.array([day], dtype=float), HALF) for at, day in enumerate(days)}}
    return Evidence({}, counts, HALF, {"old": 500, "new": 500}, splits=splits if len(days) else {}, **fields)


def test_a_day_that_loses_units_is_named_while_the_others_are_fine():
    days = [(1_000, 1_000)] * 6 + [(1_000, 700)] + [(1_000, 1_000)] * 7
    by_day = sample_ratio_by_day(evidence(days), PLAN)
    assert not by_day.passed
    assert (
        "off in 1 of 14 slices, the worst first: entry day = day 6: old 1,000 (58.8%, planned 50.0%)" in by_day.detail
    )
    assert sample_ratio_by_day(evidence([(1_000, 1_010)] * 14), PLAN).passed


def test_a_loss_from_some_day_on_is_dated():
    days = [(1_000, 1_000)] * 7 + [(1_000, 850)] * 7
    found = sample_ratio_over_time(evidence(days), PLAN)
    assert not found.passed
    assert found.detail.startswith("off since day 1")
    assert "Look for what changed on that day" in found.detail
    assert sample_ratio_over_time(evidence(), PLAN) is None


def test_small_slices_are_not_tested():
    assert sample_ratio_by_day(evidence([(4, 4), (9, 0)]), PLAN) is None


@pytest.mark.slow
def test_looking_at_the_split_every_day_is_wrong_as_seldom_as_promised():
    rng, runs = np.random.default_rng(0), 1_000
    alarms = {"over time": 0, "by day": 0, "by segment": 0}
    for _ in range(runs):
        first = rng.binomial(400, 0.5, 14)
        found = evidence(np.column_stack([first, 400 - first]))
        values = {f"v{at}": Split(np.array([[n, 400 - n]], dtype=float), HALF) for at, n in enumerate(first)}
        alarms["over time"] += not sample_ratio_over_time(found, PLAN).passed
        alarms["by day"] += not sample_ratio_by_day(found, PLAN).passed
        alarms["by segment"] += not sample_ratio_by_segment(found._replace(splits={"browser": values}), PLAN).passed
    assert max(alarms.values()) <= 5  # one in a thousand, and room for luck


@pytest.mark.slow
def test_a_loss_in_one_browser_is_found_there():
    rng, runs, named = np.random.default_rng(0), 60, 0
    for _ in range(runs):
        n = 60_000
        arm, browser = rng.integers(0, 2, n), rng.choice(3, n, p=[0.6, 0.1, 0.3])
        kept = ~((arm == 1) & (browser == 2) & (rng.random(n) < 0.05 / 0.3))
        labels = np.array(["old", "new"])[arm[kept]]
        data = Units(labels, {"y": np.ones(kept.sum())}, segments={"browser": browser[kept].astype(str)})
        checks = {check.name: check for check in check_all(gather(data, PLAN), PLAN)}
        named += "browser = 2" in checks["sample_ratio_by_segment"].detail.split(":", 2)[1]
    assert named / runs >= 0.95


def test_a_mismatch_of_the_whole_is_not_blamed_on_every_segment():
    rng = np.random.default_rng(0)
    arm = np.where(rng.random(20_000) < 0.45, "new", "old")
    data = Units(arm, {"y": np.ones(20_000)}, segments={"device": rng.choice(["phone", "desk"], 20_000)})
    found = gather(data, PLAN)
    assert odd_segments(found, PLAN) == {}
    names = {check.name: check.passed for check in check_file(found, PLAN)}
    assert (names["sample_ratio"], names["segments_before_exposure"]) == (False, True)


def test_a_segment_in_which_every_unit_got_the_same_variant_is_a_result():
    arm = np.repeat(["old", "new"], 500)
    found = gather(Units(arm, {"y": np.ones(1_000)}, segments={"saw": np.where(arm == "new", "yes", "no")}), PLAN)
    assert set(odd_segments(found, PLAN)) == {"saw"}


def test_variants_that_differed_before_the_test_are_told():
    rng = np.random.default_rng(0)
    arm = np.resize(["old", "new"], 4_000)
    before = rng.gamma(2, 5, 4_000)
    fine = gather(Units(arm, {"y": before}, covariate=before), PLAN)
    assert covariate_balance(fine, PLAN).passed
    skewed = gather(Units(arm, {"y": before}, covariate=before * np.where(arm == "new", 1.3, 1.0)), PLAN)
    found = covariate_balance(skewed, PLAN)
    assert not found.passed
    assert "before anything was shown" in found.detail


def seen(rng, lost):
    served = rng.poisson(4, 5_000) + 1
    return moments({"served": served, "seen": rng.binomial(served, 0.8 * (1 - lost))})


def test_reports_that_get_lost_in_one_variant_are_told_and_none_at_all_is_no_loss():
    rng = np.random.default_rng(0)
    even = evidence(served={"old": seen(rng, 0.0), "new": seen(rng, 0.0)})
    assert missing_exposures(even, PLAN).passed
    found = missing_exposures(evidence(served={"old": seen(rng, 0.0), "new": seen(rng, 0.05)}), PLAN)
    assert not found.passed
    assert "of control's slates were reported as seen" in found.detail
    assert "get lost" in found.detail
    nothing = moments({"served": np.ones(100), "seen": np.zeros(100)})
    assert missing_exposures(evidence(served={"old": nothing, "new": nothing}), PLAN) is None
    assert missing_exposures(evidence(), PLAN) is None


@pytest.mark.slow
def test_lost_reports_and_balance_alarm_falsely_once_in_a_thousand():
    rng, runs = np.random.default_rng(0), 1_000
    alarms = 0
    for _ in range(runs):
        alarms += not missing_exposures(evidence(served={"old": seen(rng, 0.0), "new": seen(rng, 0.0)}), PLAN).passed
    assert alarms <= 5


def test_bots_that_follow_the_variant_are_told():
    assert bots_by_variant(evidence(bots=Split(np.array([[210.0, 190.0]]), HALF)), PLAN).passed
    found = bots_by_variant(evidence(bots=Split(np.array([[300.0, 100.0]]), HALF)), PLAN)
    assert not found.passed
    assert "What marks a bot depends on the variant" in found.detail
    assert bots_by_variant(evidence(bots=Split(np.array([[2.0, 1.0]]), HALF)), PLAN) is None
    assert bots_by_variant(evidence(), PLAN) is None


def test_contamination_names_the_worst_variant_and_who_explores():
    assert contamination(evidence()) is None
    assert contamination(evidence(contamination={"old": 0.0})).passed
    found = contamination(evidence(contamination={"old": 0.3, "new": 0.1}, explorers=frozenset({"new"})))
    assert not found.passed
    assert "30.0 % of the rows that taught old" in found.detail
    assert "new explores" in found.detail


def test_reports_that_get_lost_in_one_browser_are_named_by_it():
    rng = np.random.default_rng(0)
    even = {"old": seen(rng, 0.0), "new": seen(rng, 0.0)}
    assert log_loss_by_segment(evidence(served_by={"browser": {"chromium": even, "webkit": even}}), PLAN).passed
    lossy = {"old": seen(rng, 0.0), "new": seen(rng, 0.1)}
    found = log_loss_by_segment(evidence(served_by={"browser": {"chromium": even, "webkit": lossy}}), PLAN)
    assert not found.passed
    assert "lost in 1 of 2 slices, the worst first: browser = webkit: 79.8 %" in found.detail
    assert log_loss_by_segment(evidence(), PLAN) is None


def test_slates_that_are_logged_twice_are_counted_by_variant():
    found = duplicate_exposures(evidence(duplicates={"old": (900, 0), "new": (1_000, 40)}))
    assert not found.passed
    assert found.detail == "of 1,900 slates these were logged more than once: 40 of new"
    assert duplicate_exposures(evidence(duplicates={"old": (900, 0), "new": (1_000, 0)})).passed
    assert duplicate_exposures(evidence()) is None


def test_a_broken_split_says_where_most_of_it_lies_and_what_to_do():
    rng = np.random.default_rng(0)
    n = 40_000
    arm, browser = rng.integers(0, 2, n), rng.choice(["chromium", "webkit"], n, p=[0.8, 0.2])
    kept = ~((arm == 1) & (browser == "webkit") & (rng.random(n) < 0.25))
    data = Units(np.array(["old", "new"])[arm[kept]], {"y": np.ones(kept.sum())}, segments={"browser": browser[kept]})
    found = {check.name: check for check in check_all(gather(data, PLAN), PLAN)}["sample_ratio"]
    assert not found.passed
    assert found.advice.startswith("Most of it lies in browser = webkit (old")
    assert "Look in this order" in found.advice


def test_every_check_that_fails_says_what_to_do():
    rng = np.random.default_rng(0)
    lossy = {"old": seen(rng, 0.0), "new": seen(rng, 0.2)}
    broken = evidence(
        [(1_000, 700)] * 7, served=lossy, served_by={"browser": {"webkit": lossy}},
        duplicates={"new": (10, 2)}, mixed_units=3, contamination={"new": 0.2},
        bots=Split(np.array([[100.0, 300.0]]), HALF),
    )  # fmt: skip
    failed = [check for check in check_all(broken, PLAN) if not check.passed]
    assert {check.name for check in failed} == {
        "sample_ratio", "mixed_assignment", "duplicate_exposures", "contamination", "sample_ratio_over_time",
        "sample_ratio_by_day", "missing_exposures", "log_loss_by_segment", "bots_by_variant",
    }  # fmt: skip
    assert all(check.advice.endswith((".", "?")) for check in failed)


def test_a_segment_that_no_slate_ever_named_is_told_with_the_name_that_was_meant():
    plan = msgspec.structs.replace(PLAN, segments=["devic", "browser"])
    seen = {"devic": {"unknown": {}}, "browser": {"unknown": {}, "firefox": {}}}
    found = unknown_segments(evidence()._replace(segments=seen), plan)
    assert not found.passed
    assert found.detail == "no slate of any unit said 'devic' ('device' perhaps?), so nothing is known by that"
    assert "context of each request" in found.advice
    assert unknown_segments(evidence()._replace(segments={**seen, "devic": {"phone": {}}}), plan) is None
    assert unknown_segments(evidence(), plan) is None
    blocks = evidence()._replace(block_segments={"devic": {"unknown": {}}})
    assert "'device' perhaps?" in unknown_segments(blocks, plan).detail
