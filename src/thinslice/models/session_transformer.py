"""Session transformer: reads a session click by click and foresees the next; learned with PyTorch, served without it.

A causal transformer over the newest clicks (as SASRec, Kang and McAuley, ICDM 2018), its loss a sampled softmax with
many shared negatives, corrected for how often each is drawn (Bengio and Senécal, 2008; for sessions: Klenitskiy and
Vasilev, RecSys 2023). Input and output share the item vectors.
"""

from collections.abc import Sequence
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from thinslice.errors import BadInput
from thinslice.models.factors import Factors, check_factor_settings
from thinslice.models.item_to_item import checked_mask, kernel
from thinslice.models.vocabulary import Vocabulary
from thinslice.records import Arrays, Interactions, Item, Reason

BLOCK_WEIGHTS = ("query", "key", "value", "out", "wide", "wide_bias", "narrow", "narrow_bias",
                 "norm1", "norm1_bias", "norm2", "norm2_bias")  # fmt: skip
"""What one block of the transformer is made of; each array is stacked over the blocks."""


class SessionTransformer(Factors):
    """A small transformer as NumPy arrays; ranks every item of the vocabulary.

    >>> from thinslice.models import from_columns
    >>> SessionTransformer.fit(from_columns([], [], [])).recommend(["a"], 3).item_ids
    []
    """

    name = "session-transformer"
    extra: ClassVar[str] = "neural"

    def __init__(self, arrays: Arrays) -> None:
        super().__init__(arrays)
        self._heads = int(arrays["heads"][0])
        self._place = np.asarray(arrays["place"], dtype=np.float32)
        self._last_norm = np.asarray(arrays["last_norm"], dtype=np.float32)
        self._blocks = [
            {name: np.asarray(arrays[name][block], dtype=np.float32) for name in BLOCK_WEIGHTS}
            for block in range(len(arrays["query"]))
        ]

    @classmethod
    def fit(
        cls,
        interactions: Interactions,
        items: Sequence[Item] | None = None,
        *,
        rng: np.random.Generator | int | None = None,
        embedding_size: int = 64,
        blocks: int = 1,
        heads: int = 2,
        look: int = 20,
        epochs: int = 8,
        negatives: int = 1024,
        learning_rate: float = 0.002,
        dropout: float = 0.2,
        spread: float = 0.1,
    ) -> Self:
        """Learns on one thread; same clicks, settings and rng give the same bytes.

        Args:
            interactions: The clicks; sessions of one click teach nothing.
            items: Not needed.
            rng: Where the weights start, what is drawn, and in which order it is learned.
            embedding_size: Length of an item's vector, a multiple of `heads`.
            blocks: Transformer blocks.
            heads: Attention heads of a block.
            look: How many of the session's newest clicks are read.
            epochs: Times each click is learned from; small logs are gone through up to 30 times.
            negatives: Items drawn beside the clicked ones at each step, in proportion to clicks^0.75.
            learning_rate: Of Adam, after a warm-up, falling to a tenth.
            dropout: Share of values left out while learning.
            spread: Share of places that learn to foresee any click of their session instead of the next one.

        Raises:
            BadInput: A setting is out of its range.
            NotReady: PyTorch is not installed; it is the extra `neural`.
        """
        del items
        check_factor_settings(embedding_size, epochs, learning_rate=learning_rate)
        for name, value in (("blocks", blocks), ("heads", heads), ("look", look), ("negatives", negatives)):
            if value < 1 or value != int(value):
                raise BadInput(f"{name} must be a whole number of at least 1, got {value}.")
        if embedding_size % heads:
            raise BadInput(f"embedding_size must be a multiple of heads, got {embedding_size} and {heads}.")
        for name, share in (("dropout", dropout), ("spread", spread)):
            if not 0 <= share < 1:
                raise BadInput(f"{name} must be at least 0 and under 1, got {share}.")
        seed = int(np.random.default_rng(rng).integers(2**31))
        vocabulary = Vocabulary(interactions.item_ids)
        from thinslice.models.session_transformer_fit import learn, untrained

        shape = {"embedding_size": embedding_size, "blocks": blocks, "heads": heads, "look": look}
        if len(vocabulary) < 2 or not (np.diff(interactions.session_ptr) > 1).any():
            weights = untrained(len(vocabulary), **shape)
        else:
            weights = learn(
                interactions.session_ptr, interactions.item, len(vocabulary), seed=seed, epochs=epochs,
                negatives=negatives, learning_rate=learning_rate, dropout=dropout,
                spread=spread, **shape,
            )  # fmt: skip
        return cls({**weights, "heads": np.array([heads], dtype=np.int32), **vocabulary.arrays()})

    def _vector(self, clicks: NDArray[np.int32]) -> NDArray[np.float64]:
        """The session as a vector, shape (embedding_size,); zeros for none."""
        size = len(self._factors)
        clicks = clicks[-len(self._place) :]
        if not len(clicks):
            return np.zeros(size)
        x = self._factors[:, clicks].T * np.float32(np.sqrt(size)) + self._place[: len(clicks)]
        for number, block in enumerate(self._blocks):
            last = number == len(self._blocks) - 1  # of the last block only the newest click's vector is needed
            a = normed(x, block["norm1"], block["norm1_bias"])
            asked = a[-1:] if last else a
            q, k, v = (
                self._split(part) for part in (asked @ block["query"], a @ block["key"], a @ block["value"])
            )  # (heads, clicks, size / heads)
            weights = q @ k.transpose(0, 2, 1) / np.float32(np.sqrt(size / self._heads))
            if not last:
                weights[:, np.triu(np.ones((len(a), len(a)), dtype=np.bool_), 1)] = -np.inf
            weights = np.exp(weights - weights.max(axis=2, keepdims=True))
            weights /= weights.sum(axis=2, keepdims=True)
            mixed = (weights @ v).transpose(1, 0, 2).reshape(len(asked), size)
            x = (x[-1:] if last else x) + mixed @ block["out"]
            wide = normed(x, block["norm2"], block["norm2_bias"]) @ block["wide"] + block["wide_bias"]
            x = x + np.maximum(wide, 0) @ block["narrow"] + block["narrow_bias"]
        vector: NDArray[np.float64] = normed(x, *self._last_norm)[-1].astype(np.float64)
        return vector

    def _split(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        return rows.reshape(len(rows), self._heads, -1).transpose(1, 0, 2)

    def recommend_codes(
        self, session: NDArray[np.int32], k: int, allowed: NDArray[np.bool_] | None = None
    ) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
        """`recommend` without texts: item codes, oldest first, -1 for unknown; codes and scores, best first."""
        mask = checked_mask(allowed, len(self._vocabulary))
        clicks = session[session >= 0]
        if not len(clicks):
            return np.empty(0, np.int32), np.empty(0, np.float64)
        found: tuple[NDArray[np.int32], NDArray[np.float64]] = kernel().rank_factors(
            self._vector(clicks), self._factors, self._bias, max(k, 0), mask
        )
        return found

    def explain_all(self, session: Sequence[str], item_ids: Sequence[str]) -> list[Reason]:
        """What each session item changed: the score without it is taken from the score; the rest is called `base`."""
        clicks = self._vocabulary.codes(session)
        clicks = clicks[clicks >= 0][-len(self._place) :]
        codes = self._vocabulary.codes(item_ids)
        if not len(clicks):
            return [Reason(item_id, 0.0, {}) for item_id in item_ids]
        inside = np.maximum(codes, 0)

        def scores(left: NDArray[np.int32]) -> NDArray[Any]:
            found: NDArray[Any] = kernel().factor_scores(self._vector(left), self._factors, self._bias, inside)
            return found

        whole = scores(clicks)
        given = {
            self._vocabulary[code]: whole - scores(clicks[clicks != code]) for code in dict.fromkeys(clicks.tolist())
        }
        reasons = []
        for number, item_id in enumerate(item_ids):
            if codes[number] < 0:
                reasons.append(Reason(item_id, 0.0, {}))
                continue
            terms = {name: float(change[number]) for name, change in given.items()}
            terms["base"] = float(whole[number]) - sum(terms.values())
            reasons.append(Reason(item_id, float(whole[number]), terms))
        return reasons

    def _parts(self, clicks: NDArray[np.int32]) -> NDArray[np.float64]:
        return self._vector(clicks)[None]


def normed(x: NDArray[Any], gain: NDArray[np.float32], bias: NDArray[np.float32]) -> NDArray[Any]:
    """Each row with mean 0 and variance 1, then stretched and moved."""
    away = x - x.mean(axis=-1, keepdims=True)
    normal: NDArray[Any] = away / np.sqrt((away * away).mean(axis=-1, keepdims=True) + np.float32(1e-5)) * gain + bias
    return normal
