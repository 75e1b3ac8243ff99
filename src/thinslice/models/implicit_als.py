"""Implicit's ALS: matrix factorization of sessions × items as the library `implicit` learns it, served by arrays.

Alternating least squares for implicit feedback (Hu, Koren, Volinsky, ICDM 2008). An anonymous session is folded in: its
vector is the exact solution of the same least squares with the item vectors held fast.
"""

from collections.abc import Sequence
from typing import Self

import numpy as np
from numpy.typing import NDArray

from thinslice.models.factors import Factors, check_factor_settings, one_thread
from thinslice.models.item_to_item import click_counts
from thinslice.models.vocabulary import Vocabulary
from thinslice.records import Arrays, Interactions, Item


class ImplicitALS(Factors):
    """Item vectors of `implicit`, sessions by fold-in."""

    name = "implicit-als"

    def __init__(self, arrays: Arrays) -> None:
        super().__init__(arrays)
        self._inverse = np.asarray(arrays["inverse"], dtype=np.float64)
        self._alpha = float(arrays["alpha"][0])

    @classmethod
    def fit(
        cls,
        interactions: Interactions,
        items: Sequence[Item] | None = None,
        *,
        rng: np.random.Generator | int | None = None,
        embedding_size: int = 128,
        epochs: int = 15,
        reg: float = 1.0,
        alpha: float = 40.0,
    ) -> Self:
        """Learns the vectors, with one thread.

        Args:
            interactions: The clicks.
            items: Not needed: only clicked items are learned.
            rng: Draws the seed of the library; None is 0.
            embedding_size: Numbers in a vector.
            epochs: How often sessions and items are solved in turn.
            reg: Weight of the squared vectors.
            alpha: Confidence in one click; what was not clicked has confidence 1.

        Raises:
            BadInput: A setting is out of its range.
        """
        del items
        check_factor_settings(embedding_size, epochs, reg=reg, alpha=alpha)
        seed = int(np.random.default_rng(0 if rng is None else rng).integers(2**31))
        count = len(interactions.item_ids)
        vectors = np.zeros((count, embedding_size), dtype=np.float32)
        if len(interactions.item):
            clicks = click_counts(interactions.session_ptr, interactions.item, count)
            with one_thread():
                from implicit.cpu.als import AlternatingLeastSquares

                model = AlternatingLeastSquares(
                    factors=embedding_size, regularization=reg, alpha=alpha, iterations=epochs, num_threads=1,
                    random_state=seed,
                )  # fmt: skip
                model.fit(clicks, show_progress=False)
            vectors = model.item_factors
        wide = vectors.astype(np.float64)
        with one_thread():
            inverse = np.linalg.inv(wide.T @ wide + reg * np.eye(embedding_size))
        return cls(
            {
                "factors": np.ascontiguousarray(vectors.T),
                "bias": np.zeros(count, dtype=np.float32),
                "inverse": inverse,
                "alpha": np.array([alpha]),
                **Vocabulary(interactions.item_ids).arrays(),
            }
        )

    def _parts(self, clicks: NDArray[np.int32]) -> NDArray[np.float64]:
        # Woodbury: only a system of the size of the session is solved, the rest was inverted when it learned.
        distinct, place, times = np.unique(clicks, return_inverse=True, return_counts=True)
        vectors = self._factors[:, distinct].astype(np.float64)
        confidence = self._alpha * times
        solved = self._inverse @ vectors
        surplus = np.eye(len(distinct)) + (confidence - 1)[:, None] * (vectors.T @ solved)
        parts: NDArray[np.float64] = ((solved @ np.linalg.inv(surplus)) * (confidence / times)).T[place]
        return parts
