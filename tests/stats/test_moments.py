import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thinslice.errors import StatisticsError
from thinslice.stats import merge, moments, moments_from_sums

numbers = st.lists(st.tuples(st.floats(-1e3, 1e3), st.floats(-1e3, 1e3)), min_size=1, max_size=30)


def columns(rows):
    return {"a": [a for a, _ in rows], "b": [b for _, b in rows]}


@given(numbers, numbers)
def test_merged_parts_are_the_whole(first, second):
    whole, parts = moments(columns(first + second)), merge([moments(columns(first)), moments(columns(second))])
    assert whole.n == parts.n
    assert np.allclose(whole.mean, parts.mean, atol=1e-9)
    assert np.allclose(whole.cov, parts.cov, atol=1e-6)


@given(numbers)
def test_plain_sums_give_the_same_moments(rows):
    data = np.array(rows)
    whole = moments(columns(rows))
    sums = moments_from_sums(("a", "b"), len(rows), data.sum(axis=0), data.T @ data)
    assert np.allclose(whole.mean, sums.mean, atol=1e-9)
    assert np.allclose(whole.cov, sums.cov, atol=1e-4)


def test_covariances_are_those_of_numpy():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 100))
    got = moments({"a": a, "b": b})
    assert np.allclose(got.cov, np.cov(a, b))
    assert got.mean_of("b") == pytest.approx(b.mean())


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_no_number_is_refused_with_its_column(bad):
    with pytest.raises(StatisticsError, match="'revenue' has 1 of 3 values"):
        moments({"revenue": [1.0, bad, 2.0]})


def test_columns_of_different_length_are_refused():
    with pytest.raises(StatisticsError, match="2 and 3 rows"):
        moments({"a": [1, 2, 3], "b": [1, 2]})


def test_nothing_merges_to_nothing():
    with pytest.raises(StatisticsError, match="got 0"):
        merge([])
    with pytest.raises(StatisticsError, match="different columns"):
        merge([moments({"a": [1]}), moments({"b": [1]})])
    assert merge([moments({"a": []}), moments({"a": []})]).n == 0
