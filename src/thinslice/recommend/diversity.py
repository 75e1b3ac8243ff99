"""Diversity: a dial from the ranking as it is to items unlike each other, or to the mix that the visitor looks at.

Maximal marginal relevance (Carbonell and Goldstein, SIGIR 1998): each place goes to the candidate with the best
(1 - dial) × relevance - dial × likeness to what is already chosen. Calibration (Steck, Calibrated recommendations,
RecSys 2018): each place goes to the candidate with which (1 - dial) × relevance - dial × distance is best, the distance
(Kullback-Leibler) being that of the slate's mix of categories from the one in the visitor's session.
"""

from collections.abc import Mapping, Sequence
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from thinslice.records import Item

LEAST = 0.05
"""The relevance of the weakest candidate of the first rung, as a share of the best one's."""

ALPHA = 0.01
"""So much of the wanted mix is added to that of the slate, lest a category that is missing count without end."""


def mmr(relevance: NDArray[np.float64], likeness: NDArray[np.floating], k: int, dial: float) -> list[int]:
    """The places of the `k` candidates to show, the first place first, in k × n steps.

    Args:
        relevance: Shape (n,), best first.
        likeness: Shape (n, n), 0..1, 1 for items that are all the same.
        k: How many to choose.
        dial: 0 leaves the order as it is; at 1 each place goes to the candidate that is least like those before it.

    >>> mmr(np.array([1.0, 0.9, 0.5]), np.array([[1, 1, 0], [1, 1, 0], [0, 0, 1.0]]), 3, 0.5)
    [0, 2, 1]
    """
    n = len(relevance)
    if dial <= 0 or min(k, n) <= 0:
        return list(range(min(max(k, 0), n)))
    chosen = [0]
    worth = (1.0 - dial) * relevance
    worth[0] = -np.inf
    unlike = dial * likeness
    closest = unlike[0].copy()
    gain = np.empty(n)
    while len(chosen) < min(k, n):
        np.subtract(worth, closest, out=gain)
        best = int(gain.argmax())
        chosen.append(best)
        worth[best] = -np.inf
        np.maximum(closest, unlike[best], out=closest)
    return chosen


def relevance_of(scores: Sequence[float], rungs: Sequence[int]) -> NDArray[np.float64]:
    """Scores as relevance from 1 down, never rising: each rung is scaled by itself and goes on where the last ended.

    Scores of different rungs cannot be compared, and those of a ranker may be negative.

    >>> relevance_of([6.0, 4.0, 2.0, 9.0], [0, 0, 0, 1]).round(3).tolist()
    [1.0, 0.525, 0.05, 0.05]
    """
    values = np.asarray(scores, dtype=np.float64)
    which = np.asarray(rungs)
    relevance = np.empty(len(values))
    top = 1.0
    for rung in dict.fromkeys(which.tolist()):
        inside = np.flatnonzero(which == rung)
        low, high = float(values[inside].min()), float(values[inside].max())
        share = (values[inside] - low) / (high - low) if high > low else np.ones(len(inside))
        relevance[inside] = top * (LEAST + (1.0 - LEAST) * share)
        top = float(relevance[inside].min())
    return relevance


def calibrated(
    relevance: NDArray[np.float64], shares: NDArray[np.float64], wanted: NDArray[np.float64], k: int, dial: float
) -> list[int]:
    """The places of the `k` candidates to show, the first place first: a slate of the wanted mix, in k × n steps.

    Args:
        relevance: Shape (n,), best first.
        shares: Shape (n, categories): how much of each candidate belongs to each category; a row sums to 1 at most.
        wanted: Shape (categories,): the mix of what the visitor looked at; it sums to 1, or to 0 where nothing is
            known, and then the order stays as it is.
        k: How many to choose.
        dial: 0 leaves the order as it is; at 1 only the mix counts.

    >>> calibrated(np.array([1.0, 0.9, 0.5]), np.array([[1.0, 0], [1, 0], [0, 1]]), np.array([0.5, 0.5]), 2, 0.5)
    [0, 2]
    """
    n = len(relevance)
    k = min(max(k, 0), n)
    there = wanted > 0
    if dial <= 0 or k == 0 or not there.any():
        return list(range(k))
    mix, each = wanted[there], shares[:, there] * (1.0 - ALPHA)
    worth = (1.0 - dial) * relevance
    so_far = np.zeros(len(mix))
    near = np.empty_like(each)
    chosen: list[int] = []
    for place in range(1, k + 1):
        np.add(each, so_far, out=near)
        near /= place
        near += ALPHA * mix
        np.log(near, out=near)
        best = int((worth + dial * (near @ mix)).argmax())
        chosen.append(best)
        worth[best] = -np.inf
        so_far += each[best]
    return chosen


def distance(shares: NDArray[np.float64], wanted: NDArray[np.float64]) -> float:
    """How far the mix of a slate is from the wanted one: Kullback-Leibler, the slate's blended with `ALPHA` of it.

    Args:
        shares: Shape (places, categories).
        wanted: Shape (categories,).
    """
    there = wanted > 0
    mix = wanted[there]
    near = (1.0 - ALPHA) * shares[:, there].mean(axis=0) + ALPHA * mix
    return float((mix * np.log(mix / near)).sum())


def mix_of(
    items: Sequence[Item | None], session: Sequence[Item | None]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Which part of each item belongs to which category, and the mix of those of the session: for `calibrated`.

    Args:
        items: Candidates; None for one that the catalog does not know.
        session: What the visitor looked at.

    Returns:
        Shape (items, categories) and (categories,), of the categories that occur in the session.
    """
    seen = [item.categories for item in session if item is not None and item.categories]
    column = {name: number for number, name in enumerate(sorted({name for names in seen for name in names}))}
    wanted = np.zeros(len(column))
    for names in seen:
        wanted[[column[name] for name in set(names)]] += 1.0 / (len(set(names)) * len(seen))
    shares = np.zeros((len(items), len(column)))
    for row, item in enumerate(items):
        own = set(item.categories) if item is not None else set()
        for name in own & column.keys():
            shares[row, column[name]] = 1.0 / len(own)
    return shares, wanted


class Traits:
    """The traits and vectors of items as numbers, remembered for as long as an item stays the same object.

    Without this each slate would read the records of all its candidates anew, which costs more than ordering them.
    """

    def __init__(self) -> None:
        self._number: dict[tuple[str, str], int] = {}
        self._known: dict[str, tuple[Item, list[int]]] = {}
        self._units: dict[tuple[str, str], tuple[Item, NDArray[np.float32] | None]] = {}

    def of(self, item: Item) -> list[int]:
        """The numbers of one item's traits."""
        known = self._known.get(item.item_id)
        if known is not None and known[0] is item:
            return known[1]
        number = self._number.setdefault
        numbers = [number(each, len(self._number)) for each in traits(item)]
        self._known[item.item_id] = (item, numbers)
        return numbers

    def unit(self, item: Item, name: str) -> NDArray[np.float32] | None:
        """One item's vector of some name, of length 1 or 0; None where it has none of finite numbers."""
        known = self._units.get((item.item_id, name))
        if known is None or known[0] is not item:
            known = self._units[item.item_id, name] = (item, unit(item.vectors.get(name, ())))
        return known[1]


def likeness_of(items: Sequence[Item | None], known: Traits | None = None) -> NDArray[np.float32]:
    """How alike items are, 0..1: the cosine of the vectors that the shop supplies, else of what their records share.

    Vectors count when every item has one of the same name and length with finite numbers; else categories, kind, brand,
    creator, group and attributes do, each worth one. An item that the catalog does not know is like no other.

    Args:
        items: None for an item that the catalog does not know.
        known: Remembers traits and vectors from one call to the next.

    Returns:
        Shape (items, items), symmetric, 1 on the diagonal.
    """
    memory = known or Traits()
    rows = vectors_of(items, memory)
    if rows is None:
        rows = traits_of(items, memory)
    alike: NDArray[np.float32] = np.clip(rows @ rows.T, 0.0, 1.0)
    np.fill_diagonal(alike, 1.0)
    return alike


def unit(vector: Sequence[float]) -> NDArray[np.float32] | None:
    """A vector made as long as 1, or as it is where all of it is 0; None for an empty one or one that is not finite."""
    values = np.array(vector, dtype=np.float64)
    if not len(values) or not np.isfinite(values).all():
        return None
    values /= max(float(np.abs(values).max()), 1e-300)
    return (values / max(float(np.linalg.norm(values)), 1.0)).astype(np.float32)


def vectors_of(items: Sequence[Item | None], known: Traits) -> NDArray[np.float32] | None:
    """The vectors of all items, each of length 1, under the first name that all have, (items, length); or None."""
    first = items[0] if items else None
    for name in first.vectors if first is not None else ():
        rows = [each for item in items if item is not None and (each := known.unit(item, name)) is not None]
        if len(rows) == len(items) and len({len(row) for row in rows}) == 1:
            return np.stack(rows)
    return None


def traits_of(items: Sequence[Item | None], known: Traits) -> NDArray[np.float32]:
    """Which item has which of the traits that several have, by its number of traits: shape (items, traits)."""
    numbers = [[] if item is None else known.of(item) for item in items]
    sizes = np.array([len(each) for each in numbers])
    flat = np.array(list(chain.from_iterable(numbers)), dtype=np.int64)
    _, column, times = np.unique(flat, return_inverse=True, return_counts=True)
    place = np.cumsum(times > 1) - 1
    shared = times[column] > 1
    row = np.repeat(np.arange(len(items)), sizes)[shared]
    found = np.zeros((len(items), int((times > 1).sum())), np.float32)
    found[row, place[column[shared]]] = 1.0 / np.sqrt(sizes[row])
    return found


def traits(item: Item) -> list[tuple[str, str]]:
    """What an item may share with another, each once."""
    found = [("category", each) for each in item.categories]
    single = (("kind", item.kind), ("brand", item.brand), ("creator", item.creator_id), ("group", item.group_id))
    found += [(name, value) for name, value in single if value]
    found += [(f"attribute {name}", str(value)) for name, value in item.attributes.items() if _is_plain(value)]
    return list(dict.fromkeys(found))


def spread(item_ids: Sequence[str], items: Mapping[str, Item]) -> float:
    """How unlike the items of a slate are: 1 - the mean likeness of two of them, 0..1; 0 for fewer than two."""
    if len(item_ids) < 2:
        return 0.0
    alike = likeness_of([items.get(each) for each in item_ids])
    n = len(item_ids)
    return float(1.0 - (alike.sum() - n) / (n * (n - 1)))


def _is_plain(value: object) -> bool:
    return isinstance(value, str | int | float | bool)
