"""Slates whose places touch each other: what was shown above weighs, too, so a click may depend on it.

By item and position (the estimators of `off_policy`) a place counts by its own item alone. Here it counts by all items
from the first place down to it: right wherever shoppers go from above to below, at the price of larger weights.

Sources: McInerney, Brost, Chandar, Mehrotra and Carterette, Counterfactual evaluation of slate recommendations with
sequential reward interactions (KDD 2020), for RIPS; Kiyohara, Saito, Matsuhiro, Narita, Shimizu and Yamamoto, Doubly
robust off-policy evaluation for ranking policies under the cascade behavior model (WSDM 2022), for cascade-DR.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from thinslice.errors import BadInput


class Prefixes(NamedTuple):
    """How much more often the target shows the beginnings of slates.

    Attributes:
        weight: Shape (rows,): of all items from the first place of the slate down to this one.
        before: Shape (rows,): of those above this one; 1 at the first place.
        last: Shape (slates,): the row of the last place of each slate, the slates in the order of their codes.
    """

    weight: NDArray[np.float64]
    before: NDArray[np.float64]
    last: NDArray[np.int64]


def prefixes(weight: NDArray[np.float64], slate: NDArray[np.int64], position: NDArray[np.int64]) -> Prefixes:
    """Multiplies the weights of a slate from its first place down.

    Args:
        weight: Shape (rows,): the target's probability over the logged one, each given what stands above.
        slate: Shape (rows,): codes from 0.
        position: Shape (rows,): codes that rise from above to below.

    Raises:
        BadInput: Two rows of a slate stand at the same position.

    >>> found = prefixes(np.array([2.0, 0.5, 3.0]), np.array([0, 0, 1]), np.array([0, 1, 0]))
    >>> found.weight.tolist(), found.before.tolist(), found.last.tolist()
    ([2.0, 1.0, 3.0], [1.0, 2.0, 1.0], [1, 2])
    """
    order = np.lexsort((position, slate))
    of, at = slate[order], position[order]
    same = of[1:] == of[:-1]
    twice = int((same & (at[1:] == at[:-1])).sum())
    if twice:
        raise BadInput(f"{twice} rows stand at a position that another row of their slate has.")
    first = np.flatnonzero(np.append(True, ~same))
    size = np.diff(np.append(first, len(of)))
    product = np.empty(len(of))
    product[first] = weight[order[first]]
    for place in range(1, int(size.max(initial=0))):
        rows = first[size > place] + place
        product[rows] = product[rows - 1] * weight[order[rows]]
    above = np.ones(len(of))
    above[1:] = np.where(same, product[:-1], 1.0)
    whole, before = np.empty(len(of)), np.empty(len(of))
    whole[order], before[order] = product, above
    return Prefixes(whole, before, order[first + size - 1])


def to_come(
    reward: NDArray[np.float64], weight: NDArray[np.float64], slate: NDArray[np.int64], position: NDArray[np.int64]
) -> NDArray[np.float64]:
    """What each row and the places below it in its slate brought, those below as often as the target shows them.

    The recursion of the source: reward + weight of the next place × what is to come from there; shape (rows,).

    >>> ones, zeros = np.ones(3), np.zeros(3, np.int64)
    >>> to_come(ones, np.array([9.0, 2.0, 0.5]), zeros, np.arange(3)).tolist()
    [4.0, 1.5, 1.0]
    """
    order = np.lexsort((position, slate))
    of = slate[order]
    first = np.flatnonzero(np.append(True, of[1:] != of[:-1]))
    size = np.diff(np.append(first, len(of)))
    sums = reward[order].astype(np.float64)
    for place in range(int(size.max(initial=0)) - 1, 0, -1):
        rows = first[size > place] + place
        sums[rows - 1] += weight[order[rows]] * sums[rows]
    found = np.empty(len(of))
    found[order] = sums
    return found


def expected(
    come: NDArray[np.float64], position: NDArray[np.int64], action: NDArray[np.int64], table: NDArray[np.float64],
    fold: NDArray[np.int64], pseudo_count: float,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:  # fmt: skip
    """What an item at a place is expected to bring with all below it; learned crosswise.

    A mean for each place and item, drawn towards that of the place.

    Args:
        come: Of `to_come`.
        position: Codes from 0.
        action: Codes of items.
        table: The target's probabilities given what stands above, shape (rows, items).
        fold: Of each row; a row is expected by what the other folds taught.
        pseudo_count: As by so many rows an item's mean is drawn towards that of its place.

    Returns:
        Shape (rows,): of what was shown; and its mean under the target.
    """
    places, items = int(position.max(initial=0)) + 1, table.shape[1]
    cell = position * items + action
    q, q_target = np.empty(len(come)), np.empty(len(come))
    for number in np.unique(fold).tolist():
        learn, ask = fold != number, fold == number
        count = np.bincount(cell[learn], minlength=places * items).reshape(places, items)
        total = np.bincount(cell[learn], weights=come[learn], minlength=places * items).reshape(places, items)
        mean = (total.sum(axis=1) / np.maximum(count.sum(axis=1), 1))[:, None]
        by_item = (total + pseudo_count * mean) / (count + pseudo_count)
        q[ask] = by_item[position[ask], action[ask]]
        q_target[ask] = (table[ask] * by_item[position[ask]]).sum(axis=1)
    return q, q_target


def cascade_dr(
    reward: NDArray[np.float64], found: Prefixes, q: NDArray[np.float64], q_target: NDArray[np.float64]
) -> NDArray[np.float64]:
    """What each row adds to the doubly robust value of its slate, shape (rows,).

    weight × (reward - q) + weight above × q_target. With the right probabilities the sum over a slate is right whatever
    was expected; the better that is, the less it varies.

    Args:
        reward: Of each row.
        found: The weights of the beginnings.
        q: Of each row: what it and the places below it were expected to bring.
        q_target: Its mean under the target, given what stands above.
    """
    rows: NDArray[np.float64] = found.weight * (reward - q) + found.before * q_target
    return rows
