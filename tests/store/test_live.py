"""The live store: sessions and catalog shared by processes, bounded in size, unharmed by kills."""

import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime

import lmdb
import pytest

from thinslice.errors import StoreError
from thinslice.records import SESSION_GAP_S, Item, LiveSession
from thinslice.sessions import keys_of
from thinslice.store import live
from thinslice.store.live import RECENT_ROWS, LiveDB, MemoryLive
from thinslice.testing.check_store import check_live_store


def session(visitor_id, at, *, items=()):
    return LiveSession(
        visitor_id=visitor_id, session_id=f"s-{visitor_id}", started_at=at, last_at=at, items=list(items)
    )


@pytest.fixture
def open_live(tmp_path):
    opened = []

    def make(name="live", **settings):
        opened.append(LiveDB(tmp_path / name, **{"map_mb": 64, **settings}))
        return opened[-1]

    yield make
    for each in opened:
        each.close()


def test_a_forgotten_visitor_is_found_under_no_session_not_even_an_older_one(open_live):
    for store in (open_live(), MemoryLive()):
        now = time.time()
        first, second = (
            session("v", now - 60),
            LiveSession(visitor_id="v", session_id="s2", started_at=now, last_at=now),
        )
        stored = {key: each for each in (first, second) for key in keys_of(each)}
        store.update({("shop", key): each for key, each in stored.items()}, now=now)
        store.update({("shop2", key): each for key, each in stored.items()}, now=now)
        assert len(stored) == 3
        store.forget("shop", "v")
        assert store.sessions([("shop", key) for key in stored]) == [None] * 3
        assert None not in store.sessions([("shop2", key) for key in stored])


def test_lmdb_keeps_the_promises_of_a_live_store(open_live):
    numbers = iter(range(100))
    check_live_store(lambda: open_live(f"live{next(numbers)}"))


def test_memory_keeps_the_promises_of_a_live_store():
    check_live_store(MemoryLive)


def test_another_process_sees_an_update_at_once(open_live, tmp_path):
    store = open_live()
    store.update({("shop", "v"): session("v", time.time(), items=["a"])}, now=time.time())
    code = f"""
import time
from thinslice.store.live import LiveDB
store = LiveDB({str(tmp_path / "live")!r}, 64)
found = store.sessions([("shop", "v")])[0]
found.items.append("b")
store.update({{("shop", "v"): found}}, now=time.time())
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    assert store.sessions([("shop", "v")])[0].items == ["a", "b"]


def test_edits_of_two_processes_lose_nothing(open_live, tmp_path):
    store = open_live()
    code = f"""
import sys, time
from thinslice.records import LiveSession
from thinslice.store.live import LiveDB
store = LiveDB({str(tmp_path / "live")!r}, 64)
def change(found):
    now = time.time()
    last = found[0] or LiveSession(visitor_id="v", session_id="s", started_at=now, last_at=now)
    last.event_count += 1
    last.last_at = now
    return {{("shop", "v"): last}}
for _ in range(2000):
    store.edit([("shop", "v")], change, now=time.time())
"""
    children = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(2)]
    assert [child.wait(timeout=60) for child in children] == [0, 0]
    assert store.sessions([("shop", "v")])[0].event_count == 4000


def test_a_full_map_expires_first_and_then_serves_without(open_live):
    now = time.time()
    clock = [now]
    store = open_live(map_mb=1, clock=lambda: clock[0])
    big = ["x" * 100] * 50
    number = 0
    while not store.dropped:
        store.update({("shop", f"v{number}"): session(f"v{number}", now, items=big)}, now=now)
        number += 1
    assert number > 50
    assert store.sessions([("shop", f"v{number - 1}")]) == [None]
    assert store.sessions([("shop", "v0")]) != [None]
    dropped = store.dropped
    changes = store.edit([], lambda _: {("shop", "late"): session("late", now, items=big)}, now=now)
    assert list(changes) == [("shop", "late")]
    assert store.dropped == dropped + 1
    clock[0] = later = now + SESSION_GAP_S + 120
    for visitor in range(number):
        store.update({("shop", f"w{visitor}"): session(f"w{visitor}", later, items=big)}, now=later)
    assert store.sessions([("shop", "w0"), ("shop", "v0")])[1] is None
    assert store.sessions([("shop", "w0")]) != [None]


def test_a_catalog_too_large_for_the_map_is_refused_with_its_size(open_live):
    store = open_live(map_mb=1)
    stamp = datetime(2026, 1, 1, tzinfo=UTC)
    items = [Item(tenant="shop", item_id=f"i{n}", updated_at=stamp, description="x" * 1000) for n in range(3000)]
    with pytest.raises(StoreError, match="does not fit into the live store's 1 MiB"):
        store.put_items(items)


def test_the_map_levels_off_while_sessions_come_and_go(open_live):
    clock = [1_000_000.0]
    store = open_live(map_mb=16, clock=lambda: clock[0])
    used = []
    for half_hour in range(12):
        clock[0] += SESSION_GAP_S
        for number in range(400):
            name = f"v{half_hour}-{number}"
            store.update({("shop", name): session(name, clock[0], items=["item"] * 50)}, now=clock[0])
        while store.sweep(now=clock[0]):
            pass
        used.append(store.used_share())
    assert used[-1] < 1.5 * used[3]
    assert used[-1] < 0.2


def test_a_killed_reader_and_a_killed_writer_pin_nothing(open_live, tmp_path):
    store = open_live(map_mb=16)
    code = f"""
import sys, time
from thinslice.records import LiveSession
from thinslice.store.live import LiveDB
store = LiveDB({str(tmp_path / "live")!r}, 16)
with store._environment.begin() as read, store._environment.begin(write=True) as write:
    write.put(b"half", b"done", db=store._sessions)
    print("ready", flush=True)
    time.sleep(60)
"""
    now = time.time()
    used = []
    for _ in range(6):
        with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as child:
            assert child.stdout.readline() == b"ready\n"
            child.send_signal(signal.SIGKILL)
            child.wait(timeout=10)
        for number in range(300):
            store.update({("shop", f"v{number}"): session(f"v{number}", now, items=["item"] * 50)}, now=now)
        store.sweep(now=now)
        for number in range(300):
            store.update({("shop", f"v{number}"): session(f"v{number}", now, items=["item"] * 50)}, now=now)
        used.append(store.used_share())
    assert used[-1] == used[1]
    with store._environment.begin(db=store._sessions) as read:
        assert read.get(b"half") is None
    pids = {int(line.split()[0]) for line in store._environment.readers().splitlines()[1:]}
    assert pids <= {os.getpid()}


def test_a_restart_of_the_machine_empties_the_cache(open_live, monkeypatch):
    first = open_live()
    assert first.fresh
    first.update({("shop", "v"): session("v", time.time())}, now=time.time())
    first.close()
    second = open_live()
    assert not second.fresh
    assert second.sessions([("shop", "v")]) != [None]
    second.close()
    monkeypatch.setattr(live, "_boot", lambda: "another")
    third = open_live()
    assert third.fresh
    assert third.sessions([("shop", "v")]) == [None]


@pytest.mark.parametrize("make", ["lmdb", "memory"])
def test_the_last_events_stand_newest_first(make, open_live):
    store = open_live() if make == "lmdb" else MemoryLive()
    assert store.recent("shop") == []
    store.note_recent("shop", [])
    store.note_recent("shop", [{"name": "a", "n": 1}, {"name": "b", "n": None}])
    store.note_recent("shop", [{"name": "c"}])
    assert [row["name"] for row in store.recent("shop")] == ["c", "b", "a"]
    assert store.recent("shop", limit=1) == [{"name": "c"}]
    assert store.recent("other") == []
    store.note_recent("shop", [{"name": str(n)} for n in range(200)])
    assert len(store.recent("shop", limit=1000)) == RECENT_ROWS


def test_last_events_on_a_full_map_are_dropped_and_counted(open_live, monkeypatch):
    store = open_live(map_mb=1)
    with pytest.raises(lmdb.MapFullError), store._environment.begin(write=True) as write:
        write.put(b"x", bytes(2_000_000), db=store._sessions)
    store.note_recent("shop", [{"big": "x" * 2_000_000}])
    assert store.dropped == 1
    assert store.recent("shop") == []


def test_an_update_of_nothing_takes_no_lock(open_live):
    store = open_live()
    with store._environment.begin(write=True):
        store.update({}, now=time.time())


def test_an_update_takes_microseconds(open_live):
    store = open_live()
    now = time.time()
    sample = session("v", now, items=["item"] * 50)
    best = float("inf")
    for _ in range(5):
        begin = time.perf_counter()
        for number in range(400):
            store.update({("shop", f"v{number}"): sample}, now=now)
        best = min(best, (time.perf_counter() - begin) / 400)
    assert best < 200e-6
