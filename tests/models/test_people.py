"""People who are known: what they did before joins the candidates and the ranking; who is unknown gets what all get."""

from datetime import UTC, datetime

import msgspec
import numpy as np
import pytest

from thinslice.models import SessionRanker, from_columns
from thinslice.models.candidates import Candidates
from thinslice.models.lambdamart import Trees
from thinslice.models.people import FEATURES, HISTORY, NEVER, OWN, People
from thinslice.models.people_ranking import KNOWN_SHARE, LEAST, helps, share_of_known
from thinslice.models.trees_and_network import TreesAndNetwork
from thinslice.models.tuning import head, tune
from thinslice.models.user_traits import NOWHERE_KM, Traits
from thinslice.records import ACTIONS, Item, User
from thinslice.testing import small_world

NOW = datetime(2026, 11, 1, tzinfo=UTC)
DAY_S = 86_400.0


def visits_of(*rows):
    """(person, visit, items): one session a row, a day apart each; one item written with `!` was bought."""
    flat = [
        (f"{person}-{visit}", item.rstrip("!"), 1.7e9 + DAY_S * visit + place, person, item.endswith("!"))
        for person, visit, items in rows for place, item in enumerate(items)
    ]  # fmt: skip
    session, item, time, user, bought = zip(*flat, strict=True)
    actions = np.where(bought, ACTIONS.index("purchase"), 0).astype(np.uint8)
    return from_columns(session, item, time, users=user, actions=actions)


def regulars(people=100, weeks=24, seed=0):
    """Each week everybody looks at something that all look at, then takes one of four things that are only theirs."""
    draw = np.random.default_rng(seed)
    return visits_of(
        *((f"p{person}", 7 * week + person % 7, [f"any-{draw.integers(40)}", f"own-{person}-{draw.choice(4, p=ODDS)}"])
          for week in range(weeks) for person in range(people))
    )  # fmt: skip


ODDS = (0.55, 0.25, 0.15, 0.05)


@pytest.fixture(scope="module")
def world():
    return regulars()


@pytest.fixture(scope="module")
def ranker(world):
    return SessionRanker.fit(world, rng=0, tune_cpu_s_per_million=10, least_questions=200)


def test_what_is_remembered_of_an_item_counts_visits_not_clicks_and_tells_how_long_ago():
    log = visits_of(("ann", 1, ["a", "a", "b!"]), ("ann", 3, ["a", "c"]), ("ann", 9, ["d"]), ("ben", 2, ["b"]),
                    ("", 4, ["a", "d"]))  # fmt: skip
    people = People.build(log)
    ann = people.memory("ann")
    assert [log.item_ids[code] for code in ann.item] == ["d", "c", "a", "b"]
    assert ann.visits.tolist() == [1, 1, 2, 1]
    assert ann.since.tolist() == [1, 2, 2, 3]
    assert ann.days.round(2).tolist() == [0, 6, 6, 8]
    assert ann.bought.tolist() == [0, 0, 0, 1]
    assert ann.person.tolist() == [3, pytest.approx(1 / 4), 4, 1]
    assert people.memory("nobody") is None
    assert people.memory(None) is None


def test_what_the_same_people_took_on_other_days_is_proposed_after_what_they_took_themselves():
    log = visits_of(*((f"p{n}", day, [item]) for n in range(8) for day, item in enumerate(("drill", "screws"))),
                    *((f"q{n}", day, [item]) for n in range(8) for day, item in enumerate(("novel", "poems"))),
                    ("ann", 5, ["drill"]))  # fmt: skip
    people = People.build(log)
    scratch = np.zeros(4), np.empty(4, np.int32)
    proposed = people.proposals(people.memory("ann"), scratch)
    assert [log.item_ids[code] for code in proposed] == ["drill", "screws"]
    assert not scratch[0].any()
    rows = people.describe(people.memory("ann"), np.arange(4, dtype=np.int32), np.zeros(4, np.float32))
    seen = dict(zip(log.item_ids, rows[:, FEATURES.index("own_since")].tolist(), strict=True))
    assert seen == {"drill": 1.0, "screws": NEVER, "novel": NEVER, "poems": NEVER}
    alike = dict(zip(log.item_ids, rows[:, FEATURES.index("alike_of_best")].tolist(), strict=True))
    assert alike["screws"] == 1
    assert alike["novel"] == alike["poems"] == 0


def test_a_visit_that_goes_on_is_not_its_own_history():
    before = [("ann", 1, ["a", "b"]), ("ann", 3, ["b", "c"])]
    learned = visits_of(*before, ("ann", 5, ["b", "d"]))  # models learned of today's first clicks, too
    today = np.array([learned.item_ids.index(name) for name in ("b", "d", "a")], np.int32)
    open_now = People.build(learned).memory("ann").without(today)
    assert dict(zip([learned.item_ids[code] for code in open_now.item], open_now.visits.tolist(), strict=True)) == {
        "a": 1, "b": 2, "c": 1
    }  # fmt: skip
    then = People.build(visits_of(*before)).memory("ann")
    assert open_now.person.tolist()[0] == then.person.tolist()[0] == 2
    assert sorted(open_now.since.tolist()) == sorted(then.since.tolist()) == [1, 1, 2]
    other = People.build(learned).memory("ann")
    assert other.without(today[:1]) is other  # of the last visit something is missing: it was another one


def test_a_history_of_ten_thousand_events_costs_and_counts_no_more_than_a_bounded_one():
    many = [("heavy", day, [f"i{(day * 50 + n) % 3000}" for n in range(50)]) for day in range(200)]
    people = People.build(visits_of(*many, ("light", 1, ["i1", "i2"])))
    heavy = people.memory("heavy")
    assert len(heavy.item) == HISTORY
    assert len(heavy.leads()[0]) <= 50
    scratch = np.zeros(3000), np.empty(3000, np.int32)
    assert len(people.proposals(heavy, scratch)) <= 60
    assert len(people.proposals(heavy, scratch)[:OWN]) == OWN


def test_one_household_of_many_visitors_moves_what_goes_together_no_more_than_one_person():
    crowd = [("house", day, ["tv", f"toy-{day % 5}"]) for day in range(400)]
    plain = [(f"p{n}", day, [item]) for n in range(5) for day, item in enumerate(("tv", "cable"))]
    log = visits_of(*crowd, *plain, ("ann", 500, ["tv"]))
    people = People.build(log)
    scratch = np.zeros(len(log.item_ids)), np.empty(len(log.item_ids), np.int32)
    proposed = [log.item_ids[code] for code in people.proposals(people.memory("ann"), scratch)]
    assert proposed[:2] == ["tv", "cable"]  # five people say so, 400 visits of one household do not outvote them


def test_the_history_helps_where_people_come_back_and_says_by_how_much(ranker):
    told = ranker.evidence["known_people"]["exam"]
    assert told["session and history"]["mrr"] > told["session"]["mrr"] + 0.02
    assert told["session and history"]["hr"] >= told["session"]["hr"]


def test_somebody_known_is_shown_own_things_at_once_and_a_stranger_is_not(ranker):
    assert len(ranker.recommend([], 5, user_id="p7").item_ids) == 5
    assert ranker.recommend([], 5).item_ids == []
    mine = ranker.recommend(["any-3"], 6, user_id="p7")
    assert mine.item_ids[0].startswith("own-7-")
    assert sum(name.startswith("own-7-") for name in mine.item_ids) >= 3
    assert not any(name.startswith("own-7-") for name in ranker.recommend(["any-3"], 6).item_ids)
    assert mine.scores == sorted(mine.scores, reverse=True)


def test_who_is_unknown_gets_to_the_last_digit_what_the_session_alone_gives(world, ranker):
    rest = 10 * (1 - KNOWN_SHARE)  # both together cost what a training may cost
    alone = SessionRanker.fit(
        world._replace(user=None, user_ids=()), rng=0, tune_cpu_s_per_million=rest, least_questions=200
    )
    for session in (["any-3"], ["own-7-2", "any-5"], [], ["never seen"]):
        for stranger in (None, "nobody"):
            assert ranker.recommend(session, 9, user_id=stranger) == alone.recommend(session, 9)
            names = alone.recommend(session, 9).item_ids
            assert ranker.explain_all(session, names, user_id=stranger) == alone.explain_all(session, names)
    assert not any(name.startswith("known_") for name in alone.arrays())
    assert {name: array for name, array in ranker.arrays().items() if not name.startswith("known_")}.keys() == (
        alone.arrays().keys()
    )


def test_a_score_is_the_sum_of_its_terms_for_somebody_known(ranker):
    again = SessionRanker.from_arrays(ranker.arrays())
    for session in ([], ["any-3"], ["own-9-2", "any-1", "never seen"]):
        found = again.recommend(session, 12, user_id="p9")
        assert found == ranker.recommend(session, 12, user_id="p9")
        assert found.item_ids[:4] == again.recommend(session, 4, user_id="p9").item_ids
        for reason, score in zip(again.explain_all(session, found.item_ids, user_id="p9"), found.scores, strict=True):
            assert reason.score == pytest.approx(score, rel=1e-9)
            assert sum(reason.terms.values()) == pytest.approx(score, rel=1e-9, abs=1e-9)
        assert any("history" in again.explain(session, name, user_id="p9").terms for name in found.item_ids)


def test_a_reason_for_somebody_known_never_names_what_spoke_against_the_item(ranker):
    lowered = 0
    for person in ("p1", "p9", "p30"):
        for session in ([], ["any-3"], ["own-9-2", "any-1", "never seen"]):
            shown = ranker.recommend(session, 40, user_id=person).item_ids
            causes = ranker.causes(session, shown, user_id=person)
            assert any(causes)
            for cause, reason in zip(causes, ranker.explain_all(session, shown, user_id=person), strict=True):
                items = {name: given for name, given in reason.terms.items() if name in ranker.item_ids.code}
                best = max(items.values(), default=0.0)
                assert items[cause] == pytest.approx(best) if cause else best <= 2 * LEAST
                lowered += min(items.values(), default=0.0) < 0
            again = SessionRanker.from_arrays(ranker.arrays())
            assert [again.causes(session, [each], user_id=person)[0] for each in shown] == causes
    assert lowered > 10


def test_a_mask_only_leaves_items_out_for_somebody_known(ranker):
    mask = np.arange(len(ranker.item_ids)) % 3 == 0
    whole = ranker.recommend(["any-3"], len(mask), user_id="p5")
    kept = [pair for pair in zip(*whole[:2], strict=True) if mask[ranker.item_ids.code[pair[0]]]]
    part = ranker.recommend(["any-3"], len(mask), allowed=mask, user_id="p5")
    assert list(zip(*part[:2], strict=True)) == kept
    assert len(set(whole.item_ids)) == len(whole.item_ids)


def test_known_people_are_asked_about_over_the_candidates_that_tuning_made(world):
    learner = TreesAndNetwork(Trees({"trees": 10, "leaves": 8, "learning_rate": 0.1, "least_rows": 50, "seed": 0}))
    tuned = tune(world, candidates=50, holdout=0.1, least_questions=200, budget_s=5, seed=0, learner=learner)
    past = head(world, int(0.9 * (len(world.session_ptr) - 1)))
    anew = Candidates.build(past, tuned.settings).arrays()
    assert all(np.array_equal(array, anew[name]) for name, array in tuned.past.arrays().items())
    assert tuned.past.arrays().keys() == anew.keys()


def test_the_history_is_kept_only_where_it_foresees_more_than_luck_explains():
    draw = np.random.default_rng(0)
    rank = draw.integers(-1, 40, 500)
    assert not helps(rank, rank)
    assert not helps(rank, draw.permutation(rank))
    assert helps(rank, np.where(rank < 2, rank, rank - 2))
    before, after = np.full(40, 30), np.full(40, 30)
    before[:9], after[1:10] = 3, 3  # nine were found, and nine are: another one
    assert not helps(before, after)
    after[0] = 4  # and one that stood a little higher
    assert not helps(before, after)
    assert not helps(rank[:0], rank[:0])


def test_the_budget_is_shared_only_where_enough_known_people_come_back(world):
    assert share_of_known(world, (), 0.1, 200) == KNOWN_SHARE
    assert share_of_known(world, (), 0.1, 10**6) == 0
    assert share_of_known(world._replace(user=None, user_ids=()), (), 0.1, 1) == 0
    first = visits_of(*((f"p{n}", n, ["a", "b"]) for n in range(40)))  # nobody comes twice
    assert share_of_known(first, (), 0.1, 1) == 0
    told = [User(tenant="s", user_id=f"p{n}", updated_at=NOW, loyalty_tier="gold") for n in range(40)]
    assert share_of_known(first, told, 0.1, 8) == KNOWN_SHARE  # the shop says something of them
    silent = [msgspec.structs.replace(user, consent="none") for user in told]
    assert share_of_known(first, silent, 0.1, 8) == 0


def test_freshened_the_history_goes_on_with_the_same_trees(world, ranker):
    more = regulars(weeks=26)
    fresh = ranker.refit(more, rng=0)
    assert np.array_equal(fresh.arrays()["known_added_threshold"], ranker.arrays()["known_added_threshold"])
    assert fresh._known.people.memory("p3").person[0] == ranker._known.people.memory("p3").person[0] + 2
    same = SessionRanker.fit(world, rng=0, tune_cpu_s_per_million=10, least_questions=200).arrays()
    assert all(np.array_equal(array, same[name]) for name, array in ranker.arrays().items())


def test_where_few_are_known_nothing_is_learned_of_them():
    log = small_world()
    user = np.full(len(log.session_ptr) - 1, -1, np.int32)
    user[:4] = 0
    model = SessionRanker.fit(log._replace(user=user, user_ids=("ann",)), rng=0, least_questions=5)
    assert not any(name.startswith("known_") for name in model.arrays())
    assert "are needed" in model.evidence.get("known_people", {"why": "are needed"})["why"]
    assert model.recommend([], 3, user_id="ann").item_ids == []


def test_people_of_a_tier_like_what_others_of_it_took_and_items_are_as_far_as_they_are():
    users = [User(tenant="s", user_id=f"u{n}", updated_at=NOW, loyalty_tier="gold" if n % 2 else "basic",
                  latitude=48.137, longitude=11.575) for n in range(22)]  # fmt: skip
    items = [Item(tenant="s", item_id="ring", updated_at=NOW, latitude=52.52, longitude=13.405),
             Item(tenant="s", item_id="soap", updated_at=NOW)]  # fmt: skip
    log = visits_of(*((f"u{n}", 1, ["ring" if n % 2 else "soap"]) for n in range(20)))
    people = People.build(log, items, users)
    new = people.memory("u21")  # never came: only the tier is known
    assert len(new.item) == 0
    rows = people.describe(new, np.arange(2, dtype=np.int32), np.zeros(2, np.float32))
    ring, soap = (log.item_ids.index(name) for name in ("ring", "soap"))
    lift = rows[:, FEATURES.index("traits")]
    assert lift[ring] > 0.2 > 0 > lift[soap]
    far = rows[:, FEATURES.index("far_km")]
    assert far[ring] == pytest.approx(504, abs=2)  # Munich to Berlin
    assert far[soap] == NOWHERE_KM
    assert People.build(log).memory("u21") is None


def test_without_traits_and_places_nothing_is_said_of_them():
    empty = Traits.build([], {"ann": 0}, ["a"], [], np.array([0]), np.array([0]))
    assert empty.lifts(0, np.zeros(1, np.int32)) == 0
    assert empty.far_km(0, np.zeros(1, np.int32)) == NOWHERE_KM
    assert not empty.any_of().any()
