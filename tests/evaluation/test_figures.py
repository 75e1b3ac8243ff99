"""Each figure equals a slow oracle that follows its definition word by word."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thinslice.evaluation import (
    clustered_mean,
    clustered_ratio,
    discounted_gains,
    hits,
    list_means,
    reciprocal_ranks,
    replay,
    segments,
    surprise_bits,
)
from thinslice.records import ScoredItems

ITEMS = [f"i{number}" for number in range(8)]


class Drawn:
    """Ranks all items by scores that depend on the last item, with many ties."""

    item_ids = tuple(ITEMS)

    def __init__(self, table):
        self.table = table

    def order(self, session):
        scores = self.table[ITEMS.index(session[-1])]
        return sorted(range(8), key=lambda code: -scores[code]), scores

    def recommend(self, session, k, *, allowed=None):
        order, scores = self.order(session)
        return ScoredItems([ITEMS[code] for code in order[:k]], [float(scores[code]) for code in order[:k]], "drawn")


class InCodes(Drawn):
    def recommend_codes(self, session, k, allowed=None):
        order, scores = self.order([ITEMS[code] for code in session])
        return np.array(order[:k], dtype=np.int32), np.array([scores[code] for code in order[:k]])


tables = st.lists(st.lists(st.integers(0, 4), min_size=8, max_size=8), min_size=8, max_size=8)
logs = st.lists(st.lists(st.sampled_from(ITEMS), min_size=2, max_size=6), min_size=1, max_size=5)


@given(tables, logs, st.integers(1, 9))
def test_hit_rate_mrr_and_ndcg_equal_a_slow_oracle_and_codes_equal_texts(table, sessions, k):
    found = replay(Drawn(table), sessions, k)
    places = []
    for session in sessions:
        for step in range(1, len(session)):
            scores = table[ITEMS.index(session[step - 1])]
            places.append(sum(score >= scores[ITEMS.index(session[step])] for score in scores))
    assert hits(found.rank).mean() == pytest.approx(sum(place <= k for place in places) / len(places))
    assert reciprocal_ranks(found.rank).mean() == pytest.approx(
        sum(1 / place for place in places if place <= k) / len(places)
    )
    assert discounted_gains(found.rank).mean() == pytest.approx(
        sum(1 / math.log2(1 + place) for place in places if place <= k) / len(places)
    )
    in_codes = replay(InCodes(table), sessions, k)
    for name in ("rank", "session", "known", "target", "lists"):
        assert getattr(found, name).tolist() == getattr(in_codes, name).tolist()
    assert found.shown == in_codes.shown == len({code for row in found.lists.tolist() for code in row} - {-1})


orders = st.lists(st.permutations(range(8)), min_size=1, max_size=4)


@given(st.lists(st.integers(0, 50), min_size=8, max_size=8), orders, st.integers(0, 8))
def test_novelty_and_popularity_of_lists_equal_a_slow_oracle(clicks, orders, length):
    lists = np.array([[*order[:length], *[-1] * (8 - length)] for order in orders], dtype=np.int32)
    bits = list_means(lists, surprise_bits(np.array(clicks, dtype=float)))
    popular = list_means(lists, np.array(clicks, dtype=float))
    for row, order in enumerate(orders):
        if length == 0:
            assert math.isnan(bits[row])
            continue
        shares = [(clicks[code] + 1) / (sum(clicks) + 8) for code in order[:length]]
        assert bits[row] == pytest.approx(sum(-math.log2(share) for share in shares) / length)
        assert popular[row] == pytest.approx(sum(clicks[code] for code in order[:length]) / length)


def test_a_rare_item_is_more_novel_than_a_common_one_and_one_never_clicked_is_finite():
    bits = surprise_bits(np.array([100.0, 1.0, 0.0]))
    assert bits[0] < bits[1] < bits[2] < math.inf


def test_the_error_of_a_ratio_is_that_of_a_mean_where_the_denominator_is_one():
    draw = np.random.default_rng(0)
    above, cluster = draw.random(50), np.repeat(np.arange(10, dtype=np.int32), 5)
    assert clustered_ratio(above, np.ones(50), cluster) == pytest.approx(clustered_mean(above, cluster))


def test_the_interval_of_a_ratio_covers_the_truth():
    draw = np.random.default_rng(0)
    covered = 0
    for _ in range(400):
        size = np.repeat(draw.gamma(4, 1, 150), 3)
        below = size * draw.gamma(4, 1, 450)
        above = 1.5 * size * draw.gamma(4, 1, 450)
        ratio, error = clustered_ratio(above, below, np.repeat(np.arange(150, dtype=np.int32), 3))
        covered += abs(ratio - 1.5) <= 1.96 * error
    assert 0.92 <= covered / 400 <= 0.98


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(1, 14), st.booleans(), st.booleans()), min_size=1, max_size=40)
)
def test_segments_are_the_same_figures_of_fewer_queries(rows):
    rank, known = (np.array([row[at] for row in rows], dtype=np.int32) for at in (0, 1))
    head, young = (np.array([row[at] for row in rows]) for at in (2, 3))
    session = np.arange(len(rows), dtype=np.int32) // 2
    found = {row["segment"]: row for row in segments(rank, session, known, head, young)}
    lengths = ["1", "2", "3 to 4", "5 to 9", "10 or more"]
    assert sum(found[name]["n"] for name in lengths if name in found) == len(rows)
    places = [row[0] for row in rows if row[2]]
    heads = [row for name, row in found.items() if name.startswith("head")]
    assert len(heads) == (1 if places else 0)
    if places:
        assert heads[0]["n"] == len(places)
        assert heads[0]["hr"] == pytest.approx(sum(place > 0 for place in places) / len(places))
        assert heads[0]["mrr"] == pytest.approx(sum(1 / place for place in places if place) / len(places))
