"""The lake's columns are the records' fields."""

from datetime import UTC, date, datetime

import msgspec
import pyarrow as pa
import pytest

from thinslice.records import (
    Edge,
    Event,
    ExperimentExposure,
    Exposure,
    Item,
    Order,
    OrderLine,
    Session,
    ShadowSlate,
    User,
)
from thinslice.store.schemas import TABLES, arrow_schema, sql_type, to_records, to_table, with_partition

NOW = datetime(2026, 3, 4, 23, 59, 59, 999999, tzinfo=UTC)
SAMPLES = [
    Event(event_id="e", tenant="shop", name="custom", occurred_at=NOW, received_at=NOW, value=0.5, is_bot=True,
          context={"name": "zoom", "deep": {"a": [1, None, "é"]}}),
    Event(event_id="f", tenant="shop", name="view_item", occurred_at=NOW, received_at=NOW),
    Item(tenant="shop", item_id="i", updated_at=NOW, categories=["a", "b"], attributes={"color": "red"},
         vectors={"image": [0.5, 1.0], "text": []}, published_at=NOW, sponsored=True),
    User(tenant="shop", user_id="u", updated_at=NOW, entries=["x"], attributes={"n": 1}, purposes=["ads"]),
    Edge(tenant="shop", from_id="a", to_id="b", kind="follow", occurred_at=NOW, weight=0.5),
    Order(tenant="shop", order_id="o", occurred_at=NOW, received_at=NOW, currency="EUR", total_minor=-5,
          lines=[OrderLine(item_id="i"), OrderLine(item_id="j", quantity=2, price_minor=7)]),
    Session(tenant="shop", session_id="s", started_at=NOW, ended_at=NOW, assignments={"e": "treatment"}),
    ShadowSlate(recommendation_id="r", tenant="shop", occurred_at=NOW, experiment="e", variant="b", placement="home",
                policy="p", model_version="m", live_policy="q", items=["a"], segments={"device": "phone"}),
    Exposure(recommendation_id="r", tenant="shop", occurred_at=NOW, placement="home", policy="p", model_version="m",
             items=["a"], sources=["s"], scores=[0.1], objectives={"x": 2.0}, segments={"device": "phone"},
             experiments=[ExperimentExposure(experiment="e", variant="a", unit="visitor", unit_id="v",
                                             allocation_version=1, propensities={"a": 0.25, "b": 0.75}),
                          ExperimentExposure(experiment="f", variant="c", unit="visitor", unit_id="v",
                                             allocation_version=2, propensities={}, context_leaf="x")]),
]  # fmt: skip


@pytest.mark.parametrize("name", list(TABLES))
def test_a_table_has_the_fields_of_its_record_and_no_others(name):
    spec = TABLES[name]
    fields = [field.name for field in msgspec.structs.fields(spec.record)]
    assert arrow_schema(spec.record).names == fields
    assert {spec.time, *spec.key, "tenant"} <= set(fields)


def test_the_columns_of_events_are_these():
    # Written out once, so that a change of the record is seen to change the lake.
    words = {field.name: str(field.type) for field in arrow_schema(Event)}
    assert words == {
        "event_id": "string", "tenant": "string", "name": "string", "occurred_at": "timestamp[us, tz=UTC]",
        "received_at": "timestamp[us, tz=UTC]", "visitor_id": "string", "session_id": "string", "user_id": "string",
        "item_id": "string", "target_id": "string", "quantity": "int64", "value": "double", "price_minor": "int64",
        "currency": "string", "order_id": "string", "query": "string", "placement": "string", "position": "int64",
        "recommendation_id": "string", "consent": "string", "source": "string", "is_bot": "bool", "duplicate": "bool",
        "context": "string",
    }  # fmt: skip


@pytest.mark.parametrize("record", SAMPLES, ids=lambda record: type(record).__name__)
def test_a_record_comes_back_from_its_row(record):
    table = to_table(type(record), [record, record])
    assert table.schema == arrow_schema(type(record))
    assert to_records(type(record), table) == [record, record]


def test_no_rows_are_a_table_too():
    assert to_table(Event, []).schema == arrow_schema(Event)
    assert to_records(Event, to_table(Event, [])) == []


def test_a_column_that_is_not_there_takes_its_default():
    table = to_table(Event, [SAMPLES[1]]).drop_columns(["context", "duplicate"])
    assert to_records(Event, table) == [SAMPLES[1]]


def test_a_number_beyond_64_bits_does_not_fit():
    with pytest.raises((pa.ArrowInvalid, OverflowError)):
        to_table(Event, [msgspec.structs.replace(SAMPLES[1], quantity=2**63)])


def test_the_partition_is_the_date_in_utc():
    assert with_partition(to_table(Event, [SAMPLES[1]]), "received_at")["received_date"].to_pylist() == [
        date(2026, 3, 4)
    ]


def test_a_type_without_a_column_is_refused():
    class Odd(msgspec.Struct):
        either: int | str

    with pytest.raises(TypeError, match="cannot be one column"):
        arrow_schema(Odd)

    class Odder(msgspec.Struct):
        raw: bytes

    with pytest.raises(TypeError, match="has no column type"):
        arrow_schema(Odder)


@pytest.mark.parametrize(
    ("column", "words"),
    [
        (("exposures", "experiments"),
         'STRUCT("experiment" VARCHAR, "variant" VARCHAR, "unit" VARCHAR, "unit_id" VARCHAR, '
         '"allocation_version" BIGINT, "propensities" MAP(VARCHAR, DOUBLE), "context_leaf" VARCHAR)[]'),
        (("items", "vectors"), "MAP(VARCHAR, DOUBLE[])"),
        (("events", "is_bot"), "BOOLEAN"),
        (("events", "occurred_at"), "TIMESTAMPTZ"),
    ],
)  # fmt: skip
def test_duckdb_knows_each_type_by_its_word(column, words):
    table, name = column
    assert sql_type(arrow_schema(TABLES[table].record).field(name).type) == words
