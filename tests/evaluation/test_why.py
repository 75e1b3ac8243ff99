"""Less data, fewer features, a smaller model: what is found is what was put into the world."""

from itertools import pairwise

import numpy as np
import pytest

from thinslice.errors import BadInput
from thinslice.evaluation import split_log
from thinslice.evaluation.why import changed, less, why
from thinslice.models import Popular, SessionKNN, from_columns


class Grown:
    """Finds the clicked item in its first place as often as the logarithm of its data says, by a coin per query."""

    name = "grown"
    groups = {"the useless group": {}, "the useful group": {"handicap": 0.2}}  # noqa: RUF012
    smaller = {"handicap": 0.1}  # noqa: RUF012

    def __init__(self, item_ids, chance, rng):
        self.item_ids, self.chance, self.rng = item_ids, chance, rng

    @classmethod
    def warm(cls):
        pass

    @classmethod
    def fit(cls, interactions, items=None, *, rng, handicap=0.0):
        sessions = len(interactions.session_ptr) - 1
        return cls(interactions.item_ids, 0.05 * np.log2(sessions) - handicap, rng)

    def recommend_codes(self, session, k, allowed=None):
        right = int(session[-1])  # the world below repeats the last click
        first = right if self.rng.random() < self.chance else (right + 1) % len(self.item_ids)
        return np.array([first]), np.array([1.0])


def world(sessions=2400):
    rows = [(s, s % 3) for s in range(sessions) for _ in range(3)]
    part = ["test" if s >= 2048 else "train" for s, _ in rows]
    return split_log({"session_id": np.array([r[0] for r in rows]), "item_id": np.array([r[1] for r in rows]),
                      "ts": np.arange(len(rows), dtype=float), "split": np.array(part)})  # fmt: skip


def test_the_gain_of_a_doubling_the_useful_group_and_the_size_are_found_again():
    found = why(Grown, world(), 1, metric="hr")
    assert found["full"]["hr"] == pytest.approx(0.55, abs=0.04)
    low, high = found["doubled"]["ci"]
    assert low <= 0.05 <= high
    assert high - low < 0.1
    assert [point["share"] for point in found["curve"]] == [0.125, 0.25, 0.5, 1.0]
    loss = {row["what"]: row for row in [*found["features"], *found["size"]]}
    for what, truth in (("the useless group", 0.0), ("the useful group", 0.2), ("handicap 0.1", 0.1)):
        low, high = loss[what]["ci"]
        assert low <= truth <= high, what
    assert found["next_point"] == "features"
    assert found["sentence"].startswith("Features buy the next point of grown")
    assert len(found["trials"]) == 5 * (1 + 3 + 2 + 1)
    assert {row["seed"] for row in found["trials"]} == set(range(5))


def test_the_interval_over_seeds_and_queries_covers_the_truth():
    draw = np.random.default_rng(0)
    covered = 0
    session = np.repeat(np.arange(100, dtype=np.int32), 3)
    for _ in range(400):
        shift = draw.normal(0, 0.05, (5, 1))
        easy = np.repeat(draw.normal(0, 0.2, 100), 3)
        values = 0.1 + shift + easy + draw.normal(0, 0.2, (5, 300))
        low, high = changed(values, session).ci
        covered += low <= 0.1 <= high
    assert 0.93 <= covered / 400 <= 1


def test_a_model_without_chance_is_fitted_no_oftener_than_needed():
    fits = []

    class Counted(Popular):
        @classmethod
        def fit(cls, *arguments, **named):
            fits.append(1)
            return super().fit(*arguments, **named)

    found = why(Counted, world(), 2, seeds=5)
    # All data and the one group: two fits each show that nothing is random; each share of the data: all five.
    assert len(fits) == 2 + 2 + 3 * 5
    assert len(found["trials"]) == 5 * 5


def test_half_the_sessions_are_whole_sessions_of_the_log():
    rows = [(s, (s * 7 + c) % 11) for s in range(40) for c in range(3)]
    log = from_columns([row[0] for row in rows], [row[1] for row in rows], range(120))
    half = less(log, 0.5, 3)

    def sessions(found):
        clicks = [(found.item_ids[code], time) for code, time in zip(found.item, found.time.tolist(), strict=True)]
        return {tuple(clicks[start:end]) for start, end in pairwise(found.session_ptr.tolist())}

    assert len(sessions(half)) == 20
    assert sessions(half) < sessions(log)
    assert less(log, 0.5, 3).item.tolist() == half.item.tolist()
    assert less(log, 0.5, 4).time.tolist() != half.time.tolist()


def test_a_ranking_without_a_group_of_features_never_looks_at_it():
    from thinslice.models import SessionRanker
    from thinslice.models.candidates import Lessons
    from thinslice.models.lambdamart import learn
    from thinslice.models.ranking_features import FEATURES, GROUPS

    draw = np.random.default_rng(0)
    rows = draw.random((4000, len(FEATURES)), dtype=np.float32)
    score = (rows[:, FEATURES.index("walk")] + rows[:, FEATURES.index("knn")]).reshape(200, 20)
    label = (score == score.max(axis=1, keepdims=True)).astype(np.uint8).ravel()
    code, question = np.arange(4000, dtype=np.int32), np.repeat(np.arange(200, dtype=np.int32), 20)
    lessons = Lessons(rows, label, np.full(200, 20, dtype=np.int32), np.zeros(200, dtype=np.int32), code, question)
    options = {"trees": 10, "leaves": 8, "learning_rate": 0.1, "least_rows": 20, "seed": 0}
    for group, looked in (("none", True), ("graphs", False)):
        forest = learn(lessons, **options, without=group)
        used = {FEATURES[code] for code in np.unique(forest.arrays()["feature"]).tolist()}
        assert ("walk" in used) == looked
        assert looked or not used & set(GROUPS["graphs"])
    with pytest.raises(BadInput, match="without must name a group of features"):
        SessionRanker.fit(from_columns(["a"], ["b"], [1.0]), rng=0, without="clouds")


def test_groups_and_sizes_are_settings_that_the_models_take():
    from thinslice.evaluation.why import GROUPS, SMALLER
    from thinslice.models import MODELS

    log = from_columns(
        [s for s in range(8) for _ in range(2)], [(s + c) % 3 for s in range(8) for c in range(2)], range(16)
    )
    for name, groups in GROUPS.items():
        for settings in groups.values():
            MODELS[name].fit(log, None, rng=0, **settings)
    assert set(SMALLER) <= set(MODELS)


@pytest.mark.parametrize(
    ("change", "says"),
    [({"seeds": 1}, "at least 2 seeds, got 1"), ({"metric": "clicks"}, "no metric 'clicks'")],
)
def test_what_cannot_be_asked_is_refused(change, says):
    with pytest.raises(BadInput, match=says):
        why(Popular, world(), 2, **change)


def test_a_log_of_a_few_sessions_is_refused():
    split = world()
    few = split._replace(train=less(split.train, 0.003, 0))
    with pytest.raises(BadInput, match="an eighth of 6 sessions is too little"):
        why(SessionKNN, few, 2)
