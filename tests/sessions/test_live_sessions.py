"""The live session follows every event."""

from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from thinslice.records import LIVE_ITEMS, SESSION_GAP_S, Event
from thinslice.sessions import apply, group, keys_of, live_keys, page_item, remember_bought
from thinslice.sessions.live import is_bot_rate

START = datetime(2026, 5, 1, tzinfo=UTC)


def event(at=0.0, item="a", name="view_item", **fields):
    told = {"visitor_id": "v", **fields}
    when = START + timedelta(seconds=at)
    return Event(event_id=f"e{at}", tenant="shop", name=name, occurred_at=when, received_at=when, item_id=item, **told)


def test_views_clicks_and_carts_make_up_the_session_impressions_do_not():
    session = apply(None, [event(0, "a"), event(1, "b", "view_item_list"), event(2, "c", "add_to_cart"),
                           event(3, "d", "remove_from_cart"), event(4, None, "search", query="x")])  # fmt: skip
    assert (session.items, session.names) == (["a", "c"], ["view_item", "add_to_cart"])
    assert session.event_count == 5


def test_the_same_item_twice_in_a_row_is_one_visit_with_the_newer_name():
    session = apply(None, [event(0, "a", "select_item"), event(1, "a"), event(2, "b"), event(3, "a")])
    assert session.items == ["a", "b", "a"]
    assert session.names[0] == "view_item"


def test_a_silence_of_more_than_thirty_minutes_begins_a_new_session_that_remembers_what_was_bought():
    first = apply(None, [event(0, "a"), event(1, "b", "purchase")])
    same = apply(first, [event(1 + SESSION_GAP_S, "c")])
    new = apply(first, [event(2 + SESSION_GAP_S, "c")])
    assert same.items == ["a", "b", "c"]
    assert (new.items, new.bought) == (["c"], ["b"])
    assert new.session_id != first.session_id


def test_another_session_id_begins_a_new_session():
    first = apply(None, [event(0, "a", session_id="s1")])
    assert apply(first, [event(1, "b", session_id="s2")]).items == ["b"]
    assert apply(first, [event(1, "b", session_id="s1")]).items == ["a", "b"]
    assert apply(first, [event(1, "b")]).session_id == "s1"


def test_assignments_are_those_of_the_start_of_the_session():
    variants = iter(["control", "treatment"])

    def start(session):
        return {"test": next(variants)}

    first = apply(None, [event(0), event(5)], start=start)
    assert apply(first, [event(10)], start=start).assignments == {"test": "control"}
    assert apply(first, [event(10_000)], start=start).assignments == {"test": "treatment"}


def test_the_given_session_stays_as_it_is():
    first = apply(None, [event(0, "a")])
    apply(first, [event(1, "b"), event(2, "c", "purchase")])
    remember_bought(first, ["z"])
    assert (first.items, first.bought, first.event_count) == (["a"], [], 1)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1000), st.sampled_from("abc")), max_size=80))
def test_events_out_of_order_stand_at_their_time_and_the_list_stays_short(rows):
    session = None
    for at, item in rows:
        session = apply(session, [event(at, item)])
    if session is not None:
        assert session.times == sorted(session.times)
        assert len(session.items) == len(session.names) == len(session.times) <= LIVE_ITEMS
        assert session.event_count == len(rows)


@settings(max_examples=60, deadline=None)
@given(st.permutations(range(6)))
def test_the_order_within_a_batch_does_not_matter(order):
    events = [event(n * 10, f"i{n}") for n in range(6)]
    assert apply(None, [events[n] for n in order]) == apply(None, events)


def test_a_hidden_item_is_never_shown_again_and_is_no_interest():
    session = apply(None, [event(0, "a", "hide")])
    assert (session.items, session.bought) == ([], ["a"])


def test_a_program_is_tagged_by_its_own_word_or_by_its_rate():
    assert apply(None, [event(0, is_bot=True), event(1)]).is_bot
    assert apply(None, [event(n / 10) for n in range(200)]).is_bot
    assert not apply(None, [event(n * 10.0) for n in range(100)]).is_bot
    assert is_bot_rate(500, 60.0)


def test_a_session_is_found_by_visitor_and_by_the_shops_own_session_id_and_the_two_never_meet():
    session = apply(None, [event(0, session_id="5", visitor_id="7")])
    assert keys_of(session) == live_keys("7", "5")
    assert live_keys("5", None) != live_keys(None, "5")
    assert keys_of(apply(None, [event(0)])) == ["v"]
    assert live_keys(None, None, "u") == keys_of(apply(None, [event(0, visitor_id=None, user_id="u")]))


def test_events_are_grouped_by_who_did_them():
    events = [event(0), event(1, visitor_id="w"), event(2)]
    assert [len(each) for each in group(events).values()] == [2, 1]


def test_the_page_says_what_the_visitor_looks_at_else_the_last_view():
    assert page_item(["a", "b"], "c") == "c"
    assert page_item(["a", "b"], None) == "b"
    assert page_item([], None) is None
