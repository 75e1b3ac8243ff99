"""Replay and its figures: every prefix is asked, ties count against, errors are clustered by session."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thinslice.errors import BadInput, TooFewUnits, UnknownName
from thinslice.evaluation import (
    Replay,
    clustered_mean,
    difference,
    differences,
    evaluate,
    hits,
    rank_against_ties,
    reciprocal_ranks,
    replay,
    simplest,
)
from thinslice.models import Popular, from_columns
from thinslice.records import ScoredItems


class Parrot:
    """Says the last item again, then all others with one score."""

    item_ids = ("a", "b", "c", "d")

    def __init__(self):
        self.asked = []

    def recommend(self, session, k, *, allowed=None):
        self.asked.append(list(session))
        rest = [name for name in self.item_ids if name != session[-1]]
        return ScoredItems([session[-1], *rest][:k], [2.0, 1.0, 1.0, 1.0][:k], "parrot")


def test_every_prefix_is_asked_once_and_repeats_count():
    parrot = Parrot()
    found = replay(parrot, [["a", "a", "b"], ["c", "d"]], 3)
    assert parrot.asked == [["a"], ["a", "a"], ["c"]]
    assert found.rank.tolist() == [1, 0, 0]
    assert found.session.tolist() == [0, 0, 1]
    assert found.shown == 3
    assert replay(Parrot(), [["a", "b"]], 4).rank.tolist() == [4]


@given(st.lists(st.integers(0, 4), min_size=1, max_size=12), st.integers(1, 12), st.data())
def test_a_rank_from_k_plus_one_items_equals_the_rank_among_all(scores, k, data):
    scores = sorted(map(float, scores), reverse=True)
    names = [f"i{number}" for number in range(len(scores))]
    wanted = data.draw(st.sampled_from(names))
    against = sum(score >= scores[names.index(wanted)] for score in scores)
    expected = against if against <= k else 0
    assert rank_against_ties(names[: k + 1], scores[: k + 1], wanted, k) == expected


def test_a_reciprocal_rank_is_zero_outside_of_the_list():
    assert hits(np.array([1, 0, 4])).tolist() == [1, 0, 1]
    assert reciprocal_ranks(np.array([1, 0, 4])).tolist() == [1, 0, 0.25]


def test_clusters_of_one_give_the_ordinary_standard_error():
    values = np.array([1.0, 0, 0, 1, 1])
    mean, error = clustered_mean(values, np.arange(5, dtype=np.int32))
    assert mean == pytest.approx(0.6)
    assert error == pytest.approx(values.std(ddof=1) / math.sqrt(5))


def test_doubling_every_click_within_its_session_adds_no_certainty():
    values = np.array([1.0, 0, 0, 1, 1])
    once = clustered_mean(values, np.arange(5, dtype=np.int32))
    twice = clustered_mean(np.repeat(values, 2), np.repeat(np.arange(5, dtype=np.int32), 2))
    assert twice == pytest.approx(once)


def test_the_clustered_interval_covers_the_truth_where_sessions_differ():
    draw = np.random.default_rng(0)
    covered = 0
    for _ in range(400):
        size = draw.integers(1, 6, 150)
        chance = np.repeat(draw.beta(1, 1, 150), size)
        values = (draw.random(len(chance)) < chance).astype(float)
        mean, error = clustered_mean(values, np.repeat(np.arange(150, dtype=np.int32), size))
        covered += abs(mean - 0.5) <= 1.96 * error
    assert 0.92 <= covered / 400 <= 0.98


def test_one_session_has_no_standard_error_and_none_no_mean():
    assert clustered_mean(np.array([1.0, 0.0]), np.array([3, 3], dtype=np.int32)) == (0.5, None)
    with pytest.raises(TooFewUnits, match="needs at least 1 queries, got 0"):
        clustered_mean(np.array([]), np.array([], dtype=np.int32))


def answers(rank):
    zero, one = np.zeros(len(rank)), np.ones(len(rank), dtype=np.int32)
    lists = np.zeros((len(rank), 1), dtype=np.int32)
    return Replay(np.array(rank, dtype=np.int32), np.arange(len(rank), dtype=np.int32), zero, zero, 0, one, one, lists)


def test_the_simplest_is_the_first_that_is_shown_to_be_not_worse_by_more_than_the_margin():
    bad, good, better = [0] * 1000, [1] * 605 + [0] * 395, [1] * 606 + [0] * 394
    three = {"popular": answers(bad), "plain": answers(good), "deep": answers(better)}
    found = simplest(three, k=20)
    assert (found.name, found.best) == ("plain", "deep")
    assert found.sentence.startswith("plain is enough: it is not worse than deep by more than 2%")
    strict = simplest(three, margin=0.001)
    assert strict.name == "deep"
    assert "too small to show" in strict.sentence
    assert simplest({"popular": answers(bad), "deep": answers(better)}).sentence.endswith("shown to be worse.")


def test_popular_is_enough_is_an_answer():
    good, better = [1] * 605 + [0] * 395, [1] * 606 + [0] * 394
    found = simplest({"popular": answers(good), "deep": answers(better)})
    assert found.name == "popular"
    assert found.sentence.startswith("Popular is enough")
    assert simplest({"popular": answers(better), "deep": answers(good)}).name == "popular"
    assert simplest({"popular": answers(good)}).name == "popular"


def test_a_hit_rate_alone_is_not_enough():
    early, late = [1] * 600 + [0] * 400, [20] * 600 + [0] * 400
    assert simplest({"late": answers(late), "early": answers(early)}).name == "early"


def test_where_one_finds_more_and_another_ranks_it_higher_the_one_that_loses_least_is_chosen():
    finds_less = answers([1] * 375 + [0] * 625)
    finds_more = answers([1] * 320 + [2] * 95 + [0] * 585)
    found = simplest({"plain": finds_less, "deep": finds_more}, k=20)
    assert (found.name, found.best) == ("deep", "plain")
    assert found.sentence.startswith(
        "deep loses least: none is shown to be within 2% of the best in both HR@20 and MRR@20"
    )
    assert simplest({"plain": finds_more, "deep": finds_less}).name == "plain"


def test_one_session_cannot_show_that_a_simpler_model_is_enough():
    one = answers([1, 1, 1, 0])._replace(session=np.zeros(4, dtype=np.int32))
    other = answers([1, 1, 1, 1])._replace(session=np.zeros(4, dtype=np.int32))
    assert simplest({"plain": one, "deep": other}).name == "deep"
    assert {row["reading"] for row in differences({"plain": one, "deep": other})} == {"cannot_say"}


def test_paired_differences_cover_the_truth_and_read_alike_from_both_sides():
    draw = np.random.default_rng(0)
    covered = 0
    for _ in range(400):
        chance = np.repeat(draw.beta(2, 2, 200), 3)
        worse, better = ((draw.random(600) < chance * share).astype(np.int32) for share in (0.8, 1.0))
        one, other = (answers(rank)._replace(session=np.repeat(np.arange(200, dtype=np.int32), 3))
                      for rank in (worse, better))  # fmt: skip
        low, high = difference(other, one, "hr").interval()
        covered += low <= 0.1 <= high
        back = difference(one, other, "hr").interval()
        assert [-back[1], -back[0]] == pytest.approx([low, high])
    assert 0.92 <= covered / 400 <= 0.98


SOME = ("popular", "newest", "session-knn")


def checkered(sessions=300):
    draw = np.random.default_rng(0)
    rows = [(s, f"{s % 2}-{draw.integers(12)}", 1.7e9 + 600 * s + c) for s in range(sessions) for c in range(4)]
    return {
        "session_id": np.array([row[0] for row in rows]),
        "item_id": np.array([row[1] for row in rows]),
        "ts": np.array([row[2] for row in rows]),
    }


def test_evaluate_names_every_figure_of_the_contract_and_finds_the_better_model():
    told = {}
    result = evaluate(
        checkered(), SOME, 12, progress=lambda name, more, _: told.update({name: told.get(name, 0) + more})
    )
    assert [row["name"] for row in result["models"]] == list(SOME)
    for row in result["models"]:
        assert {"name", "n", "hr", "hr_se", "mrr", "mrr_se", "ndcg", "ndcg_se", "coverage", "novelty",
                "popularity_lift", "segments", "fit_cpu_s", "query_us", "queries_per_s",
                "bytes_per_event", "peak_mb"} <= row.keys()  # fmt: skip
        assert set(row["query_us"]) == {"p50", "p90", "p99"}
        assert row["n"] == result["protocol"]["queries"] == told[row["name"]]
        assert 0 < row["coverage"] <= 1
    popular, _, knn = result["models"]
    assert knn["hr"] > popular["hr"] + 3 * popular["hr_se"]
    assert result["simplest"] == "session-knn"


def test_evaluate_passes_settings_on_and_says_them():
    settings = {"session-knn": {"sample": 50, "neighbors": 5}}
    result = evaluate(checkered(), ["session-knn"], settings=settings)
    assert result["models"][0]["settings"] == settings["session-knn"]


def test_evaluate_refuses_what_it_does_not_know():
    with pytest.raises(UnknownName, match=r"no model 'deep' \(there is: popular, newest, "):
        evaluate(checkered(), ["deep"])
    with pytest.raises(BadInput, match="k must be between 1 and 1000, got 0"):
        evaluate(checkered(), k=0)
    with pytest.raises(BadInput, match="at least one model"):
        evaluate(checkered(), [])
    with pytest.raises(BadInput, match="the margin must be a share"):
        evaluate(checkered(), margin=1)
    with pytest.raises(BadInput, match="session-knn does not take these settings"):
        evaluate(checkered(), ["session-knn"], settings={"session-knn": {"deep": 1}})


def test_a_model_by_hand_gets_the_figures_that_were_worked_out():
    clicks = from_columns(["s", "s", "t", "t", "u"], ["a", "b", "a", "c", "a"], [1, 2, 3, 4, 5], order_only=True)
    model = Popular.fit(clicks, half_life_share=1e30)
    found = replay(model, [["b", "a", "c"]], 2)
    assert found.rank.tolist() == [1, 0]  # a is first; b and c share second place, which ties make third
