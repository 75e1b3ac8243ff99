"""Known users: their history joins the session, what they refused stays away, and without a user nothing changes."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from thinslice.errors import BadInput
from thinslice.models import SessionKNN, UserCF, from_columns, user_cf
from thinslice.models.user_history import histories, odds_of_return
from thinslice.models.user_traits import shared_traits, traits_of
from thinslice.records import ACTIONS, User
from thinslice.testing import small_world

NOW = datetime(2026, 11, 1, tzinfo=UTC)
DATA = Path(os.environ.get("THINSLICE_DATA", Path(__file__).parents[3] / "shared" / "data"))


def two_tastes(*more):
    """Ten gardeners and ten readers click among six things of their kind, day by day; more rows may follow."""
    draw = np.random.default_rng(0)
    rows = []
    for person in range(20):
        kind = "garden" if person % 2 else "book"
        for step, number in enumerate(draw.choice(6, 4, replace=False).tolist()):
            rows.append(
                (f"{person}-{step // 2}", f"{kind}-{number}", 1e9 + 86_400 * person + step, f"user-{person}", 0)
            )
    rows += more
    session, item, time, user, action = zip(*rows, strict=True)
    return from_columns(session, item, time, users=user, actions=np.array(action, dtype=np.uint8))


def unseen(model, interactions, user):
    """A mask that leaves out what a user clicked."""
    owner = np.repeat(interactions.user, np.diff(interactions.session_ptr))
    mine = interactions.item[owner == interactions.user_ids.index(user)]
    mask = np.ones(len(model.item_ids), dtype=bool)
    mask[mine] = False
    return mask


@pytest.mark.parametrize("person", [3, 4])
def test_a_known_user_without_a_session_gets_what_resembles_the_history(person):
    world = two_tastes()
    model = UserCF.fit(world, popularity=0.0)
    user = f"user-{person}"
    found = model.recommend([], 2, allowed=unseen(model, world, user), user_id=user)
    assert all(item_id.startswith("garden" if person % 2 else "book") for item_id in found.item_ids)
    assert len(found.item_ids) == 2
    assert found.source == "user-cf"


def test_without_a_user_the_model_is_its_anonymous_part():
    world = two_tastes()
    model, knn = UserCF.fit(world), SessionKNN.fit(world)
    for session in ([], ["book-1"], ["garden-2", "book-3", "never seen"]):
        for stranger in (None, "nobody knows"):
            mine = model.recommend(session, 9, user_id=stranger)
            assert mine[:2] == knn.recommend(session, 9)[:2]
            assert model.explain_all(session, mine.item_ids, user_id=stranger) == knn.explain_all(
                session, mine.item_ids
            )


def test_the_session_leads_and_the_history_joins_it():
    world = two_tastes()
    model = UserCF.fit(world, reg=1.0)
    found = model.recommend(["book-1"], 12, user_id="user-3").item_ids  # a gardener who looks at a book
    assert found[0].startswith("book")
    assert any(item_id.startswith("garden") for item_id in found)
    assert not any(item_id.startswith("garden") for item_id in model.recommend(["book-1"], 12).item_ids)


@pytest.mark.parametrize("action", ["hide", "report", "refund"])
def test_what_a_user_refused_last_is_not_shown_to_that_user_again(action):
    when = 1e9 + 86_400 * 30
    world = two_tastes(("r", "garden-0", when, "user-4", ACTIONS.index(action)))
    model = UserCF.fit(world)
    assert "garden-0" not in model.recommend(["garden-1"], 12, user_id="user-4").item_ids
    assert "garden-0" in model.recommend(["garden-1"], 12, user_id="user-5").item_ids
    back = two_tastes(
        ("r", "garden-0", when, "user-4", ACTIONS.index(action)), ("s", "garden-0", when + 9, "user-4", 0)
    )
    assert "garden-0" in UserCF.fit(back).recommend(["garden-1"], 12, user_id="user-4").item_ids


def test_what_came_before_a_refusal_counts_nothing_and_what_came_after_it_counts():
    did = [("tea", "view_item"), ("tea", "hide"), ("tea", "purchase"), ("mug", "purchase"), ("mug", "refund"),
           ("pot", "purchase"), ("pot", "view_item")]  # fmt: skip
    log = from_columns(
        ["s"] * len(did), [item for item, _ in did], [1e9 + n for n in range(len(did))], users=["ann"] * len(did),
        actions=np.array([ACTIONS.index(action) for _, action in did], np.uint8),
    )  # fmt: skip
    found = histories(log, [4], 180.0)
    taken = {log.item_ids[item]: (user, worth) for (user, item), worth in zip(found.pairs, found.worth, strict=True)}
    assert taken == {"pot": (4, pytest.approx(np.log1p(4), rel=1e-5)), "tea": (4, pytest.approx(np.log1p(3), rel=1e-5))}
    assert found.bought.tolist() == [True, True]
    assert [(user, log.item_ids[item]) for user, item in found.refused.tolist()] == [(4, "mug")]
    nobody = histories(log._replace(user=None, user_ids=()), [], 180.0)
    assert [len(array) for array in nobody] == [0, 0, 0, 0]


def test_a_purchase_counts_more_than_a_view_and_what_is_older_less():
    last = 1e9 + 86_400 * 400
    rows = [("a", "book-0", last, "new", 0), ("b", "garden-0", last, "new", ACTIONS.index("purchase")),
            ("c", "book-1", last, "other", 0), ("d", "garden-1", last - 86_400 * 200, "other", 0)]  # fmt: skip
    model = UserCF.fit(two_tastes(*rows), reg=1.0, popularity=0.0)
    first = {user: model.recommend([], 1, user_id=user).item_ids[0].split("-")[0] for user in ("new", "other")}
    assert first == {"new": "garden", "other": "book"}


def test_a_score_is_the_sum_of_its_terms_for_known_users_too():
    world = two_tastes()
    users = [User(tenant="s", user_id=f"user-{n}", updated_at=NOW, loyalty_tier="gold" if n % 2 else "basic")
             for n in range(30)]  # fmt: skip
    model = UserCF.from_arrays(UserCF.fit(world, users=users).arrays())
    for session in ([], ["book-1", "book-2"], ["never seen"]):
        for user in ("user-3", "user-25"):
            found = model.recommend(session, 12, user_id=user)
            assert found.item_ids
            assert found.item_ids[:3] == model.recommend(session, 3, user_id=user).item_ids
            assert found.scores == sorted(found.scores, reverse=True)
            for reason, score in zip(
                model.explain_all(session, found.item_ids, user_id=user), found.scores, strict=True
            ):
                assert reason.score == pytest.approx(score, rel=1e-9)
                assert sum(reason.terms.values()) == pytest.approx(score, rel=1e-9)
            causes = model.causes(session, found.item_ids, user_id=user)
            assert all(cause is None or cause in model.item_ids for cause in causes)


def test_a_mask_only_leaves_items_out_for_known_users():
    model = UserCF.fit(two_tastes())
    mask = np.arange(len(model.item_ids)) % 2 == 0
    whole = model.recommend(["book-1"], 12, user_id="user-3")
    kept = [pair for pair in zip(*whole[:2], strict=True) if mask[model.item_ids.code[pair[0]]]]
    part = model.recommend(["book-1"], 12, allowed=mask, user_id="user-3")
    assert list(zip(*part[:2], strict=True)) == kept
    with pytest.raises(BadInput, match="12 values, one an item, got 3"):
        model.recommend([], 2, allowed=mask[:3], user_id="user-3")


def test_a_new_user_of_whom_only_the_tier_is_known_gets_what_that_tier_likes():
    users = [User(tenant="s", user_id=f"user-{n}", updated_at=NOW, loyalty_tier="gold" if n % 2 else "basic")
             for n in range(22)]  # fmt: skip
    model = UserCF.fit(two_tastes(), users=users, reg=1.0, popularity=0.0)
    assert model.recommend([], 1, user_id="user-21").item_ids[0].startswith("garden")
    assert model.recommend([], 1, user_id="user-20").item_ids[0].startswith("book")
    assert not UserCF.fit(two_tastes()).knows("user-21")


def test_rare_traits_those_of_all_and_users_without_consent_tell_nothing():
    users = [User(tenant="s", user_id=str(n), updated_at=NOW, loyalty_tier="gold" if n < 6 else "odd", latitude=1.0,
                  longitude=2.0, attributes={"n": n}, consent="personalization" if n < 8 else "measurement")
             for n in range(40)]  # fmt: skip
    names, of_user = shared_traits(users)
    assert names == ["tier=gold"]
    assert of_user["0"] == [0]
    assert of_user["7"] == []
    assert "39" not in of_user
    assert traits_of(users[0]) == ["tier=gold", "place=1,2", "n=0"]


def test_a_large_catalog_gets_the_table_of_cosines(monkeypatch):
    monkeypatch.setattr(user_cf, "LARGEST_CATALOG", 5)
    world = two_tastes()
    model = UserCF.fit(world, popularity=0.0)
    assert (model.arrays()["weight"] > 0).all()
    found = model.recommend([], 2, allowed=unseen(model, world, "user-3"), user_id="user-3")
    assert all(item_id.startswith("garden") for item_id in found.item_ids)


def test_nothing_known_of_anybody_is_no_error():
    assert UserCF.fit(small_world()).recommend(["item-01"], 3, user_id="ann").item_ids
    nobody = UserCF.fit(from_columns([], [], []), users=[User(tenant="s", user_id="u", updated_at=NOW)])
    assert nobody.recommend([], 3, user_id="u").item_ids == []


@pytest.mark.parametrize("setting", [{"reg": 0}, {"history": -1}, {"half_life_days": 0}, {"top": 0.5}])
def test_a_setting_of_known_users_out_of_range_is_refused(setting):
    with pytest.raises(BadInput, match="must be positive"):
        UserCF.fit(small_world(), **setting)


def test_where_users_come_back_to_the_same_items_what_they_took_most_often_comes_first():
    rows = [(f"{week}-{person}", item_id, 1e9 + 604_800 * week + person, f"user-{person}", 0)
            for week in range(10) for person in range(6)
            for item_id in (f"own-{person}", f"week-{week}")]  # fmt: skip
    session, item, time, user, _ = zip(*rows, strict=True)
    groceries = from_columns(session, item, time, users=user)
    assert odds_of_return(groceries) == pytest.approx(54 / (54 + 20))
    model = UserCF.fit(groceries)
    assert model.recommend([], 1, user_id="user-3").item_ids == ["own-3"]
    assert model.explain([], "own-3", user_id="user-3").terms["own-3"] > 0


def test_the_odds_of_coming_back_count_later_sessions_of_known_users_alone():
    def odds(*rows):
        session, item, user = zip(*rows, strict=True)
        return odds_of_return(from_columns(session, item, range(len(rows)), users=user))

    assert odds(("s", "a", ""), ("t", "a", "")) == 0
    assert odds(("s", "a", "ann"), ("s", "a", "ann"), ("t", "b", "ann")) == 0
    assert odds(("s", "a", "ann"), ("t", "a", "bob"), ("u", "a", "ann"), ("u", "b", "ann")) == pytest.approx(1 / 21)


@pytest.mark.data
def test_on_movielens_user_cf_beats_tuned_als_of_implicit_on_both_time_splits():
    grid = {"embedding_size": (16, 128), "reg": (0.1, 10.0), "alpha": (1.0,)}  # around what the whole grid chooses
    code = (
        "import json, sys; from pathlib import Path; from benchmarks.known_users import compare; "
        f"print(json.dumps(compare(Path(sys.argv[1]), {grid!r})))"
    )
    root = Path(__file__).parents[2]
    result = subprocess.run(
        [sys.executable, "-c", code, str(DATA)], cwd=root, capture_output=True, text=True, timeout=300, check=True
    )
    for name, row in json.loads(result.stdout).items():
        assert row["difference"] > 0.02, (name, row)
        assert row["difference_ci"][0] > 0, (name, row)
        assert row["als"] > 0.15, (name, row)
