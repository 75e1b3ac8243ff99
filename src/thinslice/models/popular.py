"""Popular: what is clicked most these days, the same for everyone."""

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from thinslice.errors import BadInput
from thinslice.models.array_model import ArrayModel
from thinslice.models.vocabulary import Vocabulary
from thinslice.records import Arrays, Interactions, Item, Reason


class Popular(ArrayModel):
    """Clicks per item, each worth half after a half-life. Its one term of a score is called `popularity`."""

    name = "popular"
    term = "popularity"

    def __init__(self, arrays: Arrays) -> None:
        super().__init__(arrays)
        self._order = np.asarray(arrays["order"])
        self._score = np.asarray(arrays["score"])

    @classmethod
    def fit(
        cls,
        interactions: Interactions,
        items: Sequence[Item] | None = None,
        *,
        rng: np.random.Generator | int | None = None,
        half_life_days: float = 3.0,
        half_life_share: float = 0.1,
    ) -> Self:
        """Counts.

        Args:
            interactions: The clicks.
            items: Not needed: an item that nobody clicked is not popular.
            rng: Not needed: nothing is random.
            half_life_days: A click this old counts half.
            half_life_share: The same as a share (0..1) of all clicks, for logs that only tell the order.

        Raises:
            BadInput: A half-life is not positive.
        """
        del items, rng
        if min(half_life_days, half_life_share) <= 0:
            raise BadInput(f"half-lives must be positive, got {half_life_days} days and a share of {half_life_share}.")
        clicks = len(interactions.item)
        if interactions.order_only:
            time, half_life = np.empty(clicks), max(half_life_share * clicks, 1.0)
            time[np.argsort(interactions.time, kind="stable")] = np.arange(clicks)
        else:
            time, half_life = interactions.time, half_life_days * 86_400
        age = (time.max() - time) / half_life if clicks else time
        score = np.bincount(interactions.item, weights=np.exp2(-age), minlength=len(interactions.item_ids))
        return cls._of(score, interactions.item_ids)

    @classmethod
    def _of(cls, score: NDArray[Any], item_ids: Sequence[str]) -> Self:
        """The model in which each item always has the same score; equal ones stand in the order of their codes."""
        order = np.argsort(-score, kind="stable").astype(np.int32)
        return cls({"order": order, "score": score, **Vocabulary(item_ids).arrays()})

    def recommend_codes(
        self, session: NDArray[np.int32], k: int, allowed: NDArray[np.bool_] | None = None
    ) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
        """`recommend` without texts: the same for every session."""
        del session
        k = max(k, 0)
        if allowed is None:
            codes = self._order[:k]
        else:
            if len(allowed) != len(self._order):
                raise BadInput(f"allowed must have {len(self._order)} values, one an item, got {len(allowed)}.")
            mask = np.asarray(allowed, dtype=np.bool_)
            near = self._order[: 8 * k]  # most often enough
            codes = near[mask[near]][:k]
            if len(codes) < k:
                codes = self._order[mask[self._order]][:k]
        return codes, self._score[codes]

    def explain_all(self, session: Sequence[str], item_ids: Sequence[str]) -> list[Reason]:
        """One term an item, the same for every session."""
        del session
        codes = self._vocabulary.codes(item_ids).tolist()
        scores = [float(self._score[code]) if code >= 0 else 0.0 for code in codes]
        return [
            Reason(item_id, score, {self.term: score} if code >= 0 else {})
            for item_id, code, score in zip(item_ids, codes, scores, strict=True)
        ]
