"""Loading: a shop's own files become rows of the lake; the same file twice changes nothing."""

import contextlib
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from thinslice.collect.columns import (
    EARLIEST,
    edge_of,
    event_of,
    fields_of,
    guess,
    is_order_index,
    item_of,
    order_of,
    stands_for_nothing,
    user_of,
)
from thinslice.collect.makers import EventMaker, content_key, make_edge, make_item, make_order, make_user
from thinslice.errors import BadInput, BadRecord
from thinslice.jobs.files import Progress, Row, open_rows
from thinslice.jobs.imports import COUNTED, Reading, in_words, known_ids, note, readings, take_back
from thinslice.records import Edge, Event, Item, Order, Quarantined, User
from thinslice.serving.issued import SECRET_FILE, RecommendationIds, read_secret
from thinslice.settings import Settings, Workspace, read_settings
from thinslice.store.lake import Lake
from thinslice.store.live import LiveDB
from thinslice.store.schemas import TABLES, to_records

BAD_LINES = 1000
"""So many bad rows of one file are named in the result; the quarantine holds them all."""

SAMPLE = 1000
"""So many rows of a file are looked up in the lake, as they were read before."""

KINDS = ("events", "items", "orders", "users", "edges")

_GARBLED = frozenset({"bad_csv", "bad_utf8", "bad_json"})  # what is kept of such a row only resembles it


class BadRow(NamedTuple):
    """One row that was refused: its line (from 1, a file's header is line 1), why, and the field."""

    line: int
    code: str
    reason: str
    field: str


class Loaded(NamedTuple):
    """What became of one file.

    Attributes:
        file: Its name.
        read: Rows in it.
        kept: Rows that are new in the lake.
        known: Rows that were there already, so that nothing changed.
        quarantined: Rows that were refused.
        not_stored_no_consent: Rows whose consent is none.
        bad: The first of those, at most `BAD_LINES`.
        columns: Which column was taken for which field.
        ignored: Columns that were not.
        order_only: Whether the times only tell the order.
        taken_back: Rows of an earlier reading that were taken out of the lake first.
        note: What else there is to know, a sentence; may be empty.
    """

    file: str
    read: int
    kept: int
    known: int
    quarantined: int
    not_stored_no_consent: int
    bad: list[BadRow]
    columns: dict[str, str]
    ignored: list[str]
    order_only: bool
    taken_back: int = 0
    note: str = ""


def load(
    workspace: Workspace,
    kind: str,
    path: Path,
    tenant: str,
    *,
    now: datetime,
    file_format: str = "auto",
    told: Mapping[str, str] | None = None,
    read_before: str = "refuse",
    progress: Progress | None = None,
) -> Loaded:
    """Reads one file into the lake; when it returns, all of it is there and survives a power loss.

    Args:
        workspace: Where the lake lies.
        kind: `events`, `items`, `orders`, `users` or `edges`.
        path: CSV (also with tabs or semicolons), JSON lines, a JSON array, or Parquet.
        tenant: Whose rows these are.
        now: Aware, UTC.
        file_format: `csv`, `jsonl`, `parquet`, or `auto`: by the name, else by the first bytes.
        told: Column → field, stronger than what the names suggest.
        read_before: What to do where its rows are there already, read in another way, so that they would count twice:
            `refuse`, `replace` (they are taken back first) or `add`.
        progress: Told how far it is.

    Raises:
        BadInput: The file cannot be read as such a file, a needed column is missing, or its rows would count twice.
        UnknownName: There is no such tenant.
    """
    settings = read_settings(workspace)
    settings.tenant(tenant)
    chunks, columns = open_rows(path, file_format, progress)
    first = next(chunks, [])
    columns = columns or list(dict.fromkeys(key for row in first if isinstance(row.cells, dict) for key in row.cells))
    mapping = guess(kind, columns, told or {})
    loader = _Loader(workspace, settings, kind, tenant, path.name, mapping, now)
    loader.order_only = kind in COUNTED and _only_order(first, mapping)
    taken_back, said = 0, ""
    if kind in COUNTED:
        lake = Lake(workspace.lake)
        other = _other_reading(workspace, settings, lake, kind, tenant, path.name, first, mapping, now)
        if other is not None and other.twice and read_before == "refuse":
            raise other.refusal(path.name, mapping)
        if other is not None and read_before == "replace":
            taken_back = take_back(lake, tenant, kind, other.moments)
        elif other is not None and not other.twice:
            said = (
                f"rows that are known stay as they were read before ({other.how(mapping)}); --replace reads them anew."
            )
        note(workspace, tenant, Reading(kind=kind, file=path.name, at=now, columns=mapping))
    loader.take(first)
    for chunk in chunks:
        loader.take(chunk)
    loaded = loader.finish([column for column in columns if column not in mapping])
    return loaded._replace(taken_back=taken_back, note=said)


def check_file(
    workspace: Workspace, kind: str, path: Path, tenant: str, *, now: datetime, file_format: str,
    told: Mapping[str, str], read_before: str,
) -> None:  # fmt: skip
    """Refuses a file that `load` would refuse, before anything is read into the lake; see there.

    Raises:
        BadInput: There is none, it cannot be read as such a file, a needed column is missing, or rows count twice.
    """
    settings = read_settings(workspace)
    chunks, columns = open_rows(path, file_format, None)
    with contextlib.closing(chunks):
        first = next(chunks, []) if not columns or (kind in COUNTED and readings(workspace, tenant, kind)) else []
    columns = columns or list(dict.fromkeys(key for row in first if isinstance(row.cells, dict) for key in row.cells))
    mapping = guess(kind, columns, told)
    if kind in COUNTED and first and read_before == "refuse":
        lake = Lake(workspace.lake)
        other = _other_reading(workspace, settings, lake, kind, tenant, path.name, first, mapping, now)
        if other is not None and other.twice:
            raise other.refusal(path.name, mapping)


class _Other(NamedTuple):
    """How rows of a file that are in the lake were read before, in another way."""

    reading: Reading
    moments: set[datetime]
    twice: bool

    def how(self, mapping: Mapping[str, str]) -> str:
        return f"{self.reading.at:%Y-%m-%d}, {in_words(self.reading.columns, mapping)}"

    def refusal(self, file: str, mapping: Mapping[str, str]) -> BadInput:
        return BadInput(
            f"rows of {file} are in the lake already, read in another way ({self.how(mapping)}): now they would count "
            "twice.",
            hint="Add --replace to take those back first, or --add if both are meant.",
        )


def _other_reading(
    workspace: Workspace, settings: Settings, lake: Lake, kind: str, tenant: str, file: str, rows: Sequence[Row],
    mapping: dict[str, str], now: datetime,
) -> _Other | None:  # fmt: skip
    """Whether some rows of a file are in the lake as an earlier import with another mapping read them."""
    columns = {column for row in rows[:1000] if isinstance(row.cells, dict) for column in row.cells}
    earlier = readings(workspace, tenant, kind)
    sample = rows[:: max(1, len(rows) // SAMPLE)]

    def loader(columns: dict[str, str]) -> "_Loader":
        return _Loader(workspace, settings, kind, tenant, file, columns, now)

    for columns_then in {json.dumps(each.columns, sort_keys=True): each.columns for each in earlier}.values():
        if columns_then == mapping or not set(columns_then) <= columns:
            continue
        then = loader(columns_then).ids(sample, order_only=_only_order(rows, columns_then))
        found = known_ids(lake, tenant, kind, [each for ids in then for each in ids])
        if not found:
            continue
        new = loader(mapping).ids(sample, order_only=_only_order(rows, mapping))
        known = known_ids(lake, tenant, kind, [each for ids in new for each in ids])
        twice = any(
            any(each in found for each in old) and any(each not in known for each in ids)
            for old, ids in zip(then, new, strict=True)
        )
        same = [each for each in earlier if each.columns == columns_then]
        moments = {*found.values(), *(each.at for each in same if each.file == file)}
        return _Other(same[-1], moments, twice)
    return None


def replay(workspace: Workspace, rows: Sequence[Quarantined], *, now: datetime, change: Mapping[str, Any]) -> int:
    """Takes quarantined records in again, with some fields changed; those that are good now reach the lake.

    A record keeps the time of its arrival, so that one that was refused for its age is refused again. A row of a file
    whose cells are not what the file's writer meant stays, whatever is changed: it is repaired in the file and imported
    again. A row without a time is not given one.

    Args:
        workspace: Where the lake lies.
        rows: What to take in again.
        now: Aware, UTC.
        change: Field → value, put into each record first; None takes the field out.

    Returns:
        How many are good now; the others stay in the quarantine.
    """
    settings = read_settings(workspace)
    ids = RecommendationIds(read_secret(workspace.root / SECRET_FILE))
    good: dict[str, list[Any]] = {kind: [] for kind in KINDS}
    done: list[Quarantined] = []
    for row in rows:
        try:
            made = _again(row, settings, ids, change)
        except (BadRecord, msgspec.DecodeError):
            continue
        if not made:  # an event without consent stays where it is
            continue
        good[row.kind + "s"] += made
        done.append(msgspec.structs.replace(row, replayed=True))
    lake = Lake(workspace.lake)
    for kind, records in good.items():
        if records:
            lake.add(kind, records)
    if good["items"]:
        _tell_service(workspace, settings, [msgspec.structs.replace(item, updated_at=now) for item in good["items"]])
    if done:
        lake.append("quarantine", done)
    return len(done)


class _Loader:
    """Takes the rows of one file, chunk by chunk."""

    def __init__(
        self,
        workspace: Workspace,
        settings: Settings,
        kind: str,
        tenant: str,
        file: str,
        mapping: dict[str, str],
        now: datetime,
    ) -> None:
        shop = settings.tenant(tenant)
        self.order_only = False
        self._workspace = workspace
        self._settings = settings
        self._kind = kind
        self._tenant = tenant
        self._file = file
        self._mapping = mapping
        self._now = now
        self._currency = shop.currency
        self._fields = fields_of(kind)
        self._lake = Lake(workspace.lake)
        self._maker = EventMaker(
            tenant=tenant,
            source="import",
            default_consent=shop.consent_secret,
            now=now,
            currency=shop.currency,
            issued=RecommendationIds(read_secret(workspace.root / SECRET_FILE)).issued,
            earliest=EARLIEST,
            latest=now + timedelta(days=1),
        )
        self._orders: dict[str, list[tuple[int, dict[str, Any]]]] = {}
        self._consent = shop.consent_secret
        self._latest = now + timedelta(days=1)
        self._events: list[Event] = []
        self._counts: list[int] = []
        self._nouns: list[Item | User | Edge] = []
        self._timed_edges: list[Edge] = []
        self._old: dict[tuple[str, ...], Any] | None = None
        self._read = self._kept = self._known = self._quarantined = self._no_consent = 0
        self._bad: list[BadRow] = []

    def ids(self, rows: Sequence[Row], *, order_only: bool) -> list[tuple[str, ...]]:
        """The ids that each row would get, nothing where it is bad; nothing is stored."""
        self.order_only = order_only
        found: list[tuple[str, ...]] = []
        for row in rows:
            made: tuple[str, ...] = ()
            if not isinstance(row.cells, BadRecord):
                with contextlib.suppress(BadRecord):
                    fields, before = self._named(row.cells), len(self._events)
                    self._make(row.line, fields)
                    made = tuple(each.event_id for each in self._events[before:])
                    if self._kind == "orders":
                        made = (str(fields["order_id"]),)
            found.append(made)
        return found

    def take(self, chunk: Sequence[Row]) -> None:
        """Checks one chunk and commits what is good."""
        self._read += len(chunk)
        refused: list[Quarantined] = []
        for row in chunk:
            cells = row.cells
            if isinstance(cells, BadRecord):
                raw = row.raw if isinstance(row.raw, str) else _json(self._named(row.raw))
                refused.append(self._refuse(row.line, cells, raw))
                continue
            fields = self._named(cells)
            try:
                self._make(row.line, fields)
            except BadRecord as error:
                refused.append(self._refuse(row.line, _explained(error, fields), _json(_shown(error, fields))))
        self._store_events()
        self._store_nouns()
        self._store_edges()
        self._quarantine(refused)

    def _make(self, line: int, fields: dict[str, Any]) -> None:
        """Makes of one row what it is.

        Raises:
            BadRecord: What is wrong with it.
        """
        if self._kind == "events":
            made = event_of(fields, self._maker, currency=self._currency, order_only=self.order_only)
            if made:
                self._counts.append(len(made))
                self._events += made
            else:
                self._no_consent += 1
        elif self._kind == "items":
            wire = item_of(fields, self._currency)
            self._nouns.append(make_item(wire, tenant=self._tenant, now=self._now, currency=self._currency))
        elif self._kind == "users":
            person = user_of(fields)
            self._nouns.append(make_user(person, tenant=self._tenant, now=self._now, default_consent=self._consent))
        elif self._kind == "edges":
            tie = edge_of(fields)
            edge = make_edge(tie, tenant=self._tenant, now=self._now, earliest=EARLIEST, latest=self._latest)
            (self._nouns if tie.occurred_at is None else self._timed_edges).append(edge)
        else:
            order_id = fields.get("order_id")
            if stands_for_nothing(order_id):
                raise BadRecord("missing_field", "order_id is missing", field="order_id", hint="send order_id.")
            self._orders.setdefault(str(order_id), []).append((line, fields))

    def finish(self, ignored: list[str]) -> Loaded:
        """Commits orders, which may lie scattered over the file, and says what became of it all."""
        self._store_orders()
        return Loaded(
            self._file, self._read, self._kept, self._known, self._quarantined, self._no_consent, self._bad,
            self._mapping, ignored,
            self.order_only,
        )  # fmt: skip

    def _named(self, cells: Mapping[str, Any]) -> dict[str, Any]:
        fields: dict[str, Any] = {}
        for column, value in cells.items():
            field = self._mapping.get(column) or (column if column in self._fields else None)
            if field is not None:
                fields[field] = value
        return fields

    def _store_events(self) -> None:
        events, counts = self._events, self._counts
        self._events, self._counts = [], []
        if not events:
            return
        added = self._lake.add("events", events)
        share = added.kept / len(events)
        kept = len(counts) if added.kept == len(events) else round(share * len(counts))
        self._kept += kept
        self._known += len(counts) - kept

    def _store_nouns(self) -> None:
        """Stores items, people and ties without a time: those that say something new, whenever they came."""
        rows, self._nouns = self._nouns, []
        if not rows:
            return
        spec = TABLES[self._kind]
        if self._old is None:
            self._old = _newest(self._lake, self._kind, self._tenant)
        changed: dict[tuple[str, ...], Any] = {}
        news = unwanted = 0
        for row in rows:
            key = tuple(getattr(row, name) for name in spec.key[1:])
            old = self._old.get(key)
            if old is not None and msgspec.structs.replace(row, **{spec.time: getattr(old, spec.time)}) == old:
                continue
            if old is None and isinstance(row, User) and row.consent == "none":
                unwanted += 1
                continue
            self._old[key] = changed[key] = row
            news += 1
        if changed:
            self._lake.add(self._kind, list(changed.values()))
            if self._kind == "items":
                _tell_service(self._workspace, self._settings, list(changed.values()))
        self._kept += news
        self._no_consent += unwanted
        self._known += len(rows) - news - unwanted

    def _store_edges(self) -> None:
        """Stores ties that say when they were made: of one tie the newest."""
        edges, self._timed_edges = self._timed_edges, []
        if edges:
            added = self._lake.add("edges", edges)
            self._kept += added.kept
            self._known += len(edges) - added.kept

    def _store_orders(self) -> None:
        orders: list[Order] = []
        rows: list[int] = []
        refused: list[Quarantined] = []
        for lines in self._orders.values():
            fields = [each for _, each in lines]
            try:
                wire = order_of(fields, self._currency)
                order = make_order(
                    wire, tenant=self._tenant, source="import", now=self._now, currency=self._currency,
                    earliest=EARLIEST, latest=self._now + timedelta(days=1),
                )  # fmt: skip
            except BadRecord as error:
                refused += [self._refuse(line, error, _json(each)) for line, each in lines]
                continue
            orders.append(order)
            rows.append(len(lines))
        if orders:
            added = self._lake.add("orders", orders)
            total = sum(rows)
            kept = total if added.kept == len(orders) else round(total * added.kept / len(orders))
            self._kept += kept
            self._known += total - kept
        self._quarantine(refused)

    def _refuse(self, line: int, error: BadRecord, raw: str) -> Quarantined:
        self._quarantined += 1
        if len(self._bad) < BAD_LINES:
            self._bad.append(BadRow(line, error.code, error.message, error.field))
        return Quarantined(
            quarantine_id=content_key(self._tenant, self._kind, raw, self._file, line).hex(),
            tenant=self._tenant,
            kind=self._kind[:-1],
            raw=raw,
            code=error.code,
            reason=error.message,
            field=error.field,
            received_at=self._now,
            file=self._file,
            line=line,
        )

    def _quarantine(self, refused: list[Quarantined]) -> None:
        if refused:
            self._lake.add("quarantine", refused)


def _again(
    row: Quarantined, settings: Settings, ids: RecommendationIds, change: Mapping[str, Any]
) -> list[Event] | list[Item] | list[Order] | list[User] | list[Edge]:
    """The records of one quarantined record, if they are good now."""
    if row.code in _GARBLED:
        raise BadRecord(row.code, row.reason)
    shop = settings.tenant(row.tenant)
    fields = msgspec.json.decode(row.raw)
    if not isinstance(fields, dict):
        raise BadRecord("not_an_object", "this is no record")
    fields = {name: value for name, value in {**fields, **change}.items() if value is not None}
    imported = row.file is not None
    source = "import" if imported else "api"
    earliest, latest = (EARLIEST, row.received_at + timedelta(days=1)) if imported else (None, None)
    if row.kind == "item":
        return [make_item(item_of(fields, shop.currency), tenant=row.tenant, now=row.received_at,
                          currency=shop.currency)]  # fmt: skip
    if row.kind == "user":
        return [make_user(user_of(fields), tenant=row.tenant, now=row.received_at,
                          default_consent=shop.consent_secret)]  # fmt: skip
    if row.kind == "edge":
        return [make_edge(edge_of(fields), tenant=row.tenant, now=row.received_at, earliest=EARLIEST,
                          latest=row.received_at + timedelta(days=1))]  # fmt: skip
    if not imported:
        fields.setdefault("occurred_at", row.received_at)
    if row.kind == "order":
        return [make_order(order_of([fields], shop.currency), tenant=row.tenant, source=source, now=row.received_at,
                           currency=shop.currency, earliest=earliest, latest=latest)]  # fmt: skip
    maker = EventMaker(
        tenant=row.tenant, source=source, default_consent=shop.consent_secret if imported else shop.consent_publishable,
        now=row.received_at, currency=shop.currency, issued=ids.issued, earliest=earliest, latest=latest,
    )  # fmt: skip
    return event_of(fields, maker, currency=shop.currency, order_only=False)


def _newest(lake: Lake, table: str, tenant: str) -> dict[tuple[str, ...], Any]:
    """What the lake knows of a tenant's items, people or ties, by their key."""
    spec = TABLES[table]
    connection = lake.connect(tenant=tenant)
    try:
        rows = to_records(spec.record, connection.sql(f"SELECT * FROM {table}").to_arrow_table())
    finally:
        connection.close()
    return {tuple(getattr(row, name) for name in spec.key[1:]): row for row in rows}


def _explained(error: BadRecord, fields: Mapping[str, Any]) -> BadRecord:
    """The error, with what the cell says when that stands for nothing, such as `NaN`."""
    cell = fields.get(error.field)
    if error.code != "missing_field" or cell in (None, "") or not stands_for_nothing(cell):
        return error
    return BadRecord(error.code, f"{error.message} (the cell says {cell!r})", field=error.field, hint=error.hint)


def _shown(error: BadRecord, fields: Mapping[str, Any]) -> Mapping[str, Any]:
    """What of a refused row may be kept: never an address that should have been hashed."""
    if error.code != "not_hashed":
        return fields
    return {name: value for name, value in fields.items() if name != error.field}


def _tell_service(workspace: Workspace, settings: Settings, items: Sequence[Item]) -> None:
    """Hands changed items to a running service, which shows them within a second."""
    live = LiveDB(workspace.live, settings.live.map_mb)
    try:
        live.put_items(items)
    finally:
        live.close()


def _only_order(rows: Sequence[Row], mapping: Mapping[str, str]) -> bool:
    column = next((column for column, field in mapping.items() if field == "occurred_at"), None)
    return column is not None and is_order_index(row.cells.get(column) for row in rows if isinstance(row.cells, dict))


def _json(fields: Mapping[str, Any]) -> str:
    return json.dumps(fields, ensure_ascii=False, default=_plain, allow_nan=False) if _finite(fields) else repr(fields)


def _finite(fields: Mapping[str, Any]) -> bool:
    return not any(isinstance(value, float) and value - value != 0 for value in fields.values())


def _plain(value: Any) -> str:
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).isoformat()
    if isinstance(value, date):
        return value.isoformat()
    return str(value)
