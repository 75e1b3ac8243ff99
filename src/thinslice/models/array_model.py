"""What models share: each is nothing but named arrays, ranks codes of items, and speaks in the shop's item ids."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from thinslice.models.vocabulary import Vocabulary
from thinslice.records import Arrays, Reason, ScoredItems


class ArrayModel(ABC):
    """A model by the two things it must say: how codes are ranked, and what made the scores.

    A model that learns inherits from here, has a `fit` that ends with `cls(arrays)`, reads what it needs in `__init__`,
    and answers `recommend_codes` and `explain_all`; the rest of the promise `Model` follows.
    """

    name: str

    def __init__(self, arrays: Arrays) -> None:
        self._arrays = arrays
        self._vocabulary = Vocabulary.from_arrays(arrays)

    @abstractmethod
    def recommend_codes(
        self, session: NDArray[np.int32], k: int, allowed: NDArray[np.bool_] | None = None
    ) -> tuple[NDArray[np.int32], NDArray[Any]]:
        """`recommend` without texts: item codes, oldest first, -1 for unknown; codes and scores, best first."""

    @abstractmethod
    def explain_all(self, session: Sequence[str], item_ids: Sequence[str]) -> list[Reason]:
        """`explain` for a whole slate in one pass."""

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> Self:
        """The same model from what `arrays` gave; the arrays may be memory-mapped and read-only."""
        return cls(arrays)

    def arrays(self) -> Arrays:
        """Everything that the model is."""
        return dict(self._arrays)

    @classmethod
    def ready(cls) -> bool:
        """Whether a question is answered at once; a model without kernels always does."""
        return True

    @classmethod  # noqa: B027  # not abstract: some models have nothing to compile
    def warm(cls) -> None:
        """Compiles the kernels, or reads them from the cache of an earlier run; here there are none."""

    @property
    def item_ids(self) -> Sequence[str]:
        """The vocabulary, one id a code."""
        return self._vocabulary

    def recommend(self, session: Sequence[str], k: int, *, allowed: NDArray[np.bool_] | None = None) -> ScoredItems:
        """The best `k` items for a session, best first; items of which the model has nothing to say are left out.

        Args:
            session: Item ids, oldest first; unknown ones are passed over.
            k: Length of the list.
            allowed: Mask over `item_ids`, shape (items,); None allows all.

        Raises:
            BadInput: `allowed` has another length than the vocabulary.
        """
        codes, scores = self.recommend_codes(self._vocabulary.codes(session), k, allowed)
        names = self._vocabulary
        return ScoredItems([names[code] for code in codes.tolist()], scores.tolist(), self.name)

    def explain(self, session: Sequence[str], item_id: str) -> Reason:
        """Which terms (mostly session items) gave how much of the score of one item; they sum to it."""
        return self.explain_all(session, [item_id])[0]

    def causes(self, session: Sequence[str], item_ids: Sequence[str]) -> list[str | None]:
        """The item that gave most of each score; None where no item spoke for it."""
        return [self._strongest(reason) for reason in self.explain_all(session, item_ids)]

    def _strongest(self, reason: Reason) -> str | None:
        known = self._vocabulary.code
        items = {name: part for name, part in reason.terms.items() if part > 0 and name in known}
        return max(items, key=items.__getitem__) if items else None


class PersonalModel(ArrayModel):
    """An `ArrayModel` that also knows people: a question may say who asks; None, or a stranger, is nobody."""

    knows_users: ClassVar[bool] = True

    @abstractmethod
    def recommend_codes(
        self, session: NDArray[np.int32], k: int, allowed: NDArray[np.bool_] | None = None, *,
        user_id: str | None = None,
    ) -> tuple[NDArray[np.int32], NDArray[Any]]:  # fmt: skip
        """`recommend` without texts: item codes, oldest first, -1 for unknown; codes and scores, best first."""

    @abstractmethod
    def explain_all(
        self, session: Sequence[str], item_ids: Sequence[str], *, user_id: str | None = None
    ) -> list[Reason]:
        """`explain` for a whole slate in one pass."""

    def recommend(
        self, session: Sequence[str], k: int, *, allowed: NDArray[np.bool_] | None = None, user_id: str | None = None
    ) -> ScoredItems:
        """The best `k` items for a session and a person, best first.

        Args:
            session: Item ids, oldest first; unknown ones are passed over. It may be empty.
            k: Length of the list.
            allowed: Mask over `item_ids`, shape (items,); None allows all.
            user_id: Who asks; None, or somebody of whom nothing is known, gets what the session alone gives.

        Raises:
            BadInput: `allowed` has another length than the vocabulary.
        """
        codes, scores = self.recommend_codes(self._vocabulary.codes(session), k, allowed, user_id=user_id)
        names = self._vocabulary
        return ScoredItems([names[code] for code in codes.tolist()], scores.tolist(), self.name)

    def explain(self, session: Sequence[str], item_id: str, *, user_id: str | None = None) -> Reason:
        """Which terms gave how much of the score of one item; they sum to it."""
        return self.explain_all(session, [item_id], user_id=user_id)[0]

    def causes(
        self, session: Sequence[str], item_ids: Sequence[str], *, user_id: str | None = None
    ) -> list[str | None]:
        """The item of session or history that gave most of each score; None where no item spoke for it."""
        return [self._strongest(reason) for reason in self.explain_all(session, item_ids, user_id=user_id)]
