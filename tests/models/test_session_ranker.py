"""The session ranker: promises with and without trees, no question learned from sees its own future, explanations."""

import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thinslice.errors import BadInput
from thinslice.models import candidates, feature_kernel, from_columns
from thinslice.models.candidate_kernel import LONG
from thinslice.models.candidates import DEFAULTS, SOURCES, Candidates, questions_of
from thinslice.models.lambdamart import figures, learn, ranked, stump
from thinslice.models.people_ranking import LEAST
from thinslice.models.ranking_features import FEATURES, TERMS, item_facts
from thinslice.models.session_ranker import SessionRanker
from thinslice.models.tuning import Asked, head, shown_lower, tune
from thinslice.recommend.reasons import reasons
from thinslice.testing import check_model, small_world


def world(sessions=900, items=60, rng=0):
    """Sessions that walk along a ring of items, mostly one step on, and sometimes come back."""
    draw = np.random.default_rng(rng)
    session, item = [], []
    for number in range(sessions):
        at = int(draw.integers(items))
        for _ in range(int(draw.integers(2, 7))):
            session.append(number)
            item.append(at)
            at = (at + int(draw.choice([0, 1, 1, 1, 2, 7]))) % items
    return from_columns(session, item, np.arange(len(item), dtype=float))


@pytest.fixture(scope="module")
def log():
    return world()


@pytest.fixture(scope="module")
def model(log):
    fitted = SessionRanker.fit(log, rng=0, least_questions=100, candidates=20)
    assert fitted.evidence["tuned"]
    assert "forest_feature" in fitted.arrays()
    return fitted


def test_with_trees_and_without_it_keeps_what_every_model_promises():
    check_model(SessionRanker, settings={"least_questions": 20, "candidates": 8})
    few = SessionRanker.fit(small_world(), rng=0)
    assert few.evidence["tuned"] is False
    assert "500 are needed" in few.evidence["why"]


def test_the_trees_rank_better_than_the_blend_where_there_is_something_to_learn(model):
    exam = model.evidence["ranking"]["exam"]
    assert exam["trees"]["mrr"] > exam["blend"]["mrr"]
    assert model.recommend(["5", "6"], 1).item_ids == ["7"]


def test_no_question_that_is_learned_from_sees_its_own_future(monkeypatch):
    log = world(sessions=2000)
    built = []
    build = Candidates.build.__func__
    monkeypatch.setattr(
        Candidates,
        "build",
        classmethod(lambda kind, clicks, chosen: built.append(clicks) or build(kind, clicks, chosen)),
    )
    asked = []
    lessons = Candidates.lessons
    monkeypatch.setattr(
        Candidates, "lessons", lambda self, questions, *rest: asked.append((len(built), self, questions)) or lessons(
            self, questions, *rest)
    )  # fmt: skip
    SessionRanker.fit(log, rng=0, least_questions=100, candidates=20)
    past = built[0]
    sessions = len(past.session_ptr) - 1
    assert sessions == int(0.9 * (len(log.session_ptr) - 1))
    assert past.item.tolist() == log.item[: len(past.item)].tolist()
    newer = questions_of(log, sessions, np.ones(len(log.item_ids), dtype=bool))
    assert [len(clicks.session_ptr) - 1 for clicks in built] == [1800, 1600, 2000]
    assert asked
    for indexed, stage, questions in asked:
        assert indexed < 3  # the index of all clicks is built after the last question
        own = len(stage.knn.arrays()["session_ptr"]) - 1
        if own == 1600:  # what was learned is also judged by the time before
            assert np.array_equal(questions.clicks, log.item[log.session_ptr[1600] : log.session_ptr[1800]])
        else:
            assert own == sessions
            assert np.array_equal(questions.clicks, newer.clicks)
        assert (questions.begin < questions.end).all()
        assert np.array_equal(questions.answer, questions.clicks[questions.end])


def test_what_helps_with_the_newest_questions_alone_and_not_at_an_earlier_time_does_not_rank():
    class Fickle:
        """Agrees with the blend when it is asked about the newest time, and not when about an earlier one."""

        asked = 0

        def predict(self, rows):
            self.asked += 1
            return rows[:, 0] * (1.0 if self.asked == 1 else -1.0) + 1e-3 * (self.asked == 1) * rows[:, 1]

    class Learner:
        def __init__(self):
            self.settings = {}

        def trials(self, part, exam):
            return {"fickle": Fickle()}

        def whole(self, lessons, trial):
            return stump()

    tuned = tune(
        world(sessions=2000), candidates=20, holdout=0.1, least_questions=100, budget_s=5, seed=0, learner=Learner()
    )
    told = tuned.evidence["ranking"]
    assert told["exam"]["fickle"]["mrr"] == pytest.approx(told["exam"]["blend"]["mrr"], abs=0.01)
    assert told["exam_of_earlier"]["fickle"]["mrr"] < told["exam_of_earlier"]["blend"]["mrr"]
    assert tuned.second is None
    assert told["why"] == "the blend alone foresees better"


def test_answers_are_shown_to_stand_lower_only_where_luck_does_not_explain_it():
    draw = np.random.default_rng(0)
    rank = draw.integers(-1, 40, 500)
    assert not shown_lower(rank, rank)
    assert not shown_lower(draw.permutation(rank), rank)
    assert shown_lower(rank + 5, np.maximum(rank, 0))
    assert not shown_lower(np.maximum(rank, 0), rank + 5)
    assert not shown_lower(rank[:0], rank[:0])


def test_where_the_newest_sessions_give_few_questions_older_ones_are_asked_about_each_of_its_own_past(log, monkeypatch):
    asked = []
    lessons = Candidates.lessons
    monkeypatch.setattr(
        Candidates, "lessons", lambda self, questions, *rest: asked.append((self, questions)) or lessons(
            self, questions, *rest)
    )  # fmt: skip
    newest = len(questions_of(log, 810, np.ones(60, dtype=bool)).answer)
    model = SessionRanker.fit(log, rng=0, least_questions=newest + 1, candidates=20, trees=5)
    told = model.evidence
    assert told["stretches"] == 5
    assert told["learned_from"]["sessions"] == 810
    assert told["asked"] == len(questions_of(log, 450, np.ones(60, dtype=bool)).answer)
    for stage, questions in asked:
        sessions = len(stage.knn.arrays()["session_ptr"]) - 1
        assert sessions in (450, 540, 630, 720, 810)
        own = log.item[log.session_ptr[sessions] : log.session_ptr[sessions + 90]]
        assert np.array_equal(questions.clicks, own)
    again = SessionRanker.fit(log, rng=0, least_questions=newest + 1, candidates=20, trees=5).arrays()
    assert {name: array.tobytes() for name, array in again.items()} == {
        name: array.tobytes() for name, array in model.arrays().items()
    }


def test_where_most_newest_clicks_are_on_new_items_older_sessions_are_asked_about_too():
    first, newer = world(sessions=890), world(sessions=110, rng=1)
    assert SessionRanker.fit(world(1000), rng=0, least_questions=20, trees=3).evidence["stretches"] == 1
    session = np.repeat(np.arange(1000), np.concatenate([np.diff(first.session_ptr), np.diff(newer.session_ptr)]))
    item = np.concatenate([first.item, newer.item + 60])
    clicks = from_columns(session, item, np.arange(len(item), dtype=float))
    told = SessionRanker.fit(clicks, rng=0, least_questions=20, trees=3).evidence
    assert told["stretches"] > 1


def test_lessons_of_several_stretches_are_numbered_through_and_some_are_those_of_their_numbers(log):
    known = np.ones(60, dtype=bool)
    cuts = (700, 800)
    stages = tuple(Candidates.build(head(log, cut), DEFAULTS) for cut in cuts)
    parts = tuple(questions_of(head(log, cut + 100), cut, known) for cut in cuts)
    asked = Asked(stages, parts)
    count = len(parts[0].answer)
    assert len(asked) == count + len(parts[1].answer)
    whole = asked.lessons(20, 1.0, 0)
    assert len(whole.rank) == len(asked)
    assert np.unique(whole.question).tolist() == np.flatnonzero(whole.rank >= 0).tolist()
    assert (np.bincount(whole.question)[np.unique(whole.question)] == whole.sizes).all()
    chosen = np.array([3, count - 1, count, count + 5])
    some = asked.some(chosen)
    assert [len(each.answer) for each in some.questions] == [2, 2]
    assert some.lessons(20, 1.0, 0).rank.tolist() == whole.rank[chosen].tolist()
    assert len(asked.some(np.array([1])).lessons(20, 1.0, 0).rank) == 1


def test_what_comes_after_a_question_changes_none_of_its_features(log):
    stage = Candidates.build(head(log, 800), DEFAULTS)
    questions = questions_of(log, 800, np.ones(len(log.item_ids), dtype=bool))
    one = questions.some(np.array([3]))
    before = stage.lessons(one, 20, 1.0, 0)
    later = one._replace(clicks=one.clicks.copy())
    later.clicks[one.end[0] :] = 0
    assert np.array_equal(stage.lessons(later, 20, 1.0, 0).rows, before.rows)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 70), max_size=90), st.integers(1, 70))
def test_scores_fall_explanations_add_up_and_one_block_stands_before_the_next(model, question, k):
    asked = [str(item) for item in question]
    found = model.recommend(asked, k)
    whole = model.recommend(asked, 200)
    assert found.item_ids == whole.item_ids[:k]
    assert sorted(found.scores, reverse=True) == found.scores
    for reason, score in zip(model.explain_all(asked, found.item_ids), found.scores, strict=True):
        assert reason.score == score
        assert sum(reason.terms.values()) == pytest.approx(score, rel=1e-9, abs=1e-9)
        assert set(reason.terms) <= {*asked, *TERMS.values(), "base"}
    blended = model._first.look(model._vocabulary.codes(asked), 0, 20).codes.tolist()
    assert {model.item_ids[code] for code in blended} == set(whole.item_ids[: len(blended)])


def test_the_parts_of_the_session_items_are_the_blended_score(log):
    stage = Candidates.build(log, {**DEFAULTS, "weight_walk_flat": 0.3, "weight_next": 2.0})
    session = np.array([4, 5, 4, 9], dtype=np.int32)
    found = stage.look(session, 0, 30)
    known, parts = stage.parts(session, found.codes)
    assert known.tolist() == [9, 4, 5]
    assert parts.sum(axis=1) == pytest.approx(found.blended, rel=1e-5)


def test_an_item_clicked_twice_is_followed_once_and_counts_twice(log):
    chosen = {**DEFAULTS, "weight_knn": 0.0, "weight_walk_flat": 0.3, "weight_next": 2.0}
    stage = Candidates.build(log, chosen)
    arrays, clicks = stage.arrays(), [4, 9, 4, 4]
    expected = np.zeros(len(log.item_ids))
    recent = {"walk": 0, "cosine": 1, "next": 2}
    for source in ("walk", "cosine", "next", "walk_flat", "cosine_flat"):
        graph, row = source.removesuffix("_flat"), recent.get(source)
        found = np.zeros(len(log.item_ids))
        for step, code in enumerate(reversed(clicks)):
            edges = slice(*arrays[f"{graph}_ptr"][code : code + 2])
            worth = 1.0 if row is None else arrays["recency"][row, step]
            found[arrays[f"{graph}_item"][edges]] += worth * arrays[f"{graph}_weight"][edges]
        expected += chosen[f"weight_{source}"] * found / found.sum()
    found = stage.look(np.array(clicks, dtype=np.int32), 0, 60)
    assert found.blended == pytest.approx(expected[found.codes], rel=1e-4)
    assert (expected > 0).sum() == found.candidates


def test_clicks_before_the_newest_forty_count_for_the_items_that_are_followed(log):
    stage = Candidates.build(log, {**DEFAULTS, "weight_walk_flat": 0.3})
    times, distinct = FEATURES.index("times"), FEATURES.index("distinct")
    newest = [9, 4] * 20
    for before, told in (([], 20), ([4] * 30, 50), ([*range(30, 60), *[4] * 30], 50), ([4] * 5000, LONG - 20)):
        session = np.array([*before, *newest], dtype=np.int32)
        found = stage.look(session, 0, 60)
        assert found.rows[found.codes == 4, times] == told
        known, parts = stage.parts(session, found.codes)
        assert known[:2].tolist() == [4, 9]
        assert parts.sum(axis=1) == pytest.approx(found.blended, rel=1e-4)
    whole = np.arange(60, dtype=np.int32)
    assert stage.look(whole, 0, 60).rows[0, distinct] == 40
    again = np.concatenate([np.repeat(whole[20:], 3), whole])  # the forty newest items, clicked before, too
    found = stage.look(again, 0, 60)
    assert set(found.rows[np.isin(found.codes, whole[20:]), times].tolist()) == {4.0}
    assert set(found.rows[np.isin(found.codes, whole[:20]), times].tolist()) <= {0.0}


def test_company_is_told_for_each_candidate_that_shares_a_session(log):
    stage = Candidates.build(log, DEFAULTS)
    arrays, found = stage.arrays(), stage.look(np.array([4, 9], dtype=np.int32), 0, 60)
    expected = np.zeros(len(log.item_ids), dtype=np.float32)
    for code in (9, 4):
        edges = slice(*arrays["cosine_ptr"][code : code + 2])
        expected[arrays["cosine_item"][edges]] += arrays["cosine_company"][edges]
    told = found.rows[:, FEATURES.index("company")]
    assert told == pytest.approx(expected[found.codes], rel=1e-6)
    assert found.rows[:, FEATURES.index("company_of_best")] == pytest.approx(told / told.max(), rel=1e-6)


def test_a_full_table_passes_over_further_candidates_and_still_answers(log, monkeypatch):
    whole = Candidates.build(log, DEFAULTS).look(np.array([4, 9], dtype=np.int32), 0, 60)
    monkeypatch.setattr(candidates, "MOST_CANDIDATES", 7)
    stage = Candidates.build(log, DEFAULTS)
    for _ in range(2):  # what the first question left behind does not disturb the second
        found = stage.look(np.array([4, 9], dtype=np.int32), 0, 60, np.array([50, 4], dtype=np.int32))
        assert found.candidates == 7 < whole.candidates
        assert {4, 9} <= set(found.codes.tolist())
        assert len(set(found.codes.tolist())) == len(found.codes)


def test_parts_are_those_of_the_session_that_is_asked_about_whatever_was_asked_before(log):
    stage, one, other = Candidates.build(log, DEFAULTS), np.array([4, 9], np.int32), np.array([30], np.int32)
    codes = stage.look(one, 0, 5).codes
    before = stage.parts(one, codes)
    stage.look(other, 0, 5)
    again = stage.parts(one, codes)
    assert all(np.array_equal(left, right) for left, right in zip(before, again, strict=True))


def test_the_cause_is_the_session_item_with_the_strongest_evidence(log):
    model = SessionRanker.fit(log, rng=0, tune_cpu_s_per_million=0.0)
    assert model.causes(["30", "7"], ["8", "31", "never seen"]) == ["7", "30", None]
    assert model.causes([], ["8"]) == [None]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 65).map(str), min_size=1, max_size=12), st.integers(1, 60))
def test_a_reason_never_names_evidence_that_spoke_against_the_item(model, session, k):
    shown = model.recommend(session, k).item_ids
    causes, reasons = model.causes(session, shown), model.explain_all(session, shown)
    for cause, reason in zip(causes, reasons, strict=True):
        items = {name: given for name, given in reason.terms.items() if name in session and given > LEAST}
        assert cause in items or (cause is None and not items)
        assert cause is None or items[cause] == pytest.approx(max(items.values()))
    assert model.causes(session, shown[::-1]) == causes[::-1]
    assert [model.causes(session, [each])[0] for each in shown] == causes


def test_where_the_evidence_lowered_a_score_the_reason_says_no_more_than_that_the_item_was_chosen(model):
    said = dict.fromkeys(("Because you viewed", "You viewed this before", "Chosen for you"), 0)
    for session in (["30", "7"], ["4"], ["9", "10", "9"]):
        found = model.recommend(session, 30)
        terms = [reason.terms for reason in model.explain_all(session, found.item_ids)]
        for item, words, own in zip(found.item_ids, reasons(model, session, found.item_ids, str), terms, strict=True):
            named = words.removeprefix("Because you viewed ") if words not in said else item
            assert own[named] > 0 if words != "Chosen for you" else named == item
            assert (named == item) == (words in said)
            said[words.removesuffix(" " + named)] += 1
    assert said["Because you viewed"] > 5
    assert said["Chosen for you"] > 5
    assert said["You viewed this before"] > 1


def test_the_blend_of_one_source_ranks_as_that_source_alone(log):
    only = {f"weight_{source}": float(source == "knn") for source in SOURCES}
    stage = Candidates.build(log, {**DEFAULTS, **only})
    codes, _ = stage.knn.recommend_codes(np.array([3, 4], dtype=np.int32), 10)
    assert stage.look(np.array([3, 4], dtype=np.int32), 0, 10).codes.tolist() == codes.tolist()


def test_blocks_are_the_whole_ranking_cut_in_pieces(log):
    stage, session = Candidates.build(log, DEFAULTS), np.array([1, 40], dtype=np.int32)
    whole = stage.look(session, 0, 60)
    pieces = [stage.look(session, first, first + 7).codes for first in range(0, whole.candidates, 7)]
    assert np.concatenate(pieces).tolist() == whole.codes.tolist()
    assert sorted(whole.blended.tolist(), reverse=True) == whole.blended.tolist()


def test_a_strict_filter_looks_further_down_than_the_first_block(log):
    model = SessionRanker.fit(log, rng=0, least_questions=100, candidates=5)
    whole = model.recommend(["5", "6"], 60)
    assert len(whole.item_ids) > 10
    last = np.isin(list(model.item_ids), whole.item_ids[-2:])
    assert model.recommend(["5", "6"], 5, allowed=last).item_ids == whole.item_ids[-2:]


def test_the_same_clicks_give_the_same_bytes_and_another_rng_other_trees(log, model):
    again = SessionRanker.fit(log, rng=0, least_questions=100, candidates=20)
    assert {name: array.tobytes() for name, array in again.arrays().items()} == {
        name: array.tobytes() for name, array in model.arrays().items()
    }
    other = SessionRanker.fit(log, rng=1, least_questions=100, candidates=20)
    assert other.arrays()["forest_leaf_value"].tobytes() != model.arrays()["forest_leaf_value"].tobytes()


def test_the_evidence_survives_the_disk_and_is_plain_json(model):
    again = SessionRanker.from_arrays(model.arrays())
    assert again.evidence == model.evidence
    assert json.loads(json.dumps(again.evidence)) == again.evidence
    tried = again.evidence["tried"]
    assert {row["what"] for row in tried} >= {"blend", "decay of session kNN"}
    assert all(0 <= row["hr"] <= row["recall"] <= 1 for row in tried)


def test_refit_keeps_settings_and_trees_and_knows_the_new_clicks(model):
    clicks = world(rng=5)
    rows = [(f"n{number}", item, 1e6 + number) for number in range(30) for item in ("5", "new")]
    session = np.repeat(np.arange(len(clicks.session_ptr) - 1), np.diff(clicks.session_ptr)).tolist()
    grown = from_columns(
        [f"s{number:05d}" for number in session] + [row[0] for row in rows],
        [clicks.item_ids[code] for code in clicks.item.tolist()] + [row[1] for row in rows],
        clicks.time.tolist() + [row[2] for row in rows],
    )
    again = model.refit(grown, rng=0)
    assert again.evidence == model.evidence
    assert "new" in again.recommend(["5"], 10).item_ids
    assert again.arrays()["forest_leaf_value"].tobytes() == model.arrays()["forest_leaf_value"].tobytes()


def test_time_is_counted_and_zero_means_no_tuning(log):
    model = SessionRanker.fit(log, rng=0, least_questions=100, tune_cpu_s_per_million=0)
    assert model.evidence["why"] == "no time was given"
    assert model.recommend(["5", "6"], 5).item_ids


@pytest.mark.parametrize(
    "clicks",
    [
        [],
        [("s", "a", 1.0)],
        [("s", "a", 1.0), ("t", "b", 2.0)],
        [(f"s{n}", "a", float(n)) for n in range(2000)],
        [(f"s{n // 2}", "a", float(n)) for n in range(4000)],
    ],
    ids=["nothing", "one click", "sessions of one", "one item, sessions of one", "one item, twice each"],
)
def test_logs_with_next_to_nothing_in_them_still_give_a_model(clicks):
    columns = list(zip(*clicks, strict=True)) if clicks else ([], [], [])
    model = SessionRanker.fit(from_columns(*columns), rng=0)
    found = model.recommend(["a", "?"], 3)
    assert set(found.item_ids) <= set(model.item_ids)
    assert model.recommend([], 3).item_ids == []


def test_a_session_of_a_hundred_thousand_clicks_is_answered(model):
    assert len(model.recommend([str(n % 60) for n in range(100_000)], 5).item_ids) == 5


def test_where_sessions_are_long_fewer_questions_are_asked_and_more_of_each_is_learned():
    kept = {}
    for name, length in (("short", 5), ("long", 60)):
        clicks = np.random.default_rng(0).integers(0, 60, 24_000)
        sessions = np.repeat(np.arange(24_000 // length), length)
        told = SessionRanker.fit(
            from_columns(sessions.astype(str), clicks.astype(str), np.arange(24_000.0)),
            rng=0, trees=2, candidates=20, least_questions=100, tune_cpu_s_per_million=4.0,
        ).evidence  # fmt: skip
        kept[name] = told["judged_by"], told["ranking"]["questions"]
    assert kept["short"][0] == 100  # fifty a second of the two that half a million clicks are worth
    assert 20 <= kept["long"][0] <= 40  # each question shows up to forty clicks, eight are usual
    assert kept["long"][1] < kept["short"][1]


def test_item_facts_worked_out_by_hand():
    clicks = from_columns(["s", "s", "s", "t"], ["a", "b", "a", "b"], [1.0, 2.0, 3.0, 4.0])
    facts = item_facts(clicks)
    assert facts[:, 0] == pytest.approx([np.log(2.5 / 4)] * 2)
    assert facts[:, 4].tolist() == [0.5, 0.25]  # the last click of a is number 2 of 4, of b number 3
    assert facts[:, 6].tolist() == [1.0, 0.75]
    usual = 1 / 3  # of three (session, item) pairs one comes back
    assert facts[:, 5] == pytest.approx([(1 + 5 * usual) / 6, 5 * usual / 7])


def test_every_feature_is_evidence_or_has_a_term_for_people(log):
    stage = Candidates.build(log, DEFAULTS)
    found = stage.look(np.array([3, 4], dtype=np.int32), 0, 20)
    assert found.rows.shape[1] == len(FEATURES) == len(set(FEATURES))
    assert np.isfinite(found.rows).all()
    at = FEATURES.index
    assert found.rows[:, at("blend_rank")].tolist() == list(range(len(found.codes)))
    assert found.rows[:, at("blend")] == pytest.approx(found.blended)
    mine = found.rows[found.codes.tolist().index(4)]
    assert (mine[at("times")], mine[at("since")], mine[at("length")]) == (1, 1, 2)


def test_ranks_of_answers_count_ties_against_them_and_figures_follow(log):
    stage = Candidates.build(head(log, 800), DEFAULTS)
    lessons = stage.lessons(questions_of(log, 800, np.ones(60, dtype=bool)), 20, 1.0, 0)
    assert (
        ranked(-lessons.rows[:, FEATURES.index("blend_rank")].astype(float), lessons).tolist() == lessons.rank.tolist()
    )
    tied = ranked(np.zeros(len(lessons.label)), lessons)
    assert tied[lessons.rank >= 0].tolist() == (lessons.sizes - 1).tolist()
    assert figures(np.array([0, 3, -1, 25]), 30) == {"hr": 0.5, "mrr": 0.3125, "recall": 0.75, "questions": 4}


def test_sampling_wrong_candidates_keeps_every_right_one(log):
    stage, questions = Candidates.build(head(log, 800), DEFAULTS), questions_of(log, 800, np.ones(60, dtype=bool))
    whole, some = stage.lessons(questions, 20, 1.0, 0), stage.lessons(questions, 20, 0.3, 0)
    assert some.label.sum() == whole.label.sum() == (whole.rank >= 0).sum()
    wrong = 1 - whole.label.mean()
    assert (1 - some.label).sum() / (wrong * len(whole.label)) == pytest.approx(0.3, abs=0.03)
    assert learn(some, trees=3, leaves=4, learning_rate=0.1, least_rows=5, seed=0).features == len(FEATURES)


@pytest.mark.parametrize(
    ("setting", "value", "says"),
    [
        ("candidates", 0, "candidates must be a whole number between 1 and 1000, got 0"),
        ("trees", 2.5, "trees must be a whole number between 1 and 1000, got 2.5"),
        ("leaves", 33, "leaves must be a whole number between 2 and 32, got 33"),
        ("holdout", 0, "holdout must be more than 0 and at most 0.5, got 0"),
        ("tune_cpu_s_per_million", float("nan"), "tune_cpu_s_per_million must be between 0 and 1,000,000, got nan"),
    ],
)
def test_a_setting_out_of_range_is_refused_with_its_value(setting, value, says):
    with pytest.raises(BadInput, match=says):
        SessionRanker.fit(small_world(), **{setting: value})


def test_read_only_arrays_and_fresh_ones_share_one_compiled_form(model):
    frozen = {name: array.copy() for name, array in model.arrays().items()}
    for array in frozen.values():
        array.flags.writeable = False
    again = SessionRanker.from_arrays(frozen)
    assert again.recommend(["5"], 5) == model.recommend(["5"], 5)
    again.explain(["5"], "6")
    for kernel in (feature_kernel.look, feature_kernel.foresee, feature_kernel.split):
        assert len(kernel.signatures) == 1


def test_serving_needs_no_learner_and_importing_no_compiler():
    code = (
        "import sys; from thinslice.models.session_ranker import SessionRanker as R; print('numba' in sys.modules); "
        "R.warm(); print(R.ready(), 'lightgbm' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=240, check=True)
    assert result.stdout.split() == ["False", "True", "False"]
