"""Clusters from a graph: people who know each other, or items that are seen together, get the same variant.

Where units change each other's outcomes (a friend shares, a good runs out), a test by visitor measures too little; a
test by communities keeps most ties inside one variant.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from thinslice.errors import StatisticsError

ROUNDS = 30
"""Labels wander at most so often; graphs of a million ties settle in about ten."""


class Communities(NamedTuple):
    """Which nodes belong together.

    Attributes:
        label: Shape (nodes,), int64: the community's code, 0 ... count - 1, the largest first.
        sizes: Shape (count,), nodes in each.
        within: Share of the ties' weight, 0..1, that lies inside communities: 1 - `within` leaks between variants.
    """

    label: NDArray[np.int64]
    sizes: NDArray[np.int64]
    within: float


def communities(
    nodes: int,
    ends: tuple[ArrayLike, ArrayLike],
    weights: ArrayLike | None = None,
    *,
    rng: np.random.Generator,
    largest: int | None = None,
) -> Communities:
    """Communities by label propagation: each node takes the label that weighs most among its neighbors.

    Half of the nodes, drawn anew each round, move at once, so that labels do not swing back and forth.

    Args:
        nodes: How many; a node without a tie is a community alone.
        ends: The two ends of each tie, codes 0 ... nodes - 1; ties have no direction.
        weights: Of each tie, above 0; None is 1.
        rng: Decides who moves when, and between equal labels.
        largest: No community has more nodes: larger ones are cut, since one giant cluster leaves nothing to compare.

    Raises:
        StatisticsError: Columns of different lengths, a code that is no node, or a weight that is not above 0.

    Source: Raghavan, Albert and Kumara, Near linear time algorithm to detect community structures in large-scale
    networks (2007).
    """
    first, second = (np.asarray(end, dtype=np.int64) for end in ends)
    weight = np.ones(len(first)) if weights is None else np.asarray(weights, dtype=np.float64)
    if not first.shape == second.shape == weight.shape:
        raise StatisticsError(f"ties have different lengths: {first.size}, {second.size} and {weight.size}.")
    if first.size and not 0 <= min(first.min(), second.min()) <= max(first.max(), second.max()) < nodes:
        raise StatisticsError(f"a tie names a node beyond the {nodes:,} that there are.")
    if not (weight > 0).all() or not np.isfinite(weight).all():
        raise StatisticsError("the weight of a tie is above 0 and finite.")
    apart = first != second
    first, second, weight = first[apart], second[apart], weight[apart]
    source, target = np.concatenate([first, second]), np.concatenate([second, first])
    heavy = np.concatenate([weight, weight])
    label = np.arange(nodes, dtype=np.int64)
    for _ in range(ROUNDS):
        best = _strongest(nodes, source, label[target], heavy, label, rng)
        wants = best != label
        if not wants.any():
            break
        moves = wants & (rng.random(nodes) < 0.5)
        label = np.where(moves, best, label)
    if largest is not None:
        label = _cut(label, source, target, largest)
    _, label = np.unique(label, return_inverse=True)
    sizes = np.bincount(label, minlength=1 if nodes else 0)
    order = np.argsort(-sizes, kind="stable")
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    label = place[label].astype(np.int64)
    inside = float(weight[label[first] == label[second]].sum())
    return Communities(label, sizes[order].astype(np.int64), inside / float(weight.sum()) if first.size else 1.0)


def seen_together(groups: ArrayLike, members: ArrayLike, *, most: int = 50) -> tuple[NDArray[np.int64], ...]:
    """Ties between members of the same group (items of one session): each pair of neighbors in a group, counted.

    Args:
        groups: Shape (rows,), the group of each row, equal ones side by side (as clicks of sessions in order).
        members: Shape (rows,), codes.
        most: Only so many first rows of a group count: a session without end would tie everything.

    Returns:
        First end, second end, and how often, one entry a pair.
    """
    group, member = np.asarray(groups), np.asarray(members, dtype=np.int64)
    if len(group) < 2:
        none = np.zeros(0, dtype=np.int64)
        return none, none, none
    starts = np.flatnonzero(np.concatenate([[True], group[1:] != group[:-1]]))
    place = np.arange(len(group)) - np.repeat(starts, np.diff(np.append(starts, len(group))))
    joined = (group[1:] == group[:-1]) & (member[1:] != member[:-1]) & (place[1:] < most)
    low, high = np.minimum(member[1:], member[:-1])[joined], np.maximum(member[1:], member[:-1])[joined]
    pairs, count = np.unique(np.stack([low, high], axis=1), axis=0, return_counts=True)
    return pairs[:, 0], pairs[:, 1], count.astype(np.int64)


def labels_of(ids: Sequence[str], found: Communities) -> dict[str, str]:
    """Id → name of its community, for those that are not alone."""
    return {
        name: f"community-{code}" for name, code in zip(ids, found.label.tolist(), strict=True) if found.sizes[code] > 1
    }


def _strongest(
    nodes: int,
    source: NDArray[np.int64],
    labels: NDArray[np.int64],
    weight: NDArray[np.float64],
    own: NDArray[np.int64],
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    """For each node the label with the most weight among its neighbors; its own when none is heavier."""
    if not len(source):
        return own
    key = source * nodes + labels
    pairs, back = np.unique(key, return_inverse=True)
    total = np.bincount(back, weights=weight)
    node, label = pairs // nodes, pairs % nodes
    keeps = label == own[node]
    order = np.lexsort((rng.random(len(pairs)), keeps, total, node))
    last = np.append(node[order][1:] != node[order][:-1], True)
    best = own.copy()
    best[node[order][last]] = label[order][last]
    return best


def _cut(
    label: NDArray[np.int64], source: NDArray[np.int64], target: NDArray[np.int64], largest: int
) -> NDArray[np.int64]:
    """Cuts communities into pieces of at most `largest` nodes, along a walk of neighbors, so that pieces stay near."""
    neighbors: dict[int, list[int]] = {}
    too_large = np.flatnonzero(np.bincount(label) > largest)
    if not too_large.size:
        return label
    big = np.isin(label, too_large)
    inside = big[source] & (label[source] == label[target])
    for a, b in zip(source[inside].tolist(), target[inside].tolist(), strict=True):
        neighbors.setdefault(a, []).append(b)
    cut, fresh = label.copy(), int(label.max()) + 1
    for code in too_large.tolist():
        waiting = dict.fromkeys(np.flatnonzero(label == code).tolist())
        filled = largest
        while waiting:
            walk = [next(iter(waiting))]
            del waiting[walk[0]]
            for node in walk:
                if filled >= largest:
                    fresh, filled = fresh + 1, 0
                cut[node] = fresh
                filled += 1
                for other in neighbors.get(node, ()):
                    if other in waiting:
                        del waiting[other]
                        walk.append(other)
    return cut
