"""Newest: what came into the shop last, the same for everyone; also serves a catalog that nobody has clicked yet."""

from collections.abc import Sequence
from typing import Self

import numpy as np

from thinslice.models.popular import Popular
from thinslice.records import Interactions, Item


class Newest(Popular):
    """Items by `published_at`, else by when they were first clicked. Its one term of a score is called `newness`."""

    name = "newest"
    term = "newness"

    @classmethod
    def fit(  # type: ignore[override] # its settings are its own
        cls,
        interactions: Interactions,
        items: Sequence[Item] | None = None,
        *,
        rng: np.random.Generator | int | None = None,
    ) -> Self:
        """Orders the items; a score is the share (0..1] of items that are not newer.

        Args:
            interactions: The clicks.
            items: The catalog; items that nobody clicked take part too, by `published_at`, else by `updated_at`.
            rng: Not needed: nothing is random.
        """
        del rng
        first = np.full(len(interactions.item_ids), np.inf)
        np.minimum.at(first, interactions.item, interactions.time)
        came = dict(zip(interactions.item_ids, first.tolist(), strict=True))
        published = {}
        for item in items or []:
            if item.published_at is not None:
                published[item.item_id] = item.published_at.timestamp()
            elif item.item_id not in came:
                published[item.item_id] = item.updated_at.timestamp()
        # A log that only tells the order has no clock to compare with: its items come after those with a date.
        known = {name: (not interactions.order_only, when) for name, when in came.items()}
        known |= {name: (True, when) for name, when in published.items()}
        names = sorted(known)
        oldest_first = sorted(range(len(names)), key=lambda code: known[names[code]])
        score = np.empty(len(names))
        for place, code in enumerate(oldest_first, start=1):
            tied = place > 1 and known[names[code]] == known[names[oldest_first[place - 2]]]
            score[code] = score[oldest_first[place - 2]] if tied else place / len(names)
        return cls._of(score, names)
