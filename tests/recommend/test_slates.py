"""Slates: filters before top-k, the ladder, reasons."""

from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thinslice.models import Newest, Popular, SessionKNN, from_columns
from thinslice.recommend import Availability, Rung, climb
from thinslice.records import Reason, ScoredItems, SlateItem


class Ranked:
    """A model that ranks its items in their order and says that the session's last item is why."""

    name = "session-knn"

    def __init__(self, item_ids, name="session-knn"):
        self.item_ids = list(item_ids)
        self.name = name

    def recommend(self, session, k, *, allowed=None):
        chosen = [i for n, i in enumerate(self.item_ids) if allowed is None or allowed[n]][:k]
        return ScoredItems(chosen, [float(len(chosen) - n) for n in range(len(chosen))], self.name)

    def explain(self, session, item_id):
        return Reason(item_id, 1.0, {each: 1.0 / len(session) for each in session})

    def arrays(self):
        return {}


class Broken(Ranked):
    errors: ClassVar = []

    def recommend(self, session, k, *, allowed=None):
        raise RuntimeError("the model is broken")


def rung(model, available=None):
    return Rung(model, Availability(model.item_ids, available or {}))


def ids(slate):
    return [item.item_id for item in slate.items]


item_names = st.lists(st.sampled_from("abcdefgh"), unique=True)


@settings(max_examples=150, deadline=None)
@given(item_names, item_names, st.dictionaries(st.sampled_from("abcdefgh"), st.booleans()),
       st.sets(st.sampled_from("abcdefgh")), st.integers(1, 10))  # fmt: skip
def test_a_slate_holds_each_item_once_and_none_that_is_forbidden(first, second, available, without, k):
    rungs = [rung(Ranked(first), available), rung(Ranked(second, "popular"), available)]
    catalog = [each for each, may in available.items() if may]
    slate = climb(["a"], k, rungs=rungs, catalog=catalog, without=without)
    shown = ids(slate)
    assert len(shown) == len(set(shown)) <= k
    assert not set(shown) & without
    assert all(available.get(each, True) for each in shown)
    everything = {e for r in rungs for e in r.model.item_ids if r.availability.passes(e)} | set(catalog)
    assert len(shown) == min(k, len(everything - without))


def test_filtering_comes_before_the_top_k():
    slate = climb(["z"], 2, rungs=[rung(Ranked("abcd"), {"a": False, "b": True, "c": True, "d": True})], without={"b"})
    assert ids(slate) == ["c", "d"]
    assert slate.candidate_count == 2


def test_the_next_rung_fills_what_the_first_leaves_open_and_each_place_says_its_source():
    slate = climb(["x"], 4, rungs=[rung(Ranked("ab")), rung(Ranked("bc", "popular")), rung(Ranked("cd", "newest"))])
    assert [(item.item_id, item.source) for item in slate.items] == [
        ("a", "session-knn"), ("b", "session-knn"), ("c", "popular"), ("d", "newest"),
    ]  # fmt: skip
    assert [item.reason for item in slate.items] == [
        "Because you viewed x", "Because you viewed x", "Popular now", "New in the catalog",
    ]  # fmt: skip


def test_a_broken_model_is_told_and_the_next_rung_answers():
    told = []
    slate = climb([], 1, rungs=[rung(Broken("a")), rung(Ranked("b", "popular"))],
                  failed=lambda name, error: told.append((name, str(error))))  # fmt: skip
    assert ids(slate) == ["b"]
    assert told == [("session-knn", "the model is broken")]


def test_a_broken_model_is_loud_where_nobody_listens():
    with pytest.raises(RuntimeError, match="broken"):
        climb([], 1, rungs=[rung(Broken("a"))])


def test_without_a_model_the_catalog_answers_and_without_a_catalog_the_last_good_slate():
    old = [SlateItem(item_id="o", score=1.0, source="popular", reason="Because you viewed a secret")]
    assert [(i.item_id, i.source) for i in climb([], 2, rungs=[], catalog=["c", "d", "e"], last_good=old).items] == [
        ("c", "catalog"), ("d", "catalog"),
    ]  # fmt: skip
    (item,) = climb([], 2, rungs=[], last_good=old).items
    assert (item.item_id, item.source) == ("o", "last-good")
    assert "secret" not in item.reason


def test_the_reason_is_the_title_of_the_item_with_the_largest_term():
    clicks = from_columns(
        ["s1", "s1", "s2", "s2", "s3", "s3"], ["a", "c", "a", "c", "b", "d"], [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    )
    slate = climb(
        ["b", "a"], 1, rungs=[rung(SessionKNN.fit(clicks))], without={"a", "b", "d"},
        title={"a": "Blue vase", "b": "Chair"}.__getitem__,
    )  # fmt: skip
    assert [(item.item_id, item.reason) for item in slate.items] == [("c", "Because you viewed Blue vase")]


def test_real_models_fill_a_slate_for_a_session_that_nobody_knows():
    clicks = from_columns(["s1", "s1", "s2"], ["a", "b", "c"], [1.0, 2.0, 3.0])
    rungs = [rung(SessionKNN.fit(clicks)), rung(Popular.fit(clicks)), rung(Newest.fit(clicks))]
    slate = climb(["unknown"], 3, rungs=rungs)
    assert {item.source for item in slate.items} == {"popular"}
    assert set(ids(slate)) == {"a", "b", "c"}


changes = st.lists(st.tuples(st.sampled_from("abcdefxyz"), st.booleans()), max_size=30)


@settings(max_examples=150, deadline=None)
@given(changes, st.integers(0, 30))
def test_a_mask_kept_current_equals_one_counted_afresh(rows, cut):
    vocabulary = list("abcdef")
    kept = Availability(vocabulary, dict(rows[:cut]))
    for row in rows[cut:]:
        kept.update([row])
    assert np.array_equal(kept.mask, Availability(vocabulary, dict(rows)).mask)


def test_items_that_an_incomplete_catalog_does_not_know_may_be_shown():
    assert Availability("abcd", {"a": False}).mask.tolist() == [False, True, True, True]
    assert Availability("abcd", {"a": False, "b": True}).mask.tolist() == [False, True, False, False]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(changes, st.lists(st.sampled_from("abcdefxyz"), max_size=4)), min_size=1, max_size=6))
def test_one_visitor_after_the_other_sees_the_mask_without_their_own_items_and_its_count(visits):
    vocabulary = list("abcdef")
    kept = Availability(vocabulary, {})
    for rows, without in visits:
        kept.update(rows)
        wanted = kept.mask.copy()
        wanted[[vocabulary.index(each) for each in without if each in vocabulary]] = False
        assert np.array_equal(kept.allowed(without), wanted)
        assert kept.count(without) == np.count_nonzero(wanted)


def test_leaving_items_out_for_one_visitor_leaves_the_mask_as_it_is():
    availability = Availability("abc", {})
    assert availability.allowed(["a", "nobody"]).tolist() == [False, True, True]
    assert availability.allowed([]).tolist() == [True, True, True]
