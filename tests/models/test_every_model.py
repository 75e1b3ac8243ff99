"""Every model keeps the promises of check_model, and a catalog without any click can be served."""

from datetime import UTC, datetime

import numpy as np
import pytest

from thinslice.errors import BadInput
from thinslice.models import MODELS, BoughtTogether, BuyAgain, Newest, Popular, Trending, UserHistory, from_columns
from thinslice.records import Item
from thinslice.testing import check_model

NOW = datetime(2026, 11, 1, tzinfo=UTC)
CATALOG = [Item(tenant="shop", item_id=f"item-{number:02d}", updated_at=NOW) for number in range(40)]


KINDS = [
    pytest.param(kind, marks=[pytest.mark.neural] if getattr(kind, "extra", "") == "neural" else [])
    for kind in MODELS.values()
]

SAME_FOR_ALL = (Popular, Newest, Trending, BuyAgain, UserHistory)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("items", [None, CATALOG])
def test_a_model_keeps_what_every_model_promises(kind, items):
    check_model(kind, items=items, personal=kind not in SAME_FOR_ALL)


def test_the_simplest_stands_first_and_the_default_pipeline_last():
    assert list(MODELS) == [
        "popular", "newest", "trending", "buy-again", "user-history", "bought-together", "content", "markov",
        "implicit-cosine", "implicit-tfidf", "ease", "implicit-als", "implicit-bpr", "session-transformer",
        "session-knn", "user-cf", "neural-ranker", "session-ranker",
    ]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_a_mask_of_the_wrong_length_is_refused_with_both_lengths(kind):
    model = kind.fit(from_columns(["s", "s"], ["a", "b"], [1, 2]))
    with pytest.raises(BadInput, match=r"2 values, one an item, got 3"):
        model.recommend(["a"], 2, allowed=np.ones(3, dtype=bool))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows", [[("s", "a", 1.0)], [("s", "a", 1.0), ("s", "a", 2.0), ("t", "b", 3.0)]])
def test_a_log_of_almost_nothing_still_gives_a_model_that_answers(kind, rows):
    model = kind.fit(from_columns(*zip(*rows, strict=True)), rng=0)
    found = model.recommend(["a", "never seen"], 5)
    assert set(found.item_ids) <= {"a", "b"}
    assert np.isfinite(found.scores).all()
    assert kind.from_arrays(model.arrays()).recommend(["a"], 5) == model.recommend(["a"], 5)


@pytest.mark.parametrize("kind", KINDS)
def test_learning_changes_nothing_in_what_it_learns_from(kind):
    world = from_columns(["s", "s", "s", "t"], ["b", "a", "b", "a"], [1.0, 2.0, 3.0, 4.0])
    before = [array.copy() for array in world[:3]]
    kind.fit(world, rng=0)
    assert all(np.array_equal(old, new) for old, new in zip(before, world[:3], strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_a_session_of_a_hundred_thousand_clicks_gets_an_answer(kind):
    world = from_columns(list("sstuu"), list("abbbc"), [1.0, 2.0, 3.0, 4.0, 5.0])
    feed = [
        Item(tenant="shop", item_id=name, updated_at=NOW, title=title) for name, title in zip("abc", "xxy", strict=True)
    ]
    model = kind.fit(world, feed, rng=0)
    found = model.recommend(["a", "b", "?"] * 33_334, 2).item_ids
    # One answers known users alone; for the other, b lies in every basket and so goes with nothing.
    assert bool(found) == (kind not in (BuyAgain, UserHistory, BoughtTogether))
