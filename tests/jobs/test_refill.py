"""Refilling: a live store that lost everything gets the catalog and the visits of the last half hour back."""

from datetime import UTC, datetime, timedelta

from thinslice.jobs.refill import refill_catalog, refill_sessions
from thinslice.records import Event, Item
from thinslice.store.lake import Lake
from thinslice.store.live import MemoryLive

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def view(visitor, item, minutes, **fields):
    at = NOW - timedelta(minutes=minutes)
    base = {"event_id": f"{visitor}-{item}", "tenant": "shop", "name": "view_item", "visitor_id": visitor}
    return Event(**{**base, "item_id": item, "occurred_at": at, "received_at": at, **fields})


def live():
    return MemoryLive(clock=NOW.timestamp)


def test_visits_of_the_last_half_hour_come_back(tmp_path):
    lake = Lake(tmp_path)
    lake.append(
        "events", [view("v", "a", 10), view("v", "b", 5), view("old", "a", 45), view("s", "a", 5, consent="none")]
    )
    store = live()
    assert refill_sessions(lake, store, NOW) >= 1
    found = store.sessions([("shop", "v"), ("shop", "old"), ("shop", "s"), ("other", "v")])
    assert found[0] is not None
    assert found[0].items == ["a", "b"]
    assert found[1:] == [None, None, None]


def test_a_session_that_lives_is_left_alone(tmp_path):
    lake = Lake(tmp_path)
    lake.append("events", [view("v", "a", 10)])
    store = live()
    refill_sessions(lake, store, NOW)
    lake.append("events", [view("v", "b", 9)])
    assert refill_sessions(lake, store, NOW) == 0


def test_the_catalog_comes_back_in_its_newest_state_and_only_once(tmp_path):
    lake = Lake(tmp_path)
    old = Item(tenant="shop", item_id="a", updated_at=NOW - timedelta(days=2), title="Old", attributes={"color": "red"})
    new = Item(tenant="shop", item_id="a", updated_at=NOW, title="New", attributes={"color": "blue"}, price_minor=100)
    lake.append("items", [old])
    lake.append("items", [new, Item(tenant="other", item_id="x", updated_at=NOW)])
    store = live()
    assert refill_catalog(lake, store, ["shop", "empty"]) == 1
    assert store.item_changes("shop", 0)[1] == [new]
    assert store.item_changes("other", 0)[1] == []
    assert refill_catalog(lake, store, ["shop"]) == 0
