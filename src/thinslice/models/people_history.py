"""What a known person is shown before the first click of a visit: own things, what goes with them, what is popular.

It stands behind every model that answers from the session: where that has nothing to say of somebody who is known,
their history answers before what is popular to all.
"""

import threading
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from thinslice.errors import BadInput
from thinslice.models.array_model import PersonalModel
from thinslice.models.item_to_item import ItemToItem, checked_mask, kernel
from thinslice.models.people import LEADS, NEAR, Memory, People, strength
from thinslice.models.popular import Popular
from thinslice.models.user_history import odds_of_return
from thinslice.models.vocabulary import Vocabulary
from thinslice.records import Arrays, Interactions, Item, Reason

POPULAR = 200
"""So many items that are popular now stand among a person's own."""

POPULARITY = "popularity"
"""The name of the term of an explanation that is no item."""

OF_PEOPLE = "people_"
"""The arrays of what is remembered begin so."""


class _Ranked(NamedTuple):
    """Candidates of a person, in the order of their codes, and what each part gave to each score."""

    codes: NDArray[np.int32]
    own: NDArray[np.float64]
    near: NDArray[np.float64]
    popular: NDArray[np.float64]

    def total(self) -> NDArray[np.float64]:
        """Shape (candidates,)."""
        return self.own + self.near + self.popular


class UserHistory(PersonalModel):
    """A person's own items, items that the same people take on other days, and what is popular, each to 1, weighed.

    Own items count by visits and by how long ago they were, times the odds (learned) that people come back to a thing
    at all. A visit that goes on is not its own history. Strangers get nothing, whatever they clicked.

    >>> from thinslice.models import from_columns
    >>> log = from_columns(["s", "t", "u"], ["pen", "pen", "ink"], [1e9, 1.1e9, 1.1e9], users=["ann", "ann", "ben"])
    >>> model = UserHistory.fit(log)
    >>> model.recommend([], 1, user_id="ann").item_ids, model.recommend([], 1).item_ids
    (['pen'], [])
    """

    name = "user-history"
    shelf: ClassVar[bool] = True
    """It answers before the first click, not what is clicked next: it is evaluated when it is named."""

    def __init__(self, arrays: Arrays) -> None:
        super().__init__(arrays)
        remembered = {name.removeprefix(OF_PEOPLE): each for name, each in arrays.items() if name.startswith(OF_PEOPLE)}
        self._people = People.from_arrays(remembered)
        self._popular, self._popularity = np.asarray(arrays["popular"]), np.asarray(arrays["popularity"])
        self._again, self._near, self._popular_share = (float(each) for each in arrays["shares"])
        self._scratch = threading.local()

    @classmethod
    def fit(
        cls,
        interactions: Interactions,
        items: Sequence[Item] | None = None,
        *,
        rng: np.random.Generator | int | None = None,
        again: float = 5.0,
        near: float = 0.3,
        popularity: float = 2.0,
    ) -> Self:
        """Remembers who took what, and what the same people take.

        Args:
            interactions: The clicks, the user of each session, and the action of each click if known.
            items: Not needed: only clicked items are learned.
            rng: Not needed: nothing is random.
            again: Weight of what the person took before, times the odds (learned) that people come back to an item.
            near: Weight of what the same people take on other days.
            popularity: Weight of what is popular now.

        Raises:
            BadInput: A weight is below 0.
        """
        del items, rng
        if min(again, near, popularity) < 0:
            raise BadInput(f"again, near and popularity must not be below 0, got {again}, {near} and {popularity}.")
        score = np.asarray(Popular.fit(interactions).arrays()["score"], dtype=np.float64)
        best = np.lexsort((np.arange(len(score)), -score))[:POPULAR]
        return cls(
            {
                **{OF_PEOPLE + name: array for name, array in People.build(interactions).arrays().items()},
                "popular": best.astype(np.int32),
                "popularity": score[best] / max(float(score.max(initial=0.0)), 1e-300),
                "shares": np.array([again * odds_of_return(interactions), near, popularity]),
                **Vocabulary(interactions.item_ids).arrays(),
            }
        )

    @classmethod
    def ready(cls) -> bool:
        """Whether a question is answered at once."""
        return ItemToItem.ready()

    @classmethod
    def warm(cls) -> None:
        """Compiles the kernels, or reads them from the cache of an earlier run."""
        ItemToItem.warm()

    def recommend_codes(
        self, session: NDArray[np.int32], k: int, allowed: NDArray[np.bool_] | None = None, *,
        user_id: str | None = None,
    ) -> tuple[NDArray[np.int32], NDArray[np.float64]]:  # fmt: skip
        """Codes and scores for somebody who is known, best first; nothing for strangers."""
        mask = checked_mask(allowed, len(self._vocabulary))
        memory = self._memory(session, user_id)
        if memory is None:
            return np.empty(0, np.int32), np.empty(0)
        found = self._ranked(memory)
        total = found.total()
        good = total > 0
        if mask.size:
            good &= mask[found.codes]
        codes, scores = found.codes[good], total[good]
        order = np.lexsort((codes, -scores))[: max(k, 0)]
        return codes[order], scores[order]

    def explain_all(
        self, session: Sequence[str], item_ids: Sequence[str], *, user_id: str | None = None
    ) -> list[Reason]:
        """The person's items that made each score, an own one by its own name; what is popular is a term of its own."""
        names = self._vocabulary
        memory = self._memory(names.codes(session), user_id)
        if memory is None:
            return [Reason(item_id, 0.0, {}) for item_id in item_ids]
        found = self._ranked(memory)
        lead, worth = memory.leads()
        wanted = np.array([names.code.get(item_id, -1) for item_id in item_ids], dtype=np.int32)
        place = np.minimum(np.searchsorted(found.codes, wanted), len(found.codes) - 1)
        parts, whole = kernel().row_terms(lead, worth, *self._people.near, np.maximum(wanted, 0))
        reasons = []
        for n, (item_id, at) in enumerate(zip(item_ids, place.tolist(), strict=True)):
            score = float(found.own[at] + found.near[at] + found.popular[at])
            if found.codes[at] != wanted[n] or score <= 0:
                reasons.append(Reason(item_id, 0.0, {}))
                continue
            terms = {item_id: float(found.own[at])} if found.own[at] > 0 else {}
            scale = float(found.near[at]) / max(float(whole[n]), 1e-300)
            for code, part in zip(lead.tolist(), (parts[n] * scale).tolist(), strict=True):
                if part != 0:
                    terms[names[code]] = terms.get(names[code], 0.0) + part
            if found.popular[at] > 0:
                terms[POPULARITY] = float(found.popular[at])
            reasons.append(Reason(item_id, score, terms))
        return reasons

    def causes(
        self, session: Sequence[str], item_ids: Sequence[str], *, user_id: str | None = None
    ) -> list[str | None]:
        """The item of the history that gave most of each score; None where what is popular gave more than any."""
        found = []
        for reason in self.explain_all(session, item_ids, user_id=user_id):
            best = max(reason.terms, key=reason.terms.__getitem__) if reason.terms else POPULARITY
            found.append(None if best == POPULARITY else best)
        return found

    def bought(self, user_id: str | None, among: Iterable[str] | None = None) -> frozenset[str]:
        """What a person bought, of some items or of all, as far as it is remembered."""
        return self._people.bought(user_id, self._vocabulary, among)

    def _memory(self, session: NDArray[np.int32], user_id: str | None) -> Memory | None:
        memory = self._people.memory(user_id)
        if memory is None:
            return None
        memory = memory.without(session)
        return memory if len(memory.item) else None

    def _ranked(self, memory: Memory) -> _Ranked:
        lead, worth = memory.leads()
        near, score = kernel().rank_rows(lead, worth, *self._people.near, *self._room(), LEADS * NEAR, _ALL)
        codes = np.unique(np.concatenate([memory.item, near, self._popular]))
        parts = np.zeros((3, len(codes)))
        worth_own = strength(memory.facts)
        parts[0, np.searchsorted(codes, memory.item)] = self._again * worth_own / float(worth_own.max())
        if len(near):
            parts[1, np.searchsorted(codes, near)] = self._near * score / float(score[0])
        parts[2, np.searchsorted(codes, self._popular)] = self._popular_share * self._popularity
        return _Ranked(codes, *parts)

    def _room(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """This thread's scratch: 12 bytes an item."""
        room: tuple[NDArray[Any], NDArray[Any]] | None = getattr(self._scratch, "room", None)
        if room is None:
            items = len(self._vocabulary)
            room = self._scratch.room = (np.zeros(items), np.empty(items, np.int32))
        return room


_ALL = np.zeros(0, np.bool_)
