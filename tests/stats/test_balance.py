import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from thinslice.errors import StatisticsError
from thinslice.stats import logged_ratio, sample_ratio


@given(st.lists(st.tuples(st.integers(0, 1000), st.integers(1, 9)), min_size=2, max_size=5))
def test_it_is_pearsons_chi_square(variants):
    observed = [count for count, _ in variants]
    if sum(observed) == 0:
        return
    shares = np.array([part for _, part in variants]) / sum(part for _, part in variants)
    theirs = scipy.stats.chisquare(observed, shares * sum(observed))
    got = sample_ratio(observed, shares)
    assert got.statistic == pytest.approx(theirs.statistic, rel=1e-6, abs=1e-9)
    assert got.pvalue == pytest.approx(theirs.pvalue, rel=1e-6, abs=1e-12)


def test_cookie_cats_has_the_known_p_value():
    assert sample_ratio([44_700, 45_489], [0.5, 0.5]).pvalue == pytest.approx(0.0086, abs=5e-5)


def test_a_variant_without_a_share_has_no_degree_of_freedom():
    with_zero, without = sample_ratio([520, 0, 480], [0.5, 0, 0.5]), sample_ratio([520, 480], [0.5, 0.5])
    assert with_zero == pytest.approx(without)
    assert with_zero.df == 1


def test_units_where_none_can_be_are_a_certain_mismatch():
    got = sample_ratio([500, 1, 500], [0.5, 0, 0.5])
    assert (got.statistic, got.pvalue) == (None, 0.0)


@given(st.lists(st.integers(1, 500), min_size=2, max_size=6))
def test_splitting_a_group_changes_nothing_when_the_probabilities_are_the_same(counts):
    rows = np.array([[count, count + 7] for count in counts])
    whole = sample_ratio(rows.sum(axis=0), [0.3, 0.7])
    assert logged_ratio(rows, np.tile([0.3, 0.7], (len(counts), 1))) == pytest.approx(whole)


def bandit(rng, batches, size, lost=0.0):
    """Units whose probabilities follow earlier results; some rows of the second variant get lost."""
    share = 0.5
    counts, shares = [], []
    for _ in range(batches):
        second = int(rng.binomial(size, share))
        kept = int(rng.binomial(second, 1 - lost))
        counts.append([size - second, kept])
        shares.append([1 - share, share])
        share = float(np.clip(share + rng.normal(0, 0.1), 0.05, 0.95))
    return np.array(counts), np.array(shares)


def test_changing_weights_fake_no_mismatch_and_lost_rows_are_found():
    rng = np.random.default_rng(0)
    healthy = [logged_ratio(*bandit(rng, 20, 500)).pvalue for _ in range(300)]
    lossy = [logged_ratio(*bandit(rng, 60, 1_000, lost=0.05)).pvalue for _ in range(100)]
    assert np.mean(np.array(healthy) < 0.05) < 0.09
    assert np.mean(np.array(lossy) < 0.001) > 0.8


@pytest.mark.parametrize(
    ("observed", "shares", "words"),
    [
        ([1, 2], [0.5, 0.6], "sum to 1"),
        ([1, 2], [-0.5, 1.5], "between 0 and 1"),
        ([1, 2], [float("nan"), 1.0], "between 0 and 1"),
        ([1, 2, 3], [0.5, 0.5], "3 variants were seen, but 2 shares are given"),
        ([0, 0], [0.5, 0.5], "needs at least 1 unit, got 0"),
    ],
)
def test_what_are_no_shares_is_refused(observed, shares, words):
    with pytest.raises(StatisticsError, match=words):
        sample_ratio(observed, shares)


def test_one_variant_alone_cannot_be_out_of_balance():
    assert sample_ratio([12, 0], [1, 0]).pvalue == 1.0
