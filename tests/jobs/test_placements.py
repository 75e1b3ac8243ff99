"""An experiment at one placement is judged by the page: from slates and clicks to a decision, with known truth."""

from datetime import UTC, datetime, timedelta

import duckdb
import msgspec
import numpy as np
import pyarrow as pa
import pytest

from thinslice.experiments import assign
from thinslice.experiments.evidence import WEIGHT, Evidence, planned_shares
from thinslice.experiments.placements import OWN, PAGE, cannibalization, cannibalized, judged_by_page
from thinslice.jobs.measure import measure_in
from thinslice.jobs.rehearse import rehearse
from thinslice.records import Experiment, Metric, Variant
from thinslice.simulate.scenarios import find_scenario
from thinslice.stats import moments

START = datetime(2026, 3, 2, tzinfo=UTC)
END = START + timedelta(days=7)
PLAN = Experiment(
    name="top", tenant="shop", placement="home-top", started_at=START, ends_at=END, days=7.0,
    variants=[Variant(name="old", policy="a", weight=0.5), Variant(name="new", policy="b", weight=0.5)],
    metrics=[Metric(name="click_through_rate", numerator="clicks", denominator="exposures", role="goal"),
             Metric(name="carts_per_visitor", numerator="carts")],
)  # fmt: skip


def page(*, stolen, plan=PLAN, visitors=3_000, before=0):
    """A page of two shelves: treatment's upper one is clicked half as often again, `stolen` of that from the lower."""
    rng, database = np.random.default_rng(0), duckdb.connect()
    database.execute("SET TimeZone = 'UTC'")
    served, shown, events = [], [], []

    def click(who, at, slate, chance):
        if rng.random() < chance:
            events.append(("shop", "select_item", at + timedelta(seconds=9), who, who, slate, False, False))

    for number in range(visitors):
        who, at = f"v{number}", START + timedelta(seconds=180 * number)
        variant = assign(plan, who).variant
        more = 0.2 * (variant == "new")
        for slate, placement in ((f"{who}-top", "home-top"), (f"{who}-low", "home-low")):
            shown.append((slate, "shop", at, who, who, None, placement, False, False))
        served.append((f"{who}-top", "shop", at, who, who, "top", variant, who, False, False, "home-top"))
        click(who, at, f"{who}-top", 0.4 + more)
        click(who, at, f"{who}-low", 0.4 - more * stolen)
        for early in range(before):
            shown.append((f"{who}-e{early}", "shop", at - timedelta(hours=1), who, who, None, "home-low", False, False))
            click(who, at - timedelta(hours=1), f"{who}-e{early}", 1.0)
    tables = {
        "exposure_variants": (served, "recommendation_id tenant occurred_at visitor_id session_id experiment variant "
                              "unit_id is_bot shadow placement"),
        "exposures": (shown, "recommendation_id tenant occurred_at visitor_id session_id user_id placement is_bot "
                      "shadow"),
        "events": (events, "tenant name occurred_at visitor_id session_id recommendation_id is_bot duplicate"),
    }  # fmt: skip
    for table, (rows, names) in tables.items():
        database.register("rows", pa.table(dict(zip(names.split(), map(list, zip(*rows, strict=True)), strict=True))))
        more_of = ", MAP {'old': 0.5, 'new': 0.5} AS propensities" if table == "exposure_variants" else ""
        database.execute(f"CREATE TABLE {table} AS SELECT *{more_of} FROM rows")
    database.execute("CREATE TABLE orders (tenant VARCHAR, visitor_id VARCHAR, session_id VARCHAR, total_minor BIGINT, "
                     "occurred_at TIMESTAMPTZ)")  # fmt: skip
    return database


def test_a_shelf_that_only_takes_its_neighbors_clicks_is_not_shipped():
    got = measure_in(page(stolen=1.0), PLAN, END)
    rows = {row.name: row for row in got.metrics}
    assert got.decision.action != "ship"
    assert rows["click_through_rate"].reading == "cannot_say"
    assert rows["click_through_rate"].mean_control == pytest.approx(0.4, abs=0.03)
    assert rows[OWN].effect_size == pytest.approx(0.2, abs=0.05)
    assert rows[PAGE].effect_size == pytest.approx(0.0, abs=0.06)
    check = next(each for each in got.checks if each.name == "cannibalization")
    assert not check.passed
    assert "took from its neighbors" in check.detail
    low, high = got.placements[0]["cannibalized_share_ci"]
    assert low < 1 < high


def test_the_same_shelf_judged_by_itself_would_have_been():
    everywhere = msgspec.structs.replace(PLAN, placement="*")
    got = measure_in(page(stolen=1.0), everywhere, END)
    assert got.decision.action == "ship"
    assert got.placements == []
    assert "cannibalization" not in {check.name for check in got.checks}


def test_a_shelf_that_brings_clicks_of_its_own_is_shipped():
    got = measure_in(page(stolen=0.0), PLAN, END)
    assert got.decision.action == "ship"
    assert next(each for each in got.checks if each.name == "cannibalization").passed
    assert abs(got.placements[0]["cannibalized_share"]) < 0.3


def test_what_was_shown_before_the_first_exposure_counts_nowhere():
    plain, early = (measure_in(page(stolen=0.0, before=before), PLAN, END).metrics for before in (0, 2))
    assert {row.name: row.mean_control for row in plain}[PAGE] == pytest.approx(
        {row.name: row.mean_control for row in early}[PAGE], abs=0.05
    )


def test_a_switchbacks_shelf_is_judged_by_the_page_too():
    blocks = msgspec.structs.replace(PLAN, unit="block", block_minutes=240.0)
    database = page(stolen=1.0)
    database.execute(
        "CREATE OR REPLACE TABLE exposure_variants AS SELECT * REPLACE (CAST(CAST(floor(epoch(occurred_at) / 14400) AS "
        "BIGINT) AS VARCHAR) AS unit_id, CASE WHEN CAST(floor(epoch(occurred_at) / 14400) AS BIGINT) % 2 = 0 THEN "
        "'old' ELSE 'new' END AS variant) FROM exposure_variants"
    )
    rows = {row.name: row for row in measure_in(database, blocks, END).metrics}
    assert rows[PAGE].mean_control == pytest.approx(0.8, abs=0.1)
    assert rows[OWN].mean_control == pytest.approx(0.5, abs=0.1)
    assert rows["click_through_rate"].mean_control == pytest.approx(0.4, abs=0.05)


def test_only_clicks_slates_and_impressions_are_counted_for_the_page():
    assert judged_by_page(msgspec.structs.replace(PLAN, placement="*")).metrics == PLAN.metrics
    metrics = {metric.name: metric for metric in judged_by_page(PLAN).metrics}
    assert (metrics["click_through_rate"].numerator, metrics["click_through_rate"].denominator) == (
        "page_clicks", "page_exposures",
    )  # fmt: skip
    assert metrics["carts_per_visitor"].numerator == "carts"
    assert {metrics[OWN].role, metrics[PAGE].role} == {"diagnostic"}
    assert judged_by_page(judged_by_page(PLAN)) == judged_by_page(PLAN)


def evidence(own, others, size=4_000, seed=0, weight=None):
    rng = np.random.default_rng(seed)
    sides = {}
    for name, lift, loss in (("old", 0.0, 0.0), ("new", own, others)):
        clicks = rng.poisson(1.0 + lift, size).astype(float)
        table = {"clicks": clicks, "page_clicks": clicks + rng.poisson(2.0 + loss, size)}
        if weight is not None:
            table = {key: values * weight for key, values in table.items()} | {WEIGHT: np.full(size, float(weight))}
        sides[name] = moments(table)
    return Evidence(sides, np.array([[size, size]], float), planned_shares(PLAN), {"old": size, "new": size})


def test_the_share_that_was_taken_is_told_with_an_interval_that_holds_it():
    inside = 0
    for seed in range(100):
        row = cannibalized(evidence(0.3, -0.15, seed=seed), PLAN)[0]
        low, high = row.share_ci
        inside += low <= 0.5 <= high
    assert inside >= 90
    assert cannibalized(evidence(0.0, 0.0), PLAN)[0].share is None
    assert not cannibalization(evidence(0.3, -0.3), PLAN).passed
    assert cannibalization(evidence(0.3, 0.0), PLAN).passed


def test_clusters_and_weights_are_read_a_unit_each():
    plain, heavy = cannibalized(evidence(0.3, -0.15), PLAN)[0], cannibalized(evidence(0.3, -0.15, weight=5), PLAN)[0]
    assert heavy.own.value == pytest.approx(plain.own.value)
    assert heavy.share_ci == pytest.approx(plain.share_ci)


def test_rehearsed_the_stealing_shelf_is_shipped_by_its_own_clicks_and_not_by_the_pages():
    found = {
        design.name: design for design in rehearse("stealing-shelf", find_scenario("stealing-shelf"), runs=6).designs
    }
    assert found["shelf"].actions == {"ship": 1.0}
    assert "ship" not in found["page"].actions
    assert found["page"].warnings == {"cannibalization": 1.0}
    half = msgspec.structs.replace(find_scenario("stealing-shelf"), stolen=0.0)
    honest = {design.name: design for design in rehearse("stealing-shelf", half, runs=6).designs}
    assert honest["page"].actions["ship"] >= 0.5
    assert honest["page"].warned_share == 0
