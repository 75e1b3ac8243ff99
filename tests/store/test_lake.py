"""The lake: open tables, each key once, views that never fail for want of data."""

import os
import shutil
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import msgspec
import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from thinslice.errors import BadInput, UnknownName
from thinslice.records import Event, ExperimentExposure, Exposure, Item, Order, OrderLine, Quarantined
from thinslice.store import lake as lake_module
from thinslice.store.lake import Lake
from thinslice.store.schemas import TABLES, arrow_schema, to_records, to_table

NOW = datetime(2026, 3, 4, 5, 6, 7, 890123, tzinfo=UTC)
WEEK = timedelta(days=7)


def event(number, *, tenant="shop", at=NOW, **fields):
    return Event(
        event_id=f"e{number}", tenant=tenant, name="view_item", occurred_at=at, received_at=at, visitor_id="v",
        item_id="i", **fields,
    )  # fmt: skip


def exposure(number, variant, *, at=NOW, unit_id="v"):
    return Exposure(
        recommendation_id=f"r{number}", tenant="shop", occurred_at=at, placement="home", policy="p", model_version="m",
        items=["a", "b"], experiments=[
            ExperimentExposure(experiment=name, variant=variant, unit="visitor", unit_id=unit_id, allocation_version=1,
                               propensities={"control": 0.25, "treatment": 0.75})
            for name in ("color", "size")
        ],
    )  # fmt: skip


@pytest.fixture
def lake(tmp_path):
    return Lake(tmp_path / "lake")


def rows(lake, query, **settings):
    with lake.connect(**settings) as connection:
        return connection.sql(query).to_arrow_table().to_pylist()


def test_what_one_source_brought_at_one_moment_is_taken_away_and_nothing_else(lake):
    later = NOW + timedelta(microseconds=1)
    lake.append("events", [event(1, source="import"), event(2), event(3, tenant="alt", source="import")])
    lake.append("events", [event(4, at=later, source="import"), event(5, source="import")])
    before = lake.version("events")
    assert lake.remove("events", tenant="shop", source="import", received_at=NOW) == 2
    assert sorted(lake.scan("events").column("event_id").to_pylist()) == ["e2", "e3", "e4"]
    assert lake.scan("events", before).num_rows == 5
    assert lake.add("events", [event(1, source="import"), event(4, source="import")]).kept == 1
    assert lake.remove("orders", tenant="shop", source="import", received_at=NOW) == 0


def test_what_was_appended_is_scanned(lake):
    events = [event(number, tenant=tenant) for number in range(3) for tenant in ("shop", "alt")]
    version = lake.append("events", events)
    assert version == lake.version("events") >= 0
    found = to_records(Event, lake.scan("events"))
    assert sorted(found, key=repr) == sorted(events, key=repr)
    assert lake.scan("events", tenant="alt").num_rows == 3
    assert lake.scan("events", columns=["item_id", "event_id"]).column_names == ["item_id", "event_id"]


def test_an_empty_lake_answers_with_empty_tables(lake):
    assert lake.versions() == {}
    assert lake.version("events") == -1
    assert lake.scan("orders").schema == arrow_schema(Order)
    with lake.connect(tenant="shop") as connection:
        for table, spec in TABLES.items():
            view = connection.sql(f"SELECT * FROM {table}")
            assert view.columns == arrow_schema(spec.record).names
            assert view.to_arrow_table().num_rows == 0
        assert connection.sql("SELECT count(*) FROM exposure_variants").fetchone() == (0,)


@pytest.mark.parametrize("name", list(TABLES))
def test_views_have_the_same_columns_empty_and_filled(lake, name):
    schema = arrow_schema(TABLES[name].record)
    empty = lake.connect().sql(f"SELECT * FROM {name}").types
    filled = {"tenant": "shop", TABLES[name].time: NOW}
    lake.append(name, pa.Table.from_pylist([filled], schema=schema))
    view = lake.connect().sql(f"SELECT * FROM {name}")
    assert view.columns == schema.names
    assert view.types == empty


def test_an_older_version_can_be_read(lake):
    first = lake.append("events", [event(1)])
    lake.append("events", [event(2)])
    assert lake.scan("events", first).num_rows == 1
    assert rows(lake, "SELECT event_id FROM events", versions={"events": first}) == [{"event_id": "e1"}]
    with pytest.raises(UnknownName, match="has no version 99"):
        lake.scan("events", 99)


def test_a_table_that_does_not_exist_is_named(lake):
    for call in (lake.version, lake.scan, lambda name: lake.append(name, [])):
        with pytest.raises(UnknownName, match="no table 'evnets'"):
            call("evnets")


def test_a_column_that_does_not_exist_is_named(lake):
    with pytest.raises(BadInput, match="colour is no column of Event"):
        lake.append("events", pa.table({"colour": ["red"]}))


def test_a_tenant_sees_its_rows_alone(lake):
    lake.append("events", [event(1), event(2, tenant="alt")])
    assert rows(lake, "SELECT event_id FROM events", tenant="alt") == [{"event_id": "e2"}]
    with pytest.raises(BadInput, match="cannot name a tenant"):
        lake.connect(tenant="x' OR true --")


def test_the_tables_are_plain_delta_and_parquet(lake, tmp_path):
    lake.append("events", [event(1, at=NOW), event(2, at=NOW + timedelta(days=1), tenant="alt")])
    table = DeltaTable(str(tmp_path / "lake" / "events"))
    protocol = table.protocol()
    assert (protocol.min_reader_version, protocol.reader_features) == (1, None)
    assert table.metadata().partition_columns == ["received_date"]
    names = [path.name for path in (tmp_path / "lake" / "events").iterdir()]
    assert sorted(names) == ["_delta_log", "received_date=2026-03-04", "received_date=2026-03-05"]
    files = [name.removeprefix("file://") for name in table.file_uris()]
    kinds = duckdb.sql(f"SELECT DISTINCT compression FROM parquet_metadata({files!r})").fetchall()
    assert kinds == [("ZSTD",)]
    # Nothing that names a row lives only in a path.
    assert set(arrow_schema(Event).names) <= set(duckdb.sql(f"SELECT * FROM read_parquet({files!r})").columns)


def test_rows_lie_sorted_by_tenant(lake):
    lake.append("events", [event(number, tenant=f"t{number % 3}") for number in range(9)])
    tenants = lake.scan("events")["tenant"].to_pylist()
    assert tenants == sorted(tenants)


def test_a_source_is_covered_by_the_commit_that_brought_it(lake):
    assert lake.covered_by("events", "w0-1") == 0
    lake.append("events", [event(1)], log_id="w0-1", log_version=512)
    lake.append("events", [event(2)], covered={"w0-1": 1024, "w1-7": 5 * 2**32})
    for each in (lake, Lake(lake.root)):
        assert each.covered_by("events", "w0-1") == 1024
        assert each.covered_by("events", "w1-7") == 5 * 2**32
        assert each.covered_by("exposures", "w0-1") == 0


def test_a_known_event_is_dropped_within_the_window_and_marked_after_it(lake):
    lake.append("events", [event(1), event(2)])
    added = lake.add(
        "events",
        [event(1, at=NOW + WEEK), event(2, at=NOW + WEEK + timedelta(seconds=1)), event(3), event(3),
         event(1, tenant="alt")],
        window=WEEK,
    )  # fmt: skip
    assert (added.kept, added.dropped, added.marked) == (3, 2, 1)
    found = rows(lake, "SELECT tenant, event_id, duplicate FROM events ORDER BY ALL")
    assert [(row["tenant"], row["event_id"], row["duplicate"]) for row in found] == [
        ("alt", "e1", False), ("shop", "e1", False), ("shop", "e2", False), ("shop", "e2", True), ("shop", "e3", False),
    ]  # fmt: skip
    again = lake.add("events", [event(2, at=NOW + WEEK + timedelta(seconds=2))], window=WEEK)
    assert (again.kept, again.dropped) == (0, 1)


def test_known_keys_are_found_by_every_process_and_after_files_were_joined(lake):
    events = [event(number) for number in range(40)]
    for start in range(0, 40, 10):
        assert lake.add("events", events[start : start + 10]).kept == 10
    for each in (lake, Lake(lake.root)):
        assert each.add("events", [*events, event("new")], window=WEEK).dropped >= 40
    lake.maintain()
    for each in (lake, Lake(lake.root)):
        assert each.add("events", events, window=WEEK).dropped == 40
    # The hashes of keys are only a short cut: without them it is the same.
    shutil.rmtree(lake.root / ".fingerprints")
    assert Lake(lake.root).add("events", events, window=WEEK).dropped == 40
    lake.maintain()
    kept = {path.name.removesuffix(".npy") for path in (lake.root / ".fingerprints").rglob("*.npy")}
    assert kept <= {Path(name).name for name in DeltaTable(str(lake.root / "events")).file_uris()}


def test_without_a_window_a_known_event_is_always_dropped(lake):
    lake.append("events", [event(1)])
    version = lake.version("events")
    added = lake.add("events", [event(1, at=NOW + 100 * WEEK)])
    assert (added.kept, added.dropped, added.version) == (0, 1, version)


def test_strange_ids_are_told_apart(lake):
    names = ["", "'", '"; DROP', "é", "e\u0301", "\x00", "a,b", "日本" * 50]
    events = [msgspec.structs.replace(event(1), event_id=name) for name in names]
    assert lake.add("events", events).kept == len(names)
    assert lake.add("events", events).dropped == len(names)


def test_rows_that_no_table_can_hold_do_not_stop_the_others(lake):
    refused = []
    wrong = [event(3, quantity=2**63), event(5, price_minor=-(2**63) - 1)]
    added = lake.add("events", [event(1), event(2), wrong[0], event(4), wrong[1]], on_refused=refused.extend)
    assert added.kept == 3
    assert [each.row for each in added.refused] == wrong
    assert refused == added.refused
    assert lake.scan("events").num_rows == 3


def test_the_view_of_items_shows_the_newest(lake):
    old = Item(tenant="shop", item_id="i", updated_at=NOW, title="old", attributes={"a": 1})
    new = msgspec.structs.replace(old, updated_at=NOW + timedelta(seconds=1), title="new")
    other = msgspec.structs.replace(old, tenant="alt")
    assert lake.add("items", [old, other]).kept == 2
    assert lake.add("items", [new]).kept == 1
    assert lake.add("items", [old, new]).dropped == 2
    found = rows(lake, "SELECT tenant, title, attributes FROM items ORDER BY tenant")
    assert found == [
        {"tenant": "alt", "title": "old", "attributes": '{"a":1}'},
        {"tenant": "shop", "title": "new", "attributes": '{"a":1}'},
    ]


def test_an_order_sent_twice_is_one_and_a_changed_one_replaces(lake):
    order = Order(tenant="shop", order_id="o", occurred_at=NOW, received_at=NOW, currency="EUR", total_minor=500,
                  lines=[OrderLine(item_id="i", price_minor=500)])  # fmt: skip
    later = msgspec.structs.replace(order, received_at=NOW + timedelta(hours=1))
    assert lake.add("orders", [order, order]).kept == 1
    assert lake.add("orders", [later]).kept == 0
    assert lake.add("orders", [msgspec.structs.replace(later, total_minor=300)]).kept == 1
    assert rows(lake, "SELECT total_minor FROM orders") == [{"total_minor": 300}]


def test_a_replayed_row_of_the_quarantine_shows_as_replayed(lake):
    row = Quarantined(quarantine_id="q", tenant="shop", kind="event", raw="{}", code="c", reason="r", field="",
                      received_at=NOW)  # fmt: skip
    lake.add("quarantine", [row])
    lake.add("quarantine", [msgspec.structs.replace(row, replayed=True)])
    assert rows(lake, "SELECT replayed FROM quarantine") == [{"replayed": True}]


def test_exposure_variants_has_one_row_for_each_exposure_and_experiment(lake):
    lake.append(
        "exposures", [exposure(1, "treatment"), msgspec.structs.replace(exposure(2, "control"), experiments=[])]
    )
    found = rows(lake, "SELECT recommendation_id, experiment, variant, unit_id, propensities FROM exposure_variants")
    assert sorted(row["experiment"] for row in found) == ["color", "size"]
    assert {(row["recommendation_id"], row["variant"], row["unit_id"]) for row in found} == {("r1", "treatment", "v")}
    assert dict(found[0]["propensities"]) == {"control": 0.25, "treatment": 0.75}
    assert rows(lake, "SELECT sum(propensities['treatment']) AS p FROM exposure_variants") == [{"p": 1.5}]


def test_assignments_are_the_first_exposures(lake):
    lake.append("exposures", [
        exposure(1, "treatment", at=NOW + timedelta(seconds=1)), exposure(2, "control"),
        exposure(3, "control", unit_id="w"),
    ])  # fmt: skip
    found = rows(lake, "SELECT unit_id, variant, first_exposure_at AS at FROM assignments WHERE experiment = 'color'")
    assert sorted((row["unit_id"], row["variant"], row["at"]) for row in found) == [
        ("v", "control", NOW), ("w", "control", NOW),
    ]  # fmt: skip


def test_times_are_aware_and_in_utc(lake):
    lake.append("events", [event(1)])
    assert rows(lake, "SELECT occurred_at FROM events") == [{"occurred_at": NOW}]
    assert rows(lake, "SELECT strftime(occurred_at, '%H:%M') AS t FROM events") == [{"t": "05:06"}]


def test_a_table_from_before_a_field_was_added_can_be_read_and_written(lake, tmp_path):
    old = to_table(Event, [event(1)]).drop_columns(["duplicate", "context"])
    write_deltalake(str(tmp_path / "lake" / "events"), old)
    assert lake.scan("events")["duplicate"].to_pylist() == [None]
    assert rows(lake, "SELECT event_id, duplicate FROM events") == [{"event_id": "e1", "duplicate": None}]
    assert lake.add("events", [event(1)]).dropped == 1


def test_small_files_are_joined_and_old_versions_of_a_model_stay(lake, monkeypatch):
    versions = [lake.append("events", [event(number)]) for number in range(6)]
    before = rows(lake, "SELECT event_id FROM events ORDER BY ALL")
    monkeypatch.setattr(lake_module, "RETENTION_HOURS", 0)
    # The table says that files stay a day; the test looks at what is deleted after that day.
    real = DeltaTable.vacuum
    monkeypatch.setattr(
        DeltaTable, "vacuum", lambda self, **options: real(self, enforce_retention_duration=False, **options)
    )
    lake.maintain(keep_versions=[versions[2]])
    assert len(DeltaTable(str(lake.root / "events")).file_uris()) == 1
    assert rows(lake, "SELECT event_id FROM events ORDER BY ALL") == before
    assert lake.scan("events", versions[2]).num_rows == 3
    with pytest.raises(Exception, match=r"not found|No such file|does not exist"):
        lake.scan("events", versions[4])
    lake.append("events", [event(99)])
    assert Lake(lake.root).scan("events").num_rows == 7


def test_files_under_a_day_old_survive_the_housekeeping(lake):
    versions = [lake.append("events", [event(number)]) for number in range(3)]
    lake.maintain()
    assert [lake.scan("events", version).num_rows for version in versions] == [1, 2, 3]


def test_many_appends_at_once_are_all_kept(lake):
    def write(worker):
        mine = Lake(lake.root)
        for number in range(5):
            mine.append("events", [event(f"{worker}-{number}")])

    lake.append("events", [event("first")])
    threads = [threading.Thread(target=write, args=(worker,)) for worker in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert lake.scan("events").num_rows == 16


def test_a_commit_is_synced_with_its_files(lake, monkeypatch):
    lake.append("events", [event(1)])
    synced = []
    real = os.fsync

    def note(descriptor):
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    version = lake.append("events", [event(2)])
    names = set(synced)
    assert f"{version:020d}.json" in names
    assert any(name.endswith(".parquet") for name in names)
    assert {"events", "_delta_log", "received_date=2026-03-04"} <= names


def test_a_reader_is_not_disturbed_by_a_writer(lake):
    lake.append("events", [event(1)])
    with lake.connect() as connection:
        lake.append("events", [event(2)])
        lake.maintain()
        assert connection.sql("SELECT count(*) FROM events").fetchone() == (1,)


@pytest.mark.parametrize("name", ["my shop", "Möbel", "it's #1?*", "events"])
def test_a_lake_lies_in_a_folder_of_any_name(tmp_path, name):
    lake = Lake(tmp_path / name / "lake")
    assert lake.add("events", [event(1)]).kept == 1
    assert lake.add("events", [event(1), event(2)]).kept == 1
    reopened = Lake(tmp_path / name / "lake")
    assert rows(reopened, "SELECT count(*) AS n FROM events") == [{"n": 2}]
    assert reopened.scan("events").num_rows == 2
