"""Objectives: chances of actions from what visitors did, and what items are worth by them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thinslice.errors import BadInput
from thinslice.models import from_columns
from thinslice.recommend.objectives import ActionRates, terms_of, worth
from thinslice.records import ACTIONS


def rates_of(rows, **settings):
    """Rows of (session, item, action)."""
    session, item, action = zip(*rows, strict=True)
    codes = np.array([ACTIONS.index(each) for each in action], dtype=np.uint8)
    return ActionRates.fit(from_columns(session, item, np.arange(len(rows)), actions=codes), **settings)


ROWS = [
    *[(f"s{n}", "lamp", "view_item") for n in range(100)],
    *[(f"s{n}", "lamp", "purchase") for n in range(30)],
    *[(f"s{n}", "sofa", "view_item") for n in range(100)],
    *[(f"s{n}", "sofa", "purchase") for n in range(10)],
    *[(f"s{n}", "sofa", "refund") for n in range(5)],
]


def test_chances_are_shares_of_sessions_drawn_towards_the_mean_of_the_shop():
    rates = rates_of(ROWS, pseudo_count=50.0)
    chances = rates.chances(["lamp", "sofa", "unheard-of"], ["purchase", "refund", "click"])
    mean = 40 / 200
    assert chances[0, 0] == pytest.approx((30 + 50 * mean) / 150)
    assert chances[1, 0] == pytest.approx((10 + 50 * mean) / 150)
    assert chances[2, 0] == pytest.approx(mean)
    assert chances[1, 1] == pytest.approx((5 + 50 * 5 / 200) / 150)
    assert (chances[:, 2] == 1).all()


def test_a_session_that_does_the_same_twice_counts_once():
    rows = [
        ("s", "lamp", "view_item"),
        ("s", "lamp", "purchase"),
        ("s", "lamp", "purchase"),
        ("t", "lamp", "view_item"),
    ]
    assert rates_of(rows, pseudo_count=1e-9).chances(["lamp"], ["purchase"])[0, 0] == pytest.approx(0.5)


def test_counts_and_sessions_give_the_same_rates_and_arrays_keep_them():
    one = rates_of(ROWS)
    looks, did = np.array([100, 100]), np.zeros((2, len(ACTIONS)))
    did[:, ACTIONS.index("view_item")] = 100
    did[:, ACTIONS.index("purchase")] = 30, 10
    did[1, ACTIONS.index("refund")] = 5
    two = ActionRates.from_arrays(ActionRates.from_counts(["lamp", "sofa"], looks, did).arrays())
    assert np.allclose(one.chances(["sofa"], ACTIONS), two.chances(["sofa"], ACTIONS))


def test_what_is_bought_and_sent_back_falls_behind():
    rates = rates_of([*ROWS, *[(f"s{n}", "sofa", "refund") for n in range(5, 60)]], pseudo_count=5.0)
    even = np.ones(2)
    gain = worth(["lamp", "sofa"], even, rates, {"purchase": 1.0})
    fair = worth(["lamp", "sofa"], even, rates, {"purchase": 1.0, "refund": -1.0})
    assert gain.value[0] > gain.value[1] > 0
    assert fair.value[0] > 0 > fair.value[1]


def test_a_click_as_the_only_objective_leaves_the_ranking_as_it_is():
    relevance = np.array([1.0, 0.7, 0.05])
    assert worth(["lamp", "sofa", "x"], relevance, rates_of(ROWS), {"click": 2.0}).value.tolist() == pytest.approx(
        (2 * relevance).tolist()
    )


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.floats(0.05, 1), min_size=3, max_size=3),
    st.dictionaries(st.sampled_from(["click", *ACTIONS]), st.floats(-10, 10), min_size=1),
)
def test_the_terms_sum_to_the_worth(relevance, objectives):
    rates = rates_of(ROWS)
    ids = ["lamp", "sofa", "x"]
    found = worth(ids, np.array(relevance), rates, objectives)
    assert np.allclose(found.terms.sum(axis=1), found.value)
    for item_id, value, terms in zip(ids, found.value, found.terms, strict=True):
        said = terms_of(float(value), item_id, rates, objectives)
        if said:
            assert sum(said.values()) == pytest.approx(float(value), abs=1e-6)
            scale = max(np.abs(terms).max(), 1e-3)
            if abs(value) > 1e-6 * scale:
                assert np.allclose(list(said.values()), terms, atol=1e-3 * scale)


def test_nothing_known_and_nothing_meant_are_answered():
    empty = ActionRates.fit(from_columns([], [], []))
    assert empty.chances(["a"], ["purchase"]).tolist() == [[0.0]]
    with pytest.raises(BadInput, match=r"'sell' is no objective \(there is: click, view_item"):
        empty.chances(["a"], ["sell"])
    with pytest.raises(BadInput, match="pseudo_count must be positive"):
        rates_of(ROWS, pseudo_count=0)
