"""A forest as plain arrays: LightGBM is the oracle; contributions sum to the score; what is not served is refused."""

import lightgbm
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thinslice.errors import BadInput
from thinslice.models import forest_kernel
from thinslice.models.forest import Forest


def trained(rows, wanted, *, trees=20, **parameters):
    data = lightgbm.Dataset(rows, wanted, free_raw_data=False)
    chosen = {"num_leaves": 31, "min_data_in_leaf": 1, "min_data_in_bin": 1, "verbose": -1, "num_threads": 1}
    return lightgbm.train({**chosen, **parameters}, data, trees)


def drawn(count=2000, features=6, seed=0):
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(count, features)).astype(np.float32)
    rows[:, 1] = np.floor(rows[:, 1] * 3)
    return rows, np.sin(rows[:, 0] * 2) + rows[:, 1] * rows[:, 2] + rng.normal(size=count) * 0.1


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_a_forest_scores_every_row_as_lightgbm_does(data):
    features, count = data.draw(st.integers(1, 5)), data.draw(st.integers(20, 60))
    width = data.draw(st.sampled_from([32, 64]))
    numbers = st.floats(-4, 4, width=32) | st.integers(-3, 3).map(float)
    flat = data.draw(st.lists(numbers, min_size=features * count, max_size=features * count))
    rows = np.array(flat, dtype=np.float32).reshape(count, features)
    wanted = np.random.default_rng(0).normal(size=count) + rows[:, 0]
    booster = trained(rows, wanted, trees=5, num_leaves=data.draw(st.integers(2, width)))
    forest = Forest.from_lightgbm_text(booster.model_to_string())
    np.testing.assert_allclose(forest.predict(rows), booster.predict(rows, raw_score=True), rtol=1e-9, atol=1e-12)
    given_by = forest.contributions(rows)
    np.testing.assert_allclose(given_by.sum(axis=1) + forest.bias, forest.predict(rows), rtol=1e-9, atol=1e-9)
    scored, some = forest.score(rows, 7), np.array(data.draw(st.lists(st.integers(0, count - 1))), dtype=np.int64)
    assert scored.score.tolist() == forest.predict(rows).tolist()
    assert scored.given(some, None).tolist() == given_by[some].tolist()
    for first in (features, data.draw(st.integers(0, features))):
        np.testing.assert_allclose(scored.given(some, first), given_by[some, :first].sum(axis=1), atol=1e-9)


@pytest.mark.parametrize("leaves", [2, 31, 32, 33, 64])
@pytest.mark.parametrize("count", [0, 1, 60, 64, 65, 150, 256, 700])
def test_blocks_of_rows_and_widths_of_words_change_nothing(leaves, count):
    rows, wanted = drawn()
    booster = trained(rows, wanted, num_leaves=leaves)
    forest = Forest.from_lightgbm_text(booster.model_to_string())
    expected = booster.predict(rows, raw_score=True)[:count]
    np.testing.assert_allclose(forest.predict(rows[:count]), expected, rtol=1e-9)
    every = forest.score(rows[:count], 0).given(np.arange(count), 6)
    np.testing.assert_allclose(every + forest.bias, expected, rtol=1e-9)


def test_a_value_on_the_threshold_goes_left_as_in_lightgbm():
    rows, wanted = drawn(features=3)
    booster = trained(rows, wanted)
    text = booster.model_to_string()
    cuts = [float(cut) for line in text.splitlines() if line.startswith("threshold=") for cut in line[10:].split()]
    near = np.array(cuts).astype(np.float32)
    values = np.concatenate([near, np.nextafter(near, np.float32(9)), np.nextafter(near, np.float32(-9))])
    extreme = np.array([0, -0.0, np.inf, -np.inf, np.nan, 1e-40, 3e38], dtype=np.float32)
    tried = np.concatenate([values, extreme])
    rows = np.stack([tried, np.roll(tried, 7), np.roll(tried, 31)], axis=1)
    found = Forest.from_lightgbm_text(text).predict(rows)
    np.testing.assert_allclose(found, booster.predict(rows, raw_score=True), rtol=1e-9)


def test_a_ranker_with_one_query_of_sixty_rows_and_features_that_are_equal_in_all_of_them():
    rows, wanted = drawn(count=6000, features=20)
    rows[:, 10:15] = np.repeat(rows[::60, 10:15], 60, axis=0)
    data = lightgbm.Dataset(rows, (wanted > 1).astype(int), group=[60] * 100)
    chosen = {"objective": "lambdarank", "num_leaves": 31, "verbose": -1, "num_threads": 1}
    booster = lightgbm.train(chosen, data, 50)
    forest = Forest.from_lightgbm_text(booster.model_to_string())
    expected = booster.predict(rows)
    for start in range(0, 6000, 60):
        np.testing.assert_allclose(forest.predict(rows[start : start + 60]), expected[start : start + 60], rtol=1e-9)


def test_contributions_credit_only_features_that_split():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(500, 3)).astype(np.float32)
    booster = trained(rows, np.where(rows[:, 1] > 0, 2.0, 0.0), trees=1, num_leaves=2, learning_rate=1.0)
    forest = Forest.from_lightgbm_text(booster.model_to_string())
    assert forest.bias == pytest.approx(np.where(rows[:, 1] > 0, 2.0, 0.0).mean(), rel=1e-6)
    given_by = forest.contributions(np.array([[9, 1, 9], [9, -1, 9]], dtype=np.float32))
    assert given_by[:, [0, 2]].tolist() == [[0, 0], [0, 0]]
    assert given_by[:, 1] == pytest.approx([2 - forest.bias, -forest.bias], rel=1e-6)


def test_trees_of_one_leaf_score_their_constant():
    rows = np.zeros((50, 2), dtype=np.float32)
    booster = trained(rows, np.full(50, 3.0), trees=3)
    forest = Forest.from_lightgbm_text(booster.model_to_string())
    assert forest.predict(rows[:2]).tolist() == booster.predict(rows[:2]).tolist()
    assert forest.contributions(rows[:1]).tolist() == [[0.0, 0.0]]
    assert forest.bias == forest.predict(rows[:1])[0]


def test_a_forest_comes_back_from_read_only_arrays_and_compiles_once_a_width():
    rows, wanted = drawn()
    forest = Forest.from_lightgbm_text(trained(rows, wanted).model_to_string())
    frozen = {name: array.copy() for name, array in forest.arrays().items()}
    for array in frozen.values():
        array.flags.writeable = False
    again = Forest.from_arrays(frozen | {"of another": np.zeros(1)})
    assert again.predict(rows).tolist() == forest.predict(rows).tolist()
    assert again.predict(np.asfortranarray(rows[::2])).tolist() == forest.predict(rows[::2].copy()).tolist()
    assert again.bias == forest.bias
    assert sum(array.nbytes for array in frozen.values()) < 50 * len(frozen["feature"]) + 300 * len(frozen["root"])
    assert len(forest_kernel.predict.signatures) <= 2
    assert len(forest_kernel.contributions.signatures) == 1


def with_nan(rows):
    rows = rows.copy()
    rows[::3, 0] = np.nan
    return rows


def made(**parameters):
    rows, wanted = drawn()
    change = parameters.pop("change", lambda same: same)
    categories = parameters.pop("categories", "auto")
    data = lightgbm.Dataset(change(rows), wanted, categorical_feature=categories)
    chosen = {"verbose": -1, "num_threads": 1, "min_data_in_leaf": 1, **parameters}
    return lightgbm.train(chosen, data, 3).model_to_string()


def whole(rows):
    return np.abs(np.floor(rows * 3))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (lambda: "", "begins with the line 'tree', got ''"),
        (lambda: "{}", "begins with the line 'tree', got '{}'"),
        (lambda: made()[:2000], "ends before the line 'end of trees'"),
        (lambda: made().replace("leaf_value=", "leaf_value=1 "), "needs 31 values of leaf_value, got 32"),
        (lambda: made(num_leaves=65), "at most 64 leaves, got 65"),
        (lambda: made(change=with_nan), "treats missing values apart"),
        (lambda: made(zero_as_missing=True), "treats missing values apart"),
        (lambda: made(change=whole, categories=[0]), "splits by categories"),
        (lambda: made(linear_tree=True), "linear leaves are not served"),
        (lambda: made(boosting="rf", bagging_freq=1, bagging_fraction=0.5), "averaged trees"),
        (lambda: made().replace("max_feature_idx=5", "max_feature_idx=0"), "there are only 1 features"),
        (
            lambda: made().replace("num_tree_per_iteration=1", "num_tree_per_iteration=3"),
            "got num_tree_per_iteration=3",
        ),
    ],
)
def test_what_is_not_served_is_refused_with_the_reason(text, says):
    with pytest.raises(BadInput, match=says):
        Forest.from_lightgbm_text(text())


def test_rows_of_another_width_are_refused():
    forest = Forest.from_lightgbm_text(made())
    with pytest.raises(BadInput, match=r"shape \(rows, 6\), got \(2, 5\)"):
        forest.predict(np.zeros((2, 5), dtype=np.float32))
