"""The compactor: what the logs hold is in the lake once, and finished segments go."""

import os
import shutil
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from thinslice.records import Event, Exposure, Item, Order, Quarantined
from thinslice.settings import Workspace
from thinslice.store import compact
from thinslice.store.codec import encode
from thinslice.store.compact import Compactor
from thinslice.store.lake import Lake
from thinslice.store.log import LogKind, SegmentWriter, frame, segments

NOW = datetime.now(UTC)
LATER = NOW + timedelta(hours=1)


def event(number, **fields):
    return Event(
        event_id=f"e{number}", tenant="shop", name="view_item", **{"occurred_at": NOW, "received_at": NOW} | fields
    )


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path / "workspace")


@pytest.fixture
def writer(workspace):
    opened = SegmentWriter(workspace.log, "w0")
    yield opened
    opened.close()


def put(writer, kind, *records):
    writer.append(kind, encode(kind, records))


def ids(workspace):
    return sorted(Lake(workspace.lake).scan("events")["event_id"].to_pylist())


def test_an_empty_workspace_has_nothing_to_do(workspace):
    assert Compactor(workspace).run_once(NOW) == compact.Counts()


def test_every_kind_finds_its_table(workspace, writer):
    put(writer, LogKind.EVENTS, event(1), event(2))
    put(writer, LogKind.EXPOSURES, Exposure(recommendation_id="r", tenant="shop", occurred_at=NOW, placement="home",
                                            policy="p", model_version="m"))  # fmt: skip
    put(writer, LogKind.ITEMS, Item(tenant="shop", item_id="i", updated_at=NOW))
    put(writer, LogKind.ORDERS, Order(tenant="shop", order_id="o", occurred_at=NOW, received_at=NOW, currency="EUR",
                                      total_minor=1, lines=[]))  # fmt: skip
    put(writer, LogKind.QUARANTINE, Quarantined(quarantine_id="q", tenant="shop", kind="event", raw="{}", code="c",
                                                reason="r", field="", received_at=NOW))  # fmt: skip
    counts = Compactor(workspace).run_once(NOW)
    found = {name: getattr(counts, name) for name in ("events", "exposures", "items", "orders", "quarantine")}
    assert found == {"events": 2, "exposures": 1, "items": 1, "orders": 1, "quarantine": 1}
    assert {name: Lake(workspace.lake).scan(name).num_rows for name in found} == found


def test_an_open_segment_is_read_on_from_where_the_lake_covers_it(workspace, writer):
    compactor = Compactor(workspace)
    for number in range(5):
        put(writer, LogKind.EVENTS, event(number))
        assert compactor.run_once(NOW).events == 1
        assert compactor.run_once(NOW).segments == 0
    assert ids(workspace) == [f"e{number}" for number in range(5)]


@pytest.mark.parametrize("note", ["lost", "damaged", "behind"])
def test_without_its_notes_it_still_duplicates_nothing(workspace, writer, note):
    put(writer, LogKind.EVENTS, event(1))
    Compactor(workspace).run_once(NOW)
    covered = workspace.log / "covered.json"
    behind = covered.read_bytes()
    # The same id after more than a week would be kept, if the frame were read again.
    put(writer, LogKind.EVENTS, event(1, received_at=NOW + timedelta(days=8)))
    counts = Compactor(workspace).run_once(NOW)
    assert (counts.events, counts.marked) == (1, 1)
    if note == "lost":
        covered.unlink()
    else:
        covered.write_bytes(b"{" if note == "damaged" else behind)
    counts = Compactor(workspace).run_once(NOW)
    assert (counts.events, counts.duplicates) == (0, 0)
    assert ids(workspace) == ["e1", "e1"]


def test_a_lake_that_was_taken_away_or_put_back_is_filled_again(workspace, writer):
    put(writer, LogKind.EVENTS, event(1))
    Compactor(workspace).run_once(NOW)
    backup = workspace.root / "backup"
    shutil.copytree(workspace.lake, backup)
    put(writer, LogKind.EVENTS, event(2))
    assert Compactor(workspace).run_once(NOW).events == 1
    shutil.rmtree(workspace.lake)
    backup.rename(workspace.lake)
    assert Compactor(workspace).run_once(NOW).events == 1
    assert ids(workspace) == ["e1", "e2"]
    shutil.rmtree(workspace.lake)
    assert Compactor(workspace).run_once(NOW).events == 2
    assert ids(workspace) == ["e1", "e2"]


def test_duplicates_are_dropped_and_counted(workspace, writer):
    put(writer, LogKind.EVENTS, event(1), event(1), event(2))
    put(writer, LogKind.EVENTS, event(2))
    assert Compactor(workspace).run_once(NOW).duplicates == 2
    put(writer, LogKind.EVENTS, event(1), event(3))
    counts = Compactor(workspace).run_once(NOW)
    assert (counts.events, counts.duplicates) == (1, 1)
    assert ids(workspace) == ["e1", "e2", "e3"]


def test_several_segments_are_one_commit_a_table(workspace):
    for name in ("w0", "w1", "w2"):
        one = SegmentWriter(workspace.log, name)
        put(one, LogKind.EVENTS, event(name))
        one.close()
    Compactor(workspace).run_once(NOW)
    lake = Lake(workspace.lake)
    assert lake.version("events") == 1
    for path in segments(workspace.log):
        assert lake.covered_by("events", path.name) == path.stat().st_size


def test_a_long_log_is_taken_in_bites(workspace, writer):
    for start in range(0, 100, 5):
        put(writer, LogKind.EVENTS, *(event(number) for number in range(start, start + 5)))
    assert Compactor(workspace, batch_rows=20).run_once(NOW).events == 100
    assert Lake(workspace.lake).version("events") == 5
    assert len(set(ids(workspace))) == len(ids(workspace)) == 100


def test_a_finished_segment_goes_after_half_an_hour(workspace, writer):
    put(writer, LogKind.EVENTS, event(1))
    writer.close()
    opened = SegmentWriter(workspace.log, "w0")
    put(opened, LogKind.EVENTS, event(2))
    compactor = Compactor(workspace)
    assert compactor.run_once(NOW).deleted == 0
    assert compactor.run_once(NOW + timedelta(minutes=29)).deleted == 0
    assert compactor.run_once(LATER).deleted == 1
    assert segments(workspace.log) == [opened.path]
    opened.close()
    assert list(msgspec.json.decode((workspace.log / "covered.json").read_bytes())) == [opened.path.name]


def test_nothing_is_deleted_that_the_lake_does_not_hold(workspace, writer, monkeypatch):
    put(writer, LogKind.EVENTS, event(1))
    writer.close()
    monkeypatch.setattr(Lake, "add", lambda *_, **__: (_ for _ in ()).throw(OSError(28, "full")))
    with pytest.raises(OSError, match="full"):
        Compactor(workspace, keep_s=0).run_once(LATER)
    monkeypatch.undo()
    assert len(segments(workspace.log)) == 1
    assert Compactor(workspace, keep_s=0).run_once(LATER).events == 1
    assert segments(workspace.log) == []


def test_a_torn_end_is_set_aside_and_not_thrown_away(workspace, writer):
    put(writer, LogKind.EVENTS, event(1))
    writer.close()
    with writer.path.open("ab") as file:
        file.write(frame(1, encode(LogKind.EVENTS, [event(2)]))[:-3])
    counts = Compactor(workspace, keep_s=0).run_once(LATER)
    assert (counts.events, counts.deleted) == (1, 1)
    assert segments(workspace.log) == []
    assert [path.name for path in (workspace.log / "torn").iterdir()] == [writer.path.name]


def test_a_torn_end_of_an_open_segment_is_waited_for(workspace, writer):
    put(writer, LogKind.EVENTS, event(1))
    whole = frame(1, encode(LogKind.EVENTS, [event(2)]))
    descriptor = os.open(writer.path, os.O_WRONLY | os.O_APPEND)
    os.write(descriptor, whole[:7])
    compactor = Compactor(workspace, keep_s=0)
    assert compactor.run_once(LATER).events == 1
    os.write(descriptor, whole[7:])
    os.close(descriptor)
    assert compactor.run_once(LATER).events == 1
    assert ids(workspace) == ["e1", "e2"]


def test_a_frame_that_is_no_record_is_quarantined(workspace, writer):
    writer.append(1, b"\x01garbage")
    put(writer, LogKind.EVENTS, event(1))
    compactor = Compactor(workspace)
    counts = compactor.run_once(NOW)
    assert (counts.events, counts.quarantine) == (1, 1)
    (workspace.log / "covered.json").unlink()
    assert compactor.run_once(NOW).quarantine == 0
    (row,) = Lake(workspace.lake).scan("quarantine").to_pylist()
    assert row["code"] == "unreadable_frame"
    assert row["file"] == writer.path.name


def test_a_row_that_fits_no_column_is_quarantined_with_its_reason(workspace, writer):
    put(writer, LogKind.EVENTS, event(1, quantity=2**63), event(2))
    counts = Compactor(workspace).run_once(NOW)
    assert (counts.events, counts.refused) == (1, 1)
    (row,) = Lake(workspace.lake).scan("quarantine").to_pylist()
    assert (row["tenant"], row["kind"], row["code"]) == ("shop", "event", "does_not_fit")
    assert msgspec.json.decode(row["raw"])["event_id"] == "e1"


def test_a_frame_of_a_later_version_keeps_its_segment(workspace, writer):
    writer.append(9, b"\x09from the future")
    put(writer, LogKind.EVENTS, event(1))
    writer.close()
    compactor = Compactor(workspace, keep_s=0)
    assert compactor.run_once(LATER).events == 1
    assert compactor.run_once(LATER).deleted == 0
    assert len(segments(workspace.log)) == 1


def test_two_compactors_do_not_work_at_once(workspace, writer):
    put(writer, LogKind.EVENTS, event(1))
    one, other = Compactor(workspace), Compactor(workspace)
    with one._alone() as alone:
        assert alone
        assert other.run_once(NOW).busy
    assert other.run_once(NOW).events == 1
