"""Models side by side: refitted replay, catalogs as of the cut, items never seen, and models that refuse a log."""

from datetime import UTC, datetime

import numpy as np
import pytest

from thinslice.errors import BadInput, NotReady
from thinslice.evaluation import compare, evaluate, measure, split_log
from thinslice.evaluation.measure import catalog_at
from thinslice.models import MODELS, Newest, Popular, SessionKNN, UserCF
from thinslice.records import Item

HOUR_S = 3600.0
START_S = 1.7e9


def drifting(sessions=400):
    """Each hour's sessions repeat one pair of items, and the pair of the day changes every day."""
    rows = []
    for s in range(sessions):
        day = s // 24
        rows += [(s, f"{day}-a", START_S + s * HOUR_S), (s, f"{day}-b", START_S + s * HOUR_S + 60)]
    return {
        "session_id": np.array([row[0] for row in rows]),
        "item_id": np.array([row[1] for row in rows]),
        "ts": np.array([row[2] for row in rows]),
    }


def item(name, published_s=None):
    when = None if published_s is None else datetime.fromtimestamp(published_s, UTC)
    return Item(tenant="shop", item_id=name, updated_at=datetime(2020, 1, 1, tzinfo=UTC), published_at=when)


def test_a_model_that_learns_anew_during_the_test_knows_what_came_up_meanwhile():
    log = drifting()
    once = evaluate(log, ["session-knn"], 2, test_days=3)
    daily = evaluate(log, ["session-knn"], 2, test_days=3, refit_hours=6)
    assert once["protocol"]["learned"] == "once, at the cut"
    assert daily["protocol"]["learned"].startswith("every 6 hours, ")
    assert daily["models"][0]["n"] == daily["protocol"]["queries"] > once["protocol"]["queries"]
    assert daily["models"][0]["hr"] == 1
    assert (
        sum(row["n"] for row in daily["models"][0]["segments"] if row["by"] == "clicks known")
        == daily["models"][0]["n"]
    )


def test_refitting_rarely_enough_is_the_same_as_learning_once():
    log = drifting(200)
    names = ("n", "hr", "mrr", "ndcg", "coverage", "novelty", "popularity_lift")
    once, late = (evaluate(log, ["popular"], 5, **how)["models"][0] for how in ({}, {"refit_hours": 1000}))
    assert [once[name] for name in names] == [late[name] for name in names]


def test_what_was_published_after_the_cut_is_kept_from_the_models():
    split = split_log(drifting(100))
    items = [item("0-a", START_S), item("later", split.ended + 1), item("undated")]
    assert [each.item_id for each in catalog_at(items, split)] == ["0-a", "undated"]
    assert catalog_at(None, split) is None
    ordered = split._replace(train=split.train._replace(order_only=True))
    assert len(catalog_at(items, ordered)) == 3


def test_clicks_on_items_never_seen_stand_beside_the_figures_and_only_a_catalog_can_foresee_them():
    log = drifting(100)
    new = {"session_id": [500, 500], "item_id": ["3-a", "brand-new"], "ts": [START_S + 100 * HOUR_S] * 2}
    log = {name: np.concatenate([column, new[name]]) for name, column in log.items()}
    items = [item("brand-new", START_S + 50 * HOUR_S)]
    result = evaluate(log, ["popular", "newest"], 20, items=items)
    assert result["protocol"]["queries_of_unseen_items"] == 1
    found = {row["name"]: row["segments"][-1] for row in result["models"]}
    assert found["popular"]["segment"].startswith("new")
    assert (found["popular"]["n"], found["popular"]["hr"]) == (1, 0)
    assert (found["newest"]["n"], found["newest"]["hr"]) == (1, 1)
    assert result["models"][0]["n"] == result["protocol"]["queries"]


class Shy(Popular):
    name = "shy"

    @classmethod
    def fit(cls, *arguments, **settings):
        raise NotReady("shy needs a larger log.", hint="Wait.")


def test_a_model_that_refuses_the_log_is_named_with_its_reason(monkeypatch):
    monkeypatch.setattr(compare, "MODELS", {"popular": Popular, "shy": Shy})
    result = evaluate(drifting(100))
    assert [row["name"] for row in result["models"]] == ["popular"]
    assert result["skipped"] == [{"name": "shy", "reason": "shy needs a larger log. Wait."}]
    with pytest.raises(NotReady, match="larger log"):
        evaluate(drifting(100), ["shy"])
    monkeypatch.setattr(compare, "MODELS", {"shy": Shy, "shyer": type("Shyer", (Shy,), {"name": "shyer"})})
    with pytest.raises(BadInput, match=r"no model can learn from this log. shy: shy needs .* shyer: shy needs"):
        evaluate(drifting(100))


def test_a_model_that_knows_users_is_told_who_asks():
    told = []

    class Polite(Popular):
        name = "polite"
        knows_users = True

        def recommend(self, session, k, *, allowed=None, user_id=None):
            told.append(user_id)
            return super().recommend(session, k, allowed=allowed)

    log = drifting(100) | {"user_id": np.array(["ann"] * 160 + [""] * 4 + ["ann"] * 36)}
    split = split_log(log)
    found = measure(Polite, [split], 5, None, 0, {})
    assert found.row["n"] == len(told) == split.query_count
    assert set(told) == {"ann", None}


def test_a_model_that_is_another_one_without_users_runs_only_when_somebody_is_known_or_it_is_named(monkeypatch):
    monkeypatch.setattr(compare, "MODELS", {"session-knn": SessionKNN, "user-cf": UserCF})
    result = evaluate(drifting(100))
    assert [row["name"] for row in result["models"]] == ["session-knn"]
    assert [row["name"] for row in result["skipped"]] == ["user-cf"]
    assert "without users it is session-knn" in result["skipped"][0]["reason"]
    assert [row["name"] for row in evaluate(drifting(100), ["user-cf"])["models"]] == ["user-cf"]
    known = drifting(100) | {"user_id": np.array(["ann"] * 200)}
    assert [row["name"] for row in evaluate(known)["models"]] == ["session-knn", "user-cf"]


def test_popularity_lift_is_zero_when_what_is_shown_is_what_is_clicked():
    log = {
        "session_id": np.repeat(np.arange(60), 2),
        "item_id": np.repeat("a", 120),
        "ts": START_S + 600.0 * np.arange(120),
    }
    row = evaluate(log, ["newest"], 1)["models"][0]
    assert (row["popularity_lift"], row["novelty"], row["coverage"]) == (0, 0, 1)
    assert isinstance(row["settings"], dict)
    assert Newest.name == row["name"]


def test_a_model_that_compares_everything_runs_on_a_large_log_only_when_it_is_named(monkeypatch):
    monkeypatch.setattr(compare, "MOST_COMPARISONS", 10)
    events = {
        "session_id": np.repeat(np.arange(20), 3), "item_id": np.tile(np.arange(3), 20), "ts": np.arange(60.0) + 1.7e9,
    }  # fmt: skip
    monkeypatch.setattr(compare, "MODELS", {name: MODELS[name] for name in ("popular", "implicit-als")})
    left_out = compare.evaluate(events)
    assert [row["name"] for row in left_out["models"]] == ["popular"]
    assert [row["name"] for row in left_out["skipped"]] == ["implicit-als"]
    assert "--models" in left_out["skipped"][0]["reason"]
    named = compare.evaluate(events, ["implicit-als"])
    assert [row["name"] for row in named["models"]] == ["implicit-als"]
