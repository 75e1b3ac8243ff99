"""Records to bytes and back."""

from datetime import UTC, datetime

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thinslice.errors import Corrupt
from thinslice.records import Event, ExperimentExposure, Exposure, Item, Order, OrderLine, Quarantined, ShadowSlate
from thinslice.store.codec import RECORDS, decode, encode
from thinslice.store.log import LogKind

NOW = datetime(2026, 3, 4, 5, 6, 7, 890123, tzinfo=UTC)
SAMPLES = {
    LogKind.EVENTS: Event(
        event_id="e", tenant="shop", name="view_item", occurred_at=NOW, received_at=NOW, value=1.5, position=0,
        context={"a": [1, None, {"é": "日本"}]},
    ),
    LogKind.EXPOSURES: Exposure(
        recommendation_id="r", tenant="shop", occurred_at=NOW, placement="home", policy="p", model_version="m",
        items=["a"], scores=[0.1], objectives={"x": 2.0}, segments={"device": "phone"},
        experiments=[
            ExperimentExposure(
                experiment="e", variant="a", unit="visitor", unit_id="v", allocation_version=1, propensities={"a": 0.5}
            )
        ],
    ),
    LogKind.ITEMS: Item(tenant="shop", item_id="i", updated_at=NOW, vectors={"image": [0.1, 0.2]}, categories=["x"]),
    LogKind.ORDERS: Order(
        tenant="shop", order_id="o", occurred_at=NOW, received_at=NOW, currency="EUR", total_minor=5,
        lines=[OrderLine(item_id="i", quantity=2, price_minor=2)],
    ),
    LogKind.QUARANTINE: Quarantined(
        quarantine_id="q", tenant="shop", kind="event", raw="{}", code="c", reason="r", field="", received_at=NOW,
        line=3,
    ),
    LogKind.SHADOWS: ShadowSlate(
        recommendation_id="r", tenant="shop", occurred_at=NOW, experiment="e", variant="b", placement="home",
        policy="p", model_version="m", live_policy="q", items=["a"], failed=["x"], segments={"device": "phone"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", list(SAMPLES))
def test_records_come_back_as_they_were(kind):
    records = [SAMPLES[kind], SAMPLES[kind]]
    payload = encode(kind, records)
    assert payload[0] == kind
    assert decode(payload) == (kind, records)


def test_every_kind_of_record_has_a_sample():
    assert set(SAMPLES) == set(RECORDS)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(context=st.dictionaries(st.text(max_size=8), json_values, max_size=4))
@settings(max_examples=100, deadline=None)
def test_any_json_in_the_context_can_be_stored(context):
    event = msgspec.structs.replace(SAMPLES[LogKind.EVENTS], context=context)
    (back,) = decode(encode(LogKind.EVENTS, [event]))[1]
    assert back.event_id == event.event_id
    assert set(back.context) == set(context)


def test_a_whole_number_beyond_64_bits_becomes_a_float():
    event = msgspec.structs.replace(SAMPLES[LogKind.EVENTS], context={"n": [10**30, True, 7], "m": {"k": -(10**400)}})
    (back,) = decode(encode(LogKind.EVENTS, [event]))[1]
    assert back.context == {"n": [1e30, True, 7], "m": {"k": str(-(10**400))}}
    assert back.occurred_at == NOW


@pytest.mark.parametrize("payload", [b"", b"\x63", b"\x01", b"\x01\x91\x80", b"\x01garbage", bytes([LogKind.FORGET])])
def test_bytes_that_are_no_records_are_corrupt(payload):
    with pytest.raises(Corrupt):
        decode(payload)


def test_a_field_of_a_later_version_is_passed_over():
    plain = msgspec.to_builtins(SAMPLES[LogKind.EVENTS]) | {"from_the_future": 1}
    assert decode(b"\x01" + msgspec.msgpack.encode([plain]))[1][0].event_id == "e"
