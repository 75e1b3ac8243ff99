from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thinslice.errors import BadInput
from thinslice.experiments.isolation import training_filter
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
