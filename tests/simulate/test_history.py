"""The shop's past: two weeks of visits with taste in them."""

import itertools
from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta

import pytest

from thinslice.simulate import history, home_goods, orders_of

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
SHOP = home_goods("shop")
PAST = history(SHOP, 1500, 0, NOW)


def sessions_of(events):
    sessions = defaultdict(list)
    for event in events:
        if event.name == "view_item":
            sessions[event.session_id].append(event)
    return sessions


def test_the_same_arguments_give_the_same_past():
    assert history(SHOP, 60, 4, NOW) == history(SHOP, 60, 4, NOW)
    assert history(SHOP, 60, 4, NOW) != history(SHOP, 60, 5, NOW)


def test_every_event_lies_in_the_last_two_weeks_oldest_first_with_its_own_id():
    times = [event.occurred_at for event in PAST]
    assert times == sorted(times)
    assert NOW - timedelta(days=14, hours=2) < times[0] < times[-1] < NOW
    assert len({event.event_id for event in PAST}) == len(PAST)
    assert {event.name for event in PAST} == {"view_item", "add_to_cart", "purchase"}
    assert {event.consent for event in PAST} == {"personalization"}


def test_each_visit_is_one_session_without_a_gap_of_half_an_hour():
    for views in sessions_of(PAST).values():
        gaps = [later.occurred_at - earlier.occurred_at for earlier, later in itertools.pairwise(views)]
        assert all(gap < timedelta(minutes=30) for gap in gaps)
        assert len({view.visitor_id for view in views}) == 1


def test_visitors_stay_with_the_color_they_like():
    color = {item.item_id: item.attributes["color"] for item in SHOP}
    same = total = 0
    for views in sessions_of(PAST).values():
        colors = Counter(color[view.item_id] for view in views)
        if len(views) >= 3:
            same += colors.most_common(1)[0][1]
            total += len(views)
    assert same / total > 0.6


def test_only_what_is_in_the_cart_is_bought_and_orders_add_up():
    carts = {(event.session_id, event.item_id) for event in PAST if event.name == "add_to_cart"}
    purchases = [event for event in PAST if event.name == "purchase"]
    assert purchases
    assert {(event.session_id, event.item_id) for event in purchases} <= carts
    orders = orders_of(PAST)
    assert sum(order.total_minor for order in orders) == sum(event.price_minor for event in purchases)
    assert len({order.order_id for order in orders}) == len(orders)
    assert 0.03 < len(orders) / 1500 < 0.3


def test_no_visits_is_an_empty_past_and_fewer_are_refused():
    assert history(SHOP, 0, 0, NOW) == []
    assert orders_of([]) == []
    with pytest.raises(ValueError, match="got -1"):
        history(SHOP, -1, 0, NOW)
    with pytest.raises(ValueError, match="at least 1 item"):
        history([], 5, 0, NOW)
