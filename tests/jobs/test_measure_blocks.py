"""A switchback from the lake: blocks that are over, without what the variant before left behind."""

from datetime import UTC, datetime, timedelta

import duckdb
import msgspec
import numpy as np
import pyarrow as pa
import pytest

from thinslice.errors import BadInput
from thinslice.experiments.assign import bucket
from thinslice.experiments.switchback import block_of, block_variant
from thinslice.jobs.measure import measure_in
from thinslice.metrics import UNIT_COLUMNS, block_units_sql
from thinslice.metrics.statistics import rows_of
from thinslice.records import Experiment, Metric, Variant

START = datetime(2026, 3, 1, tzinfo=UTC)
END = START + timedelta(days=14)
PLAN = Experiment(
    name="stock", tenant="shop", unit="block", block_minutes=360.0, burn_in_minutes=60.0, started_at=START, ends_at=END,
    variants=[Variant(name="old", policy="a", weight=0.5), Variant(name="new", policy="b", weight=0.5)],
    metrics=[
        Metric(name="views", numerator="views", role="goal"),
        Metric(name="click_through", numerator="clicks", denominator="exposures"),
    ],
)  # fmt: skip


def shop(lift=0.0, seed=0, swapped=False, harmed=0.0, moved=False):
    """A visitor every six minutes for a fortnight: a slate, a click, views; the first hour is the old side's."""
    rng, database = np.random.default_rng(seed), duckdb.connect()
    database.execute("SET TimeZone = 'UTC'")
    served, events = [], []
    mood = 0.0
    for number in range(14 * 240):
        at = START + timedelta(minutes=6 * number)
        block = block_of(PLAN, at.timestamp())
        on = block_variant(PLAN, block, bucket)
        late = (at.timestamp() - block * 21_600) < 3_600
        works = (block_variant(PLAN, block - 1, bucket) if late else on) == "new"
        mood = 0.97 * mood + rng.normal(0, 0.1)
        who = f"v{number}"
        name = on if not (swapped and number % 240 == 0) else {"old": "new", "new": "old"}[on]
        phone = (number * 7919 % 100) < 100 * (0.25 if not moved or name == "old" else 0.5)
        device = {"device": "phone" if phone else "desktop"}
        served.append((f"r{number}", "shop", at, who, who, "stock", name, str(block), False, False, device))
        level = 3 + mood + lift * works * (-1 if harmed and phone else 1)
        for _ in range(rng.poisson(max(level, 0.1))):
            events.append(("shop", "view_item", at + timedelta(seconds=9), who, who, None, False, False))
        if rng.random() < 0.3:
            events.append(("shop", "select_item", at + timedelta(seconds=9), who, who, f"r{number}", False, False))
    exposed = (
        "recommendation_id tenant occurred_at visitor_id session_id experiment variant unit_id is_bot shadow segments"
    )
    acted = "tenant name occurred_at visitor_id session_id recommendation_id is_bot duplicate"
    for table, rows, names in (("exposure_variants", served, exposed), ("events", events, acted)):
        columns = dict(zip(names.split(), map(list, zip(*rows, strict=True)), strict=True))
        if "segments" in columns:
            pairs = [list(of.items()) for of in columns["segments"]]
            columns["segments"] = pa.array(pairs, pa.map_(pa.string(), pa.string()))
        database.register("rows", pa.table(columns))
        database.execute(f"CREATE TABLE {table} AS SELECT * FROM rows")
    database.execute("CREATE TABLE orders (tenant VARCHAR, visitor_id VARCHAR, session_id VARCHAR, total_minor BIGINT, "
                     "occurred_at TIMESTAMPTZ)")  # fmt: skip
    return database


def test_blocks_that_are_over_are_counted_visitor_by_visitor_without_their_first_hour():
    rows = rows_of(shop(), block_units_sql(PLAN, START + timedelta(hours=17)))
    first = block_of(PLAN, START.timestamp())
    assert {row["number"] - first for row in rows} == {0, 1}
    for number in (first, first + 1):
        mine = [row for row in rows if row["number"] == number]
        assert len(mine) == len({row["visitor"] for row in mine}) == 50
        assert [sum(row[name] for row in mine) for name in ("units", "exposures", "sessions")] == [50, 50, 50]
    assert set(UNIT_COLUMNS) < set(rows[0])


def test_a_lift_is_found_by_drawing_the_assignment_again():
    got = measure_in(shop(lift=1.0), PLAN, END)
    views, clicks = got.metrics
    assert got.units == {"old": 28, "new": 28}
    assert views.effect_size == pytest.approx(1.0, abs=0.35)
    assert (views.reading, clicks.reading) == ("better", "cannot_say")
    assert got.method.startswith("switchback")
    assert got.decision.action == "ship"
    kept = measure_in(shop(lift=1.0), msgspec.structs.replace(PLAN, burn_in_minutes=0.0), END).metrics[0]
    assert kept.effect_size < views.effect_size - 0.08


def test_a_block_in_two_variants_makes_it_invalid():
    got = measure_in(shop(swapped=True), msgspec.structs.replace(PLAN, burn_in_minutes=0.0), END)
    assert got.decision.action == "invalid"
    assert "mixed_assignment" in got.decision.sentence
    renamed = [Variant(name="old", policy="a", weight=0.5), Variant(name="newer", policy="b", weight=0.5)]
    with pytest.raises(BadInput, match="name a variant 'new'"):
        measure_in(shop(), msgspec.structs.replace(PLAN, variants=renamed), END)


def test_caps_and_quantiles_are_of_what_a_visitor_does_in_a_block():
    more = [
        Metric(name="views", numerator="views", role="goal"),
        Metric(name="capped", numerator="views", cap=4.0),
        Metric(name="cut", numerator="views", cap_quantile=0.5),
        Metric(name="median", numerator="views", quantile=0.5),
        Metric(name="tail", numerator="views", quantile=0.9),
    ]
    got = {
        row.name: row for row in measure_in(shop(lift=2.0), msgspec.structs.replace(PLAN, metrics=more), END).metrics
    }
    assert 0 < got["capped"].effect_size < got["views"].effect_size
    assert got["capped"].mean_treatment < 4.0
    assert got["cut"].mean_treatment < got["views"].mean_treatment
    assert got["median"].effect_size == pytest.approx(2.0, abs=1.0)
    assert got["tail"].mean_control > got["median"].mean_control
    assert [got[name].reading for name in ("views", "capped", "median", "tail")] == ["better"] * 4


def test_a_switchbacks_segments_are_read_apart_and_add_up():
    halves = msgspec.structs.replace(PLAN, segments=["device"])
    got = measure_in(shop(lift=2.0, harmed=0.25), halves, END)
    rows = {row["value"]: row for row in got.segments if row["name"] == "views"}
    assert rows["phone"]["effect_size"] < 0 < rows["desktop"]["effect_size"]
    assert sum(row["share"] for row in rows.values()) == pytest.approx(1.0)
    assert rows["phone"]["share"] == pytest.approx(0.25, abs=0.02)
    assert got.decision.action == "keep"
    assert "device is phone" in got.decision.sentence
    assert next(row for row in got.heterogeneity if row["name"] == "views")["pvalue"] < 0.01


def test_a_segment_that_the_treatment_fills_is_a_result_and_left_out():
    moved = measure_in(shop(moved=True), msgspec.structs.replace(PLAN, segments=["device"]), END)
    assert moved.segments == []


def test_before_any_block_is_over_nothing_is_said():
    got = measure_in(shop(), PLAN, START + timedelta(hours=2))
    assert got.units == {"old": 0, "new": 0}
    assert got.decision.action == "extend"
