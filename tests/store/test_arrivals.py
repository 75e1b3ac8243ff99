"""What came into a table between two versions: each row once, or that it cannot be told."""

from datetime import UTC, datetime, timedelta

import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

from thinslice.records import Event
from thinslice.store.arrivals import arrivals, commit_digest
from thinslice.store.lake import Lake

NOW = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture
def lake(tmp_path):
    lake = Lake(tmp_path / "my lake")
    for number in range(4):
        append(lake, number)
    return lake


def append(lake, number):
    at = NOW + timedelta(days=number % 2)
    event = Event(
        tenant="shop", event_id=f"e{number}", name="view_item", occurred_at=at, received_at=at, visitor_id="v",
        session_id="s", item_id="a",
    )  # fmt: skip
    return lake.append("events", [event])


def ids(files):
    return sorted(name for file in files for name in pq.read_table(file).column("event_id").to_pylist())


def test_the_files_of_a_span_of_versions_hold_its_rows(lake):
    folder, newest = lake.root / "events", lake.version("events")
    assert ids(arrivals(folder, 0, newest)) == ["e0", "e1", "e2", "e3"]
    assert ids(arrivals(folder, newest - 1, newest)) == ["e3"]
    assert arrivals(folder, newest, newest) == []


def test_joining_files_brings_nothing_and_loses_nothing(lake):
    folder, before = lake.root / "events", lake.version("events")
    lake.maintain()
    joined = lake.version("events")
    assert joined > before
    assert arrivals(folder, before, joined) == []
    append(lake, 4)
    assert ids(arrivals(folder, 0, lake.version("events"))) == ["e0", "e1", "e2", "e3", "e4"]


def test_rows_that_were_taken_away_and_files_or_commits_that_are_gone_cannot_be_told(lake):
    folder, newest = lake.root / "events", lake.version("events")
    (commit,) = (folder / "_delta_log").glob(f"*{newest}.json")
    assert commit_digest(folder, newest) is not None
    kept = commit.read_bytes()
    commit.unlink()
    assert (commit_digest(folder, newest), arrivals(folder, 0, newest)) == (None, None)
    commit.write_bytes(kept)
    DeltaTable(str(folder)).delete("event_id = 'e0'")
    assert arrivals(folder, newest, newest + 1) is None
    (gone,) = arrivals(folder, newest - 1, newest)
    (folder / gone).unlink()
    assert arrivals(folder, newest - 1, newest) is None
