"""Known users: what a user did in all sessions before joins the session of today; without a user it is session kNN.

Three sources are added, each divided by its largest score: session kNN; a table of weights from item to item (EASE for
small catalogs, cosine with TF-IDF for large ones) for the clicks of the session; and the same table for the user's
whole history, where a purchase counts more than a view and what is older less. Traits that many users share (loyalty
tier, place) stand in that table like items. Beside the history of those who come back and have clicked nothing yet
stands what is popular now.
"""

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from thinslice.errors import BadInput
from thinslice.models.array_model import PersonalModel
from thinslice.models.ease import LARGEST_CATALOG, largest_weights, solve
from thinslice.models.implicit_neighbors import ImplicitTfidf
from thinslice.models.item_to_item import ItemToItem, checked_mask, kernel, plain
from thinslice.models.popular import Popular
from thinslice.models.session_knn import SessionKNN
from thinslice.models.user_history import histories, odds_of_return, user_rows
from thinslice.models.user_traits import shared_traits
from thinslice.models.vocabulary import Vocabulary
from thinslice.records import Arrays, Interactions, Item, Reason, User

SESSION_DECAY = 8.0
"""Clicks after which a click of the session counts 1/e as much as the newest in the table."""

POPULARITY = "popularity"
"""The name of the term of an explanation that is no item."""


class UserCF(PersonalModel):
    """Session kNN with a table and histories of known users; see the words at the top and `fit` for the settings."""

    name = "user-cf"
    without_users: ClassVar[str] = SessionKNN.name
    """What it is where nobody is known."""

    def __init__(self, arrays: Arrays) -> None:
        super().__init__(arrays)
        self.anonymous = SessionKNN(_inner(arrays, "session-"))
        """What answers those whom nobody knows."""
        users = {"id_letters": arrays["user_letters"], "id_ptr": arrays["user_letter_ptr"]}
        self._users = Vocabulary.from_arrays(users)
        self._history = tuple(np.asarray(arrays[name]) for name in ("history_ptr", "history_row", "history_worth"))
        self._bought = np.asarray(arrays["history_bought"])
        self._refused = tuple(np.asarray(arrays[name]) for name in ("refused_ptr", "refused"))
        self._table = tuple(plain(arrays[name]) for name in ("row_ptr", "target", "weight"))
        self._popularity = np.asarray(arrays["popularity"], dtype=np.float64)
        limits = (float(each) for each in arrays["limits"])
        self._table_share, self._history_share, self._popular_share, self._again_share = limits

    @classmethod
    def fit(
        cls,
        interactions: Interactions,
        items: Sequence[Item] | None = None,
        *,
        rng: np.random.Generator | int | None = None,
        users: Sequence[User] = (),
        reg: float = 250.0,
        again: float = 5.0,
        top: int = 300,
        half_life_days: float = 180.0,
        table: float = 1.0,
        history: float = 0.3,
        popularity: float = 2.0,
    ) -> Self:
        """Learns from all sessions, those of one user together.

        Args:
            interactions: The clicks, the user of each session, and the action of each click if known.
            items: Not needed: only clicked items are learned.
            rng: Not needed: nothing is random.
            users: What the shop knows of its users; only who consented to personalization has traits.
            reg: Weight of the squared table, in users (catalogs under 10,000 items).
            again: Weight of what the user took before, times the odds (learned) that users come back to an item.
            top: How many weights are kept a row of the table.
            half_life_days: A click of the history this old counts half; a log that only tells the order has none.
            table: Weight of the table for the clicks of the session, beside 1 of session kNN.
            history: Weight of the user's history beside a session.
            popularity: Weight of what is popular now beside the history of a user without a session.

        Raises:
            BadInput: A setting is out of its range.
        """
        if min(reg, half_life_days) <= 0 or min(again, table, history, popularity) < 0 or top < 1 or top != int(top):
            raise BadInput(
                "reg and half_life_days must be positive, again, table, history and popularity not below 0, top a "
                "whole number from 1, "
                f"got {reg}, {half_life_days}, {again}, {table}, {history}, {popularity} and {top}."
            )
        count = len(interactions.item_ids)
        traits, of_user = shared_traits(users)
        user_ids = sorted({*interactions.user_ids, *(name for name, codes in of_user.items() if codes)})
        code = {name: number for number, name in enumerate(user_ids)}
        past = histories(interactions, [code[name] for name in interactions.user_ids], half_life_days)
        traits_of = [(code[name], count + trait) for name, codes in of_user.items() for trait in codes]
        pairs = np.concatenate([past.pairs, np.array(traits_of, dtype=np.int64).reshape(-1, 2)])
        value = np.append(past.worth, np.ones(len(traits_of)))
        order = np.lexsort((pairs[:, 1], pairs[:, 0]))
        rows = user_rows(interactions, pairs, len(user_ids), count + len(traits))
        knn = SessionKNN.fit(interactions, items, rng=rng)
        learned = _learn(rows, count, reg, top)
        popular = Popular.fit(interactions).arrays()["score"]
        known = Vocabulary(user_ids).arrays()
        return cls(
            {
                **{f"session-{name}": array for name, array in knn.arrays().items() if name not in _NAMES},
                **{name: learned[name] for name in ("row_ptr", "target", "weight")},
                "history_ptr": _ptr(pairs[:, 0], len(user_ids)),
                "history_row": pairs[order, 1].astype(np.int32),
                "history_worth": value[order].astype(np.float32),
                "history_bought": np.append(past.bought, np.zeros(len(traits_of), np.bool_))[order],
                "refused_ptr": _ptr(past.refused[:, 0], len(user_ids)),
                "refused": past.refused[:, 1].astype(np.int32),
                "popularity": (popular / max(float(popular.max(initial=0.0)), 1e-300)).astype(np.float32),
                "limits": np.array([table, history, popularity, again * odds_of_return(interactions)]),
                "user_letters": known["id_letters"],
                "user_letter_ptr": known["id_ptr"],
                **Vocabulary(interactions.item_ids).arrays(),
            }
        )

    @classmethod
    def ready(cls) -> bool:
        """Whether a question is answered at once."""
        return SessionKNN.ready() and ItemToItem.ready()

    @classmethod
    def warm(cls) -> None:
        """Compiles the kernels, or reads them from the cache of an earlier run."""
        SessionKNN.warm()
        ItemToItem.warm()

    def knows(self, user_id: str | None) -> bool:
        """Whether there is anything known of a user."""
        return user_id is not None and user_id in self._users.code

    def recommend_codes(
        self, session: NDArray[np.int32], k: int, allowed: NDArray[np.bool_] | None = None, *,
        user_id: str | None = None,
    ) -> tuple[NDArray[np.int32], NDArray[Any]]:  # fmt: skip
        """`recommend` without texts: item codes, oldest first, -1 for unknown; codes and scores, best first."""
        user = -1 if user_id is None else self._users.code.get(user_id, -1)
        if user < 0:
            return self.anonymous.recommend_codes(session, k, allowed)
        mask = checked_mask(allowed, len(self._vocabulary))
        total = self._score(session, user)
        good = total > 0
        if mask.size:
            good &= mask
        codes = np.flatnonzero(good).astype(np.int32)
        found: tuple[NDArray[np.int32], NDArray[Any]] = kernel().best(codes, total[codes], max(k, 0))
        return found

    def explain_all(
        self, session: Sequence[str], item_ids: Sequence[str], *, user_id: str | None = None
    ) -> list[Reason]:
        """`explain` for a whole slate."""
        user = -1 if user_id is None else self._users.code.get(user_id, -1)
        if user < 0:
            return self.anonymous.explain_all(session, item_ids)
        clicks = self._vocabulary.codes(session)
        total = self._score(clicks, user)
        sources = self._sources(clicks, user)
        again = dict(zip(*(each.tolist() for each in self._again(user)), strict=True))
        largest = float(np.max(self._knn(clicks), initial=0.0))
        by_session = self.anonymous.explain_all(session, item_ids) if largest > 0 else []
        reasons = []
        for place, item_id in enumerate(item_ids):
            code = self._vocabulary.code.get(item_id, -1)
            if code < 0 or total[code] <= 0:
                reasons.append(Reason(item_id, 0.0, {}))
                continue
            terms = {name: part / largest for name, part in by_session[place].terms.items()} if by_session else {}
            for rows, worth, share, _ in sources:
                parts, _ = kernel().row_terms(rows, worth * share, *self._table, np.array([code], dtype=np.int32))
                for row, part in zip(rows.tolist(), parts[0].tolist(), strict=True):
                    if part != 0:
                        name = self._vocabulary[row] if row < len(self._vocabulary) else "traits"
                        terms[name] = terms.get(name, 0.0) + part
            if code in again:
                terms[item_id] = terms.get(item_id, 0.0) + again[code]
            if not len(clicks[clicks >= 0]) and self._popularity[code] > 0:
                terms[POPULARITY] = self._popular_share * float(self._popularity[code])
            rounding = float(total[code]) - sum(terms.values())
            terms[max(terms, key=lambda name: abs(terms[name]))] += rounding
            reasons.append(Reason(item_id, float(total[code]), terms))
        return reasons

    def bought(self, user_id: str | None, among: Iterable[str] | None = None) -> frozenset[str]:
        """What a user bought and did not refuse since, of some items or of all."""
        user = -1 if user_id is None else self._users.code.get(user_id, -1)
        if user < 0:
            return frozenset()
        ptr, row, _ = self._history
        inside = slice(ptr[user], ptr[user + 1])
        every = frozenset(self._vocabulary[code] for code in row[inside][self._bought[inside]].tolist())
        return every if among is None else every.intersection(among)

    def _score(self, clicks: NDArray[np.int32], user: int) -> NDArray[np.float64]:
        """The score of every item, shape (items,); what the user refused has none."""
        total = self._knn(clicks)
        largest = float(np.max(total, initial=0.0))
        if largest > 0:
            total /= largest
        for *_, share, whole in self._sources(clicks, user):
            total += share * whole
        if not len(clicks[clicks >= 0]):
            total += self._popular_share * self._popularity
        again, worth = self._again(user)
        total[again] += worth
        ptr, refused = self._refused
        total[refused[ptr[user] : ptr[user + 1]]] = 0
        return total

    def _sources(
        self, clicks: NDArray[np.int32], user: int
    ) -> list[tuple[NDArray[np.int32], NDArray[np.float64], float, NDArray[np.float64]]]:
        """Rows of the table that count, what each counts, the weight over the largest score, the sum of the rows."""
        known = np.ascontiguousarray(clicks[clicks >= 0][-60:], dtype=np.int32)
        ptr, row, worth = self._history
        inside = slice(ptr[user], ptr[user + 1])
        history = (np.ascontiguousarray(row[inside]), worth[inside].astype(np.float64))
        recent = (known, np.exp(-np.arange(len(known) - 1, -1, -1) / SESSION_DECAY))
        found = []
        for (rows, each), share in ((recent, self._table_share), (history, self._history_share if len(known) else 1.0)):
            if not len(rows) or share <= 0:
                continue
            whole = self._rows(rows, each)
            largest = float(np.max(whole, initial=0.0))
            if largest > 0:
                found.append((rows, each, share / largest, whole))
        return found

    def _again(self, user: int) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
        """What the user took before, and what that adds to its own score."""
        ptr, row, worth = self._history
        inside = slice(ptr[user], ptr[user + 1])
        taken = row[inside] < len(self._vocabulary)
        own = worth[inside][taken].astype(np.float64)
        return row[inside][taken], self._again_share * own / max(float(np.max(own, initial=0.0)), 1e-300)

    def _rows(self, rows: NDArray[np.int32], worth: NDArray[np.float64]) -> NDArray[np.float64]:
        total: NDArray[np.float64] = kernel().sum_rows(rows, worth, *self._table, len(self._vocabulary))
        return total

    def _knn(self, clicks: NDArray[np.int32]) -> NDArray[np.float64]:
        total = np.zeros(len(self._vocabulary), dtype=np.float64)
        codes, scores = self.anonymous.recommend_codes(clicks, len(self._vocabulary))
        total[codes] = scores
        return total


_NAMES = ("id_letters", "id_ptr")


def _inner(arrays: Arrays, prefix: str) -> Arrays:
    """The arrays of a model inside another, which share one vocabulary."""
    own = {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
    return own | {name: arrays[name] for name in _NAMES}


def _learn(rows: Any, items: int, reg: float, top: int) -> Arrays:
    """The table from items and traits to items; nothing speaks for itself."""
    width = rows.shape[1]
    if not items:
        none = np.empty(0, dtype=np.int64)
        row, target, weight = none, none, none.astype(np.float64)
    elif width < LARGEST_CATALOG:
        row, target, weight = largest_weights(solve(rows, reg, 0.0)[:, :items], top)
    else:
        row, target, weight = ImplicitTfidf.similarities(rows, top)
    kept = (row != target) & (target < items)
    return ItemToItem.from_table(row[kept], target[kept], weight[kept], [""] * width).arrays()


def _ptr(owner: NDArray[np.int64], users: int) -> NDArray[np.int64]:
    ptr = np.zeros(users + 1, dtype=np.int64)
    np.cumsum(np.bincount(owner, minlength=users), out=ptr[1:])
    return ptr
