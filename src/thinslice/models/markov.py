"""Markov: what was clicked next after the item that is open now, by counting."""

from collections.abc import Sequence
from typing import Self

import numpy as np

from thinslice.errors import BadInput
from thinslice.models.item_to_item import ItemToItem, strongest
from thinslice.records import Interactions, Item


class Markov(ItemToItem):
    """First-order transitions: the share of times that an item came right after the session's newest known item."""

    name = "markov"

    @classmethod
    def fit(
        cls,
        interactions: Interactions,
        items: Sequence[Item] | None = None,
        *,
        rng: np.random.Generator | int | None = None,
        top: int = 200,
    ) -> Self:
        """Counts the steps from one click to the next within sessions; staying on an item is a step, too.

        Args:
            interactions: The clicks.
            items: Not needed: only clicked items are learned.
            rng: Not needed: nothing is random.
            top: How many items that came next are kept an item, the most frequent.

        Raises:
            BadInput: A setting is out of its range.
        """
        del items, rng
        if top < 1 or top != int(top):
            raise BadInput(f"top must be a whole number of at least 1, got {top}.")
        count = len(interactions.item_ids)
        inside = np.ones(max(len(interactions.item) - 1, 0), dtype=np.bool_)
        ends = interactions.session_ptr[1:-1]
        inside[ends[(ends > 0) & (ends < len(interactions.item))] - 1] = False
        source = interactions.item[:-1][inside].astype(np.int64)
        step, times = np.unique(source * count + interactions.item[1:][inside], return_counts=True)
        row, target = np.divmod(step, max(count, 1))
        share = times / np.maximum(np.bincount(row, weights=times, minlength=count), 1)[row]
        kept = strongest(row, target, share, top)
        return cls.from_table(row[kept], target[kept], share[kept], interactions.item_ids, [1.0, 0.0])
