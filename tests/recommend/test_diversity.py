"""Diversity: the dial's two ends, and that turning it makes slates more unlike."""

from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from thinslice.recommend import Candidates, diversity
from thinslice.recommend.arrangement import arranger
from thinslice.recommend.diversity import calibrated, distance, likeness_of, mix_of, mmr, relevance_of, spread
from thinslice.records import Item
from thinslice.settings import Policy

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


def test_a_slate_reads_no_record_again_that_stayed_as_it_was(monkeypatch):
    read = []
    for name in ("traits", "unit"):
        plain = getattr(diversity, name)
        monkeypatch.setattr(diversity, name, lambda each, plain=plain: read.append(each) or plain(each))
    known = diversity.Traits()
    items = [item(str(n), brand=f"b{n % 3}") for n in range(60)]
    first = likeness_of(items, known)
    assert len(read) == 60
    assert np.array_equal(likeness_of(items, known), first)
    assert len(read) == 60
    likeness_of([item("0", brand="other"), *items[1:]], known)
    assert len(read) == 61
    read.clear()
    pictured = [item(str(n), vectors={"look": [1.0, float(n)]}) for n in range(60)]
    for _ in range(3):
        likeness_of(pictured, known)
    assert len(read) == 60


@given(st.lists(st.lists(st.sampled_from("abcdef"), max_size=4), min_size=1, max_size=12))
def test_likeness_is_the_cosine_of_what_records_share(brands):
    alike = likeness_of([item(str(n), categories=each) for n, each in enumerate(brands)])
    for n, one in enumerate(map(set, brands)):
        for m, other in enumerate(map(set, brands)):
            expected = 1.0 if n == m else len(one & other) / max(np.sqrt(len(one) * len(other)), 1.0)
            assert alike[n, m] == pytest.approx(expected, abs=1e-6)


def test_turning_the_dial_makes_slates_more_unlike():
    rng = np.random.default_rng(0)
    items = {str(n): item(str(n), categories=[f"c{n // 15}"], brand=f"b{rng.integers(5)}") for n in range(60)}
    names = list(items)
    alike = likeness_of([items[name] for name in names])
    relevance = relevance_of(np.linspace(1, 0.1, 60).tolist(), [0] * 60)
    spreads = [spread([names[at] for at in mmr(relevance, alike, 10, dial)], items) for dial in (0, 0.3, 0.6, 1)]
    assert spreads == sorted(spreads), spreads
    assert spreads[-1] > spreads[0] + 0.1


@st.composite
def mixes(draw):
    n, categories = draw(st.integers(1, 12)), draw(st.integers(1, 4))
    shares = draw(arrays(np.float64, (n, categories), elements=st.floats(0, 1)))
    shares /= np.maximum(shares.sum(axis=1, keepdims=True), 1)
    wanted = draw(arrays(np.float64, categories, elements=st.floats(0, 1)))
    wanted = wanted / wanted.sum() if wanted.sum() > 1e-6 else np.zeros(categories)
    scores = sorted(draw(st.lists(st.floats(-5, 5), min_size=n, max_size=n)), reverse=True)
    return relevance_of(scores, [0] * n), shares, wanted


@settings(max_examples=60, deadline=None)
@given(mixes(), st.integers(0, 15), st.floats(0, 1))
def test_a_calibrated_order_names_each_candidate_once_and_at_zero_stays_as_it_is(world, k, dial):
    relevance, shares, wanted = world
    order = calibrated(relevance, shares, wanted, k, dial)
    assert len(order) == len(set(order)) == min(k, len(relevance))
    assert calibrated(relevance, shares, wanted, k, 0.0) == list(range(min(k, len(relevance))))
    assert calibrated(relevance, shares, np.zeros_like(wanted), k, dial) == list(range(min(k, len(relevance))))


@settings(max_examples=60, deadline=None)
@given(mixes(), st.integers(1, 4), st.floats(0, 1))
def test_each_place_goes_to_the_candidate_that_is_best_beside_those_above_it(world, k, dial):
    relevance, shares, wanted = world
    order = calibrated(relevance, shares, wanted, k, dial)
    if dial == 0 or not wanted.any():
        return
    for place, chosen in enumerate(order):
        above = order[:place]
        gains = {
            at: (1 - dial) * relevance[at] - dial * distance(shares[[*above, at]], wanted)
            for at in range(len(relevance)) if at not in above
        }  # fmt: skip
        assert gains[chosen] == pytest.approx(max(gains.values()), abs=1e-9)


def test_who_looks_at_seven_books_and_three_films_gets_seven_books_and_three_films():
    shares = np.array([[1.0, 0.0]] * 20 + [[0.0, 1.0]] * 20)  # all books are ranked before all films
    relevance = relevance_of(np.linspace(1, 0, 40), [0] * 40)
    wanted = np.array([0.7, 0.3])
    assert sum(at >= 20 for at in calibrated(relevance, shares, wanted, 10, 0.0)) == 0
    slate = calibrated(relevance, shares, wanted, 10, 1.0)
    assert sorted(slate) == [*range(7), 20, 21, 22]  # the best of both
    far = [distance(shares[calibrated(relevance, shares, wanted, 10, dial)], wanted) for dial in (0, 0.5, 0.9, 1)]
    assert far == sorted(far, reverse=True)
    assert far[0] > 0.5
    assert far[-1] == pytest.approx(0, abs=1e-9)


def test_the_mix_is_that_of_the_session_and_items_of_several_categories_count_in_parts():
    book, film, both = (item(name, categories=names) for name, names in
                        (("b", ["book"]), ("f", ["film"]), ("x", ["book", "film", "other", "more"])))  # fmt: skip
    shares, wanted = mix_of([film, both, None, item("bare")], [book, book, film, None, item("bare")])
    assert wanted == pytest.approx([2 / 3, 1 / 3])
    assert shares.tolist() == [[0, 1], [0.25, 0.25], [0, 0], [0, 0]]
    nothing = mix_of([film], [None])
    assert nothing[0].shape == (1, 0)
    assert calibrated(np.ones(1), *nothing, 1, 1.0) == [0]


def test_a_policy_that_asks_for_it_is_arranged_by_the_mix_and_a_wrong_name_is_refused():
    names = [f"{kind}-{number}" for kind in ("book", "film") for number in range(6)]
    catalog = {name: item(name, categories=[name.split("-")[0]]) for name in names}
    found = Candidates(names, [1 - 0.05 * place for place in range(12)], ["m"] * 12, [0] * 12, 12)
    policy = Policy(diversity=1.0, diversity_by="calibrated")
    seen = [catalog["film-0"], catalog["film-1"], catalog["book-0"], catalog["film-2"]]

    def arranged(policy, session):
        arrange = arranger(policy, explorer=None, rates=None, likeness=None, seed=0,
                           mix=lambda ids: mix_of([catalog[each] for each in ids], session))  # fmt: skip
        return [names[at] for at in arrange(found, 4).order]

    assert sorted(arranged(policy, seen)) == ["book-0", "film-0", "film-1", "film-2"]
    assert arranged(policy, []) == names[:4]
    with pytest.raises(ValueError, match=r"no diversity by 'luck' \(there is: mmr, calibrated\)"):
        Policy(diversity_by="luck")
