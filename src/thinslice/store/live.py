"""What the shop is doing this second: live sessions and the catalog, shared by all workers of one machine."""

import fcntl
import hashlib
import os
import shutil
import struct
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any

import lmdb
import msgspec

from thinslice.errors import StoreError
from thinslice.records import SESSION_GAP_S, Item, LiveSession

RECENT_ROWS = 50
"""How many last events are kept for the page *Live*."""

Changes = Mapping[tuple[str, str], LiveSession]
"""Live sessions by (tenant, visitor or session id)."""

_BUCKET_S = 60
_ITEMS_A_TRANSACTION = 500
_SEQUENCE = struct.Struct(">Q")
_BUCKET = struct.Struct(">I")
_ITEM_HEADER = struct.Struct(">Qd")
_SEQUENCE_KEY = b"sequence"
_TICK_KEY = b"tick"

_encoder = msgspec.msgpack.Encoder()
_session_decoder = msgspec.msgpack.Decoder(LiveSession)
_item_decoder = msgspec.msgpack.Decoder(Item)
_rows_decoder = msgspec.msgpack.Decoder(list[dict[str, Any]])


def live_key(tenant: str, name: str) -> bytes:
    """The key of a visitor, session or item: the tenant in the clear and 128 bits of hash, at most 81 bytes."""
    return tenant.encode() + b"\0" + hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _boot() -> str:
    """Names this run of the machine; after a power loss it is another."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


class LiveDB:
    """The live store over LMDB: open it in each process after it has started, never across a fork.

    A cache: nothing is synced, which survives kill -9 of anything; after a restart of the machine the files are
    thrown away and `fresh` is True, so that the owner fills it again from the log and the lake.

    Args:
        path: A folder of its own.
        map_mb: The most that the map may hold, in MiB.
        clock: Unix seconds; sessions expire by it.

    Attributes:
        fresh: True when this opening found nothing.
        dropped: Sessions that were not stored since the map was full of living ones.
    """

    def __init__(self, path: Path | str, map_mb: int = 256, *, clock: Callable[[], float] = time.time) -> None:
        self.path = Path(path)
        self.dropped = 0
        self._clock = clock
        self.path.mkdir(parents=True, exist_ok=True)
        with self._alone():
            self.fresh = self._discard_after_reboot()
            self._environment = lmdb.open(
                str(self.path / "map"), map_size=map_mb * 1024 * 1024, mode=0o600, max_dbs=8, max_readers=512,
                sync=False, metasync=False, lock=True, readahead=False, meminit=False,
            )  # fmt: skip
            self._environment.reader_check()
            self._sessions = self._environment.open_db(b"sessions")
            self._expiry = self._environment.open_db(b"expiry")
            self._items = self._environment.open_db(b"items")
            self._changes = self._environment.open_db(b"changes")
            self._recent = self._environment.open_db(b"recent")
            self._meta = self._environment.open_db(b"meta")

    # Sessions

    def sessions(self, keys: Sequence[tuple[str, str]]) -> list[LiveSession | None]:
        """Live sessions by (tenant, visitor or session id); None where there is none or it has expired."""
        oldest = self._clock() - SESSION_GAP_S
        with self._environment.begin(db=self._sessions, buffers=True) as read:
            return [_living(read.get(live_key(*key)), oldest) for key in keys]

    def update(self, changes: Changes, *, now: float) -> None:
        """Stores sessions in one write transaction; when the map is full of living ones they are dropped and counted.

        Args:
            changes: Sessions by (tenant, visitor or session id).
            now: Unix seconds.
        """
        if not changes:
            return
        rows = [(live_key(*key), session) for key, session in changes.items()]
        for attempt in range(2):
            try:
                with self._environment.begin(write=True) as write:
                    for key, session in rows:
                        self._put(write, key, session)
                return
            except lmdb.MapFullError:
                if attempt or not self._make_room(now):
                    self.dropped += len(rows)
                    return

    def edit(
        self,
        keys: Sequence[tuple[str, str]],
        change: Callable[[list[LiveSession | None]], Changes],
        *,
        now: float,
    ) -> Changes:
        """Reads sessions, changes them and stores them, with no other writer in between.

        Args:
            keys: What to read, as in `sessions`.
            change: From the sessions as they are to the sessions to store; quick and pure, for all writers wait.
            now: Unix seconds.

        Returns:
            What `change` returned, also when the map was full and it could not be stored.
        """
        names = [live_key(*key) for key in keys]
        oldest = self._clock() - SESSION_GAP_S
        changes: Changes = {}
        for attempt in range(2):
            try:
                with self._environment.begin(write=True) as write:
                    found = [_living(write.get(name, db=self._sessions), oldest) for name in names]
                    changes = change(found)
                    for key, session in changes.items():
                        self._put(write, live_key(*key), session)
                return changes
            except lmdb.MapFullError:
                if attempt or not self._make_room(now):
                    self.dropped += len(changes)
                    break
        return changes

    def forget(self, tenant: str, visitor_id: str) -> None:
        """Drops one visitor at once, under every key: the visitor's own, and those of the visitor's last sessions."""
        keys = {live_key(tenant, visitor_id)}
        first = tenant.encode() + b"\0"
        with self._environment.begin(db=self._sessions) as read, read.cursor() as cursor:
            found = cursor.iternext() if cursor.set_range(first) else iter(())
            for key, value in found:
                if not key.startswith(first):
                    break
                if _session_decoder.decode(value).visitor_id == visitor_id:
                    keys.add(key)
        with self._environment.begin(db=self._sessions, write=True) as write:
            for key in keys:
                write.delete(key)

    def sweep(self, *, now: float, limit: int = 1000) -> int:
        """Drops sessions that have expired.

        Args:
            now: Unix seconds.
            limit: The most rows to look at, since all writers wait meanwhile.

        Returns:
            How many sessions were dropped.
        """
        self._environment.reader_check()
        try:
            return self._sweep(now, limit)[0]
        except lmdb.MapFullError:
            return self._make_room(now)

    def _put(self, write: Any, key: bytes, session: LiveSession) -> None:
        write.put(key, _encoder.encode(session), db=self._sessions)
        bucket = int(session.last_at + SESSION_GAP_S) // _BUCKET_S + 1
        write.put(_BUCKET.pack(max(bucket, 0)) + key, b"", db=self._expiry)

    def _sweep(self, now: float, limit: int) -> tuple[int, int]:
        """Returns how many sessions were dropped, and how many rows of the expiry index."""
        dropped = looked = 0
        last = _BUCKET.pack(int(now) // _BUCKET_S)
        with self._environment.begin(write=True) as write:
            cursor = write.cursor(db=self._expiry)
            cursor.first()
            # After the last row the cursor's key is empty.
            while looked < limit and (entry := cursor.key()) > b"" and entry[:4] <= last:
                key = entry[4:]
                value = write.get(key, db=self._sessions)
                # A session that lived on stands in a later bucket too, and is dropped from there.
                if value is not None and _session_decoder.decode(value).last_at + SESSION_GAP_S <= now:
                    write.delete(key, db=self._sessions)
                    dropped += 1
                cursor.delete()
                looked += 1
        return dropped, looked

    def _make_room(self, now: float) -> int:
        """Expires what it can; a full map leaves few pages to work with, so ever smaller bites are tried."""
        self._environment.reader_check()
        freed = 0
        for limit in (1000, 100, 10, 1):
            try:
                looked = self._sweep(now, limit)[1]
            except lmdb.MapFullError:
                continue
            freed += looked
            if looked < limit:
                break
        # Pages that one transaction frees can be used from the second one after it.
        for _ in range(2):
            with suppress(lmdb.MapFullError), self._environment.begin(db=self._meta, write=True) as write:
                write.put(_TICK_KEY, os.urandom(8))
        return freed

    # Catalog

    def put_items(self, items: Iterable[Item]) -> int:
        """Stores catalog items; one that is older than the stored one (by `updated_at`) is passed over.

        Returns:
            The catalog's newest sequence number.

        Raises:
            StoreError: The catalog does not fit into the map.
        """
        rest = iter(items)
        sequence = self._sequence()
        while some := list(islice(rest, _ITEMS_A_TRANSACTION)):
            for attempt in range(2):
                try:
                    sequence = self._put_some(some)
                    break
                except lmdb.MapFullError:
                    if attempt or not self._make_room(self._clock()):
                        size = self._environment.info()["map_size"] >> 20
                        raise StoreError(
                            f"the catalog does not fit into the live store's {size} MiB.",
                            hint="Raise map_mb under [live] in thinslice.toml and restart.",
                        ) from None
        return sequence

    def item_changes(self, tenant: str, after: int, most: int | None = None) -> tuple[int, list[Item]]:
        """The number of the last change that is told (0: empty catalog), and items that changed after `after`.

        At most `most`, the oldest changes first; when so many came, there may be more.
        """
        prefix = tenant.encode() + b"\0"
        newest = after if after > 0 else 0
        changed: list[Item] = []
        with self._environment.begin(buffers=True) as read:
            cursor = read.cursor(db=self._changes)
            going = cursor.set_range(prefix + _SEQUENCE.pack(newest + 1))
            while going and len(changed) != most and bytes(cursor.key()[: len(prefix)]) == prefix:
                newest = _SEQUENCE.unpack(cursor.key()[len(prefix) :])[0]
                value: Any = read.get(bytes(cursor.value()), db=self._items)
                changed.append(_item_decoder.decode(value[_ITEM_HEADER.size :]))
                going = cursor.next()
        return newest, changed

    def _put_some(self, items: list[Item]) -> int:
        with self._environment.begin(write=True) as write:
            sequence = _sequence_of(write.get(_SEQUENCE_KEY, db=self._meta))
            for item in items:
                prefix = item.tenant.encode() + b"\0"
                key = live_key(item.tenant, item.item_id)
                body = _encoder.encode(item)
                stamp = item.updated_at.timestamp()
                old = write.get(key, db=self._items)
                if old is not None:
                    old_sequence, old_stamp = _ITEM_HEADER.unpack_from(old)
                    if old_stamp > stamp or old[_ITEM_HEADER.size :] == body:
                        continue
                    write.delete(prefix + _SEQUENCE.pack(old_sequence), db=self._changes)
                sequence += 1
                write.put(key, _ITEM_HEADER.pack(sequence, stamp) + body, db=self._items)
                write.put(prefix + _SEQUENCE.pack(sequence), key, db=self._changes)
            write.put(_SEQUENCE_KEY, _SEQUENCE.pack(sequence), db=self._meta)
        return sequence

    def _sequence(self) -> int:
        with self._environment.begin(db=self._meta) as read:
            return _sequence_of(read.get(_SEQUENCE_KEY))

    # Last events, for the page *Live*

    def note_recent(self, tenant: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Remembers rows as a tenant's last events; the last of `rows` is the newest."""
        if not rows:
            return
        key = tenant.encode()
        try:
            with self._environment.begin(db=self._recent, write=True) as write:
                value = write.get(key)
                kept = _rows_decoder.decode(value) if value is not None else []
                write.put(key, _encoder.encode([*kept, *rows][-RECENT_ROWS:]))
        except lmdb.MapFullError:
            self.dropped += len(rows)

    def recent(self, tenant: str, limit: int = 20) -> list[dict[str, Any]]:
        """A tenant's last events, newest first."""
        with self._environment.begin(db=self._recent) as read:
            value = read.get(tenant.encode())
        rows = _rows_decoder.decode(value) if value is not None else []
        return rows[::-1][:limit]

    # The map

    def used_share(self) -> float:
        """How much of the map was ever in use, 0..1; pages are used again, so that it levels off."""
        info = self._environment.info()
        pages = info["map_size"] // self._environment.stat()["psize"]
        return float((info["last_pgno"] + 1) / pages)

    def close(self) -> None:
        """Closes the map; closing twice is harmless."""
        self._environment.close()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One process at a time opens, so that none throws away what another has just opened."""
        descriptor = os.open(self.path / "opening.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _discard_after_reboot(self) -> bool:
        mark = self.path / "boot"
        folder = self.path / "map"
        now = _boot()
        if mark.is_file() and folder.is_dir() and mark.read_text(encoding="ascii") == now:
            return False
        shutil.rmtree(folder, ignore_errors=True)
        mark.write_text(now, encoding="ascii")
        return True


class MemoryLive:
    """The live store of one process, for tests and for trying things out; holds bytes, so that nobody shares an object.

    Args:
        clock: Unix seconds; sessions expire by it.
    """

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._sessions: dict[tuple[str, str], bytes] = {}
        self._items: dict[tuple[str, str], tuple[int, float, bytes]] = {}
        self._recent: dict[str, list[dict[str, Any]]] = {}
        self._sequence = 0

    def sessions(self, keys: Sequence[tuple[str, str]]) -> list[LiveSession | None]:
        """As in `LiveDB`."""
        oldest = self._clock() - SESSION_GAP_S
        return [_living(self._sessions.get(key), oldest) for key in keys]

    def update(self, changes: Changes, *, now: float) -> None:  # noqa: ARG002
        """As in `LiveDB`."""
        for key, session in changes.items():
            self._sessions[key] = _encoder.encode(session)

    def edit(
        self,
        keys: Sequence[tuple[str, str]],
        change: Callable[[list[LiveSession | None]], Changes],
        *,
        now: float,
    ) -> Changes:
        """As in `LiveDB`."""
        changes = change(self.sessions(keys))
        self.update(changes, now=now)
        return changes

    def forget(self, tenant: str, visitor_id: str) -> None:
        """As in `LiveDB`."""
        self._sessions.pop((tenant, visitor_id), None)
        for key, value in list(self._sessions.items()):
            if key[0] == tenant and _session_decoder.decode(value).visitor_id == visitor_id:
                del self._sessions[key]

    def sweep(self, *, now: float, limit: int = 1000) -> int:
        """As in `LiveDB`."""
        old = [key for key, value in self._sessions.items() if _living(value, now - SESSION_GAP_S) is None][:limit]
        for key in old:
            del self._sessions[key]
        return len(old)

    def put_items(self, items: Iterable[Item]) -> int:
        """As in `LiveDB`."""
        for item in items:
            key = (item.tenant, item.item_id)
            body, stamp = _encoder.encode(item), item.updated_at.timestamp()
            old = self._items.get(key)
            if old is None or (old[1] <= stamp and old[2] != body):
                self._sequence += 1
                self._items[key] = (self._sequence, stamp, body)
        return self._sequence

    def item_changes(self, tenant: str, after: int, most: int | None = None) -> tuple[int, list[Item]]:
        """As in `LiveDB`."""
        rows = sorted(row for key, row in self._items.items() if key[0] == tenant and row[0] > after)[:most]
        return (rows[-1][0] if rows else max(after, 0)), [_item_decoder.decode(row[2]) for row in rows]

    def note_recent(self, tenant: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """As in `LiveDB`."""
        kept = self._recent.setdefault(tenant, [])
        kept.extend(dict(row) for row in rows)
        del kept[:-RECENT_ROWS]

    def recent(self, tenant: str, limit: int = 20) -> list[dict[str, Any]]:
        """As in `LiveDB`."""
        return self._recent.get(tenant, [])[::-1][:limit]

    def close(self) -> None:
        """Nothing to close."""


def _living(value: Any, oldest: float) -> LiveSession | None:
    if value is None:
        return None
    session = _session_decoder.decode(value)
    return session if session.last_at > oldest else None


def _sequence_of(value: bytes | None) -> int:
    return int(_SEQUENCE.unpack(value)[0]) if value is not None else 0
