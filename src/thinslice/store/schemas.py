"""The lake's tables: each column is a field of a record, so that every name exists once."""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from types import NoneType, UnionType
from typing import Any, NamedTuple, TypeVar, Union, get_args, get_origin

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from thinslice.records import Edge, Event, Exposure, Item, Order, Quarantined, Session, ShadowSlate, User

PARTITION = "received_date"
"""The date (UTC) that a partitioned table is cut by; made from the table's time column, and no column of a record."""

Record = TypeVar("Record", bound=msgspec.Struct)


class Assignment(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """The first exposure of one unit of an experiment under one allocation: a row of the table `assignments`."""

    tenant: str
    experiment: str
    unit: str
    unit_id: str
    variant: str
    allocation_version: int
    first_exposure_at: datetime


class TrainedModel(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One trained generation: a row of the table `models`; `manifest` says what it was made of."""

    tenant: str
    slot: str
    version: str
    trained_at: datetime
    sha256: str | None = None
    lake_version: int | None = None
    manifest: dict[str, Any] = {}


class Decided(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What was decided when an experiment had ended: a row of the table `decisions`; the first reading counts.

    `effects` holds every metric of every treatment as the report showed it then, by `METRIC/VARIANT`.
    """

    tenant: str
    experiment: str
    decided_at: datetime
    action: str
    sentence: str
    variant: str | None = None
    reasons: list[str] = []
    kind: str = "test"
    effects: dict[str, Any] = {}


class Trial(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One fit of `evaluate --why` and its figures: a row of the table `trials`; kept to see what was tried already."""

    tenant: str
    trial_id: str
    run_id: str
    ran_at: datetime
    model: str
    change: str
    what: str
    share: float
    seed: int
    k: int
    n: int
    hr: float
    mrr: float
    ndcg: float
    hr_se: float | None = None
    mrr_se: float | None = None
    ndcg_se: float | None = None
    fit_cpu_s: float = 0.0
    lake_version: int | None = None
    settings: dict[str, Any] = {}


class Label(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What a person picked for a query of a benchmark, and at which place: a row of the table `labels`."""

    tenant: str
    benchmark: str
    query_id: str
    item_id: str
    labeled_at: datetime
    place: int = 0
    source: str = "person"
    labeled_by: str = ""


class Table(NamedTuple):
    """One table of the lake.

    Attributes:
        record: What a row is.
        time: The field that tells when a row came to be.
        key: The fields that name a row; a row with a known key is no news.
        partitioned: Whether it is cut by the date of `time`.
        newest: Whether a row replaces older ones of its key in the view of this name.
        tie: The field that decides, the greater value first, between rows of one key and time.
    """

    record: type[msgspec.Struct]
    time: str
    key: tuple[str, ...]
    partitioned: bool = False
    newest: bool = False
    tie: str = ""

    @property
    def order(self) -> str:
        """Newest first, in SQL."""
        return f"{self.time} DESC" + (f", {self.tie} DESC" if self.tie else "")


TABLES = {
    "events": Table(Event, "received_at", ("tenant", "event_id"), partitioned=True),
    "exposures": Table(Exposure, "occurred_at", ("tenant", "recommendation_id"), partitioned=True),
    "shadows": Table(ShadowSlate, "occurred_at", ("tenant", "recommendation_id"), partitioned=True),
    "items": Table(Item, "updated_at", ("tenant", "item_id"), newest=True),
    "users": Table(User, "updated_at", ("tenant", "user_id"), newest=True),
    "edges": Table(Edge, "occurred_at", ("tenant", "from_id", "to_id", "kind"), newest=True),
    "orders": Table(Order, "received_at", ("tenant", "order_id"), partitioned=True, newest=True),
    "sessions": Table(Session, "ended_at", ("tenant", "session_id"), newest=True, tie="event_count"),
    "assignments": Table(
        Assignment, "first_exposure_at", ("tenant", "experiment", "unit", "unit_id", "allocation_version")
    ),
    "quarantine": Table(
        Quarantined, "received_at", ("tenant", "quarantine_id"), partitioned=True, newest=True, tie="replayed"
    ),
    "models": Table(TrainedModel, "trained_at", ("tenant", "slot", "version"), newest=True),
    "decisions": Table(Decided, "decided_at", ("tenant", "experiment")),
    "trials": Table(Trial, "ran_at", ("tenant", "trial_id")),
    "labels": Table(Label, "labeled_at", ("tenant", "benchmark", "query_id", "item_id", "labeled_by"), newest=True),
}
"""Every table by its name."""

_SCALARS: dict[Any, pa.DataType] = {
    str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_(), datetime: pa.timestamp("us", tz="UTC"),
    Any: pa.string(),
}  # fmt: skip


def arrow_schema(record: type[msgspec.Struct]) -> pa.Schema:
    """A record's columns: times in UTC microseconds, free-form objects as JSON text, other mappings as maps.

    >>> str(arrow_schema(Order).field("lines").type.value_type)
    'struct<item_id: string, quantity: int64, price_minor: int64>'
    """
    return pa.schema([(field.name, _arrow_type(field.type)) for field in msgspec.structs.fields(record)])


def to_table(record: type[Record], rows: Sequence[Record]) -> pa.Table:
    """Records as a table with the columns of `arrow_schema`.

    Raises:
        pyarrow.ArrowInvalid: A value does not fit its column, such as a whole number beyond 64 bits.
        OverflowError: Likewise.
    """
    arrays = []
    for field in msgspec.structs.fields(record):
        name = field.name
        values = [getattr(row, name) for row in rows]
        convert = _writer(field.type)
        if convert is not None:
            values = [None if value is None else convert(value) for value in values]
        arrays.append(pa.array(values, type=_arrow_type(field.type)))
    return pa.Table.from_arrays(arrays, schema=arrow_schema(record))


def to_records(record: type[Record], table: pa.Table) -> list[Record]:
    """A table's rows as records again; columns that the table lacks take their defaults.

    Raises:
        msgspec.ValidationError: A row is no such record.
    """
    fields = [field for field in msgspec.structs.fields(record) if field.name in table.column_names]
    columns = []
    for field in fields:
        values = table.column(field.name).to_pylist()
        convert = _reader(field.type)
        columns.append(values if convert is None else [None if v is None else convert(v) for v in values])
    names = [field.name for field in fields]
    rows: Iterable[tuple[Any, ...]] = zip(*columns, strict=True)
    plain = [{n: v for n, v in zip(names, row, strict=True) if v is not None} for row in rows]
    return msgspec.convert(plain, list[record])  # type: ignore[valid-type]


def with_partition(table: pa.Table, time: str) -> pa.Table:
    """The table with the date (UTC) of its time column appended."""
    dates = pc.cast(table.column(time), pa.date32())
    return table.append_column(pa.field(PARTITION, pa.date32()), dates)


def sql_type(kind: pa.DataType) -> str:
    """A column's type in DuckDB's words.

    >>> sql_type(pa.list_(pa.string()))
    'VARCHAR[]'
    """
    if pa.types.is_list(kind):
        return f"{sql_type(kind.value_type)}[]"
    if pa.types.is_map(kind):
        return f"MAP({sql_type(kind.key_type)}, {sql_type(kind.item_type)})"
    if pa.types.is_struct(kind):
        return "STRUCT(" + ", ".join(f'"{field.name}" {sql_type(field.type)}' for field in kind) + ")"
    if pa.types.is_timestamp(kind):
        return "TIMESTAMPTZ"
    return {pa.string(): "VARCHAR", pa.int64(): "BIGINT", pa.float64(): "DOUBLE", pa.bool_(): "BOOLEAN"}[kind]


def _plain(annotation: Any) -> Any:
    """The annotation without `| None`."""
    if get_origin(annotation) in (Union, UnionType):
        parts = [part for part in get_args(annotation) if part is not NoneType]
        if len(parts) != 1:
            raise TypeError(f"{annotation} cannot be one column")
        return parts[0]
    return annotation


def _is_free_form(annotation: Any) -> bool:
    return get_origin(annotation) is dict and get_args(annotation)[1] is Any


def _arrow_type(annotation: Any) -> pa.DataType:
    annotation = _plain(annotation)
    if annotation in _SCALARS:
        return _SCALARS[annotation]
    if _is_free_form(annotation):
        return pa.string()
    arguments = get_args(annotation)
    if get_origin(annotation) is list:
        return pa.list_(_arrow_type(arguments[0]))
    if get_origin(annotation) is dict:
        return pa.map_(_arrow_type(arguments[0]), _arrow_type(arguments[1]))
    if isinstance(annotation, type) and issubclass(annotation, msgspec.Struct):
        return pa.struct(list(arrow_schema(annotation)))
    raise TypeError(f"{annotation} has no column type")


def _to_json(value: Any) -> str:
    return msgspec.json.encode(value).decode() if value else "{}"


def _writer(annotation: Any) -> Callable[[Any], Any] | None:
    """How a value becomes what Arrow takes; None when it is so already."""
    annotation = _plain(annotation)
    if _is_free_form(annotation):
        return _to_json
    arguments = get_args(annotation)
    if get_origin(annotation) is dict:
        return lambda value: list(value.items())
    if get_origin(annotation) is list:
        inner = _writer(arguments[0])
        return None if inner is None else lambda value: [inner(entry) for entry in value]
    if isinstance(annotation, type) and issubclass(annotation, msgspec.Struct):
        parts = [(field.name, _writer(field.type)) for field in msgspec.structs.fields(annotation)]
        return lambda value: {
            name: getattr(value, name) if part is None else part(getattr(value, name)) for name, part in parts
        }
    return None


def _reader(annotation: Any) -> Callable[[Any], Any] | None:
    """How what Arrow gives becomes what a record takes; None when it is so already."""
    annotation = _plain(annotation)
    if _is_free_form(annotation):
        return msgspec.json.decode
    arguments = get_args(annotation)
    if get_origin(annotation) is dict:
        return dict
    if get_origin(annotation) is list:
        inner = _reader(arguments[0])
        return None if inner is None else lambda value: [inner(entry) for entry in value]
    if isinstance(annotation, type) and issubclass(annotation, msgspec.Struct):
        parts = [(field.name, _reader(field.type)) for field in msgspec.structs.fields(annotation)]
        return lambda value: {
            name: value[name] if part is None else part(value[name])
            for name, part in parts if value[name] is not None
        }  # fmt: skip
    return None
