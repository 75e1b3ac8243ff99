"""Frozen queries, declared goals: what is drawn, what is judged, and that the ceilings are ceilings."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thinslice.errors import BadInput
from thinslice.evaluation.benchmark import (
    Query,
    Row,
    changed_goals,
    check_goals,
    freeze,
    gain_of_list,
    judge,
    verdicts,
)
from thinslice.evaluation.figures import Estimate
from thinslice.models import MODELS


def world(sessions=300):
    draw = np.random.default_rng(0)
    rows = [(s, f"{s % 2}-{draw.integers(12)}", 1.7e9 + 600 * s + c) for s in range(sessions) for c in range(4)]
    rows[-1] = (rows[-1][0], "brand-new", rows[-1][2])
    return {
        "session_id": np.array([row[0] for row in rows]),
        "item_id": np.array([row[1] for row in rows]),
        "ts": np.array([row[2] for row in rows]),
    }


def test_queries_are_drawn_once_and_the_same_again_and_keep_what_nobody_could_know():
    frozen = freeze(world(), count=10_000)
    assert len(frozen.queries) == len({query.query_id for query in frozen.queries})
    assert {len(query.session) for query in frozen.queries} == {1, 2, 3}
    assert "brand-new" in {query.clicked for query in frozen.queries}
    assert "brand-new" not in frozen.train.item_ids
    some = freeze(world(), count=20)
    assert len(some.queries) == 20
    assert some.queries == freeze(world(), count=20).queries
    assert some.queries != freeze(world(), count=20, rng=1).queries


def test_what_visitors_bought_hid_or_reported_labels_the_queries_of_their_session():
    log = world()
    last = str(log["session_id"][-1])
    told = [(last, "1-1", "purchase"), (last, "1-2", "hide"), (last, "1-3", "report"), (last, "1-4", "share"),
            ("0", "1-5", "purchase")]  # fmt: skip
    frozen = freeze(log, told, count=10_000)
    labeled = [query for query in frozen.queries if query.good or query.bad]
    assert len(labeled) == 3
    for query in labeled:
        assert query.good == ["1-1"]
        assert set(query.bad) == {"1-2", "1-3"} - {query.clicked}


def test_a_better_model_stands_higher_and_no_model_above_its_ceiling():
    log = world()
    last = str(log["session_id"][-1])
    frozen = freeze(log, [(last, "1-1", "purchase"), (last, "0-2", "hide")], count=10_000)
    picks = {frozen.queries[0].query_id: [frozen.queries[0].clicked, "0-0"]}
    rows, skipped = judge(frozen, {name: MODELS[name] for name in ("popular", "session-knn")}, 12, picks=picks)
    assert skipped == []
    by = {row.name: row for row in rows}
    assert list(by) == ["popular", "session-knn", "hand-picked", "ceiling (candidates)",
                        "ceiling (known items)"]  # fmt: skip
    assert by["session-knn"].figures["hr"].value > by["popular"].figures["hr"].value
    for metric in ("hr", "mrr", "ndcg"):
        candidates, known = (by[f"ceiling ({what})"].figures[metric].value for what in ("candidates", "known items"))
        assert by["session-knn"].figures[metric].value <= candidates <= known < 1
    assert by["hand-picked"].n == 1
    assert by["hand-picked"].figures["mrr"].value == 1
    assert "coverage" in by["popular"].figures


@given(st.permutations("abcdef"), st.sets(st.sampled_from("abcdef"), max_size=3), st.sampled_from("abcdef"))
def test_the_gain_of_a_list_equals_its_definition_and_the_best_order_is_one(shown, good, clicked):
    query = Query(query_id="q", owner=0, session=["x"], clicked=clicked, good=sorted(good))
    worth = {clicked: 1, **dict.fromkeys(good, 3)}
    best = sorted(worth, key=lambda item: -worth[item])
    found = sum(worth.get(item, 0) / np.log2(2 + place) for place, item in enumerate(shown))
    ideal = sum(worth[item] / np.log2(2 + place) for place, item in enumerate(best))
    assert gain_of_list(query, shown) == pytest.approx(found / ideal)
    assert gain_of_list(query, best) == pytest.approx(1)
    assert gain_of_list(query, []) == 0


def test_a_goal_is_passed_or_failed_and_sure_only_outside_of_its_interval():
    row = Row("m", "model", 10, {"hr": Estimate(0.5, 0.1), "bad": Estimate(0.01, 0.001)})
    found = {each["metric"]: each for each in verdicts(row, {"hr": 0.45, "bad": 0.05, "picks": 0.1})}
    assert (found["hr"]["passed"], found["hr"]["sure"]) == (True, False)
    assert (found["bad"]["passed"], found["bad"]["sure"]) == (True, True)
    assert (found["picks"]["passed"], found["picks"]["value"]) == (None, None)
    assert not verdicts(row, {"hr": 0.8})[0]["passed"]
    assert not verdicts(row, {"bad": 0.001})[0]["passed"]


def test_a_changed_goal_is_said():
    assert changed_goals({"hr": 0.5}, {"hr": 0.5}) == []
    assert changed_goals({"hr": 0.5, "mrr": 0.2}, {"hr": 0.4, "ndcg": 0.3}) == [
        "the goal of hr was 0.5 and is now 0.4",
        "the goal of mrr, 0.2, was taken away",
        "a goal of ndcg, 0.3, was added",
    ]


@pytest.mark.parametrize(
    ("goals", "says"),
    [
        ({}, "needs a goal before its first run"),
        ({"clicks": 0.5}, "no metric 'clicks'"),
        ({"hr": 2}, "between 0 and 1, got 2"),
    ],
)
def test_goals_that_no_run_could_judge_are_refused(goals, says):
    with pytest.raises(BadInput, match=says):
        check_goals(goals)


def test_a_log_without_anything_to_ask_is_refused():
    log = {"session_id": np.arange(20), "item_id": np.arange(20) % 3, "ts": 1.7e9 + 3600.0 * np.arange(20)}
    with pytest.raises(BadInput, match="nothing to ask"):
        freeze(log)
    with pytest.raises(BadInput, match="at least 1 query, got 0"):
        freeze(world(), count=0)
