"""One shopper: the same person every time, drawn by taste, price and the place on the page."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thinslice.simulate import (
    Ask,
    Buy,
    Cart,
    Click,
    See,
    Slate,
    View,
    by_session,
    crowd,
    home_goods,
    open_shop,
    same_for_all,
    visit,
    visits,
)
from thinslice.simulate.shoppers import COLOR_SHARE, MAX_ROUNDS, luck_of, stroll, utility

SHOP = open_shop(home_goods("shop"))


def walk(shopper, slate_of=lambda views: None):
    """The actions of one visit under a policy from viewed item ids to a slate."""
    actions, views, answer = [], [], None
    moves = visit(SHOP, shopper)
    try:
        while True:
            action = moves.send(answer) if actions else next(moves)
            actions.append(action)
            answer = None
            if isinstance(action, View):
                views.append(action.item_id)
            elif isinstance(action, Ask):
                answer = slate_of(views)
    except StopIteration:
        return actions


def popular_slate(views):
    return Slate("r", [item.item_id for item in SHOP.items[:60:5]])


@given(st.integers(0, 10**9), st.integers(0, 10**6))
@settings(max_examples=30, deadline=None)
def test_a_shopper_is_the_same_person_alone_and_in_a_crowd(number, seed):
    alone = crowd(np.array([number]), seed)
    among = crowd(np.arange(number - 3, number + 4), seed).rows(3, 4)
    assert all(np.array_equal(one, other) for one, other in zip(alone, among, strict=True))
    assert walk(alone, popular_slate) == walk(among, popular_slate)


def test_luck_is_uniform_and_its_answers_do_not_hang_together():
    keys = crowd(np.arange(20_000), 0).key
    first, second = luck_of(keys, 3), luck_of(keys, 4)
    assert 0 <= first.min() < 0.001
    assert 0.999 < first.max() < 1
    assert np.histogram(first, bins=10, range=(0, 1))[0] == pytest.approx(2000, abs=200)
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.03
    assert abs(np.corrcoef(first[1:], first[:-1])[0, 1]) < 0.03


def test_tastes_are_spread_as_the_shares_say():
    favorites = Counter(crowd(np.arange(20_000), 0).color.argmax(axis=1).tolist())
    assert [favorites[color] / 20_000 for color in range(8)] == pytest.approx(COLOR_SHARE, abs=0.015)


def test_a_visit_views_then_asks_and_what_is_bought_was_in_the_cart():
    for number in range(200):
        actions = walk(crowd(np.array([number]), 1), popular_slate)
        assert isinstance(actions[0], View)
        views = [action.item_id for action in actions if isinstance(action, View)]
        assert len(views) == sum(isinstance(action, Ask) for action in actions) <= MAX_ROUNDS
        carts = [action.item for action in actions if isinstance(action, Cart)]
        assert len({item.item_id for item in carts}) == len(carts)
        for before, action, following in zip([None, *actions], actions, [*actions[1:], None], strict=False):
            if isinstance(action, See):
                assert list(action.positions) == sorted(set(action.positions))
            if isinstance(action, Click):
                assert action.slate.item_ids[action.position] == action.item_id
                assert before.positions[-1] == action.position
                assert following is None or following == View(action.item_id)
            if isinstance(action, Buy):
                assert following is None
                assert list(action.items) == carts


def test_without_a_slate_nothing_is_seen_and_nothing_clicked():
    actions = [action for number in range(100) for action in walk(crowd(np.array([number]), 2))]
    assert not any(isinstance(action, See | Click) for action in actions)


def test_items_that_the_shop_does_not_have_are_passed_over():
    strange = walk(crowd(np.array([5]), 0), lambda views: Slate("r", ["nobody-sells-this"] * 6))
    assert not any(isinstance(action, Click) for action in strange)
    assert any(isinstance(action, See) for action in strange)


def test_the_first_places_of_a_slate_get_more_clicks():
    shoppers = crowd(np.arange(4000), 0)
    same = int(SHOP.looks[:, 3].argmin())
    clicks = []
    for place in (0, 3, 9):
        slate = np.full(10, -1)
        slate[place] = same
        clicks.append(visits(SHOP, shoppers, same_for_all(slate)).clicks.sum())
    assert clicks[0] > 1.5 * clicks[1] > 1.5 * clicks[2] > 0


def test_dearer_items_of_the_same_look_are_liked_less_by_those_who_mind_prices():
    shoppers = crowd(np.arange(500), 0)
    liking = utility(SHOP, shoppers)
    free = utility(SHOP, shoppers._replace(price_sensitivity=np.zeros(500)))
    slope = (liking - free) / -shoppers.price_sensitivity[:, None]
    assert np.allclose(slope, SHOP.dearness[None, :])


def test_the_crowd_in_memory_does_move_for_move_what_each_shopper_does_alone():
    shoppers = crowd(np.arange(300), 7)

    def turning(session):
        last = session[-1]
        return [(last * 7 + 13 * place + len(session)) % len(SHOP.items) for place in range(8)]

    together = visits(SHOP, shoppers, by_session(turning, 8))

    def slate_of(views):
        return Slate("r", [SHOP.items[code].item_id for code in turning([SHOP.codes[view] for view in views])])

    for number in range(300):
        actions = walk(shoppers.rows(number, number + 1), slate_of)
        counted = [sum(isinstance(action, what) for action in actions) for what in (View, See, Click, Cart, Buy)]
        paid = sum(item.price_minor for action in actions if isinstance(action, Buy) for item in action.items)
        assert [*counted, paid] == [column[number] for column in together]
    assert together.clicks.sum() > 50
    assert together.orders.sum() > 20


def test_a_shop_without_items_is_refused():
    with pytest.raises(ValueError, match="got 0"):
        open_shop([])


@given(st.floats(0, 1, exclude_max=True), st.integers(0, 9), st.integers(0, 50))
@settings(max_examples=60, deadline=None)
def test_a_walk_along_a_shelf_stays_on_it_and_a_walk_through_the_shop_stays_in_the_shop(luck, kind, number):
    pull = np.cumsum(np.exp(utility(SHOP, crowd(np.array([number]), 0))), axis=1)[0]
    shelf = int(SHOP.shelves[kind]), int(SHOP.shelves[kind + 1])
    assert SHOP.looks[stroll(pull, luck, shelf), 0] == kind
    assert 0 <= stroll(pull, luck, None) < len(SHOP.items)


def test_walks_find_items_as_often_as_their_pull_says():
    liking = utility(SHOP, crowd(np.array([3]), 0))[0]
    pull = np.cumsum(np.exp(liking))
    found = Counter(stroll(pull, luck, None) for luck in (np.arange(50_000) + 0.5) / 50_000)
    best = int(liking.argmax())
    assert found[best] / 50_000 == pytest.approx(np.exp(liking[best]) / pull[-1], abs=1e-4)


def test_more_patient_shoppers_view_more():
    shoppers = crowd(np.arange(2000), 0)
    none = same_for_all([-1])
    views = [visits(SHOP, shoppers._replace(patience=np.full(2000, share)), none).views for share in (0.0, 0.5, 0.9)]
    assert views[0].max() == 1
    assert views[1].mean() == pytest.approx(2.0, abs=0.15)
    assert views[2].mean() > 3 * views[1].mean()
    assert views[2].max() == MAX_ROUNDS
    assert all((fewer <= more).all() for fewer, more in pairwise(views))  # the same luck


def test_the_first_place_is_always_looked_at_and_later_ones_less_and_less():
    looks = Counter()
    slates = 0
    for number in range(300):
        for action in walk(crowd(np.array([number]), 3), popular_slate):
            if isinstance(action, See):
                slates += 1
                looks.update(action.positions)
    assert looks[0] == slates
    assert looks[0] > looks[1] > looks[3] > looks[8] > 0
