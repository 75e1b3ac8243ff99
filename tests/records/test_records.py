"""The nouns: every field of the contract is there, and what is written reads back the same."""

from datetime import UTC, datetime

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thinslice import records

CONTRACT = {
    records.Event: """event_id tenant name occurred_at received_at visitor_id session_id user_id item_id target_id
        quantity value price_minor currency order_id query placement position recommendation_id consent source is_bot
        duplicate
        context""",
    records.Item: """tenant item_id group_id kind title description url image_url categories brand price_minor currency
        in_stock status published_at expires_at latitude longitude level creator_id sponsored attributes vectors
        updated_at""",
    records.User: """tenant user_id email_hash loyalty_tier latitude longitude entries attributes consent purposes
        updated_at""",
    records.Edge: "tenant from_id to_id kind weight occurred_at",
    records.Session: "tenant session_id visitor_id user_id started_at ended_at is_bot assignments",
    records.Exposure: """recommendation_id tenant occurred_at visitor_id session_id placement policy model_version items
        sources scores slot_propensities objectives candidate_count latency_ms shadow experiments""",
    records.ExperimentExposure: "experiment variant unit unit_id allocation_version context_leaf propensities",
    records.MetricResult: """name role variant n_control n_treatment mean_control mean_treatment effect_size
        effect_size_ci rel_effect_size rel_effect_size_ci pvalue always_valid_ci margin reading""",
}
NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize("struct", CONTRACT, ids=lambda struct: struct.__name__)
def test_a_record_has_every_field_of_the_contract(struct):
    have = {field.name for field in msgspec.structs.fields(struct)}
    assert set(CONTRACT[struct].split()) <= have


@given(
    st.text(min_size=1),
    st.text() | st.none(),
    st.integers(-(2**53), 2**53) | st.none(),
    st.dictionaries(st.text(), st.text()),
)
def test_an_event_reads_back_as_it_was_written(item_id, query, price_minor, context):
    event = records.Event(
        event_id="e", tenant="shop", name="view_item", occurred_at=NOW, received_at=NOW,
        item_id=item_id, query=query, price_minor=price_minor, context=context,
    )  # fmt: skip
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(event), type=records.Event) == event
    assert msgspec.json.decode(msgspec.json.encode(event), type=records.Event) == event


def test_control_is_the_first_variant_unless_another_is_named():
    variants = [
        records.Variant(name="a", policy="popular", weight=0.5),
        records.Variant(name="b", policy="x", weight=0.5),
    ]
    assert records.Experiment(name="e", tenant="t", variants=variants).control_name == "a"
    assert records.Experiment(name="e", tenant="t", variants=variants, control="b").control_name == "b"


def test_everything_that_a_room_hands_on_is_listed():
    public = {name for name in vars(records) if not name.startswith("_") and name[0].isupper()}
    assert public == set(records.__all__)
