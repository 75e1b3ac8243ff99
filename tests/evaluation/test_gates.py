"""The gates before promotion: each known case, what small logs pass, and how often an equal model is held up."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thinslice.evaluation import Replay
from thinslice.evaluation.gates import MIN_QUERIES, failures, gates, not_worse


def replayed(rank, *, known=None, shown=100, cpu_us=100.0):
    """The answers of a model: place of each clicked item, four questions a session."""
    rank = np.asarray(rank, dtype=np.int32)
    count = len(rank)
    known = np.ones(count, np.int32) if known is None else np.asarray(known, np.int32)
    spent = np.full(count, cpu_us)
    nothing = np.zeros(count, np.int32)
    session = np.arange(count, dtype=np.int32) // 4
    return Replay(rank, session, spent, spent, shown, known, nothing, np.zeros((count, 20), np.int32))


def ranks(rng, count, share):
    """A model that finds a share of what is looked for, at places 1 to 20."""
    return np.where(rng.random(count) < share, rng.integers(1, 21, count), 0)


def judged(new, popular=None, live=None, margin=0.02, head=None):
    return failures(gates(new, popular=popular, live=live, margin=margin, head=head))


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_a_good_model_passes(rng):
    good = replayed(ranks(rng, 4000, 0.5))
    assert judged(good, popular=replayed(ranks(rng, 4000, 0.1)), live=good) == []


def test_who_ranks_below_popularity_fails(rng):
    (why,) = judged(replayed(ranks(rng, 4000, 0.1)), popular=replayed(ranks(rng, 4000, 0.3)))
    assert why.startswith("better than popular: HR 0.1")


def test_who_loses_more_than_the_margin_fails_and_who_loses_less_does_not(rng):
    live = ranks(rng, 40_000, 0.5)
    spoiled = np.where(rng.random(40_000) < 0.05, 0, live)
    scratched = np.where(rng.random(40_000) < 0.003, 0, live)
    assert "not worse than live" in judged(replayed(spoiled), live=replayed(live))[0]
    assert judged(replayed(scratched), live=replayed(live)) == []


def test_a_collapsed_segment_fails_though_the_whole_holds(rng):
    live = ranks(rng, 8000, 0.4)
    known = np.where(np.arange(8000) % 20 == 0, 12, 1)
    new = np.where(known == 12, 0, np.where((live == 0) & (rng.random(8000) < 0.1), 5, live))
    why = judged(replayed(new, known=known), live=replayed(live, known=known))
    assert why == [why[0]]
    assert "no segment collapsed: 10 or more clicks known HR" in why[0]
    head = np.arange(8000) % 20 != 0
    assert "other items" in judged(replayed(new), live=replayed(live), head=head)[0]


def test_who_shows_the_same_few_things_to_everybody_fails(rng):
    same = ranks(rng, 4000, 0.5)
    assert "coverage: 20 different items" in judged(replayed(same, shown=20), live=replayed(same, shown=400))[0]


def test_who_is_shown_to_hit_more_may_show_less_but_not_the_same_few_things(rng):
    live = ranks(rng, 4000, 0.1)
    better, hardly = np.where(rng.random(4000) < 0.1, 5, live), live.copy()
    hardly[0] = 1
    assert judged(replayed(better, shown=170), live=replayed(live, shown=400)) == []
    assert "coverage" in judged(replayed(better, shown=70), live=replayed(live, shown=400))[0]
    assert "coverage" in judged(replayed(hardly, shown=170), live=replayed(live, shown=400))[0]


def test_who_is_too_slow_for_a_page_fails_even_on_a_small_log():
    assert "latency" in judged(replayed([1] * 8, cpu_us=50_000.0))[0]


@given(st.lists(st.integers(0, 20), min_size=1, max_size=MIN_QUERIES - 1))
def test_a_small_log_holds_nobody_up(places):
    small = replayed(places)
    assert judged(replayed(np.zeros(len(places))), popular=small, live=small) == []


@given(st.lists(st.integers(0, 20), min_size=MIN_QUERIES, max_size=400))
def test_a_model_passes_against_itself(places):
    same = replayed(places)
    assert judged(same, popular=same, live=same) == []


@pytest.mark.parametrize(("loss", "low", "high"), [(0.0, 0.9, 1.0), (0.04, 0.0, 0.05)])
def test_equal_models_pass_and_worse_ones_do_not_over_many_logs(loss, low, high):
    """A true loss of 4 % is let through in under one of twenty logs of 40,000 questions, no loss in nine of ten."""
    draw = np.random.default_rng(0)
    passed = []
    for _ in range(60):
        live = ranks(draw, 40_000, 0.5)
        moved = draw.random(40_000) < 0.02
        new = np.where(moved, ranks(draw, 40_000, 0.5), live)
        new = np.where(draw.random(40_000) < loss, 0, new)
        passed.append(not_worse(replayed(new), replayed(live), 0.02).passed)
    assert low <= np.mean(passed) <= high
