"""What every store must keep: run these against an implementation of your own before the service relies on it."""

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from thinslice.errors import UnknownName
from thinslice.records import SESSION_GAP_S, Artifacts, IntakeLog, Item, LiveSession, LiveStore
from thinslice.sessions import keys_of

__all__ = ["check_artifacts", "check_intake_log", "check_live_store", "check_store"]


def check_store(make: Callable[[], Any], *, read: Callable[[], Sequence[tuple[int, bytes]]] | None = None) -> None:
    """Checks a store by the promise that it makes: a live store, an intake log or an artifact store.

    Args:
        make: Returns an empty store each time; an intake log is opened again where it was.
        read: For an intake log: kind and payload of every readable frame.

    Raises:
        AssertionError: A promise is broken, or it is none of the three; the message says which.

    >>> from thinslice.store.artifacts import MemoryArtifacts
    >>> check_store(MemoryArtifacts)
    """
    probe = make()
    names = [name for name in ("item_changes", "flush", "promote") if hasattr(probe, name)]
    _expect(len(names) == 1, f"{type(probe).__name__} is a live store, an intake log or an artifact store")
    if names == ["promote"]:
        check_artifacts(make)
        return
    probe.close()
    if names == ["item_changes"]:
        check_live_store(make)
        return
    if read is None:
        raise AssertionError("an intake log is checked with `read`, which returns its readable frames")
    check_intake_log(make, read)


def check_live_store(make: Callable[[], LiveStore]) -> None:
    """Checks a live store: sessions, expiry, forgetting, the catalog and its changes, tenants apart.

    Args:
        make: Returns an empty store each time.

    Raises:
        AssertionError: A promise is broken; the message says which.
    """
    for check in (_sessions_are_found_again, _sessions_change_together, _sessions_expire, _sweeping_is_bounded,
                  _a_visitor_is_forgotten, _items_are_found_by_their_change, _an_older_item_does_not_win,
                  _tenants_are_apart):  # fmt: skip
        check(make())


def check_intake_log(make: Callable[[], IntakeLog], read: Callable[[], Sequence[tuple[int, bytes]]]) -> None:
    """Checks an intake log: order, tickets, durability across a restart, nothing lost and nothing changed.

    Args:
        make: Opens the log, the first time and again after a `close` or a crash; never over what is there.
        read: Returns kind and payload of every readable frame, in the order of appending within one opening.

    Raises:
        AssertionError: A promise is broken; the message says which.
    """
    first = make()
    payloads = [bytes([1 + number % 5]) + bytes(range(256)) * (number % 7) for number in range(50)]
    tickets = [first.append(payload[0], payload) for payload in payloads]
    _expect(tickets == sorted(set(tickets)), "tickets grow with every frame")
    _expect([*read()] == [(payload[0], payload) for payload in payloads], "a written frame is readable before a flush")
    _expect(first.flush() >= tickets[-1], "flush returns a ticket that covers all that was written")
    _expect(first.flush() >= tickets[-1], "flushing twice is harmless")
    again = make()
    more = [b"\x02again", b"\x03" + bytes(100_000)]
    for payload in more:
        again.append(payload[0], payload)
    again.close()
    again.close()
    first.append(4, b"\x04late")
    first.close()
    expected = sorted([(payload[0], payload) for payload in [*payloads, *more, b"\x04late"]])
    _expect(sorted(read()) == expected, "two openings keep all frames of both")
    make().close()
    _expect(sorted(read()) == expected, "an opening that writes nothing changes nothing")


def check_artifacts(make: Callable[[], Artifacts]) -> None:
    """Checks an artifact store: content comes back bit by bit, versions are content, promotion and tenants hold.

    Args:
        make: Returns an empty store each time.

    Raises:
        AssertionError: A promise is broken; the message says which.
    """
    store = make()
    arrays = {
        "codes": np.arange(12, dtype=np.int32).reshape(3, 4),
        "weights": np.array([0.1, np.inf, -0.0]),
        "ids": np.array(["a", "bb", "é"]),
        "empty": np.empty((0, 3), dtype=np.float32),
        "one": np.array(7, dtype=np.int64),
    }
    manifest = {"lake_version": 3, "name": "né", "settings": {"m": 500}}
    _expect(store.live("shop") == {}, "nothing is live in an empty store")
    _expect([*store.versions("shop")] == [], "an empty store lists nothing")
    version = store.put("shop", "live", {"knn": arrays, "popular": {}}, manifest)
    _expect(store.live("shop") == {}, "storing does not promote")
    _expect(store.put("shop", "live", {"popular": {}, "knn": arrays}, manifest) == version, "a version is its content")
    changed = {**arrays, "one": np.array(8, dtype=np.int64)}
    other = store.put("shop", "live", {"knn": changed, "popular": {}}, manifest)
    _expect(other != version, "other content is another version")
    models, kept = store.load("shop", version)
    _expect(kept == manifest, "the manifest comes back as it was")
    _expect(set(models) == {"knn", "popular"} and models["popular"] == {}, "all models come back")
    for name, array in arrays.items():
        back = models["knn"][name]
        same = back.dtype == array.dtype and back.shape == array.shape and back.tobytes() == array.tobytes()
        _expect(same, f"array {name} comes back with its type, shape and bytes")
        _expect(not back.flags.writeable, f"array {name} cannot be written to")
    store.promote("shop", "live", version)
    _expect(store.live("shop") == {"live": version}, "promoting makes a version live")
    store.promote("shop", "live", other)
    _expect(store.live("shop") == {"live": other}, "promoting again replaces it")
    rows = list(store.versions("shop"))
    _expect([row["version"] for row in rows] == [other, version], "versions are listed newest first")
    _expect([row["live"] for row in rows] == [True, False], "the list says which version is live")
    _expect(rows[0]["lake_version"] == 3, "the list names the lake version")
    _expect(rows[0]["sha256"].startswith(other), "a version is the beginning of its hash")
    _expect(store.live("other") == {}, "another tenant sees nothing")
    for tenant, name in (("shop", "0" * 16), ("other", version)):
        try:
            store.load(tenant, name)
        except UnknownName:
            continue
        raise AssertionError("a version that a tenant does not have cannot be loaded")


def _expect(condition: bool, promise: str) -> None:
    if not condition:
        raise AssertionError(f"broken promise: {promise}")


def _session(visitor_id: str, *, age_s: float = 0.0, items: Sequence[str] = ()) -> LiveSession:
    at = time.time() - age_s
    count = len(items)
    return LiveSession(
        visitor_id=visitor_id, session_id=f"s-{visitor_id}", started_at=at - 60, last_at=at, items=list(items),
        names=["view_item"] * count, times=[at] * count, assignments={"e": "treatment"}, event_count=count,
    )  # fmt: skip


def _item(item_id: str, *, tenant: str = "shop", age_s: float = 0.0, title: str = "") -> Item:
    stamp = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC) - timedelta(seconds=age_s)
    return Item(tenant=tenant, item_id=item_id, updated_at=stamp, title=title, attributes={"n": [1, {"é": None}]})


def _sessions_are_found_again(store: LiveStore) -> None:
    _expect(store.sessions([("shop", "v")]) == [None], "an unknown visitor has no session")
    _expect(store.sessions([]) == [], "asking for nothing gives nothing")
    one, two = _session("v", items=["a", "b"]), _session("w", items=["é" * 300])
    store.update({("shop", "v"): one, ("shop", "s-v"): one, ("shop", "w" * 500): two}, now=time.time())
    found = store.sessions([("shop", "s-v"), ("shop", "x"), ("shop", "w" * 500), ("shop", "v")])
    _expect(found == [one, None, two, one], "sessions come back in the order asked, None where there is none")
    one.items.append("c")
    stored = store.sessions([("shop", "v")])[0]
    _expect(stored is not None and stored.items == ["a", "b"], "changing an object changes nothing in the store")
    store.update({("shop", "v"): one}, now=time.time())
    stored = store.sessions([("shop", "v")])[0]
    _expect(stored is not None and stored.items == ["a", "b", "c"], "an update replaces the session")


def _sessions_change_together(store: LiveStore) -> None:
    key = ("shop", "v")
    for number in range(3):
        done = store.edit(
            [key], lambda found, n=number: {key: _grown(found[0], f"i{n}")}, now=time.time()  # type: ignore[misc]
        )  # fmt: skip
        _expect(len(done[key].items) == number + 1, "edit returns what it stored")
    stored = store.sessions([key])[0]
    _expect(stored is not None and stored.items == ["i0", "i1", "i2"], "edit builds on what is stored")


def _grown(session: LiveSession | None, item_id: str) -> LiveSession:
    return _session("v", items=[*(session.items if session else []), item_id])


def _sessions_expire(store: LiveStore) -> None:
    old, young = _session("old", age_s=SESSION_GAP_S + 60), _session("young", age_s=SESSION_GAP_S - 60)
    store.update({("shop", "old"): old, ("shop", "young"): young}, now=time.time())
    _expect(store.sessions([("shop", "old"), ("shop", "young")]) == [None, young], "a session ends after the gap")
    later = time.time() + SESSION_GAP_S
    store.update({("shop", "young"): _session("young", items=["a"])}, now=time.time())
    _expect(store.sweep(now=time.time() + 120) == 1, "a sweep drops what has expired and nothing else")
    _expect(store.sessions([("shop", "young")]) != [None], "a session that lived on survives the sweep")
    _expect(store.sweep(now=later + 180) == 1, "a later sweep drops what has expired since")


def _sweeping_is_bounded(store: LiveStore) -> None:
    now = time.time()
    store.update({("shop", f"v{number}"): _session(f"v{number}") for number in range(30)}, now=now)
    later = now + SESSION_GAP_S + 180
    dropped = [store.sweep(now=later, limit=20) for _ in range(3)]
    _expect(dropped == [20, 10, 0], "a sweep drops at most `limit` and the next goes on")


def _a_visitor_is_forgotten(store: LiveStore) -> None:
    session = _session("v")
    keys = keys_of(session)
    for tenant in ("shop", "other"):
        known = {(tenant, key): session for key in ("v", "s-v", *keys)}
        store.update({**known, (tenant, "w"): _session("w")}, now=time.time())
    store.forget("shop", "v")
    store.forget("shop", "never-seen")
    found = store.sessions([("shop", key) for key in ("v", "s-v", *keys)])
    _expect(not any(found), "forget drops a visitor under every key by which the visitor's session is found")
    _expect(store.sessions([("other", "v")]) == [session], "forget drops a visitor of one tenant alone")
    _expect(store.sessions([("shop", "w")]) != [None], "forget leaves others alone")


def _items_are_found_by_their_change(store: LiveStore) -> None:
    _expect(store.item_changes("shop", 0) == (0, []), "an empty catalog is at 0")
    items = [_item(f"i{number}") for number in range(1200)]
    newest = store.put_items(iter(items))
    sequence, changed = store.item_changes("shop", 0)
    _expect(sequence == newest, "put_items returns the newest sequence number")
    _expect(sorted(changed, key=_id) == sorted(items, key=_id), "all items come back as they were")
    _expect(store.item_changes("shop", sequence) == (sequence, []), "nothing changed after the newest")
    blue = _item("i7", age_s=-1, title="blue")
    later = store.put_items([blue])
    _expect(store.item_changes("shop", sequence) == (later, [blue]), "a changed item is the only change")
    _expect(len(store.item_changes("shop", 0)[1]) == 1200, "an item stands once in the catalog")
    told: list[Item] = []
    at = 0
    while some := store.item_changes("shop", at, 500)[1]:
        _expect(len(some) <= 500, "no more changes are told than were asked for")
        told, at = told + some, store.item_changes("shop", at, 500)[0]
    _expect((at, told) == store.item_changes("shop", 0), "changes told in parts are all changes")
    store.put_items([blue])
    _expect(store.item_changes("shop", later) == (later, []), "the same item again is no change")


def _an_older_item_does_not_win(store: LiveStore) -> None:
    new, old = _item("i", title="new"), _item("i", age_s=10, title="old")
    store.put_items([new])
    store.put_items([old])
    _expect(store.item_changes("shop", 0)[1] == [new], "an item with an older updated_at is passed over")


def _tenants_are_apart(store: LiveStore) -> None:
    store.update({("shop", "v"): _session("v")}, now=time.time())
    _expect(store.sessions([("sho", "pv"), ("shop-two", "v")]) == [None, None], "no tenant sees another's sessions")
    store.put_items([_item("i", tenant="shop"), _item("j", tenant="shop-two")])
    _expect([item.item_id for item in store.item_changes("shop", 0)[1]] == ["i"], "no tenant sees another's items")
    _expect(store.item_changes("sho", 0) == (0, []), "a tenant whose name begins another's sees nothing")


def _id(item: Item) -> str:
    return item.item_id
