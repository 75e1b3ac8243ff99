import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thinslice.errors import StatisticsError
from thinslice.stats import logged_evidence, logged_ratio, sample_ratio, sequential_ratio

HALVES = [0.5, 0.5]


def bandit(rng, batches, size, lost=0.0):
    """Units whose probabilities follow earlier results; some rows of the second variant get lost."""
    share, counts, shares = 0.5, [], []
    for _ in range(batches):
        second = int(rng.binomial(size, share))
        counts.append([size - second, int(rng.binomial(second, 1 - lost))])
        shares.append([1 - share, share])
        share = float(np.clip(share + rng.normal(0, 0.1), 0.05, 0.95))
    return np.array(counts), np.array(shares)


def test_the_sequential_p_values_are_those_of_the_papers_package():
    counts = np.cumsum([[260, 240], [255, 245], [270, 230], [250, 250], [280, 220]], axis=0)
    got = sequential_ratio(counts, HALVES)
    assert got.pvalues == pytest.approx([1, 1, 0.866599, 0.866599, 0.56865], abs=1e-6)
    bold = sequential_ratio(counts, HALVES, concentration=1_000)
    assert bold.pvalues == pytest.approx([1, 1, 0.593199, 0.593199, 0.167132], abs=1e-6)


@given(st.lists(st.tuples(st.integers(0, 200), st.integers(0, 200)), min_size=1, max_size=20))
def test_the_last_counts_alone_make_the_evidence_and_p_values_never_rise(batches):
    counts = np.cumsum(batches, axis=0)
    got = sequential_ratio(counts, [0.3, 0.7])
    alone = sequential_ratio(counts[-1:], [0.3, 0.7])
    assert got.log_evidence[-1] == pytest.approx(alone.log_evidence[-1], abs=1e-6)
    assert (np.diff(got.pvalues) <= 0).all()


@given(st.floats(0.05, 0.95), st.integers(1, 2_000), st.integers(1, 2_000))
def test_a_bet_is_fair(share, first, second):
    """The expected capital after one unit is the capital before: bets sum to one under the logged probabilities."""
    p = np.array([1 - share, share])
    before = logged_evidence([[first, second]], [p]).log_evidence[-1]
    after = [logged_evidence([[first, second], unit], [p, p]).log_evidence[-1] for unit in ([1, 0], [0, 1])]
    assert p @ np.exp(np.array(after) - before) == pytest.approx(1)


def test_a_variant_without_a_share_counts_for_nothing_unless_it_has_units():
    with_zero = sequential_ratio([[500, 0, 620]], [0.5, 0, 0.5])
    assert with_zero.pvalue == pytest.approx(sequential_ratio([[500, 620]], HALVES).pvalue)
    assert sequential_ratio([[500, 1, 500]], [0.5, 0, 0.5]).pvalue == 0
    assert logged_evidence([[10, 0], [9, 1], [5, 5]], [[1, 0], [1, 0], HALVES]).alarm() == 1


@pytest.mark.parametrize(("share", "n"), [(0.52, 13_069), (0.51, 52_264), (0.505, 209_144)])
def test_the_fixed_check_has_the_power_it_promises(share, n):
    """Alpha .001, 90 % power; 4,000 experiments, so 1.4 points are three standard errors."""
    counts = np.random.default_rng(0).binomial(n, share, 4_000)
    z_squared = (2 * counts - n) ** 2 / n
    assert sample_ratio([n - int(counts[0]), int(counts[0])], HALVES).statistic == pytest.approx(z_squared[0])
    assert np.mean(z_squared > 10.8276) == pytest.approx(0.9, abs=0.015)


def test_the_sequential_check_finds_a_small_mismatch_before_170000_units():
    rng = np.random.default_rng(0)
    until = 500 * np.arange(1, 1_201)
    found = []
    for _ in range(200):
        second = rng.binomial(500, 0.505, until.size).cumsum()
        alarm = sequential_ratio(np.stack([until - second, second], axis=1), HALVES).alarm()
        found.append(np.inf if alarm is None else until[alarm])
    assert np.median(found) <= 170_000


def test_looking_after_every_batch_raises_no_false_alarm():
    rng = np.random.default_rng(0)
    until = 200 * np.arange(1, 101)
    second = rng.binomial(200, 0.5, (400, until.size)).cumsum(axis=1)
    alarms = [sequential_ratio(np.stack([until - row, row], axis=1), HALVES).pvalue < 0.05 for row in second]
    assert np.mean(alarms) < 0.05


def test_a_bandit_raises_no_alarm_and_lost_rows_are_found():
    rng = np.random.default_rng(0)
    healthy = [bandit(rng, 60, 1_000) for _ in range(400)]
    lossy = [bandit(rng, 60, 1_000, lost=0.05) for _ in range(200)]
    assert np.mean([logged_ratio(*run).pvalue < 0.001 for run in healthy]) <= 0.005
    assert np.mean([logged_evidence(*run).alarm() is not None for run in healthy]) <= 0.005
    assert np.mean([logged_ratio(*run).pvalue < 0.001 for run in lossy]) >= 0.85
    assert np.mean([logged_evidence(*run).alarm() is not None for run in lossy]) >= 0.75
    naive = [sample_ratio(counts.sum(axis=0), HALVES).pvalue < 0.001 for counts, _ in healthy]
    assert np.mean(naive) > 0.9


@pytest.mark.parametrize(
    ("counts", "shares", "words"),
    [
        ([[1, 2]], [0.5, 0.6], "sum to 1"),
        ([[1, 2], [0, 3]], HALVES, "fall"),
        ([[1, 2, 3]], HALVES, "shape"),
        ([[1, float("nan")]], HALVES, "not negative"),
        (np.zeros((0, 2)), HALVES, "at least 1 look"),
    ],
    ids=["shares", "falling counts", "shape", "nan", "no look"],
)
def test_what_cannot_be_counted_is_refused(counts, shares, words):
    with pytest.raises(StatisticsError, match=words):
        sequential_ratio(counts, shares)
