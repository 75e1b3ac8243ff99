"""The compactor: brings what the logs hold into the lake, each event once, whatever is killed meanwhile."""

import base64
import fcntl
import gc
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

from thinslice.errors import Corrupt
from thinslice.records import SESSION_GAP_S, Quarantined
from thinslice.settings import Workspace
from thinslice.store.codec import decode
from thinslice.store.lake import Lake, Refused
from thinslice.store.log import LogKind, is_open, read_frames, segments, sync_directory

WINDOW = timedelta(days=7)
"""An event whose id was received within this time is a duplicate and dropped; an older one is kept and marked."""

BATCH_ROWS = 50_000
"""How many rows are brought into the lake in one commit a table; bounds the memory."""

TABLE_OF = {
    LogKind.EVENTS: "events",
    LogKind.EXPOSURES: "exposures",
    LogKind.ITEMS: "items",
    LogKind.ORDERS: "orders",
    LogKind.QUARANTINE: "quarantine",
    LogKind.SHADOWS: "shadows",
}
"""Where frames go; frames of other kinds are left alone, and so is the segment that holds them."""

_KIND_OF_TABLE = {"events": "event", "exposures": "exposure", "items": "item", "orders": "order"}


class Counts(msgspec.Struct, kw_only=True):
    """What one run did; rows by table are those that are new in the lake.

    `duplicates` were dropped, `marked` kept with `duplicate = true`, `refused` put into quarantine since no table can
    hold them. `busy` means that another compactor is at work and nothing was done.
    """

    events: int = 0
    exposures: int = 0
    items: int = 0
    orders: int = 0
    quarantine: int = 0
    shadows: int = 0
    duplicates: int = 0
    marked: int = 0
    refused: int = 0
    segments: int = 0
    deleted: int = 0
    busy: bool = False


class Compactor:
    """Brings one workspace's logs into its lake.

    Each commit to a table carries, as Delta transactions, how far each segment is covered; a run that was killed is
    resumed from there. `covered.json` beside the segments only saves reading what every table covers, and is
    not believed when the lake has gone back to older versions since.

    Args:
        workspace: Whose log is read and whose lake is written.
        keep_s: How long (seconds) a finished segment stays, so that live sessions can be rebuilt from it.
        batch_rows: Rows a commit.
    """

    def __init__(
        self, workspace: Workspace, *, keep_s: float = float(SESSION_GAP_S), batch_rows: int = BATCH_ROWS
    ) -> None:
        self.lake = Lake(workspace.lake)
        self._log = workspace.log
        self._keep_s = keep_s
        self._batch_rows = batch_rows
        self._covered_file = workspace.log / "covered.json"
        self._versions_file = workspace.log / "covered-versions.json"

    def run_once(self, now: datetime) -> Counts:
        """Reads every segment from where the lake covers it, open ones too, and deletes finished ones.

        Args:
            now: Aware; a finished segment that was last written `keep_s` before it goes.
        """
        counts = Counts()
        if not self._log.is_dir():
            return counts
        with self._alone() as alone:
            if not alone:
                return Counts(busy=True)
            with _not_collecting():
                self._run(now, counts)
        return counts

    def _run(self, now: datetime, counts: Counts) -> None:
        covered = self._read_covered()
        # Only one compactor is at work, so that nobody else commits what a segment is covered by from here on.
        self.lake.versions()
        batch = _Batch()
        finished: list[tuple[Path, bool]] = []
        for path in segments(self._log):
            # Asked before reading: what is closed now is read to its very end.
            closed = not is_open(path)
            start = covered.get(path.name, 0)
            foreign = False
            end = start
            if path.stat().st_size > start:
                counts.segments += 1
                behind = {
                    table: max(start, self.lake.covered_by(table, path.name, refresh=False))
                    for table in TABLE_OF.values()
                }
                for kind, payload, end in read_frames(path, start):
                    table = TABLE_OF.get(kind)  # type: ignore[call-overload]
                    if table is None:
                        foreign = True
                    elif end > behind[table]:
                        batch.take(table, path.name, payload, end, now)
                    if not foreign:
                        batch.read_to[path.name] = end
                    if batch.rows >= self._batch_rows:
                        self._commit(batch, covered, counts, now)
                        batch = _Batch()
            finished.append((path, closed and not foreign))
        self._commit(batch, covered, counts, now)
        self._delete([path for path, done in finished if done], covered, counts, now)

    def _commit(self, batch: "_Batch", covered: dict[str, int], counts: Counts, now: datetime) -> None:
        for table, rows in batch.tables.items():
            # Events come with a window; all other keys are known for ever.
            window = WINDOW if table == "events" else None
            added = self.lake.add(
                table, rows, window=window, covered=batch.marks[table],
                on_refused=lambda refused, table=table: self.lake.append(  # type: ignore[misc]
                    "quarantine", [_quarantined(table, each, now) for each in refused]
                ),
            )  # fmt: skip
            setattr(counts, table, getattr(counts, table) + added.kept)
            counts.duplicates += added.dropped
            counts.marked += added.marked
            counts.refused += len(added.refused)
        if batch.read_to:
            covered.update(batch.read_to)
            self._write_covered(covered)

    def _delete(self, paths: list[Path], covered: dict[str, int], counts: Counts, now: datetime) -> None:
        for path in paths:
            state = path.stat()
            if now.timestamp() - state.st_mtime < self._keep_s:
                continue
            if state.st_size > covered.get(path.name, 0):
                # A torn end was never acknowledged; damage in the middle is for a person to look at.
                torn = self._log / "torn"
                torn.mkdir(exist_ok=True)
                path.rename(torn / path.name)
            else:
                path.unlink()
            counts.deleted += 1
        there = {path.name for path in segments(self._log)}
        gone = [name for name in covered if name not in there]
        for name in gone:
            del covered[name]
        if gone:
            self._write_covered(covered)

    def _read_covered(self) -> dict[str, int]:
        try:
            noted = msgspec.json.decode(self._versions_file.read_bytes(), type=dict[str, int])
            if any(self.lake.version(table) < version for table, version in noted.items()):
                return {}
            return msgspec.json.decode(self._covered_file.read_bytes(), type=dict[str, int])
        except (FileNotFoundError, msgspec.DecodeError):
            # Lost or damaged: the lake itself knows how far it covers each segment.
            return {}

    def _write_covered(self, covered: dict[str, int]) -> None:
        for path, content in ((self._versions_file, self.lake.versions()), (self._covered_file, covered)):
            draft = path.with_suffix(".draft")
            draft.write_bytes(msgspec.json.encode(content))
            draft.replace(path)
        sync_directory(self._log)

    @contextmanager
    def _alone(self) -> Iterator[bool]:
        guard = os.open(self._log / "compactor.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield True
        except BlockingIOError:
            yield False
        finally:
            os.close(guard)


@contextmanager
def _not_collecting() -> Iterator[None]:
    """Many records at once make the collector look at all of them again and again; none of them is in a circle."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


class _Batch:
    """Rows on their way into one commit a table, and how far it will cover each segment."""

    def __init__(self) -> None:
        self.rows = 0
        self.tables: dict[str, list[Any]] = {}
        self.marks: dict[str, dict[str, int]] = {}
        self.read_to: dict[str, int] = {}

    def take(self, table: str, segment: str, payload: bytes, end: int, now: datetime) -> None:
        """Adds a frame's records; a frame that cannot be read becomes a row of the quarantine."""
        try:
            records = decode(payload)[1]
        except Corrupt as error:
            digest = hashlib.sha256(f"{segment}:{end}".encode()).hexdigest()[:32]
            raw = base64.b64encode(payload).decode()
            records = [
                Quarantined(
                    quarantine_id=digest, tenant="unknown", kind=_KIND_OF_TABLE.get(table, table), raw=raw,
                    code="unreadable_frame", reason=error.message, field="", received_at=now, file=segment,
                )
            ]  # fmt: skip
            self.tables.setdefault("quarantine", []).extend(records)
            self.marks.setdefault("quarantine", {})
            return
        self.rows += len(records)
        self.tables.setdefault(table, []).extend(records)
        self.marks.setdefault(table, {})[segment] = end


def _quarantined(table: str, refused: Refused, now: datetime) -> Quarantined:
    raw = msgspec.json.encode(refused.row, enc_hook=str).decode("utf-8", "replace")
    tenant = getattr(refused.row, "tenant", "unknown")
    return Quarantined(
        quarantine_id=hashlib.sha256(f"{table}:{raw}".encode()).hexdigest()[:32], tenant=tenant,
        kind=_KIND_OF_TABLE.get(table, table), raw=raw, code="does_not_fit",
        reason=f"a value does not fit its column: {refused.reason}", field="", received_at=now,
    )  # fmt: skip
