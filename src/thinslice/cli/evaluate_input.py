"""Reads what `thinslice evaluate` and `thinslice benchmark` learn from: a file of events, a catalog, or the lake."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from thinslice.errors import BadInput
from thinslice.settings import Workspace, read_settings

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from pathlib import Path

    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from thinslice.records import Item

EVENT_COLUMNS = ("session_id", "item_id", "ts", "event", "split", "user_id", "visitor_id")

FEEDBACK = ("purchase", "hide", "report")
"""Events that say whether an item was right."""

ITEM_COLUMNS = {
    "title": ("title", "name", "movie_title", "product_name", "item_name"),
    "description": ("description",),
    "brand": ("brand", "manufacturer"),
    "categories": ("categories", "category"),
    "image_url": ("image_url", "image_link"),
    "kind": ("kind",),
    "updated_at": ("updated_at",),
    "published_at": ("published_at", "created_at"),
}
"""Field of an item → the columns of a catalog file that it is read from, the first that is there."""


def read_log(
    workspace: Workspace,
    events_file: Path | None,
    tenant: str | None,
    items_file: Path | None,
    *,
    now: datetime | None = None,
) -> tuple[dict[str, NDArray[Any]], list[Item]]:
    """The columns and the catalog that the options of a command name: a file, or the lake of a tenant.

    Raises:
        BadInput: Neither or both are named, or a file cannot be used.
    """
    if (events_file is None) == (tenant is None):
        raise BadInput("needed is either --events FILE.parquet or --tenant NAME.")
    items: list[Item]
    if events_file is not None:
        columns, items = read_events(events_file), []
    else:
        assert tenant is not None
        columns, items = read_lake(workspace, tenant, now)
    return columns, items if items_file is None else read_items(items_file)


def read_events(path: Path) -> dict[str, NDArray[Any]]:
    """The columns that `evaluate` reads from a Parquet, CSV or JSON Lines file; times become unix seconds.

    Raises:
        BadInput: It cannot be read, a column is missing, has holes, or is of a type that cannot be meant.
    """
    table = _read_table(path, EVENT_COLUMNS, needed=("session_id", "item_id", "ts"))
    return {name: _column(table, name, str(path)) for name in table.column_names}


def read_lake(
    workspace: Workspace, tenant: str, now: datetime | None = None
) -> tuple[dict[str, NDArray[Any]], list[Item]]:
    """What `train` would learn from: a tenant's clicks in sessions from the lake, and its catalog."""
    from datetime import UTC, datetime

    import numpy as np

    from thinslice.jobs import training_data
    from thinslice.store.lake import Lake

    read_settings(workspace).tenant(tenant)
    lake = Lake(workspace.lake)
    clicks = training_data.read_clicks(lake, tenant, now or datetime.now(UTC))
    if len(clicks.item) == 0:
        raise BadInput(f"the lake holds nothing yet that the models of {tenant!r} could learn from.",
                       hint=f"`thinslice import events FILE --tenant {tenant}` brings some.")  # fmt: skip
    names = np.array(clicks.item_ids, dtype=np.object_)
    columns: dict[str, NDArray[Any]] = {"session_id": clicks.session, "item_id": names[clicks.item], "ts": clicks.time}
    if (clicks.known_user != "").any():
        begins = np.zeros(len(clicks.item), dtype=np.bool_)
        begins[np.unique(clicks.session, return_index=True)[1]] = True  # rows are in the order of time
        columns["user_id"] = np.where(begins, clicks.user[clicks.session], clicks.known_user[clicks.session])
    if (clicks.visitor != "").any():
        columns["visitor_id"] = clicks.visitor[clicks.session]
    if clicks.action.any():
        columns["action_code"] = clicks.action
    return columns, training_data.read_items(lake, tenant)


def read_feedback(
    workspace: Workspace, tenant: str, columns: dict[str, NDArray[Any]] | None, now: datetime
) -> list[tuple[str, str, str]]:
    """What visitors bought, hid and reported: (session id, item id, event name), sessions named as `read_log` does.

    Args:
        workspace: Whose lake is read.
        tenant: Whose events.
        columns: Those of a file, which then is read instead; None: the lake. There a purchase, hide or report belongs
            to the visitor's last session that began before it.
        now: The moment that the log was read at.
    """
    from bisect import bisect_right

    from thinslice.evaluation.splits import OTHER_NAMES

    if columns is not None:
        if "event" not in columns:
            return []
        names = [OTHER_NAMES.get(name, name) for name in columns["event"].astype(str).tolist()]
        rows = zip(columns["session_id"].tolist(), columns["item_id"].tolist(), names, strict=True)
        return [(str(session), str(item), name) for session, item, name in rows if name in FEEDBACK]
    from thinslice.jobs import training_data
    from thinslice.store.lake import Lake

    lake = Lake(workspace.lake)
    clicks = training_data.read_clicks(lake, tenant, now)
    visits: dict[str, list[tuple[float, int]]] = {}
    for code, (visitor, started) in enumerate(zip(clicks.visitor.tolist(), clicks.started.tolist(), strict=True)):
        visits.setdefault(visitor, []).append((started, code))
    for own in visits.values():
        own.sort()
    connection = lake.connect(tenant=tenant)
    try:
        events = connection.execute(
            """
            SELECT visitor_id, item_id, name, epoch(occurred_at) FROM events
            WHERE list_contains(?, name) AND visitor_id IS NOT NULL AND item_id IS NOT NULL AND NOT duplicate
              AND consent = 'personalization'
            ORDER BY occurred_at, event_id
            """,
            [list(FEEDBACK)],
        ).fetchall()
    finally:
        connection.close()
    found = []
    for visitor, item, name, at in events:
        own = visits.get(visitor, [])  # in the order of time
        place = bisect_right(own, (at, len(clicks.started))) - 1
        if place >= 0:
            found.append((str(own[place][1]), str(item), str(name)))
    return found


def read_items(path: Path) -> list[Item]:
    """A catalog in such a file: item_id, and titles, categories, dates, attributes where it has them."""
    return _items(_read_table(path, None, needed=("item_id",)), "file")


def _read_table(path: Path, wanted: Sequence[str] | None, *, needed: Sequence[str]) -> pa.Table:
    import pyarrow as pa
    import pyarrow.csv as csv
    import pyarrow.json as json
    import pyarrow.parquet as pq

    from thinslice.jobs.files import check_readable, check_text, format_of

    check_readable(path)
    kind = {"csv": "CSV", "jsonl": "JSON Lines", "parquet": "Parquet"}[format_of(path)]
    try:
        table = None
        if kind == "CSV":
            check_text(path)
            with path.open("rb") as file:
                header = file.readline().decode("utf-8-sig")
            table = csv.read_csv(path, parse_options=csv.ParseOptions(delimiter=max(",\t;|", key=header.count)))
        elif kind == "JSON Lines":
            check_text(path)
            table = json.read_json(path)
        there = table.column_names if table is not None else pq.read_schema(path).names
        missing = [name for name in needed if name not in there]
        if missing:
            raise BadInput(
                f"{path} lacks the column {', '.join(missing)} (there is: {', '.join(there)}).",
                hint="Name its columns so, or `thinslice import` it with --map and evaluate the --tenant.",
            )
        chosen = [name for name in wanted or there if name in there]
        table = pq.read_table(path, columns=chosen) if table is None else table.select(chosen)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OSError) as error:
        raise BadInput(f"{path} is not a {kind} file that can be read: {str(error).rstrip('.')}.") from None
    if not table.num_rows:
        raise BadInput(f"{path} names its columns and holds no rows.")
    return table


def _column(table: pa.Table, name: str, where: str) -> NDArray[Any]:
    import pyarrow as pa
    import pyarrow.compute as pc

    column = table[name].combine_chunks()
    if isinstance(column, pa.ChunkedArray):  # an empty table has no chunk to combine
        column = pa.array([], type=column.type)
    if column.null_count:
        first = pc.index(pc.is_null(column), value=True).as_py()
        raise BadInput(
            f"{where}: {name} is empty in {column.null_count} of {len(column)} rows, first in row {first + 1}."
        )
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if name == "ts":
        if pa.types.is_timestamp(column.type):
            return _seconds(column)
        if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
            raise BadInput(f"{where}: ts must be a number or a timestamp, it is {column.type}.")
        seconds: NDArray[Any] = column.to_numpy(zero_copy_only=False).astype("float64")
        return seconds
    if not (
        pa.types.is_integer(column.type) or pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
    ):
        raise BadInput(f"{where}: {name} must be whole numbers or text, it is {column.type}.")
    values: NDArray[Any] = column.to_numpy(zero_copy_only=False)
    return values


def _seconds(column: pa.Array) -> NDArray[np.float64]:
    import pyarrow as pa

    micro = column.cast(pa.timestamp("us", column.type.tz)).cast(pa.int64())
    seconds: NDArray[np.float64] = micro.to_numpy(zero_copy_only=False) / 1e6
    return seconds


def _items(table: pa.Table, tenant: str) -> list[Item]:
    from datetime import UTC, datetime

    from thinslice.records import Item

    def date(value: Any) -> datetime | None:
        if not isinstance(value, datetime):
            return None
        return value if value.tzinfo else value.replace(tzinfo=UTC)

    def text(value: Any) -> str | None:
        return None if value is None else str(value)

    def texts(value: Any) -> list[str]:
        if value is None:
            return []
        return [str(each) for each in value] if isinstance(value, list) else [str(value)]

    there = set(table.column_names)
    source = {field: next((name for name in names if name in there), "") for field, names in ITEM_COLUMNS.items()}
    others = sorted(there - set(source.values()) - {"item_id"})
    early = datetime(1970, 1, 1, tzinfo=UTC)
    return [
        Item(
            tenant=tenant,
            item_id=str(row["item_id"]),
            updated_at=date(row.get(source["updated_at"])) or early,
            published_at=date(row.get(source["published_at"])),
            title=text(row.get(source["title"])),
            description=text(row.get(source["description"])),
            brand=text(row.get(source["brand"])),
            kind=text(row.get(source["kind"])),
            image_url=text(row.get(source["image_url"])),
            categories=texts(row.get(source["categories"])),
            attributes={name: row[name] for name in others if row[name] is not None},
        )
        for row in table.to_pylist()
    ]
