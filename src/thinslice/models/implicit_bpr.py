"""Implicit's BPR: vectors that rank what a session clicked above what it did not, as `implicit` learns them.

Bayesian personalized ranking (Rendle et al., UAI 2009). An anonymous session gets the mean of its clicks'
vectors.
"""

from collections.abc import Sequence
from typing import Self

import numpy as np
from numpy.typing import NDArray

from thinslice.models.factors import Factors, check_factor_settings, one_thread
from thinslice.models.item_to_item import click_counts
from thinslice.models.vocabulary import Vocabulary
from thinslice.records import Interactions, Item


class ImplicitBPR(Factors):
    """Item vectors and biases of `implicit`, sessions by the mean of their items."""

    name = "implicit-bpr"

    @classmethod
    def fit(
        cls,
        interactions: Interactions,
        items: Sequence[Item] | None = None,
        *,
        rng: np.random.Generator | int | None = None,
        embedding_size: int = 128,
        epochs: int = 100,
        learning_rate: float = 0.05,
        reg: float = 0.01,
    ) -> Self:
        """Learns the vectors, with one thread.

        Args:
            interactions: The clicks.
            items: Not needed: only clicked items are learned.
            rng: Draws the seed of the library; None is 0.
            embedding_size: Numbers in a vector.
            epochs: Passes over the clicks.
            learning_rate: Length of a step.
            reg: Weight of the squared vectors.

        Raises:
            BadInput: A setting is out of its range.
        """
        del items
        check_factor_settings(embedding_size, epochs, learning_rate=learning_rate, reg=reg)
        seed = int(np.random.default_rng(0 if rng is None else rng).integers(2**31))
        count = len(interactions.item_ids)
        vectors = np.zeros((count, embedding_size + 1), dtype=np.float32)
        if len(interactions.item):
            clicks = click_counts(interactions.session_ptr, interactions.item, count)
            with one_thread():
                from implicit.cpu.bpr import BayesianPersonalizedRanking

                model = BayesianPersonalizedRanking(
                    factors=embedding_size, learning_rate=learning_rate, regularization=reg, iterations=epochs,
                    num_threads=1, random_state=seed,
                )  # fmt: skip
                model.fit(clicks, show_progress=False)
            vectors = model.item_factors
        return cls(
            {
                "factors": np.ascontiguousarray(vectors[:, :embedding_size].T),
                "bias": np.ascontiguousarray(vectors[:, embedding_size]),
                **Vocabulary(interactions.item_ids).arrays(),
            }
        )

    def _parts(self, clicks: NDArray[np.int32]) -> NDArray[np.float64]:
        parts: NDArray[np.float64] = self._factors[:, clicks].T.astype(np.float64) / len(clicks)
        return parts
