"""Bought together: what lands in the same basket more often than chance, for the page of an item and for the cart."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from thinslice.errors import BadInput
from thinslice.models.item_to_item import ItemToItem, strongest
from thinslice.records import ACTIONS, Interactions, Item

PURCHASE = ACTIONS.index("purchase")
"""The code of a purchase in `Interactions.action`."""


AT_ONCE = 2_000_000
"""Pairs of things in a basket that are counted at a time: this bounds the memory, not the log."""


class BoughtTogether(ItemToItem):
    """Basket lift with shrinkage: log of (baskets with both + s) / (baskets with both by chance + s), where above 0.

    A basket is what one session bought; in a log that does not tell what a click was, what one session clicked. The
    shrinkage keeps a pair that was seen once from standing above one that was seen every day.
    """

    name = "bought-together"
    shelf: ClassVar[bool] = True
    """It answers what goes with an item, not what is clicked next: it is evaluated when it is named."""

    @classmethod
    def fit(
        cls,
        interactions: Interactions,
        items: Sequence[Item] | None = None,
        *,
        rng: np.random.Generator | int | None = None,
        shrinkage: float = 2.0,
        top: int = 100,
        largest: int = 100,
    ) -> Self:
        """Counts pairs of items in baskets.

        Args:
            interactions: The clicks.
            items: Not needed: only what was bought is learned.
            rng: Not needed: nothing is random.
            shrinkage: Baskets that every pair is given on both sides.
            top: How many items are kept an item, the strongest.
            largest: A basket of more items counts with so many of its newest.

        Raises:
            BadInput: A setting is out of its range.
        """
        del items, rng
        if not 0 < shrinkage < float("inf"):
            raise BadInput(f"shrinkage must be positive, got {shrinkage}.")
        for name, value in (("top", top), ("largest", largest)):
            if value < 1 or value != int(value):
                raise BadInput(f"{name} must be a whole number of at least 1, got {value}.")
        basket, item = baskets(interactions, int(largest))
        count = len(interactions.item_ids)
        if not len(item):
            none = np.empty(0, dtype=np.int64)
            return cls.from_table(none, none, np.empty(0), interactions.item_ids)
        parts = list(_pairs(basket, item, count, shrinkage, int(top)))
        first, second, lift = (np.concatenate(each) for each in zip(*parts, strict=True))
        return cls.from_table(first, second, lift, interactions.item_ids)


def _pairs(
    basket: NDArray[np.int64], item: NDArray[np.int64], count: int, shrinkage: float, top: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]]:
    """The `top` strongest pairs of each item: first, second and lift, some first items at a time (`AT_ONCE`)."""
    from scipy.sparse import csr_matrix

    _, row, size = np.unique(basket, return_inverse=True, return_counts=True)
    held = csr_matrix((np.ones(len(item)), (row, item)), shape=(len(size), count))
    by_item = held.T.tocsr()
    alone = np.bincount(item, minlength=count)
    work = np.cumsum(np.bincount(item, weights=size[row], minlength=count))
    cuts = np.unique(np.searchsorted(work, np.arange(AT_ONCE, work[-1] + AT_ONCE, AT_ONCE)))
    for begin, end in pairwise([0, *(cuts[cuts < count] + 1).tolist(), count]):
        both = (by_item[begin:end] @ held).tocoo()
        first, second = both.row.astype(np.int64) + begin, both.col.astype(np.int64)
        chance = alone[first].astype(np.float64) * alone[second] / held.shape[0]
        ratio = (both.data + shrinkage) / (chance + shrinkage)
        above = (ratio > 1) & (first != second)
        first, second, lift = first[above], second[above], np.log(ratio[above])
        high = np.flatnonzero(lift >= _bar(first - begin, lift, end - begin, top))
        kept = high[strongest(first[high], second[high], lift[high], top)]
        yield first[kept], second[kept], lift[kept]


def _bar(row: NDArray[np.int64], value: NDArray[np.float64], rows: int, top: int) -> NDArray[np.float64]:
    """For each entry, rows rising, what the `top`th largest of its row has: what is below need not be sorted."""
    size = np.bincount(row, minlength=rows)
    end = np.cumsum(size)
    bar = np.full(rows, -np.inf)
    for each in np.flatnonzero(size > top).tolist():
        bar[each] = np.partition(value[end[each] - size[each] : end[each]], size[each] - top)[size[each] - top]
    return bar[row]


def baskets(interactions: Interactions, largest: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Who holds what: session and item of each distinct thing in a basket, at most `largest` of the newest a basket."""
    sessions = len(interactions.session_ptr) - 1
    session = np.repeat(np.arange(sessions), np.diff(interactions.session_ptr))
    item = interactions.item.astype(np.int64)
    if interactions.action is not None:
        bought = interactions.action == PURCHASE
        session, item = session[bought], item[bought]
    place = np.arange(len(item))
    order = np.lexsort((-place, item, session))  # of equal things the newest comes first
    session, item, place = session[order], item[order], place[order]
    fresh = np.ones(len(item), dtype=np.bool_)
    fresh[1:] = (session[1:] != session[:-1]) | (item[1:] != item[:-1])
    session, item, place = session[fresh], item[fresh], place[fresh]
    order = np.lexsort((-place, session))
    session, item = session[order], item[order]
    heads = np.flatnonzero(np.diff(session, prepend=-1))
    rank = np.arange(len(session)) - np.repeat(heads, np.diff(np.append(heads, len(session))))
    return session[rank < largest], item[rank < largest]
