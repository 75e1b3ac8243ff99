"""Factors: items as short vectors; a session becomes a vector, and items are ranked by their product with it."""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from thinslice.errors import BadInput
from thinslice.models.array_model import ArrayModel
from thinslice.models.item_to_item import LONGEST_LOOK, checked_mask, kernel, plain, terms_by_item
from thinslice.records import Arrays, Reason


class Factors(ArrayModel):
    """Ranks every item by bias + session vector · item vector; a session without a known item gets nothing.

    A model that learns such vectors inherits from here, has a `fit`, and says in `_parts` what each click adds to the
    vector of the session.
    """

    name = "factors"
    compares_all: ClassVar[bool] = True
    _warm: ClassVar[bool] = False

    def __init__(self, arrays: Arrays) -> None:
        super().__init__(arrays)
        self._factors, self._bias = plain(arrays["factors"]), plain(arrays["bias"])

    @abstractmethod
    def _parts(self, clicks: NDArray[np.int32]) -> NDArray[np.float64]:
        """What each click adds to the vector of the session, shape (clicks, embedding_size)."""

    @classmethod
    def ready(cls) -> bool:
        """Whether a question is answered at once."""
        return Factors._warm

    @classmethod
    def warm(cls) -> None:
        """Compiles the kernels, or reads them from the cache of an earlier run."""
        if not Factors._warm:
            factors, bias = plain(np.ones((1, 2), np.float32)), plain(np.zeros(2, np.float32))
            kernel().rank_factors(np.ones(1), factors, bias, 1, checked_mask(None, 2))
            kernel().factor_scores(np.ones(1), factors, bias, np.zeros(1, np.int32))
            Factors._warm = True

    def recommend_codes(
        self, session: NDArray[np.int32], k: int, allowed: NDArray[np.bool_] | None = None
    ) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
        """`recommend` without texts: item codes, oldest first, -1 for unknown; codes and scores, best first."""
        mask = checked_mask(allowed, len(self._vocabulary))
        clicks = known_clicks(session)
        if not len(clicks):
            return np.empty(0, np.int32), np.empty(0, np.float64)
        vector = self._parts(clicks).sum(axis=0)
        found: tuple[NDArray[np.int32], NDArray[np.float64]] = kernel().rank_factors(
            vector, self._factors, self._bias, max(k, 0), mask
        )
        return found

    def explain_all(self, session: Sequence[str], item_ids: Sequence[str]) -> list[Reason]:
        """`explain` for a whole slate in one pass."""
        clicks = known_clicks(self._vocabulary.codes(session))
        codes = self._vocabulary.codes(item_ids)
        if not len(clicks):
            return [Reason(item_id, 0.0, {}) for item_id in item_ids]
        parts = self._parts(clicks)
        inside = np.maximum(codes, 0)
        score = kernel().factor_scores(parts.sum(axis=0), self._factors, self._bias, inside)
        shares = self._factors[:, inside].T.astype(np.float64) @ parts.T + self._bias[inside, None] / len(clicks)
        rounding = score - shares.sum(axis=1)
        shares[np.arange(len(codes)), np.abs(shares).argmax(axis=1)] += rounding
        names = [self._vocabulary[code] for code in clicks.tolist()]
        return [
            Reason(item_id, float(score[n]), terms_by_item(names, shares[n]))
            if codes[n] >= 0
            else Reason(item_id, 0.0, {})
            for n, item_id in enumerate(item_ids)
        ]


def known_clicks(session: NDArray[np.int32]) -> NDArray[np.int32]:
    """The newest known clicks of a session, as codes, oldest first."""
    return np.ascontiguousarray(session[session >= 0][-LONGEST_LOOK:], dtype=np.int32)


def check_factor_settings(embedding_size: int, epochs: int, **positive: float) -> None:
    """Refuses settings that no model of factors can have.

    Raises:
        BadInput: With the name and the value.
    """
    for name, value in (("embedding_size", embedding_size), ("epochs", epochs)):
        if value < 1 or value != int(value):
            raise BadInput(f"{name} must be a whole number of at least 1, got {value}.")
    for name, number in positive.items():
        if not 0 < number <= 1e6:
            raise BadInput(f"{name} must be above 0 and at most 1,000,000, got {number}.")


@contextmanager
def one_thread() -> Iterator[None]:
    """Linear algebra on one thread: the same bytes whatever else the machine does, and no fight for its cores."""
    import scipy.linalg  # noqa: F401  # its threads must be there to be counted
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=1, user_api="blas"):
        yield
