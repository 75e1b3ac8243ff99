"""Trees and network together: their scores add up, each counts alike, and models without a network still load."""

import numpy as np
import pytest

from thinslice.models.candidates import Lessons
from thinslice.models.lambdamart import Trees, stump, visible
from thinslice.models.neural_ranker_network import Network
from thinslice.models.ranking_features import FEATURES, GROUPS
from thinslice.models.session_ranker import SessionRanker
from thinslice.models.trees_and_network import NEAR, NETWORK, ForestWithNetwork, TreesAndNetwork
from thinslice.testing import small_world

SETTINGS = {"trees": 9, "leaves": 7, "learning_rate": 0.1, "least_rows": 20, "seed": 5}


def lessons(questions=400, wide=5, rng=0):
    """Questions whose answer has the largest sum of two features."""
    draw = np.random.default_rng(rng)
    rows = draw.standard_normal((questions * wide, len(FEATURES))).astype(np.float32)
    worth = (rows[:, 0] + rows[:, 3]).reshape(questions, wide)
    label = (worth == worth.max(axis=1, keepdims=True)).ravel().astype(np.uint8)
    return Lessons(
        rows=rows, label=label, sizes=np.full(questions, wide, np.int32), rank=np.zeros(questions, np.int32),
        code=np.tile(np.arange(wide, dtype=np.int32), questions),
        question=np.repeat(np.arange(questions, dtype=np.int32), wide),
    )  # fmt: skip


@pytest.fixture(scope="module")
def both():
    taught = lessons()
    learner = TreesAndNetwork(Trees(SETTINGS))
    return learner.whole(taught, learner.trials(taught, lessons(rng=1))["trees and network"])


def alone(both):
    trees = {name: array for name, array in both.arrays().items() if not name.startswith(NETWORK)}
    return ForestWithNetwork.from_arrays(trees), both.network


def test_the_score_is_that_of_the_trees_and_that_of_the_network_of_the_same_spread(both):
    trees, network = alone(both)
    rows = lessons().rows
    one, other = trees.predict(rows), network.predict(rows)
    assert trees.network is None
    assert both.predict(rows) == pytest.approx(one + other)
    assert other.std() == pytest.approx(one.std(), rel=1e-4)


def test_of_each_block_the_network_is_asked_about_the_best_by_trees_and_the_others_follow_in_their_order(both):
    trees, network = alone(both)
    rows, block = lessons(questions=60).rows[:250], 100
    score = both.score(rows, block).score
    for first in (0, 100, 200):
        piece = slice(first, first + block)
        own, by_trees = score[piece], trees.predict(rows[piece])
        order = np.argsort(-by_trees, kind="stable")
        near, rest = order[:NEAR], order[NEAR:]
        assert own[near] == pytest.approx(by_trees[near] + network.predict(rows[piece][near]))
        assert len(rest) >= 10
        assert (np.diff(own[rest]) <= 0).all()
        assert own[near].min() >= own[rest].max()
    assert np.ptp(score) <= both.span
    assert trees.score(rows, block).score.tolist() == trees.predict(rows).tolist()
    assert network.score(rows, block).score.tolist() == network.predict(rows).tolist()


def test_to_candidates_that_the_network_was_not_asked_about_it_gave_nothing(both):
    trees, network = alone(both)
    rows, at = lessons(questions=40).rows, np.arange(100, 200)
    near = np.argsort(-trees.predict(rows[at]), kind="stable")[:NEAR]
    expected = trees.contributions(rows[at])
    expected[near] += network.contributions(rows[at][near])
    for scored, gave in ((both.score(rows, 100), expected), (both.score(rows, 0), both.contributions(rows[at]))):
        assert scored.given(at, None) == pytest.approx(gave, rel=1e-4, abs=1e-5)
        for first in (1, 4, len(FEATURES) - 1):
            assert scored.given(at, first) == pytest.approx(gave[:, :first].sum(axis=1), rel=1e-4, abs=1e-4)
    assert both.score(rows, 0).score.tolist() == both.predict(rows).tolist()


def test_what_the_features_gave_adds_up_and_no_score_leaves_the_span(both):
    rows = lessons(rng=2).rows
    rest = both.predict(rows) - both.contributions(rows).sum(axis=1)
    assert np.ptp(rest) < 1e-4
    assert np.ptp(both.predict(rows)) <= both.span
    assert both.span > alone(both)[0].span


def test_it_comes_back_from_its_arrays_and_trees_learned_before_there_were_networks_load():
    forest = stump()
    again = ForestWithNetwork.from_arrays(forest.arrays())
    rows = lessons().rows
    assert again.predict(rows).tolist() == forest.predict(rows).tolist()
    assert set(again.arrays()) == set(forest.arrays())


def test_both_together_foresee_better_than_few_trees(both):
    asked = lessons(rng=3)

    def right(model):
        first = model.predict(asked.rows).reshape(-1, 5).argmax(axis=1)
        return (first == asked.label.reshape(-1, 5).argmax(axis=1)).mean()

    trees, _ = alone(both)
    assert right(both) > right(trees) + 0.02


def test_a_hidden_group_moves_no_score():
    learner = TreesAndNetwork(Trees({**SETTINGS, "without": "neighbors"}))
    taught = lessons()
    model = learner.whole(taught, learner.trials(taught, taught)["trees and network"])
    assert isinstance(model.network, Network)
    moved = taught.rows.copy()
    moved[:, [FEATURES.index(name) for name in GROUPS["neighbors"]]] = 50.0
    assert model.predict(moved).tolist() == model.predict(taught.rows).tolist()
    assert visible(taught.rows, "none") is taught.rows


def test_what_ranks_is_what_foresaw_best_in_the_trial():
    model = SessionRanker.fit(small_world(), rng=0, least_questions=20, candidates=8)
    told = model.evidence["ranking"]
    reached = {name: each["hr"] + each["mrr"] for name, each in told["exam"].items() if name != "blend"}
    assert reached[told["ranks"]] == max(reached.values())
    network = any(name.startswith("forest_" + NETWORK) for name in model.arrays())
    assert network == (told["ranks"] == "trees and network")
