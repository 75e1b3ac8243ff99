"""Bought together: pairs that share baskets more often than chance, and no pair for one coincidence."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thinslice.errors import BadInput
from thinslice.models import bought_together, from_columns
from thinslice.models.bought_together import PURCHASE, BoughtTogether, baskets
from thinslice.testing import check_model

VIEW = 0


def world(sessions):
    """Sessions of (item, action) in the order of time."""
    rows = [(s, item, action) for s, clicks in enumerate(sessions) for item, action in clicks]
    session, item, action = zip(*rows, strict=True)
    times = np.arange(len(rows), dtype=float)
    return from_columns(session, item, times, actions=np.array(action, dtype=np.uint8))


def bought(*items):
    return [(item, PURCHASE) for item in items]


def test_it_keeps_what_every_model_promises():
    check_model(BoughtTogether)


def test_known_lift_of_a_known_pair():
    clicks = world([bought("tea", "milk")] * 3 + [bought("tea")] + [bought("pen")] * 4)
    model = BoughtTogether.fit(clicks, shrinkage=2.0)
    found = model.recommend(["tea"], 5)
    assert found.item_ids == ["milk"]
    assert found.scores == pytest.approx([np.log((3 + 2) / (4 * 3 / 8 + 2))], rel=1e-6)


def test_what_is_only_viewed_together_is_in_no_basket():
    viewed = [("tea", VIEW), ("mug", VIEW), *bought("milk"), *bought("tea")]
    model = BoughtTogether.fit(world([viewed] * 5 + [bought("pen")] * 5))
    assert model.recommend(["tea"], 5).item_ids == ["milk"]
    assert model.recommend(["mug"], 5).item_ids == []


def test_a_pair_of_every_day_stands_above_one_coincidence():
    clicks = world([bought("tea", "milk")] * 30 + [bought("tea", "stamp")] + [bought("pen")] * 60)
    ranked = BoughtTogether.fit(clicks).recommend(["tea"], 2)
    assert ranked.item_ids[0] == "milk"
    bare = BoughtTogether.fit(clicks, shrinkage=1e-9).recommend(["tea"], 2)
    assert bare.scores[0] - bare.scores[1] < ranked.scores[0] - (ranked.scores[1:] or [0.0])[0]


def test_what_everybody_buys_goes_with_nothing_in_particular():
    clicks = world([bought("bag", other) for other in "abcdefgh"] * 3)
    assert BoughtTogether.fit(clicks).recommend(["a"], 5).item_ids == []


def test_independent_baskets_give_lifts_near_nothing():
    rng = np.random.default_rng(0)
    names = [f"i{n}" for n in range(20)]
    clicks = world([bought(*rng.choice(names, size=4, replace=False)) for _ in range(2000)])
    model = BoughtTogether.fit(clicks)
    strongest = max((model.recommend([name], 1).scores or [0.0])[0] for name in names)
    assert strongest < 0.35


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.tuples(st.sampled_from("abcde"), st.sampled_from([VIEW, PURCHASE])), min_size=1),
                min_size=1, max_size=8), st.integers(1, 4))  # fmt: skip
def test_a_basket_holds_each_thing_once_and_the_newest_when_it_is_too_large(sessions, largest):
    clicks = world(sessions)
    session, item = baskets(clicks, largest)
    found = {}
    for s, code in zip(session.tolist(), item.tolist(), strict=True):
        found.setdefault(s, []).append(clicks.item_ids[code])
    expected = {}
    for s, each in enumerate(sessions):
        newest = list(dict.fromkeys(item for item, action in reversed(each) if action == PURCHASE))[:largest]
        if newest:
            expected[s] = sorted(newest)
    assert {s: sorted(each) for s, each in found.items()} == expected


def arrays_of(clicks, **settings):
    return {name: array.tobytes() for name, array in BoughtTogether.fit(clicks, **settings).arrays().items()}


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=8), min_size=1, max_size=20),
       st.integers(1, 4), st.integers(1, 60))  # fmt: skip
def test_counting_some_items_at_a_time_changes_no_byte(sessions, top, at_once):
    clicks = world([bought(*each) for each in sessions])
    whole = arrays_of(clicks, top=top)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bought_together, "AT_ONCE", at_once)
        assert arrays_of(clicks, top=top) == whole


def test_the_strongest_pairs_of_an_item_are_kept_whatever_comes_at_once():
    clicks = world([bought("tea", other) for other in "aabbbccccd"] + [bought("pen")] * 30)
    every = BoughtTogether.fit(clicks).recommend(["tea"], 10)
    assert every.item_ids == ["c", "b", "a", "d"]
    assert BoughtTogether.fit(clicks, top=2).recommend(["tea"], 10).item_ids == every.item_ids[:2]


@pytest.mark.parametrize("wrong", [{"shrinkage": 0.0}, {"top": 0}, {"largest": 1.5}])
def test_settings_out_of_range_are_refused_by_name(wrong):
    with pytest.raises(BadInput, match=next(iter(wrong))):
        BoughtTogether.fit(world([bought("a", "b")]), **wrong)
