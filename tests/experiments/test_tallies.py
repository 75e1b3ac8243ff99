"""Exact counts: the same whatever the order, the parts and the size of the numbers."""

import duckdb
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thinslice.experiments.tallies import (
    Column,
    Tally,
    exact_counts,
    moments_of,
    quantile_of_counts,
    quoted,
    with_constant,
)
from thinslice.stats import moments

VALUES = st.integers(-(10**6), 10**6)
ROWS = st.lists(st.tuples(st.sampled_from(["a", "b"]), VALUES, VALUES), min_size=1, max_size=30)


def database_with(rows):
    database = duckdb.connect()
    database.execute("CREATE TABLE rows (side VARCHAR, x BIGINT, y BIGINT)")
    database.executemany("INSERT INTO rows VALUES (?, ?, ?)", rows)
    return database


def counted(rows):
    with database_with(rows) as database:
        return exact_counts(database, "rows", quoted(["x", "y"]), ["side"])


@settings(deadline=None, max_examples=25)
@given(rows=ROWS, cut=st.integers(0, 30))
def test_parts_in_any_order_add_up_to_the_whole_and_are_the_moments_of_the_rows(rows, cut):
    whole, parts = Tally(), Tally()
    whole.add("units", counted(rows))
    for part in (rows[cut:], rows[:cut]):
        if part:
            parts.add("units", counted(part))
    assert whole.of("units") == parts.of("units")
    assert whole.total("units") == len(rows)
    for (side,), counts in whole.of("units").items():
        got = moments_of(["x", "y"], counts)
        of = [row for row in rows if row[0] == side]
        expected = moments({"x": [row[1] for row in of], "y": [row[2] for row in of]})
        assert got.n == expected.n
        assert np.allclose(got.mean, expected.mean)
        assert np.allclose(got.cov, expected.cov, rtol=1e-6, atol=1e-3)


def test_products_beyond_64_bits_are_exact():
    large = 4_000_000_019
    ((key, counts),) = counted([("a", large, large - 1), ("a", large, 1)])
    assert (key, counts) == (
        ("a",), (2, 2 * large, large, 2 * large**2, large * (large - 1) + large, (large - 1) ** 2 + 1)
    )  # fmt: skip


def test_what_was_before_is_taken_off_and_nothing_is_counted_of_nothing():
    with database_with([("a", 5, 3), ("a", 7, 7)]) as database:
        columns = [Column("x", "y")]
        assert exact_counts(database, "rows", columns, []) == [((), (2, 2, 25 - 9))]
        assert exact_counts(database, "rows", columns, [], where="x > 99") == []
        assert exact_counts(database, "rows", columns, [], count="count_if(x > 5)")[0][1][0] == 1


def test_rows_that_were_not_counted_are_zeros_and_columns_can_be_scaled():
    got = moments_of(["x"], (1, 6, 36), [0.5], n=3)
    expected = moments({"x": [3.0, 0.0, 0.0]})
    assert (got.n, got.mean[0], got.cov[0, 0]) == (3, expected.mean[0], pytest.approx(expected.cov[0, 0]))
    more = with_constant(got, "weight", 2.0)
    assert (more.names, more.mean_of("weight"), more.var_of("weight")) == (("x", "weight"), 2.0, 0.0)


@settings(deadline=None)
@given(values=st.lists(st.integers(0, 50), min_size=1, max_size=40), share=st.floats(0.01, 0.99))
def test_a_quantile_of_counts_is_that_of_the_values(values, share):
    counts = {value: values.count(value) for value in values}
    assert quantile_of_counts(counts, share) == pytest.approx(np.quantile(values, share), abs=1e-6)
    assert quantile_of_counts({}, share) is None
