"""Trending: what is clicked more these days than its own past would make us expect, the same for everyone."""

import math
from collections.abc import Sequence
from typing import Self

import numpy as np

from thinslice.errors import BadInput
from thinslice.models.popular import Popular
from thinslice.records import Interactions, Item

LOWER_END = 1.6449
"""Standard deviations from the estimate to the lower end of its 95 % bound."""


class Trending(Popular):
    """Recent sessions of an item against those that its own past foretells. Its one term of a score is `trend`.

    The score is the lower end of what the growth may be (95 %), so that one click of one visitor does not trend: ten
    sessions where one was foretold stand above one session where none was. A session counts an item once.
    """

    name = "trending"
    term = "trend"

    @classmethod
    def fit(  # type: ignore[override] # its settings are its own
        cls,
        interactions: Interactions,
        items: Sequence[Item] | None = None,
        *,
        rng: np.random.Generator | int | None = None,
        recent_days: float = 1.0,
        past_days: float = 7.0,
        recent_share: float = 0.05,
        shrinkage: float = 5.0,
    ) -> Self:
        """Counts sessions per item in the newest span and in the past before it.

        Args:
            interactions: The clicks.
            items: Not needed: an item that nobody clicked does not trend.
            rng: Not needed: nothing is random.
            recent_days: The newest span; a log shorter than five of them is cut at its last fifth.
            past_days: The past before it.
            recent_share: The newest span as a share of all clicks, for logs that only tell the order; then the past is
                `past_days / recent_days` times as long.
            shrinkage: Sessions that every item is given in both spans at the same pace.

        Raises:
            BadInput: A setting is not positive.
        """
        del items, rng
        if min(recent_days, past_days, recent_share, shrinkage) <= 0 or recent_share >= 1:
            raise BadInput(
                "recent_days, past_days, recent_share (below 1) and shrinkage must be positive, "
                f"got {recent_days}, {past_days}, {recent_share} and {shrinkage}."
            )
        clicks, count = len(interactions.item), len(interactions.item_ids)
        if interactions.order_only:
            time = np.empty(clicks)
            time[np.argsort(interactions.time, kind="stable")] = np.arange(clicks)
            span = max(recent_share * clicks, 1.0)
        else:
            time = interactions.time
            span = min(recent_days * 86_400, float(np.ptp(time)) / 5 if clicks else 1.0)
        newest = time.max() if clicks else 0.0
        session = np.repeat(np.arange(len(interactions.session_ptr) - 1), np.diff(interactions.session_ptr))
        recent = time > newest - span
        past = ~recent & (time > newest - span * (1 + past_days / recent_days))
        now, before = (
            np.bincount(
                np.unique(session[part] * count + interactions.item[part].astype(np.int64)) % max(count, 1),
                minlength=count,
            ).astype(np.float64)
            for part in (recent, past)
        )
        expected = before * (now.sum() / max(before.sum(), 1.0)) + shrinkage
        seen = now + shrinkage
        # The logarithm of a ratio of two counts has about the variance 1/a + 1/b.
        score = seen / expected * np.exp(-LOWER_END * np.sqrt(1 / seen + 1 / expected))
        score[(now == 0) & (before == 0)] *= math.exp(-LOWER_END)  # known from long ago only: last
        return cls._of(score, interactions.item_ids)
