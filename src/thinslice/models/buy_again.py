"""Buy again: what a known user used up by now, from how long it took the last times and how long it takes others."""

from collections.abc import Sequence
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from thinslice.errors import BadInput
from thinslice.models.array_model import PersonalModel
from thinslice.models.bought_together import PURCHASE
from thinslice.models.item_to_item import checked_mask
from thinslice.models.vocabulary import Vocabulary
from thinslice.records import Arrays, Interactions, Item, Reason


class BuyAgain(PersonalModel):
    """Chance that an item is bought again × how close the time since the last purchase is to the typical interval.

    Both are shrunk: a user's own intervals towards those of the item, the item's towards those of all. Time ends with
    the log: training again moves it. Anonymous sessions get nothing.
    """

    name = "buy-again"
    shelf: ClassVar[bool] = True
    """It answers what is bought again, not what is clicked next: it is evaluated when it is named."""

    def __init__(self, arrays: Arrays) -> None:
        super().__init__(arrays)
        self._users = Vocabulary.from_arrays(
            {"id_letters": arrays["user_letters"], "id_ptr": arrays["user_letter_ptr"]}
        )
        self._user_ptr = np.asarray(arrays["user_ptr"])
        self._item = np.asarray(arrays["item"])
        self._score = np.asarray(arrays["score"])

    @classmethod
    def fit(
        cls,
        interactions: Interactions,
        items: Sequence[Item] | None = None,
        *,
        rng: np.random.Generator | int | None = None,
        shrinkage: float = 3.0,
        width: float = 0.7,
    ) -> Self:
        """Learns intervals between purchases of the same item by the same user.

        Args:
            interactions: The clicks, with the action of each and the user of each session; without them it is empty.
            items: Not needed: only what was bought is learned.
            rng: Not needed: nothing is random.
            shrinkage: Purchases that an item's and a user's figures are given of the figure above them.
            width: Standard deviation of the log of intervals around the typical one.

        Raises:
            BadInput: A setting is not positive.
        """
        del items, rng
        if min(shrinkage, width) <= 0:
            raise BadInput(f"shrinkage and width must be positive, got {shrinkage} and {width}.")
        count = len(interactions.item_ids)
        user, item, time = _purchases(interactions)
        pair = user * max(count, 1) + item
        order = np.lexsort((time, pair))
        pair, time = pair[order], time[order]
        distinct = np.ones(len(pair), dtype=np.bool_)
        distinct[1:] = (pair[1:] != pair[:-1]) | (time[1:] != time[:-1])
        pair, time = pair[distinct], time[distinct]
        again = pair[1:] == pair[:-1]
        gap = np.log(np.maximum(time[1:] - time[:-1], 1e-9))[again]
        pairs, first = np.unique(pair, return_index=True)
        last = time[np.append(first[1:], len(pair)).astype(np.int64) - 1] if len(pair) else time
        own = np.searchsorted(pairs, pair[1:][again])
        of = pairs % max(count, 1)
        repeats = np.bincount(own, minlength=len(pairs))
        gaps = np.bincount(own, weights=gap, minlength=len(pairs))
        # all → item → user: each figure is shrunk towards the one above it
        all_gap = float(gap.mean()) if len(gap) else 0.0
        all_chance = float(len(gap) / len(pair)) if len(pair) else 0.0
        bought = np.bincount(of, weights=repeats + 1, minlength=count)
        item_repeats = np.bincount(of, weights=repeats, minlength=count)
        item_gaps = np.bincount(of, weights=gaps, minlength=count)
        item_gap = (item_gaps + shrinkage * all_gap) / (item_repeats + shrinkage)
        item_chance = (item_repeats + shrinkage * all_chance) / (bought + shrinkage)
        typical = (gaps + shrinkage * item_gap[of]) / (repeats + shrinkage)
        chance = (repeats + shrinkage * item_chance[of]) / (repeats + 1 + shrinkage)
        now = float(interactions.time.max()) if len(interactions.time) else 0.0
        since = np.log(np.maximum(now - last, 1e-9))
        score = chance * np.exp(-((since - typical) ** 2) / (2 * width**2)) if len(gap) else np.zeros(len(pairs))
        kept = score > 1e-12
        owner, of, score = (pairs // max(count, 1))[kept], of[kept], score[kept]
        best = np.lexsort((of, -score, owner))
        buyers, owner = np.unique(owner, return_inverse=True)  # nothing is kept of those who buy nothing again
        user_ptr = np.zeros(len(buyers) + 1, dtype=np.int64)
        np.cumsum(np.bincount(owner, minlength=len(buyers)), out=user_ptr[1:])
        names = Vocabulary([interactions.user_ids[user] for user in buyers.tolist()]).arrays()
        return cls(
            {
                "user_ptr": user_ptr,
                "item": of[best].astype(np.int32),
                "score": score[best],
                "user_letters": names["id_letters"],
                "user_letter_ptr": names["id_ptr"],
                **Vocabulary(interactions.item_ids).arrays(),
            }
        )

    def recommend_codes(
        self, session: NDArray[np.int32], k: int, allowed: NDArray[np.bool_] | None = None, *,
        user_id: str | None = None,
    ) -> tuple[NDArray[np.int32], NDArray[np.float64]]:  # fmt: skip
        """What this user bought before, best first, whatever the session; nothing for strangers."""
        del session
        mask = checked_mask(allowed, len(self._vocabulary))
        item, score = self._of(user_id)
        if mask.size:
            item, score = item[mask[item]], score[mask[item]]
        return item[: max(k, 0)], score[: max(k, 0)]

    def explain_all(
        self, session: Sequence[str], item_ids: Sequence[str], *, user_id: str | None = None
    ) -> list[Reason]:
        """One term an item: its own earlier purchase."""
        del session
        own = dict(zip(*(part.tolist() for part in self._of(user_id)), strict=True))
        scores = [own.get(code, 0.0) for code in self._vocabulary.codes(item_ids).tolist()]
        return [
            Reason(item_id, score, {item_id: score} if score else {})
            for item_id, score in zip(item_ids, scores, strict=True)
        ]

    def _of(self, user_id: str | None) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
        code = -1 if user_id is None else self._users.code.get(user_id, -1)
        start, end = (0, 0) if code < 0 else (int(self._user_ptr[code]), int(self._user_ptr[code + 1]))
        return self._item[start:end], self._score[start:end]


def _purchases(interactions: Interactions) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """User, item and time of each purchase of a known user."""
    if interactions.action is None or interactions.user is None:
        none = np.empty(0, dtype=np.int64)
        return none, none, np.empty(0)
    user = np.repeat(interactions.user.astype(np.int64), np.diff(interactions.session_ptr))
    chosen = (interactions.action == PURCHASE) & (user >= 0)
    return user[chosen], interactions.item[chosen].astype(np.int64), interactions.time[chosen]
