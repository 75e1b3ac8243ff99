"""Loading: a shop's own files become rows of the lake; the same file twice changes nothing."""

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from thinslice.collect.columns import EARLIEST, event_of, fields_of, guess, is_order_index, item_of, order_of
from thinslice.collect.makers import EventMaker, content_key, make_item, make_order
from thinslice.errors import BadInput, BadRecord
from thinslice.records import Event, Item, Order, Quarantined
from thinslice.serving.issued import SECRET_FILE, RecommendationIds, read_secret
from thinslice.settings import Settings, Workspace, read_settings
from thinslice.store.lake import Lake
from thinslice.store.live import LiveDB
from thinslice.store.schemas import to_records

CHUNK = 50_000
"""So many rows are read, checked and committed at once."""

BAD_LINES = 1000
"""So many bad rows of one file are named in the result; the quarantine holds them all."""

KINDS = ("events", "items", "orders")

_GARBLED = frozenset({"bad_csv", "bad_utf8", "bad_json"})  # what is kept of such a row only resembles it

Progress = Callable[[int, int], None]
"""Called with (bytes or rows done, bytes or rows in all)."""


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


class Row(NamedTuple):
    """One row of a file: its line, its cells by column, or what is wrong with it and what there was."""

    line: int
    cells: dict[str, Any] | BadRecord
    raw: dict[str, Any] | str = ""


def load(
    workspace: Workspace,
    kind: str,
    path: Path,
    tenant: str,
    *,
    now: datetime,
    file_format: str = "auto",
    told: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> Loaded:
    """Reads one file into the lake; when it returns, all of it is there and survives a power loss.

    Args:
        workspace: Where the lake lies.
        kind: `events`, `items` or `orders`.
        path: CSV (also with tabs or semicolons), JSON lines, a JSON array, or Parquet.
        tenant: Whose rows these are.
        now: Aware, UTC.
        file_format: `csv`, `jsonl`, `parquet`, or `auto`: by the name, else by the first bytes.
        told: Column → field, stronger than what the names suggest.
        progress: Told how far it is.

    Raises:
        BadInput: The file cannot be read as such a file, or a needed column is missing.
        UnknownName: There is no such tenant.
    """
    settings = read_settings(workspace)
    settings.tenant(tenant)
    chunks, columns = open_rows(path, file_format, progress)
    first = next(chunks, [])
    columns = columns or list(dict.fromkeys(key for row in first if isinstance(row.cells, dict) for key in row.cells))
    mapping = guess(kind, columns, told or {})
    loader = _Loader(workspace, settings, kind, tenant, path.name, mapping, now)
    loader.order_only = kind != "items" and _only_order(first, mapping)
    loader.take(first)
    for chunk in chunks:
        loader.take(chunk)
    return loader.finish([column for column in columns if column not in mapping])


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
        self._old_items: dict[str, Item] | None = None
        self._read = self._kept = self._known = self._quarantined = self._no_consent = 0
        self._bad: list[BadRow] = []

    def take(self, chunk: Sequence[Row]) -> None:
        """Checks one chunk and commits what is good."""
        self._read += len(chunk)
        refused: list[Quarantined] = []
        events: list[Event] = []
        items: list[Item] = []
        counts: list[int] = []
        for row in chunk:
            cells = row.cells
            if isinstance(cells, BadRecord):
                raw = row.raw if isinstance(row.raw, str) else _json(self._named(row.raw))
                refused.append(self._refuse(row.line, cells, raw))
                continue
            fields = self._named(cells)
            try:
                if self._kind == "events":
                    made = event_of(fields, self._maker, currency=self._currency, order_only=self.order_only)
                    if made:
                        counts.append(len(made))
                        events += made
                    else:
                        self._no_consent += 1
                elif self._kind == "items":
                    wire = item_of(fields, self._currency)
                    items.append(make_item(wire, tenant=self._tenant, now=self._now, currency=self._currency))
                else:
                    order_id = fields.get("order_id")
                    if order_id is None or order_id == "":
                        raise BadRecord("missing_field", "order_id is missing", field="order_id", hint="send order_id.")
                    self._orders.setdefault(str(order_id), []).append((row.line, fields))
            except BadRecord as error:
                refused.append(self._refuse(row.line, error, _json(fields)))
        self._store_events(events, counts)
        self._store_items(items)
        self._quarantine(refused)

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

    def _store_events(self, events: list[Event], counts: list[int]) -> None:
        if not events:
            return
        added = self._lake.add("events", events)
        share = added.kept / len(events)
        kept = len(counts) if added.kept == len(events) else round(share * len(counts))
        self._kept += kept
        self._known += len(counts) - kept

    def _store_items(self, items: list[Item]) -> None:
        if not items:
            return
        if self._old_items is None:
            self._old_items = _newest_items(self._lake, self._tenant)
        changed: list[Item] = []
        for item in items:
            old = self._old_items.get(item.item_id)
            if old is not None and msgspec.structs.replace(item, updated_at=old.updated_at) == old:
                continue
            self._old_items[item.item_id] = item
            changed.append(item)
        if changed:
            self._lake.add("items", changed)
            _tell_service(self._workspace, self._settings, changed)
        self._kept += len(changed)
        self._known += len(items) - len(changed)

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
) -> list[Event] | list[Item] | list[Order]:
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


def _newest_items(lake: Lake, tenant: str | None) -> dict[str, Item]:
    """The catalog as the lake has it: item id → item (with the tenant before the id when there are several)."""
    connection = lake.connect(tenant=tenant)
    try:
        rows = to_records(Item, connection.sql("SELECT * FROM items").to_arrow_table())
    finally:
        connection.close()
    return {item.item_id if tenant is not None else f"{item.tenant}/{item.item_id}": item for item in rows}


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


def open_rows(path: Path, file_format: str, progress: Progress | None) -> tuple[Iterator[list[Row]], list[str]]:
    """The rows of a file in chunks, and its columns (empty for JSON, whose rows name their own).

    Raises:
        BadInput: There is no such file, or it cannot be read as such a file.
    """
    if not path.is_file():
        raise BadInput(f"there is no file {path}.")
    if path.stat().st_size == 0:
        raise BadInput(f"{path} is empty.")
    told = progress or _quiet
    known = {"csv": _csv, "jsonl": _jsonl, "parquet": _parquet}
    chosen = _format(path) if file_format == "auto" else file_format
    if chosen not in known:
        raise BadInput(f"the format {file_format!r} is not known.", hint=f"There is: auto, {', '.join(known)}.")
    return known[chosen](path, told)


def _quiet(done: int, total: int) -> None:
    """Tells nobody."""


def _format(path: Path) -> str:
    suffix = path.suffix.lower()
    by_name = {".csv": "csv", ".tsv": "csv", ".txt": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl",
               ".parquet": "parquet", ".pq": "parquet"}  # fmt: skip
    if suffix in by_name:
        return by_name[suffix]
    with path.open("rb") as file:
        head = file.read(64).lstrip()
    if head.startswith(b"PAR1"):
        return "parquet"
    return "jsonl" if head[:1] in (b"{", b"[") else "csv"


def _csv(path: Path, progress: Progress) -> tuple[Iterator[list[Row]], list[str]]:
    total = path.stat().st_size
    binary = path.open("rb")
    file = io.TextIOWrapper(binary, encoding="utf-8-sig", errors="surrogateescape", newline="")
    header = file.readline()
    delimiter = max(",\t;|", key=header.count)
    columns = [_clean(cell.strip()) for cell in next(csv.reader([header], delimiter=delimiter), [])]
    if len(set(columns)) != len(columns) or not any(columns):
        file.close()
        raise BadInput(f"{path.name}: the first line does not name the columns, each once: {header[:200]!r}.")

    def chunks() -> Iterator[list[Row]]:
        with file:
            reader = csv.reader(file, delimiter=delimiter)
            rows: list[Row] = []
            while True:
                try:
                    cells = next(reader, None)
                except csv.Error as error:
                    rows.append(Row(reader.line_num + 1, BadRecord("bad_csv", f"the row cannot be read: {error}")))
                    continue
                if cells is None:
                    break
                if cells:
                    rows.append(_csv_row(cells, columns, reader.line_num + 1))
                if len(rows) >= CHUNK:
                    progress(binary.tell(), total)
                    yield rows
                    rows = []
            progress(total, total)
            yield rows

    return chunks(), columns


def _csv_row(cells: list[str], columns: list[str], line: int) -> Row:
    raw = dict(zip(columns, cells, strict=False))
    if any("\udc80" <= letter <= "\udcff" for cell in cells if not cell.isascii() for letter in cell):
        return Row(line, BadRecord("bad_utf8", "the row is not UTF-8"), {k: _clean(v) for k, v in raw.items()})
    if len(cells) != len(columns):
        message = f"the row has {len(cells)} cells, the header {len(columns)}"
        return Row(line, BadRecord("bad_csv", message, hint="quote cells that hold the delimiter."), raw)
    return Row(line, raw)


def _jsonl(path: Path, progress: Progress) -> tuple[Iterator[list[Row]], list[str]]:
    total = path.stat().st_size

    def chunks() -> Iterator[list[Row]]:
        with path.open("rb") as file:
            rows: list[Row] = []
            start = file.peek(64).lstrip()[:1]
            lines: Iterator[tuple[int, bytes]] = (
                iter(_array(file.read(), path.name)) if start == b"[" else enumerate(file, start=1)
            )
            for line, text in lines:
                if text.strip():
                    rows.append(_json_row(text, line))
                if len(rows) >= CHUNK:
                    progress(file.tell(), total)
                    yield rows
                    rows = []
            progress(total, total)
            yield rows

    return chunks(), []


def _array(body: bytes, name: str) -> Iterator[tuple[int, bytes]]:
    try:
        raws = msgspec.json.decode(body, type=list[msgspec.Raw])
    except (msgspec.DecodeError, RecursionError) as error:
        raise BadInput(f"{name} is no JSON array: {error}.") from None
    return ((place, bytes(raw)) for place, raw in enumerate(raws, start=1))


def _json_row(text: bytes, line: int) -> Row:
    try:
        cells = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return Row(line, BadRecord("bad_json", f"this is no JSON: {error}"), text.decode("utf-8", "replace").strip())
    if not isinstance(cells, dict):
        return Row(line, BadRecord("not_an_object", "a record is an object"), text.decode("utf-8").strip())
    return Row(line, cells)


def _parquet(path: Path, progress: Progress) -> tuple[Iterator[list[Row]], list[str]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise BadInput(f"{path.name} is no Parquet file: {error}.") from None
    columns = list(file.schema_arrow.names)
    total = file.metadata.num_rows

    def chunks() -> Iterator[list[Row]]:
        line = 0
        with file:
            for batch in file.iter_batches(batch_size=CHUNK):
                values = [column.to_pylist() for column in batch.columns]
                names = batch.schema.names
                rows = [
                    Row(line + place, dict(zip(names, cells, strict=True)))
                    for place, cells in enumerate(zip(*values, strict=True), start=1)
                ]
                line += len(rows)
                progress(line, total)
                yield rows

    return chunks(), columns


def _clean(text: str) -> str:
    return text.encode("utf-8", "replace").decode("utf-8") if not text.isascii() else text


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
