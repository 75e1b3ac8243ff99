"""Diversity: the dial's two ends, and that turning it makes slates more unlike."""

from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from thinslice.recommend.diversity import likeness_of, mmr, relevance_of, spread
from thinslice.records import Item

NOW = datetime(2026, 5, 1, tzinfo=UTC)


def item(item_id, **fields):
    return Item(tenant="shop", item_id=item_id, updated_at=NOW, **fields)


@st.composite
def worlds(draw):
    n = draw(st.integers(1, 12))
    rows = draw(arrays(np.float64, (n, 4), elements=st.floats(0, 1)))
    length = np.sqrt((rows**2).sum(axis=1))
    rows = rows / np.where(length > 0, length, 1)[:, None]
    alike = np.clip(rows @ rows.T, 0, 1)
    np.fill_diagonal(alike, 1)
    scores = sorted(draw(st.lists(st.floats(-5, 5), min_size=n, max_size=n)), reverse=True)
    return relevance_of(scores, [0] * n), alike


@settings(max_examples=60, deadline=None)
@given(worlds(), st.integers(0, 15), st.floats(0, 1))
def test_an_order_names_each_candidate_once_and_begins_with_the_best(world, k, dial):
    relevance, alike = world
    order = mmr(relevance, alike, k, dial)
    assert len(order) == len(set(order)) == min(k, len(relevance))
    assert order[:1] == [0][: len(order)]


@settings(max_examples=50, deadline=None)
@given(worlds(), st.integers(0, 15))
def test_at_zero_the_ranking_stays_as_it_is(world, k):
    relevance, alike = world
    assert mmr(relevance, alike, k, 0.0) == list(range(min(k, len(relevance))))


@settings(max_examples=50, deadline=None)
@given(worlds())
def test_at_one_each_place_goes_to_what_is_least_like_all_before_it(world):
    relevance, alike = world
    order = mmr(relevance, alike, len(relevance), 1.0)
    for place in range(1, len(order)):
        before, left = order[:place], order[place:]
        nearest = {each: max(alike[each, other] for other in before) for each in left}
        assert nearest[order[place]] == min(nearest.values())


def test_known_case_two_twins_and_a_stranger():
    alike = np.array([[1, 1, 0], [1, 1, 0], [0, 0, 1.0]])
    assert mmr(np.array([1.0, 0.9, 0.5]), alike, 2, 0.2) == [0, 1]
    assert mmr(np.array([1.0, 0.9, 0.5]), alike, 2, 0.5) == [0, 2]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.floats(-1e6, 1e6), st.integers(0, 3)), min_size=1, max_size=15))
def test_relevance_never_rises_along_the_ladder(pairs):
    pairs = sorted(pairs, key=lambda pair: (pair[1], -pair[0]))
    found = relevance_of([score for score, _ in pairs], [rung for _, rung in pairs])
    assert found[0] == 1.0
    assert (found > 0).all()
    assert (np.diff(found) <= 1e-12).all()


def test_items_are_alike_by_what_their_records_share_and_by_vectors_where_all_have_them():
    blue, red = (item(each, kind="vase", attributes={"color": each}) for each in ("blue", "red"))
    alike = likeness_of([blue, blue, red, None])
    assert alike[0, 1] == pytest.approx(1)
    assert alike[0, 2] == pytest.approx(0.5)
    assert alike[0, 3] == 0
    vectors = [item("a", vectors={"look": [1.0, 0.0]}), item("b", vectors={"look": [1.0, 1.0]})]
    assert likeness_of(vectors)[0, 1] == pytest.approx(np.sqrt(0.5))


@pytest.mark.parametrize("other", [[1.0], [float("nan"), 1.0], []])
def test_vectors_of_changing_length_or_without_numbers_are_passed_over(other):
    pair = [item("a", brand="x", vectors={"look": [1.0, 0.0]}), item("b", brand="x", vectors={"look": other})]
    assert likeness_of(pair)[0, 1] == pytest.approx(1)


def test_turning_the_dial_makes_slates_more_unlike():
    rng = np.random.default_rng(0)
    items = {str(n): item(str(n), categories=[f"c{n // 15}"], brand=f"b{rng.integers(5)}") for n in range(60)}
    names = list(items)
    alike = likeness_of([items[name] for name in names])
    relevance = relevance_of(np.linspace(1, 0.1, 60).tolist(), [0] * 60)
    spreads = [spread([names[at] for at in mmr(relevance, alike, 10, dial)], items) for dial in (0, 0.3, 0.6, 1)]
    assert spreads == sorted(spreads), spreads
    assert spreads[-1] > spreads[0] + 0.1
