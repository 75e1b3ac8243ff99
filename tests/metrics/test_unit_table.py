from datetime import UTC, datetime, timedelta

import duckdb
import msgspec
import numpy as np
import pytest

from thinslice.metrics import UNIT_COLUMNS, acts_sql, unit_table_sql, units_sql
from thinslice.metrics.statistics import cumulative_sql, read_cumulative, read_statistics, statistics_sql
from thinslice.records import Experiment, Variant
from thinslice.stats import moments

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
EXPERIMENT = Experiment(
    name="ranker", tenant="shop", started_at=START,
    variants=[Variant(name="old", policy="popular", weight=0.5), Variant(name="new", policy="session-knn", weight=0.5)],
)  # fmt: skip

VIEWS = """
CREATE TABLE exposure_variants (recommendation_id VARCHAR, tenant VARCHAR, occurred_at TIMESTAMPTZ, visitor_id VARCHAR,
    session_id VARCHAR, user_id VARCHAR, experiment VARCHAR, variant VARCHAR, unit VARCHAR, unit_id VARCHAR,
    allocation_version BIGINT, propensities MAP(VARCHAR, DOUBLE), is_bot BOOLEAN, shadow BOOLEAN);
CREATE TABLE events (tenant VARCHAR, name VARCHAR, occurred_at TIMESTAMPTZ, visitor_id VARCHAR, session_id VARCHAR,
    user_id VARCHAR, recommendation_id VARCHAR, is_bot BOOLEAN, duplicate BOOLEAN);
CREATE TABLE orders (tenant VARCHAR, order_id VARCHAR, occurred_at TIMESTAMPTZ, visitor_id VARCHAR, session_id VARCHAR,
    user_id VARCHAR, total_minor BIGINT);
"""


def at(minutes):
    return START + timedelta(minutes=minutes)


class Shop:
    """A database with the columns of the lake's views."""

    def __init__(self):
        self.db = duckdb.connect()
        self.db.execute(VIEWS)
        self.served = 0

    def serve(self, unit, variant, minute, *, bot=False, tenant="shop", experiment="ranker", session="s"):
        self.served += 1
        row = [f"r{self.served}", tenant, at(minute), unit, f"{unit}-{session}", None, experiment, variant, "visitor"]
        row += [unit, 1, bot, False]
        self.db.execute(
            f"INSERT INTO exposure_variants VALUES ({', '.join('?' * 11)}, MAP {{'old': 0.5, 'new': 0.5}}, ?, ?)", row
        )
        return f"r{self.served}"

    def event(self, unit, name, minute, *, slate=None, bot=False, duplicate=False, tenant="shop", session="s"):
        row = [tenant, name, at(minute), unit, f"{unit}-{session}", None, slate, bot, duplicate]
        self.db.execute(f"INSERT INTO events VALUES ({', '.join('?' * len(row))})", row)

    def order(self, unit, minute, total, tenant="shop"):
        row = [tenant, f"o{minute}", at(minute), unit, f"{unit}-s", None, total]
        self.db.execute(f"INSERT INTO orders VALUES ({', '.join('?' * len(row))})", row)

    def units(self, until=None, experiment=EXPERIMENT):
        cursor = self.db.execute(unit_table_sql(experiment, until) + " ORDER BY unit_id")
        names = [column[0] for column in cursor.description]
        return {row[0]: dict(zip(names, row, strict=True)) for row in cursor.fetchall()}


def test_a_visitor_becomes_one_row_that_counts_what_came_after_the_first_slate():
    shop = Shop()
    shop.event("ann", "view_item", 0)
    slate = shop.serve("ann", "new", 1)
    shop.serve("ann", "new", 2)
    shop.event("ann", "view_item_list", 3, slate=slate)
    shop.event("ann", "select_item", 4, slate=slate)
    shop.event("ann", "view_item", 5)
    shop.event("ann", "add_to_cart", 6)
    shop.order("ann", 7, 1_999)
    shop.order("ann", 8, 501)
    shop.event("ann", "view_item", 60, session="later")
    assert shop.units() == {
        "ann": {
            "unit_id": "ann", "variant": "new", "exposures": 2, "impressions": 1, "clicks": 1, "views": 2, "carts": 1,
            "orders": 2, "converted": 1, "revenue_minor": 2_500, "sessions": 2,
        }
    }  # fmt: skip


def test_every_documented_column_is_there_and_no_other():
    shop = Shop()
    shop.serve("ann", "old", 1)
    assert set(shop.units()["ann"]) == {"unit_id", "variant", *UNIT_COLUMNS}


def test_foreign_slates_bots_and_duplicates_do_not_count():
    shop = Shop()
    slate = shop.serve("ann", "new", 1)
    foreign = shop.serve("ann", "a", 1, experiment="other")
    shop.event("ann", "select_item", 2, slate=foreign)
    shop.event("ann", "select_item", 2, slate="r-forged")
    shop.event("ann", "select_item", 2)
    shop.event("ann", "select_item", 3, slate=slate, bot=True)
    shop.event("ann", "select_item", 4, slate=slate, duplicate=True)
    shop.event("ann", "select_item", 5, slate=slate, tenant="mall")
    shop.order("ann", 6, 100, tenant="mall")
    shop.serve("crawler", "new", 1, bot=True)
    shop.serve("crawler", "new", 2)
    shop.serve("stranger", "new", 1, tenant="mall")
    got = shop.units()
    assert set(got) == {"ann"}
    assert (got["ann"]["clicks"], got["ann"]["orders"]) == (0, 0)


def test_a_unit_in_two_variants_is_told_and_left_out():
    shop = Shop()
    shop.serve("ann", "new", 1)
    shop.serve("ann", "old", 2)
    shop.serve("bob", "old", 2)
    rows = shop.db.execute(f"SELECT unit_id, variant, mixed FROM ({units_sql(EXPERIMENT)}) ORDER BY unit_id").fetchall()
    assert rows == [("ann", "new", True), ("bob", "old", False)]
    assert set(shop.units()) == {"bob"}


def test_the_table_as_of_a_moment_knows_nothing_later_and_a_restart_nothing_earlier():
    shop = Shop()
    shop.serve("early", "new", -10)
    shop.serve("ann", "new", 1)
    shop.order("ann", 30, 500)
    shop.serve("late", "old", 40)
    assert set(shop.units(until=at(20))) == {"ann"}
    assert shop.units(until=at(20))["ann"]["orders"] == 0
    assert set(shop.units()) == {"ann", "late"}
    assert set(shop.units(experiment=Experiment(name="ranker", tenant="shop", variants=[]))) == {"ann", "early", "late"}


def test_sessions_can_be_the_unit():
    shop = Shop()
    by_session = Experiment(name="ranker", tenant="shop", unit="session", variants=EXPERIMENT.variants)
    shop.serve("ann", "new", 1)
    shop.db.execute("UPDATE exposure_variants SET unit_id = session_id")
    shop.order("ann", 2, 700)
    assert shop.units(experiment=by_session)["ann-s"]["revenue_minor"] == 700


@pytest.fixture
def busy():
    """A shop with 60 visitors over ten hours."""
    shop, rng = Shop(), np.random.default_rng(0)
    for number in range(60):
        unit, variant = f"v{number}", ("old", "new")[number % 2]
        begin = int(rng.integers(0, 500))
        slates = [
            shop.serve(unit, variant, begin + 7 * i, session=f"s{i // 3}") for i in range(int(rng.integers(1, 8)))
        ]
        for slate in slates:
            if rng.random() < 0.4:
                shop.event(unit, "select_item", begin + int(rng.integers(60, 200)), slate=slate)
        for _ in range(int(rng.poisson(0.5))):
            shop.order(unit, begin + int(rng.integers(0, 100)), int(rng.lognormal(8, 1)))
    return shop


COLUMNS = list(UNIT_COLUMNS)


def in_memory(rows, variant):
    mine = [row for row in rows.values() if row["variant"] == variant]
    return moments({name: [row[name] for row in mine] for name in COLUMNS})


def fetch(db, sql):
    cursor = db.execute(sql)
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def test_sufficient_statistics_by_sql_are_those_of_the_rows(busy):
    rows = fetch(busy.db, statistics_sql(f"({unit_table_sql(EXPERIMENT)})", COLUMNS))
    assert {row["variant"] for row in rows} == {"old", "new"}
    for row in rows:
        got, expected = read_statistics(row, COLUMNS), in_memory(busy.units(), row["variant"])
        assert got.n == expected.n
        assert np.allclose(got.mean, expected.mean)
        assert np.allclose(got.cov, expected.cov)


def test_one_pass_over_the_deeds_gives_the_statistics_at_every_hour(busy):
    sums = ", ".join(f"sum({name}) AS {name}" for name in COLUMNS)
    period = f"CAST(floor((epoch(done_at) - {START.timestamp()}) / 3600) AS INTEGER)"
    busy.db.execute(
        f"CREATE TEMP TABLE hours AS SELECT unit_id, variant, {period} AS period, {sums} "
        f"FROM ({acts_sql(EXPERIMENT)}) GROUP BY ALL"
    )
    got = read_cumulative(fetch(busy.db, cumulative_sql("hours", COLUMNS)), COLUMNS)
    assert len(got) >= 8
    for hour, variants in got:
        rows = busy.units(until=at(60 * (hour + 1)))
        for variant, statistics in variants.items():
            expected = in_memory(rows, variant)
            assert statistics.n == expected.n
            assert np.allclose(statistics.mean, expected.mean)
            assert np.allclose(statistics.cov, expected.cov)


def test_where_units_are_drawn_anew_each_period_of_one_is_a_unit():
    shop, day = Shop(), 1_440
    daily = msgspec.structs.replace(EXPERIMENT, rerandomize_days=1.0)
    shop.serve("anna", "old", 10)
    shop.event("anna", "view_item", 20)
    shop.serve("anna", "new", day + 10)
    shop.event("anna", "view_item", day + 20)
    shop.event("anna", "view_item", day + 30)
    shop.order("anna", day + 40, 700)
    shop.event("anna", "view_item", 2 * day + 5)  # a period without a slate is no unit
    assert shop.units() == {}  # without periods the unit is mixed
    rows = shop.units(experiment=daily)
    assert {name: (row["variant"], row["views"], row["revenue_minor"]) for name, row in rows.items()} == {
        "anna~0": ("old", 1, 0), "anna~1": ("new", 2, 700),
    }  # fmt: skip
