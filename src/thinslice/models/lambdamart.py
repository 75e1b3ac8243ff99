"""Learns the second stage of the session ranker with LightGBM (LambdaMART), and says how well a ranking foresees."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from thinslice.models.candidates import Lessons
from thinslice.models.forest import Forest
from thinslice.models.ranking_features import FEATURES, GROUPS

CUT = 20
"""Ranks beyond this are all the same to the learner and to the figures."""

LEAF_PRIOR = 20.0
"""Added to the weight of each leaf, which draws its value to 0, lest the trees learn what was chance."""

FEATURE_SHARE = 0.5
"""The part of the features that each tree may look at, drawn anew: trees err in different ways, and cost less."""


class Trees(NamedTuple):
    """Learns trees: a `tuning.Learner`.

    Attributes:
        settings: Those of `learn`.
    """

    settings: dict[str, Any]

    def trials(self, part: Lessons, exam: Lessons) -> dict[str, Forest]:
        """A third of the trees, of the older lessons only."""
        del exam
        return {"trees": learn(part, **{**self.settings, "trees": max(1, self.settings["trees"] // 3)})}

    def whole(self, lessons: Lessons, trial: Forest) -> Forest:
        """All trees, of all lessons."""
        del trial
        return learn(lessons, **self.settings)

    def trial_of_known(
        self, part: Lessons, begin: NDArray[np.float64], exam: Lessons, exam_begin: NDArray[np.float64]
    ) -> Forest:
        """A third of the trees that are added to scores; no group of features is left out of them."""
        del exam, exam_begin
        return self._added(part, begin, max(1, self.settings["trees"] // 3))

    def whole_of_known(self, lessons: Lessons, begin: NDArray[np.float64], trial: Forest) -> Forest:
        """All trees that are added to scores."""
        del trial
        return self._added(lessons, begin, self.settings["trees"])

    def _added(self, lessons: Lessons, begin: NDArray[np.float64], trees: int) -> Forest:
        names = [f"feature_{number}" for number in range(lessons.rows.shape[1])]
        return learn(lessons, **{**self.settings, "trees": trees}, names=names, begin=begin)


def learn(
    lessons: Lessons,
    *,
    trees: int,
    leaves: int,
    learning_rate: float,
    least_rows: int,
    seed: int,
    without: str = "none",
    names: Sequence[str] = FEATURES,
    begin: NDArray[np.float64] | None = None,
) -> Forest:
    """Boosted trees that put the item that was clicked before those that were not.

    The same lessons and settings give the same forest: one thread, no clock.

    Args:
        lessons: At least one question with its answer among the candidates.
        trees: How many trees.
        leaves: The most leaves of a tree, at most 64.
        learning_rate: What each tree adds counts so much.
        least_rows: The fewest rows in a leaf.
        seed: For LightGBM.
        names: Of the columns of the lessons' rows.
        begin: Shape (rows,): scores that the trees are added to; they learn what is missing from them.
        without: A group of `ranking_features.GROUPS` that no tree may look at; none: all may be.
    """
    import lightgbm

    rows = visible(lessons.rows, without)
    settings: dict[str, Any] = {
        "objective": "lambdarank",
        "lambdarank_truncation_level": CUT,
        "learning_rate": learning_rate,
        "num_leaves": leaves,
        "min_data_in_leaf": least_rows,
        "lambda_l2": LEAF_PRIOR,
        "feature_fraction": FEATURE_SHARE,
        "use_missing": False,
        "deterministic": True,
        "force_row_wise": True,
        "num_threads": 1,
        "seed": seed,
        "verbosity": -1,
    }
    data = lightgbm.Dataset(rows, lessons.label, group=lessons.sizes, init_score=begin, feature_name=list(names))
    booster = lightgbm.train(settings, data, num_boost_round=trees)
    return Forest.from_lightgbm_text(booster.model_to_string())


def visible(rows: NDArray[np.float32], without: str) -> NDArray[np.float32]:
    """The rows with one group of `ranking_features.GROUPS` hidden: what never changes teaches nothing."""
    if without == "none":
        return rows
    seen = rows.copy()
    seen[:, [FEATURES.index(name) for name in GROUPS[without]]] = 0
    return seen


def ranked(scores: NDArray[np.float64], lessons: Lessons) -> NDArray[np.int64]:
    """Where each answer stands by some scores, from 0, ties against it; -1 where it is no candidate.

    Args:
        scores: Shape (rows,), beside `lessons.rows`, which must hold every candidate.
        lessons: The questions.
    """
    rank = np.full(len(lessons.rank), -1)
    if len(scores):
        owner = np.repeat(np.arange(len(lessons.sizes)), lessons.sizes)
        right = scores[lessons.label == 1]
        rank[lessons.rank >= 0] = np.bincount(owner, weights=scores >= right[owner]).astype(np.int64) - 1
    return rank


def figures(rank: NDArray[Any], candidates: int) -> dict[str, float]:
    """Hit rate and reciprocal rank at 20, and the share of answers among the candidates."""
    if not len(rank):
        return {"hr": 0.0, "mrr": 0.0, "recall": 0.0, "questions": 0}
    hit = (rank >= 0) & (rank < CUT)
    return {
        "hr": round(float(hit.mean()), 5),
        "mrr": round(float(np.where(hit, 1 / (np.maximum(rank, 0) + 1.0), 0.0).mean()), 5),
        "recall": round(float(((rank >= 0) & (rank < candidates)).mean()), 5),
        "questions": len(rank),
    }


def stump() -> Forest:
    """One tree with one split, to warm the kernels with."""
    tree = {
        "num_leaves": "2", "num_cat": "0", "split_feature": "0", "threshold": "0.5", "decision_type": "0",
        "left_child": "-1", "right_child": "-2", "leaf_value": "0 1", "leaf_count": "1 1",
    }  # fmt: skip
    lines = ["tree", "num_class=1", "num_tree_per_iteration=1", f"max_feature_idx={len(FEATURES) - 1}", "", "Tree=0"]
    lines += [f"{name}={value}" for name, value in tree.items()]
    return Forest.from_lightgbm_text("\n".join([*lines, "", "end of trees", ""]))
