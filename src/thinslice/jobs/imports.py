"""Imports: how each file was read, so that its rows are not counted twice when it is read in another way."""

import os
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec

from thinslice.settings import Workspace
from thinslice.store.lake import Lake

COUNTED = {"events": "event_id", "orders": "order_id"}
"""Kinds whose rows are counted, and their id: a row that is there under two ids counts twice."""


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """One import of one file.

    Attributes:
        kind: `events` or `orders`.
        file: Its name.
        at: When; the rows that were new then carry it as `received_at`.
        columns: Which column was taken for which field.
    """

    kind: str
    file: str
    at: datetime
    columns: dict[str, str]


def note(workspace: Workspace, tenant: str, reading: Reading) -> None:
    """Keeps how a file is about to be read; it survives a power loss before its first row does."""
    path = _journal(workspace, tenant)
    path.parent.mkdir(parents=True, exist_ok=True)
    line = msgspec.json.encode(reading) + b"\n"
    if path.is_file() and not path.read_bytes().endswith(b"\n"):
        line = b"\n" + line  # the power went while the last one was written
    with path.open("ab") as file:
        file.write(line)
        file.flush()
        os.fsync(file.fileno())


def readings(workspace: Workspace, tenant: str, kind: str) -> list[Reading]:
    """How a tenant's files of a kind were read, oldest first; a line that was torn is passed over."""
    path = _journal(workspace, tenant)
    found = []
    for line in path.read_bytes().splitlines() if path.is_file() else []:
        try:
            reading = msgspec.json.decode(line, type=Reading)
        except msgspec.DecodeError:
            continue
        if reading.kind == kind:
            found.append(reading)
    return found


def known_ids(lake: Lake, tenant: str, kind: str, ids: Iterable[str]) -> dict[str, datetime]:
    """Which of some ids an import brought to the lake, and when."""
    if lake.version(kind) < 0:
        return {}
    connection = lake.connect(tenant=tenant)
    try:
        rows = connection.execute(
            f"SELECT {COUNTED[kind]}, epoch_us(received_at) FROM {kind} "
            f"WHERE source = 'import' AND list_contains(?, {COUNTED[kind]})",
            [sorted(set(ids))],
        ).fetchall()
    finally:
        connection.close()
    return {each: datetime.fromtimestamp(0, UTC) + timedelta(microseconds=at) for each, at in rows}


def take_back(lake: Lake, tenant: str, kind: str, moments: Iterable[datetime]) -> int:
    """Takes what the imports of these moments brought out of the lake again; returns how many rows."""
    return sum(lake.remove(kind, tenant=tenant, source="import", received_at=at) for at in sorted(set(moments)))


def in_words(columns: Mapping[str, str], other: Mapping[str, str]) -> str:
    """How one reading differs from another.

    >>> in_words({"sid": "visitor_id", "ts": "occurred_at"}, {"sid": "session_id", "ts": "occurred_at"})
    'sid → visitor_id'
    >>> in_words({"ts": "occurred_at"}, {"sid": "session_id", "ts": "occurred_at"})
    'without sid'
    """
    own: Sequence[str] = [f"{column} → {field}" for column, field in columns.items() if other.get(column) != field]
    return ", ".join(own or [f"without {column}" for column in other if column not in columns])


def _journal(workspace: Workspace, tenant: str) -> Path:
    return workspace.root / "imports" / f"{tenant}.jsonl"
