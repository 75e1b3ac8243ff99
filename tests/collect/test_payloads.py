"""Bodies that shops send."""

import gzip
import json
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thinslice.collect import MAX_BODY_BYTES, parse_events, parse_items, parse_orders
from thinslice.errors import BadInput, ThinsliceError, TooLarge
from thinslice.records import EVENT_NAMES, Event, Item, Order

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
VIEW = {"event_id": "e1", "name": "view_item", "visitor_id": "v", "item_id": "a"}


def parse(value, **changes):
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    told = {"tenant": "shop", "source": "api", "default_consent": "personalization", "now": NOW, **changes}
    return parse_events(body, **told)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
event_like = st.fixed_dictionaries(
    {},
    optional={
        name: st.one_of(json_values, st.text(max_size=5), st.sampled_from(sorted(EVENT_NAMES)))
        for name in (*Event.__struct_fields__, "items")
    },
)


@settings(max_examples=120, deadline=None)
@given(st.one_of(json_values, event_like, st.lists(event_like, max_size=4)))
def test_no_json_raises_anything_but_our_errors_and_nothing_is_lost(value):
    for parser in (parse_events, parse_items, parse_orders):
        told = {"tenant": "shop", "now": NOW}
        if parser is not parse_items:
            told["source"] = "api"
        if parser is parse_events:
            told["default_consent"] = "measurement"
        try:
            batch = parser(json.dumps(value).encode(), **told)
        except ThinsliceError:
            continue
        for rejection in batch.rejected:
            assert rejection.code
            assert rejection.message
        for kept in batch[0]:
            assert isinstance(kept, Event | Item | Order)
            assert msgspec.msgpack.decode(msgspec.msgpack.encode(kept), type=type(kept)) == kept


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=60))
def test_no_bytes_raise_anything_but_our_errors(body):
    for wrapped in (body, b"[" + body + b"]", b'[{"name":"custom","query":"' + body + b'"}]'):
        try:
            parse(wrapped)
        except ThinsliceError:
            continue


@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(st.just("good"), event_like.filter(lambda e: "name" not in e), st.just(7)), min_size=1))
def test_good_events_of_a_bad_batch_are_kept(plan):
    sent = [{**VIEW, "event_id": f"e{n}"} if each == "good" else each for n, each in enumerate(plan)]
    batch = parse(sent)
    good = [n for n, each in enumerate(plan) if each == "good"]
    assert [event.event_id for event in batch.events] == [f"e{n}" for n in good]
    assert [rejection.index for rejection in batch.rejected] == [n for n in range(len(plan)) if n not in good]
    assert len(batch.quarantined) == sum(isinstance(each, dict) for each in plan)
    assert batch.accepted == len(good)


def test_one_object_an_array_and_an_envelope_are_the_same():
    first, second, third = parse(VIEW), parse([VIEW]), parse({"events": [VIEW]})
    assert first.events == second.events == third.events


def test_a_bad_event_in_an_envelope_is_named_by_its_place():
    batch = parse({"sent_at": 3, "events": [VIEW, {**VIEW, "event_id": "e2", "item_id": 7}]})
    assert [event.event_id for event in batch.events] == ["e1"]
    assert [(rejection.index, rejection.code) for rejection in batch.rejected] == [(1, "wrong_type")]
    (kept,) = batch.quarantined
    assert json.loads(kept.raw)["event_id"] == "e2"


def test_an_event_that_says_little_is_filled_in():
    (event,) = parse([VIEW]).events
    assert (event.tenant, event.source, event.consent) == ("shop", "api", "personalization")
    assert event.occurred_at == event.received_at == NOW


def test_an_unknown_name_is_kept_as_custom_with_its_name():
    (event,) = parse([{**VIEW, "name": "spin_wheel", "context": {"prize": 3}}]).events
    assert event.name == "custom"
    assert event.context == {"prize": 3, "name": "spin_wheel"}


def test_fields_that_we_do_not_know_are_kept_in_the_context():
    (event,) = parse([{**VIEW, "campaign": "may"}]).events
    assert event.context == {"campaign": "may"}


def test_several_items_become_several_events_with_numbered_ids():
    items = [{"item_id": "a", "quantity": 2, "price_minor": 500}, {"item_id": "b", "position": 4}]
    batch = parse([{"event_id": "e", "name": "purchase", "order_id": "o", "items": items}], currency="EUR")
    assert [(e.event_id, e.item_id, e.quantity, e.price_minor, e.currency, e.position) for e in batch.events] == [
        ("e#0", "a", 2, 500, "EUR", None),
        ("e#1", "b", None, None, None, 4),
    ]
    assert batch.accepted == 1
    assert {event.order_id for event in batch.events} == {"o"}


def test_without_consent_nothing_is_kept():
    batch = parse([VIEW, {**VIEW, "event_id": "e2", "consent": "measurement"}], default_consent="none")
    assert [event.event_id for event in batch.events] == ["e2"]
    assert (batch.accepted, batch.not_stored_no_consent, batch.rejected, batch.quarantined) == (1, 1, [], [])


@pytest.mark.parametrize(
    ("change", "code", "field"),
    [
        ({"item_id": None}, "missing_field", "item_id"),
        ({"item_id": 7}, "wrong_type", "item_id"),
        ({"item_id": ""}, "out_of_range", "item_id"),
        ({"item_id": "x" * 300}, "out_of_range", "item_id"),
        ({"item_id": "a\nb"}, "bad_id", "item_id"),
        ({"item_id": "a\n"}, "bad_id", "item_id"),
        ({"visitor_id": "a\x00b"}, "bad_id", "visitor_id"),
        ({"items": [{"item_id": "\x7f"}]}, "bad_id", "items[0].item_id"),
        ({"price_minor": -1}, "out_of_range", "price_minor"),
        ({"price_minor": 9.99}, "wrong_type", "price_minor"),
        ({"quantity": 0}, "out_of_range", "quantity"),
        ({"currency": "euro"}, "out_of_range", "currency"),
        ({"consent": "yes"}, "unknown_consent", "consent"),
        ({"tenant": "other"}, "foreign_tenant", "tenant"),
        ({"occurred_at": "yesterday"}, "bad_time", "occurred_at"),
        ({"occurred_at": 1e300}, "bad_time", "occurred_at"),
        ({"name": "search", "item_id": None}, "missing_field", "query"),
        ({"name": "follow"}, "missing_field", "target_id"),
        ({"items": []}, "out_of_range", "items"),
        ({"context": {"big": 10**30}}, "bad_value", "context"),
        ({"context": {"big": "x" * 20_000}}, "too_large", "context"),
        ({"context": {"deep": [[[[[[[[[[1]]]]]]]]]]}}, "too_deep", "context"),
        ({"recommendation_id": "made-up"}, "unknown_recommendation", "recommendation_id"),
    ],
)
def test_each_mistake_is_named_with_its_field_and_quarantined(change, code, field):
    batch = parse([{**VIEW, **change}], issued=lambda tenant, each: False)
    (rejection,) = batch.rejected
    assert (rejection.code, rejection.field) == (code, field)
    assert rejection.hint
    (kept,) = batch.quarantined
    assert (kept.code, kept.field, kept.kind) == (code, field, "event")
    assert json.loads(kept.raw) == {**VIEW, **change}
    assert batch.events == []


@pytest.mark.parametrize(
    ("at", "code"),
    [(timedelta(minutes=9), None), (timedelta(minutes=11), "too_far_ahead"), (-timedelta(days=29), None),
     (-timedelta(days=31), "too_old")],
)  # fmt: skip
def test_times_may_lie_ten_minutes_ahead_and_thirty_days_back(at, code):
    batch = parse([{**VIEW, "occurred_at": (NOW + at).isoformat()}])
    assert [rejection.code for rejection in batch.rejected] == ([code] if code else [])


def test_times_may_be_text_in_any_zone_or_unix_seconds_or_milliseconds():
    sent = ["2026-05-01T12:00:00Z", "2026-05-01T14:00:00+02:00", "2026-05-01T12:00:00", NOW.timestamp(),
            int(NOW.timestamp() * 1000)]  # fmt: skip
    batch = parse([{**VIEW, "event_id": f"e{n}", "occurred_at": at} for n, at in enumerate(sent)])
    assert {event.occurred_at for event in batch.events} == {NOW}
    assert len(batch.events) == len(sent)


def test_an_id_that_stands_twice_is_refused_the_second_time():
    batch = parse([VIEW, VIEW])
    assert len(batch.events) == 1
    assert [(rejection.index, rejection.code) for rejection in batch.rejected] == [(1, "duplicate_id")]


def test_events_without_ids_get_one_from_their_content_and_ordinal():
    bare = {"name": "view_item", "visitor_id": "v", "item_id": "a", "occurred_at": NOW.isoformat()}
    first, again = parse([bare, bare, {**bare, "item_id": "b"}]), parse([bare, bare])
    ids = [event.event_id for event in first.events]
    assert len(set(ids)) == 3
    assert ids[:2] == [event.event_id for event in again.events]


def test_broken_utf8_spoils_only_its_own_event_and_is_not_stored():
    batch = parse(b'[{"name":"custom","query":"\xff"},{"name":"custom","query":"fine"}]')
    assert [event.query for event in batch.events] == ["fine"]
    assert [rejection.code for rejection in batch.rejected] == ["bad_utf8"]
    assert batch.quarantined == []


def test_half_an_emoji_is_mended():
    batch = parse(b'[{"name":"custom","query":"\\ud83d"},{"name":"custom","query":"\\ud83d\\ude00 \\\\ud83d"}]')
    assert [event.query for event in batch.events] == ["\ufffd", "\U0001f600 \\ud83d"]


def test_half_an_emoji_in_an_id_is_refused_since_no_id_can_be_told_from_it():
    good, bad = rb'{"name":"share","item_id":"\ud83d\ude00"}', rb'{"name":"share","item_id":"a\ud83d"}'
    batch = parse(b"[" + bad + b"," + good + b"]")
    assert [event.item_id for event in batch.events] == ["\U0001f600"]
    assert [(each.index, each.code, each.field) for each in batch.rejected] == [(0, "bad_id", "item_id")]


@pytest.mark.parametrize("change", [lambda body: b"\xef\xbb\xbf" + body, gzip.compress,
                                    lambda body: gzip.compress(b"\xef\xbb\xbf" + body)])  # fmt: skip
def test_a_body_may_begin_with_a_byte_order_mark_and_may_be_packed(change):
    sent = [VIEW, {**VIEW, "event_id": "e2", "item_id": 7}]
    plain, changed = parse(sent), parse(change(json.dumps(sent).encode()))
    assert changed == plain
    assert [each.code for each in changed.rejected] == ["wrong_type"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (gzip.compress(b"[" + b" " * 2_000_000, mtime=0), "unpacks to more than 1,000,000 bytes"),
        (gzip.compress(json.dumps([VIEW]).encode(), mtime=0)[:-9], "breaks off"),
        (gzip.compress(b"[]", mtime=0) * 2, "goes on after its end"),
        (b"\x1f\x8bnonsense", "packed with gzip, but broken"),
        (json.dumps([VIEW]).encode("utf-16"), "UTF-16"),
    ],
)
def test_a_packed_or_foreign_body_that_cannot_be_read_is_refused_in_a_sentence(body, words):
    with pytest.raises(BadInput, match=words):
        parse(body)


@pytest.mark.parametrize("ahead_s", [-40 * 86_400, -7200, 900, 7200, 300 * 86_400])
def test_a_wrong_clock_is_set_right_by_what_the_sender_took_for_now(ahead_s):
    there = NOW.timestamp() + ahead_s
    sent = [{**VIEW, "occurred_at": there - 30}, {**VIEW, "event_id": "e2"}]
    batch = parse({"sent_at": int(there * 1000), "events": sent})
    assert [event.occurred_at for event in batch.events] == [NOW - timedelta(seconds=30), NOW]
    assert [event.context for event in batch.events] == [{"clock_ahead_s": ahead_s}, {}]


@pytest.mark.parametrize("sent_at", [NOW.timestamp() + 20, NOW.timestamp() - 59, "soon", None, 3, 1e300, [1]])
def test_a_clock_that_is_right_or_is_none_changes_nothing(sent_at):
    batch = parse({"sent_at": sent_at, "events": [{**VIEW, "occurred_at": NOW.isoformat()}]})
    assert [(event.occurred_at, event.context) for event in batch.events] == [(NOW, {})]


def test_after_the_clock_is_set_right_an_event_may_still_be_too_far_ahead_or_too_old():
    ahead = NOW + timedelta(hours=3)
    times = [ahead + timedelta(minutes=11), ahead - timedelta(days=31), ahead]
    sent = [{**VIEW, "event_id": f"e{n}", "occurred_at": at.isoformat()} for n, at in enumerate(times)]
    batch = parse({"sent_at": ahead.isoformat(), "events": sent})
    assert [each.code for each in batch.rejected] == ["too_far_ahead", "too_old"]
    assert batch.accepted == 1


@pytest.mark.parametrize(
    ("sent", "kept"),
    [("yes", True), ("In Stock", True), ("https://schema.org/OutOfStock", False), (0, False), (1, True), (True, True),
     ("sold out", False), ("perhaps", None), (14, None)],
)  # fmt: skip
def test_the_stock_is_read_in_the_words_of_feeds_or_refused(sent, kept):
    batch = parse_items(json.dumps([{"item_id": "a", "in_stock": sent}]).encode(), tenant="shop", now=NOW)
    assert [item.in_stock for item in batch.items] == ([] if kept is None else [kept])
    refused = [("bad_value", "in_stock")] if kept is None else []
    assert [(each.code, each.field) for each in batch.rejected] == refused


@pytest.mark.parametrize("body", [b"", b"[", b"3", b'"x"', b"null", b"\xff\xfe", b"[" * 5000, b"[]"])
def test_a_body_that_is_no_batch_is_refused_whole(body):
    with pytest.raises(BadInput):
        parse(body)


def test_more_than_a_thousand_events_or_a_megabyte_is_too_large():
    with pytest.raises(TooLarge, match="1,001"):
        parse([{"name": "custom"}] * 1001)
    with pytest.raises(TooLarge, match="bytes"):
        parse(b" " * (MAX_BODY_BYTES + 1))
    assert parse([{**VIEW, "event_id": str(n)} for n in range(1000)]).accepted == 1000


def test_items_need_an_id_and_a_known_status():
    sent = [{"item_id": "a", "title": "Vase", "price_minor": 500}, {"title": "?"}, {"item_id": "b", "status": "gone"},
            {"item_id": "c", "latitude": 91}, {"item_id": "d", "color": "red"}]  # fmt: skip
    batch = parse_items(json.dumps(sent).encode(), tenant="shop", now=NOW, currency="EUR")
    assert [(item.item_id, item.currency) for item in batch.items] == [("a", "EUR"), ("d", None)]
    assert batch.items[1].attributes == {"color": "red"}
    assert [rejection.code for rejection in batch.rejected] == ["missing_field", "unknown_status", "out_of_range"]
    assert {kept.kind for kept in batch.quarantined} == {"item"}


def test_an_order_without_a_total_is_the_sum_of_its_lines():
    lines = [{"item_id": "a", "quantity": 2, "price_minor": 500}, {"item_id": "b", "price_minor": 1}]
    sent = [{"order_id": "o", "lines": lines}, {"order_id": "o", "total_minor": 1}, {"order_id": "p"},
            {"order_id": "q", "total_minor": -1}]  # fmt: skip
    batch = parse_orders(json.dumps(sent).encode(), tenant="shop", source="api", now=NOW, currency="EUR")
    assert [(order.order_id, order.total_minor, order.currency) for order in batch.orders] == [("o", 1001, "EUR")]
    assert [rejection.code for rejection in batch.rejected] == ["duplicate_id", "missing_field", "out_of_range"]
