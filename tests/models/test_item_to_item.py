"""Models that are a table from item to item, or factors: equal to the plain matrix algebra that they stand for."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thinslice.errors import BadInput, TooLarge
from thinslice.models import EASE, ImplicitALS, ImplicitBPR, ImplicitCosine, ImplicitTfidf, Markov, from_columns
from thinslice.models.ease import LARGEST_CATALOG, solve
from thinslice.models.item_to_item import ItemToItem
from thinslice.testing import small_world

weights = st.integers(-128, 128).map(lambda number: number / 64)  # sums of them are exact
entries = st.dictionaries(st.tuples(st.integers(0, 5), st.integers(0, 5)), weights, max_size=30)


def dense(model):
    """The table of a model as a matrix."""
    arrays = model.arrays()
    table = np.zeros((len(model.item_ids),) * 2)
    for row in range(len(table)):
        inside = slice(arrays["row_ptr"][row], arrays["row_ptr"][row + 1])
        table[row, arrays["target"][inside]] = arrays["weight"][inside]
    return table


@settings(deadline=None)
@given(entries, st.lists(st.integers(0, 7), max_size=9), st.integers(0, 7))
def test_a_ranking_is_the_sum_of_the_rows_of_the_session(table, session, k):
    pairs = np.array(list(table), dtype=np.int64).reshape(-1, 2)
    weight = np.array(list(table.values()), dtype=np.float32)
    model = ItemToItem.from_table(pairs[:, 0], pairs[:, 1], weight, list("abcdef"), [1.0, 0.5, 0.25])
    asked = ["abcdef??"[code] for code in session]
    known = [code for code in session if code < 6]
    worth = [[1.0, 0.5, 0.25][min(step, 2)] for step in range(len(known))][::-1]
    score = sum((w * dense(model)[code] for w, code in zip(worth, known, strict=True)), np.zeros(6))
    found = model.recommend(asked, 10)
    expected = sorted((code for code in range(6) if score[code] > 0), key=lambda code: (-score[code], code))
    assert found.scores == pytest.approx(sorted(score[expected], reverse=True))
    assert set(found.item_ids) >= {"abcdef"[code] for code in expected}
    assert model.recommend(asked, k).item_ids == found.item_ids[:k]
    for item_id, value in zip(found.item_ids, found.scores, strict=True):
        reason = model.explain(asked, item_id)
        assert reason.score == value
        assert sum(reason.terms.values()) == pytest.approx(value, abs=1e-12)


def test_cosine_and_tfidf_keep_an_item_similar_to_itself():
    rows = [("s", "a"), ("s", "b"), ("t", "a"), ("t", "c"), ("u", "d"), ("u", "c")]
    world = from_columns([row[0] for row in rows], [row[1] for row in rows], list(range(6)))
    model = ImplicitCosine.fit(world)
    assert np.diag(dense(model)) == pytest.approx(np.ones(4))
    assert dense(model)[0] == pytest.approx([1, 1 / np.sqrt(2), 1 / 2, 0])
    assert model.recommend(["a"], 3).item_ids == ["a", "b", "c"]
    assert np.diag(dense(ImplicitTfidf.fit(small_world()))) == pytest.approx(np.ones(30), abs=1e-6)


def test_only_the_most_similar_items_are_kept():
    arrays = ImplicitCosine.fit(small_world(), neighbors=3).arrays()
    assert np.diff(arrays["row_ptr"]).max() == 3


def test_tfidf_survives_sessions_that_weigh_nothing():
    world = from_columns(["s", "s", "t"], ["a", "b", "c"], [1, 2, 3])  # ln(3 items) = ln(1 + 2 clicks)
    assert ImplicitTfidf.fit(world).recommend(["c"], 3).item_ids == ["c"]


def test_markov_is_the_share_of_steps_to_the_next_click_within_a_session():
    world = from_columns(list("ssssttu"), list("abaabcb"), list(range(7)))
    model = Markov.fit(world)
    assert dense(model) == pytest.approx(np.array([[1 / 2, 1 / 2, 0], [1 / 2, 0, 1 / 2], [0, 0, 0]]))
    assert model.recommend(["c", "a"], 3) == model.recommend(["a"], 3)
    assert model.recommend(["a", "c"], 3).item_ids == []
    assert np.diff(Markov.fit(world, top=1).arrays()["row_ptr"]).tolist() == [1, 1, 0]


def test_ease_without_repeats_is_the_closed_form_of_steck():
    world = small_world()
    clicks = np.zeros((200, 30))
    clicks[np.repeat(np.arange(200), np.diff(world.session_ptr)), world.item] = 1
    inverse = np.linalg.inv(clicks.T @ clicks + 7 * np.eye(30))
    steck = inverse / -np.diag(inverse)
    np.fill_diagonal(steck, 0)
    model = EASE.fit(world, reg=7, repeats=0)
    assert dense(model) == pytest.approx(steck, abs=1e-6)


@pytest.mark.parametrize("repeats", [0.0, 0.3, 0.9])
def test_ease_is_the_best_table_under_its_bound_on_repeats(repeats):
    from scipy.sparse import csr_matrix

    clicks = (np.random.default_rng(0).random((40, 8)) < 0.3).astype(np.float32)
    table = solve(csr_matrix(clicks), 2.0, repeats)
    assert np.diag(table).max() <= repeats + 1e-9

    def loss(b):
        return np.square(clicks - clicks @ b).sum() + 2.0 * np.square(b).sum()

    draw = np.random.default_rng(1)
    for _ in range(50):
        step = 1e-3 * draw.standard_normal(table.shape)
        other = table + step
        np.fill_diagonal(other, np.minimum(np.diag(other), repeats))
        assert loss(other) >= loss(table) - 1e-9


def test_ease_refuses_a_catalog_that_no_square_matrix_should_hold():
    world = from_columns(["s"] * LARGEST_CATALOG, np.arange(LARGEST_CATALOG), np.arange(LARGEST_CATALOG))
    with pytest.raises(TooLarge, match=r"below 10,000 items, this one has 10,000\. implicit-tfidf"):
        EASE.fit(world)


def test_an_anonymous_session_is_folded_into_als_exactly():
    model = ImplicitALS.fit(small_world(), rng=0, embedding_size=6, alpha=3.0, reg=0.5)
    factors = model.arrays()["factors"].T.astype(np.float64)
    session = ["item-02", "item-05", "item-02"]
    confidence = np.ones(30)
    target = np.zeros(30)
    for code, times in ((2, 2), (5, 1)):
        at = model.item_ids.index(f"item-{code:02d}")
        confidence[at], target[at] = 3.0 * times, 1.0
    vector = np.linalg.solve(
        factors.T @ (confidence[:, None] * factors) + 0.5 * np.eye(6), factors.T @ (confidence * target)
    )
    found = model.recommend(session, 30)
    expected = dict(zip(model.item_ids, (factors @ vector).tolist(), strict=True))
    assert dict(zip(found.item_ids, found.scores, strict=True)) == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_bpr_adds_the_bias_of_an_item_to_the_mean_of_the_clicks():
    model = ImplicitBPR.fit(small_world(), rng=0, embedding_size=4, epochs=5)
    factors, bias = (model.arrays()[name].astype(np.float64) for name in ("factors", "bias"))
    found = model.recommend(["item-00", "item-03"], 30)
    expected = dict(zip(model.item_ids, (bias + factors[:, [0, 3]].mean(axis=1) @ factors).tolist(), strict=True))
    assert dict(zip(found.item_ids, found.scores, strict=True)) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("kind", "setting", "says"),
    [
        (ImplicitCosine, {"neighbors": 0}, "neighbors must be a whole number of at least 1, got 0"),
        (Markov, {"top": 1.5}, "top must be a whole number of at least 1, got 1.5"),
        (EASE, {"repeats": 1.0}, "repeats from 0 to below 1"),
        (ImplicitALS, {"alpha": 0}, "alpha must be above 0 and at most 1,000,000, got 0"),
        (ImplicitBPR, {"embedding_size": 0}, "embedding_size must be a whole number of at least 1, got 0"),
    ],
)
def test_a_setting_of_a_peer_out_of_range_is_refused_with_its_value(kind, setting, says):
    with pytest.raises(BadInput, match=says):
        kind.fit(small_world(), **setting)
