import time
from datetime import UTC, datetime

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thinslice.errors import BadInput, BadSettings
from thinslice.experiments import assign, bucket, check_experiment, unit_id_of, with_allocation, with_start
from thinslice.experiments.isolation import block_labels, may_show, training_filter
from thinslice.experiments.item_deal import ItemDeal, KnownItems, buckets, foreign_rows
from thinslice.records import Experiment, Variant

START = datetime(2026, 3, 1, tzinfo=UTC)
EXPERIMENT = Experiment(
    name="x", tenant="shop", started_at=START,
    variants=[Variant(name="a", policy="popular", weight=0.5), Variant(name="b", policy="session-knn", weight=0.5)],
)  # fmt: skip

sessions = st.lists(st.tuples(st.sampled_from(["", "a", "b"]), st.integers(-100, 100)), max_size=60)


def filtered(rows, variant, seed=0):
    labels = [label for label, _ in rows]
    started = [START.timestamp() + offset for _, offset in rows]
    return training_filter(EXPERIMENT, variant, labels, started, rng=np.random.default_rng(seed))


@given(sessions)
def test_no_session_of_the_test_teaches_two_variants_and_all_before_it_teach_both(rows):
    a, b = filtered(rows, "a"), filtered(rows, "b")
    before = np.array([offset < 0 for _, offset in rows], dtype=bool)
    assert (a[before]).all()
    assert (b[before]).all()
    assert not (a & b & ~before).any()


@given(sessions)
def test_a_variant_learns_from_its_own_sessions_only_and_both_from_as_many(rows):
    masks = {name: filtered(rows, name) for name in "ab"}
    after = np.array([offset >= 0 for _, offset in rows], dtype=bool)
    labels = np.array([label for label, _ in rows], dtype=str)
    for name, mask in masks.items():
        assert (labels[mask & after] == name).all()
    sizes = {name: int((after & (labels == name)).sum()) for name in "ab"}
    assert {int((mask & after).sum()) for mask in masks.values()} == {min(sizes.values())}


def test_the_same_rng_leaves_out_the_same_sessions():
    rows = [("a", i) for i in range(50)] + [("b", i) for i in range(10)]
    assert (filtered(rows, "a", 3) == filtered(rows, "a", 3)).all()
    assert filtered(rows, "a", 3).sum() == 10


def test_an_unknown_variant_is_refused():
    with pytest.raises(BadInput, match="no variant 'c'"):
        filtered([], "c")


def test_a_session_of_a_switchback_belongs_to_the_variant_that_was_on_as_it_began():
    start = datetime(2026, 3, 2, tzinfo=UTC)
    variants = [Variant(name=name, policy="popular", weight=0.5) for name in ("old", "new")]
    of = Experiment(name="fares", tenant="shop", unit="block", block_minutes=60.0, variants=variants, started_at=start)
    began = start.timestamp() + np.arange(-10, 200) * 1_800.0
    labels = block_labels(of, began)
    assert (labels[:10] == "").all()
    assert labels[10:].tolist() == [assign(of, unit_id_of(of, at=at)).variant for at in began[10:]]
    assert block_labels(of, []).tolist() == []


def test_where_items_are_dealt_out_too_each_belongs_to_one_variant():
    variants = [Variant(name=name, policy="popular", weight=weight) for name, weight in (("a", 0.2), ("b", 0.8))]
    of = Experiment(name="explore", tenant="shop", variants=variants)
    items = [f"item-{n}" for n in range(5_000)]
    first, second = may_show(of, "a", items), may_show(of, "b", items)
    assert (first != second).all()
    assert abs(first.mean() - 0.2) < 0.02
    visitors = np.array([assign(of, item).variant == "a" for item in items])
    assert abs(np.corrcoef(first, visitors)[0, 1]) < 0.05  # items and visitors are dealt out independently
    with pytest.raises(BadInput, match="has no variant 'c'"):
        may_show(of, "c", items)


DEALT = msgspec.structs.replace(EXPERIMENT, deal_items="new")


@given(st.lists(st.text(max_size=12), max_size=30), st.text(max_size=10))
def test_many_buckets_at_once_are_those_of_one_after_the_other(values, seed):
    assert buckets(seed, values).tolist() == [bucket(seed, value) for value in values]


@given(st.sets(st.text(max_size=9), max_size=30), st.lists(st.text(max_size=9), max_size=30))
def test_known_items_are_known_again_after_they_were_stored(known, asked):
    stored = KnownItems.from_arrays(KnownItems(sorted(known)).arrays())
    assert stored.hold(asked).tolist() == [item in known for item in asked]


def test_new_items_belong_to_one_variant_and_old_ones_to_both():
    old, new = [f"old-{n}" for n in range(300)], [f"new-{n}" for n in range(2_000)]
    deals = {name: ItemDeal(DEALT, name, KnownItems(old)) for name in "ab"}
    assert all(deal.own(old).all() for deal in deals.values())
    assert (deals["a"].own(new) != deals["b"].own(new)).all()
    assert abs(deals["a"].own(new).mean() - 0.5) < 0.04
    for deal in deals.values():
        assert [deal.may(item) for item in new[:200]] == deal.own(new[:200]).tolist()


def test_a_change_of_weights_moves_no_item():
    started = with_start(DEALT, START)
    ramped = with_allocation(started, START, weights={"a": 0.9, "b": 0.1})
    items = [f"item-{n}" for n in range(500)]
    assert (ItemDeal(started, "a").own(items) == ItemDeal(ramped, "a").own(items)).all()


def test_clicks_since_the_start_on_items_of_another_variant_are_foreign():
    deal = ItemDeal(DEALT, "a", KnownItems(["old"]))
    start = START.timestamp()
    theirs = next(f"n{n}" for n in range(100) if not deal.may(f"n{n}"))
    mine = next(f"n{n}" for n in range(100) if deal.may(f"n{n}"))
    rows = foreign_rows(deal, ["old", mine, theirs, theirs], [start + 1, start + 1, start + 1, start - 1], start)
    assert rows.tolist() == [False, False, True, False]


def test_items_of_a_variant_that_learns_from_all_cannot_be_dealt_out():
    with pytest.raises(BadSettings, match="deal_items is 'new', but training is 'shared'"):
        check_experiment(msgspec.structs.replace(DEALT, training="shared"))
    with pytest.raises(BadSettings, match="deal_items is 'half'"):
        check_experiment(msgspec.structs.replace(DEALT, deal_items="half"))


def test_a_million_items_are_dealt_out_in_seconds():
    items = [f"item-{n}" for n in range(200_000)]
    began = time.process_time()
    ItemDeal(DEALT, "a", KnownItems(items[:1000])).own(items)
    assert time.process_time() - began < 2.0
