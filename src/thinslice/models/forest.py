"""A forest of decision trees that was trained elsewhere, as plain arrays: scores a query's candidates in microseconds.

LightGBM trains it (only there is it imported); here its text becomes arrays that can be memory-mapped, and compiled
loops give the same scores, about ten times as fast for the 60 rows of one query.
"""

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from thinslice.errors import BadInput
from thinslice.records import Arrays

MOST_LEAVES = 64
"""A tree's leaves are bits of one word."""


class Scored(NamedTuple):
    """The scores of a question's candidates, and what made some of them.

    Attributes:
        score: Shape (rows,).
        given: Rows (int64), and how many features, from the first on → what these gave together to each score, shape
            (rows,), for much less than `contributions` costs; with None what each feature gave, shape (rows, features).
    """

    score: NDArray[np.float64]
    given: Callable[[NDArray[np.int64], int | None], NDArray[np.float64]]


class Forest:
    """Boosted trees over float32 features, equal to LightGBM's raw score; threads may ask at the same time."""

    def __init__(self, arrays: Arrays) -> None:
        self._arrays = {name: readable(array) for name, array in arrays.items()}
        self._scoring = tuple(self._arrays[name] for name in _SCORING)
        self._explaining = tuple(self._arrays[name] for name in _EXPLAINING)
        self.features = int(arrays["feature_count"][0])
        self.bias = float(arrays["bias"][0])
        leaf = np.asarray(arrays["leaf_value"])
        self.span = float((leaf.max(axis=1) - leaf.min(axis=1)).sum())
        """No two scores are further apart."""
        self._worth: tuple[int, NDArray[np.float64]] | None = None

    @classmethod
    def from_lightgbm_text(cls, text: str) -> Self:
        """Reads what LightGBM's `model_to_string` or `save_model` wrote.

        A threshold is rounded down to float32, which changes no comparison with a float32 feature.

        Raises:
            BadInput: It is not such a text, or has what is not served: categorical splits, missing values, linear
                leaves, several classes, averaged (random forest) output, more than 64 leaves in a tree.
        """
        head, trees = _parse(text)
        leaves = max((int(tree["num_leaves"]) for tree in trees), default=1)
        if leaves > MOST_LEAVES:
            raise BadInput(f"a tree may have at most {MOST_LEAVES} leaves, got {leaves}.", hint="Lower num_leaves.")
        built = [_Tree(tree, number) for number, tree in enumerate(trees)]
        leaf_value = np.zeros((len(built), leaves))
        for number, tree in enumerate(built):
            leaf_value[number, : len(tree.leaf_value)] = tree.leaf_value
        ptr = np.zeros(len(built) + 1, dtype=np.int32)
        np.cumsum([len(tree.feature) for tree in built], out=ptr[1:])

        def joined(name: str, dtype: Any) -> NDArray[Any]:
            parts = [getattr(tree, name) for tree in built]
            return np.concatenate([np.asarray(part, dtype=dtype) for part in parts] or [np.empty(0, dtype)])

        def linked(name: str) -> NDArray[np.int32]:  # nodes are numbered through all trees, leaves are not
            shifted = [
                np.where(
                    np.array(getattr(tree, name), dtype=np.int32) >= 0, getattr(tree, name) + start, getattr(tree, name)
                )
                for tree, start in zip(built, ptr[:-1].tolist(), strict=True)
            ]
            return np.concatenate([*shifted, np.empty(0)]).astype(np.int32)

        feature = joined("feature", np.int32)
        features = int(head["max_feature_idx"]) + 1
        if feature.size and not 0 <= feature.min() <= feature.max() < features:
            raise BadInput(f"splits use feature {feature.max()}, but there are only {features} features.")
        return cls(
            {
                "tree_ptr": ptr,
                "feature": feature,
                "threshold": joined("threshold", np.float32),
                "mask": joined("mask", np.uint32 if leaves <= 32 else np.uint64),
                "leaf_value": leaf_value,
                "root": np.array(
                    [
                        tree.root + start if tree.root >= 0 else -1
                        for tree, start in zip(built, ptr[:-1].tolist(), strict=True)
                    ],
                    dtype=np.int32,
                ),
                "left": linked("left"),
                "right": linked("right"),
                "node_value": joined("node_value", np.float64),
                "feature_count": np.array([features], dtype=np.int32),
                "bias": np.array([sum(tree.expected for tree in built)], dtype=np.float64),
            }
        )

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> Self:
        """The same forest from what `arrays` gave; they may be memory-mapped and read-only."""
        return cls({name: arrays[name] for name in _ARRAYS})

    def arrays(self) -> Arrays:
        """Everything that the forest is: about 44 bytes a node."""
        return dict(self._arrays)

    def predict(self, rows: NDArray[np.float32]) -> NDArray[np.float64]:
        """The raw score of each row.

        Args:
            rows: Shape (rows, features); other types are rounded to float32, NaN counts as 0 (as LightGBM does).

        Returns:
            Shape (rows,), equal to LightGBM's `predict(rows, raw_score=True)`.

        Raises:
            BadInput: The number of features is not that of the training.
        """
        found: NDArray[np.float64] = _kernel().predict(self._checked(rows), *self._scoring, False)[0]
        return found

    def score(self, rows: NDArray[np.float32], block: int) -> Scored:
        """The scores of a question's candidates: those of `predict`, whatever is ranked by itself."""
        del block
        score, leaves = _kernel().predict(self._checked(rows), *self._scoring, True)
        return Scored(score, partial(self._given, rows, leaves))

    def contributions(self, rows: NDArray[np.float32]) -> NDArray[np.float64]:
        """What each feature gave to each score: path contributions (Saabas, 2014).

        At every split on a row's path the feature is credited with the change of the expected value of the training
        rows that came there.

        Args:
            rows: As for `predict`.

        Returns:
            Shape (rows, features); a row's sum plus `bias` is its score.
        """
        found: NDArray[np.float64] = _kernel().contributions(self._checked(rows), *self._explaining)
        return found

    def _given(
        self, rows: NDArray[np.float32], leaves: NDArray[np.uint8], at: NDArray[np.int64], first: int | None
    ) -> NDArray[np.float64]:
        """See `Scored.given`; `leaves` is where each row ends in each tree."""
        if first is None:
            return Forest.contributions(self, rows[at])
        if self._worth is None or self._worth[0] != first:
            self._worth = (first, self._worth_of(first))
        worth = self._worth[1]
        gave: NDArray[np.float64] = _kernel().sums(leaves, at, worth)
        return gave

    def _worth_of(self, first: int) -> NDArray[np.float64]:
        """Shape (trees, leaves): what the splits by the first features gave on the one path to each leaf."""
        root, feature, _, left, right, node_value, leaf_value = self._explaining
        worth = np.zeros(leaf_value.shape)
        tree = np.flatnonzero(root >= 0)
        node, so_far = root[tree], np.zeros(len(tree))
        while len(node):  # all paths of all trees go one step down
            step = np.concatenate([left[node], right[node]])
            tree, node, so_far = np.tile(tree, 2), np.tile(node, 2), np.tile(so_far, 2)
            leaf = step < 0
            after = np.where(leaf, leaf_value[tree, np.where(leaf, -1 - step, 0)], node_value[np.where(leaf, 0, step)])
            so_far += np.where(feature[node] < first, after - node_value[node], 0.0)
            worth[tree[leaf], -1 - step[leaf]] = so_far[leaf]
            tree, node, so_far = tree[~leaf], step[~leaf], so_far[~leaf]
        return worth

    def _checked(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        if rows.ndim != 2 or rows.shape[1] != self.features:
            raise BadInput(f"rows must have the shape (rows, {self.features}), got {rows.shape}.")
        return readable(rows, np.float32)


class _Tree:
    """One tree of the text: nodes in the order of feature and threshold, leaves from left to right."""

    def __init__(self, fields: dict[str, str], number: int) -> None:
        leaves = int(fields["num_leaves"])
        value = _numbers(fields, "leaf_value", leaves)
        weight = _numbers(fields, "leaf_count", leaves) if leaves > 1 else np.ones(1)
        if leaves == 1:
            self.root, self.leaf_value, self.expected = -1, value, float(value[0])
            self.feature = self.mask = self.left = self.right = np.empty(0, np.int64)
            self.threshold: NDArray[Any] = np.empty(0, np.float32)
            self.node_value = np.empty(0, np.float64)
            return
        kind = _numbers(fields, "decision_type", leaves - 1).astype(np.int64)
        if int(fields.get("num_cat", 0)) or (kind & 1).any():
            raise BadInput(f"tree {number} splits by categories, which is not served.", hint="Train on numbers only.")
        if (kind >> 2).any():
            raise BadInput(f"tree {number} treats missing values apart.", hint="Train on features without NaN.")
        feature, cut, left, right = (
            _numbers(fields, name, leaves - 1) for name in ("split_feature", "threshold", "left_child", "right_child")
        )
        order = np.lexsort((cut, feature))
        place = np.empty(leaves - 1, dtype=np.int64)
        place[order] = np.arange(leaves - 1)
        self.feature = feature[order].astype(np.int64)
        self.threshold = _rounded_down(cut[order])
        self.root = int(place[0])
        lefts, rights = left.astype(np.int64).tolist(), right.astype(np.int64).tolist()
        seen: list[int] = []  # leaves from left to right
        mask, expected = [0] * (leaves - 1), [0.0] * (leaves - 1)

        def visit(node: int) -> tuple[float, float]:
            """Sum of the values below a node, weighted by training rows, and their number."""
            if node < 0:
                seen.append(~node)
                return float(value[~node] * weight[~node]), float(weight[~node])
            begin = len(seen)
            total, rows = visit(lefts[node])
            mask[node] = (2**64 - 1) ^ (((1 << (len(seen) - begin)) - 1) << begin)
            more, further = visit(rights[node])
            expected[node] = (total + more) / (rows + further) if rows + further > 0 else 0.0
            return total + more, rows + further

        visit(0)
        rank = {leaf: at for at, leaf in enumerate(seen)}
        self.left, self.right = (
            np.array([place[child] if child >= 0 else -1 - rank[~child] for child in children], dtype=np.int64)[order]
            for children in (lefts, rights)
        )
        word = 2**32 - 1 if leaves <= 32 else 2**64 - 1
        self.mask = np.array([mask[node] & word for node in order.tolist()], dtype=np.uint64)
        self.node_value = np.array(expected)[order]
        self.leaf_value = value[seen]
        self.expected = expected[0]


def _parse(text: str) -> tuple[dict[str, str], list[dict[str, str]]]:
    """Head and trees of a LightGBM text, each as names and texts."""
    lines = text.splitlines()
    if not lines or lines[0].strip() != "tree":
        raise BadInput(f"a LightGBM text begins with the line 'tree', got {lines[0][:40] if lines else ''!r}.")
    head: dict[str, str] = {}
    trees: list[dict[str, str]] = []
    fields = head
    for line in lines[1:]:
        name, sign, rest = line.strip().partition("=")
        if name == "end of trees":
            break
        if name == "Tree" and sign:
            fields = {}
            trees.append(fields)
        elif name:
            fields[name] = rest
    else:
        raise BadInput("the LightGBM text ends before the line 'end of trees'.")
    if "max_feature_idx" not in head or any("num_leaves" not in tree for tree in trees):
        raise BadInput("the LightGBM text lacks max_feature_idx or num_leaves.")
    if int(head.get("num_tree_per_iteration", 1)) != 1:
        raise BadInput(f"one score a row is served, got num_tree_per_iteration={head['num_tree_per_iteration']}.")
    if "average_output" in head:
        raise BadInput("averaged trees (boosting=rf) are not served.", hint="Train with boosting=gbdt.")
    if any(int(tree.get("is_linear", 0)) for tree in trees):
        raise BadInput("linear leaves are not served.", hint="Train with linear_tree=false.")
    return head, trees


def _numbers(fields: dict[str, str], name: str, count: int) -> NDArray[np.float64]:
    values: Sequence[str] = fields.get(name, "").split()
    if len(values) != count:
        raise BadInput(f"a tree of the LightGBM text needs {count} values of {name}, got {len(values)}.")
    return np.array([float(value) for value in values])


def _rounded_down(cut: NDArray[np.float64]) -> NDArray[np.float32]:
    """The largest float32 that is not above: x <= cut holds for the same float32 x."""
    most = float(np.finfo(np.float32).max)
    near = np.clip(cut, -most, most).astype(np.float32)
    return np.where(near > cut, np.nextafter(near, np.float32(-np.inf)), near).astype(np.float32)


def readable(array: NDArray[Any], dtype: Any = None) -> NDArray[Any]:
    """A plain read-only view, so that memory-mapped arrays and those in memory share one compiled kernel."""
    view = np.ascontiguousarray(np.asarray(array, dtype=dtype)).view()
    view.flags.writeable = False
    return view


@cache
def _kernel() -> Any:
    """The compiled loops, imported late."""
    from thinslice.models import forest_kernel

    return forest_kernel


_SCORING = ("tree_ptr", "feature", "threshold", "mask", "leaf_value")
_EXPLAINING = ("root", "feature", "threshold", "left", "right", "node_value", "leaf_value")
_ARRAYS = ("tree_ptr", "feature", "threshold", "mask", "leaf_value", "root", "left", "right", "node_value",
           "feature_count", "bias")  # fmt: skip
