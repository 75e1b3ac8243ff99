"""Thompson ranking: each slate is drawn as often as it is believed to be the best, and knows how likely it was.

A request draws many rankings from what is believed now, and one of them, taken at random, is served. Given these
rankings the probability of an item at its place is exactly the share of them that have it there, at least one of all.

Sources: Komiyama, Honda and Nakagawa, Optimal regret analysis of Thompson sampling with multiple plays (2015);
Lagrée, Vernade and Cappé, Multiple-play bandits in the position-based model (2016); Cheung, Tan and Zhong, A Thompson
sampling algorithm for cascading bandits (2019); Agrawal and Goyal, Thompson sampling for contextual bandits with
linear payoffs (2013); Ermis et al., Learning to rank in the position based model with bandit feedback (2020).
"""

import threading
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from thinslice.models import Vocabulary
from thinslice.recommend.explore.slots import Explored, Rng, seeded
from thinslice.records import Arrays

BANDIT = "bandit-"
"""What a policy's explorer is called in a bundle of models begins so; the policy's name follows."""

RANKINGS = 200
"""So many rankings are drawn for one slate: the probabilities are multiples of one 200th."""

LEAST_RATE = 1e-6
"""A straight line may predict less than no clicks; this much is always believed possible."""

GROWTH = 0xD1B54A32D192ED03
"""Keeps the choice of the served ranking apart from the numbers that the rankings are made of."""


class Explorer(Protocol):
    """Re-ranks the candidates of a model, and knows with which probability."""

    @property
    def item_ids(self) -> Sequence[str]:
        """The items that anything is believed of."""
        ...

    @property
    def newcomers(self) -> Sequence[str]:
        """The items that hardly anything is known of, the most promising first."""
        ...

    @property
    def version(self) -> int:
        """How many batches were learned from."""
        ...

    def arrange(
        self, item_ids: Sequence[str], relevance: NDArray[np.float64], k: int, *, rng: Rng, rankings: int = RANKINGS
    ) -> Explored:
        """The best `k` of one ranking among those drawn."""
        ...

    def arrays(self) -> Arrays:
        """What `from_arrays` needs to make the same explorer again."""
        ...


class _Drawn:
    """What both kinds of Thompson ranking share: compiled once, drawn, counted."""

    _warm: ClassVar[bool] = False
    _warming: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, arrays: Arrays) -> None:
        self._arrays = dict(arrays)
        self._vocabulary = Vocabulary.from_arrays(arrays)
        self.version = int(arrays["counted"][0])
        self.rows = int(arrays["counted"][1])
        self.at = float(arrays["until"][0])
        self.newcomers: list[str] = [self._vocabulary[code] for code in arrays["newcomer"].tolist()]

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> Self:
        """The same explorer from what `arrays` gave."""
        return cls(arrays)

    def arrays(self) -> Arrays:
        """Everything that it is: what is believed, and the counts that the next batch is added to."""
        return dict(self._arrays)

    @property
    def item_ids(self) -> Sequence[str]:
        """The items that anything is believed of."""
        return self._vocabulary

    @classmethod
    def ready(cls) -> bool:
        """Whether a slate is drawn at once."""
        return cls._warm

    @classmethod
    def warm(cls) -> None:
        """Compiles the kernel, or reads it from the cache of an earlier run; may take seconds, once per process."""
        with cls._warming:
            if not cls._warm:
                kernel = _kernel()
                score = np.empty((3, 4), dtype=np.float32)
                factor = np.ones(3, dtype=np.float32)
                table = np.zeros((1, kernel.CELLS + kernel.TAIL), dtype=np.float32)
                kernel.table_scores(table, np.zeros(3, dtype=np.int32), factor, np.uint64(1), score)
                rows = np.zeros((3, 2), dtype=np.float32)
                kernel.linear_scores(rows.T.copy(), rows, factor, np.float32(LEAST_RATE), np.uint64(1), score)
                _counted(score, 2, np.uint64(1))
                cls._warm = True

    def arrange(
        self, item_ids: Sequence[str], relevance: NDArray[np.float64], k: int, *, rng: Rng, rankings: int = RANKINGS
    ) -> Explored:
        """The best `k` of one ranking among those drawn, and in which share of them each item stands there.

        Args:
            item_ids: Candidates; those that nothing is believed of are drawn as any item would be.
            relevance: Shape (candidates,), positive: what the drawn click rates are multiplied by. Ones: the click
                rates alone decide.
            k: Places.
            rng: A generator or a seed.
            rankings: How many are drawn.
        """
        k = min(k, len(item_ids))
        if k <= 0:
            return Explored(np.empty(0, dtype=np.int32), np.empty(0))
        seed = seeded(rng)
        score = self._scores(item_ids, relevance, seed, rankings)
        return Explored(*_counted(score, k, np.uint64(seed)))

    def chances(
        self, item_ids: Sequence[str], relevance: NDArray[np.float64], k: int, *, rng: Rng, rankings: int = 10_000
    ) -> NDArray[np.float64]:
        """How likely each candidate is at each place, from many rankings: shape (candidates, k)."""
        order = self.rankings(item_ids, relevance, k, rng=rng, rankings=rankings)
        found = np.zeros((len(item_ids), order.shape[1]))
        for place in range(order.shape[1]):
            found[:, place] = np.bincount(order[:, place], minlength=len(item_ids))
        return found / rankings

    def rankings(
        self, item_ids: Sequence[str], relevance: NDArray[np.float64], k: int, *, rng: Rng, rankings: int = RANKINGS
    ) -> NDArray[np.int64]:
        """The best `k` of many independent rankings, numbers of candidates: shape (rankings, k). One a slate, say."""
        score = self._scores(item_ids, relevance, seeded(rng), rankings)
        if k == 1:
            return np.asarray(score.argmax(axis=0), dtype=np.int64)[:, None]
        rows = np.ascontiguousarray(-score.T)
        top = np.argpartition(rows, k - 1, axis=1)[:, :k] if k < rows.shape[1] else np.argsort(rows, axis=1)
        order = np.argsort(np.take_along_axis(rows, top, axis=1), axis=1, kind="stable")
        return np.asarray(np.take_along_axis(top, order, axis=1), dtype=np.int64)

    @abstractmethod
    def _scores(
        self, item_ids: Sequence[str], relevance: NDArray[np.float64], seed: int, rankings: int
    ) -> NDArray[np.float32]:
        """What each candidate is worth in each ranking: shape (candidates, rankings)."""


class BetaThompson(_Drawn):
    """Beliefs in click rates, a Beta of each item, as tables of quantiles; for position-based and cascade counts.

    Its arrays beside the vocabulary: `quantile` (items + 1, nodes) float32, the last row for unknown items;
    `belief` (items + 1, 2) the two shapes of each Beta; `attention` (slots,); `shows` and `clicks` (items, slots);
    `newcomer` codes of items that hardly anything is known of; `counted` batches and rows; `until` unix seconds.
    """

    def __init__(self, arrays: Arrays) -> None:
        super().__init__(arrays)
        self._quantile = np.ascontiguousarray(arrays["quantile"], dtype=np.float32)

    def _scores(
        self, item_ids: Sequence[str], relevance: NDArray[np.float64], seed: int, rankings: int
    ) -> NDArray[np.float32]:
        find, unknown = self._vocabulary.code.get, len(self._vocabulary)
        row = np.array([find(item_id, unknown) for item_id in item_ids], dtype=np.int32)
        score = np.empty((len(item_ids), rankings), dtype=np.float32)
        factor = np.asarray(relevance, dtype=np.float32)
        _kernel().table_scores(self._quantile, row, factor, np.uint64(seed), score)
        return score


class LinearThompson(_Drawn):
    """A belief in weights of item features, shared by all items, so that what one item teaches holds for its like.

    Its arrays beside the vocabulary: `feature` (items + 1, features) float32, the last row for unknown items; `bank`
    (draws, features) float32, draws from the belief; `mean` and `precision` of the belief; `gram` (slots, features,
    features) and `moment` (slots, features), what is counted; `shows`, `clicks`, `attention`, `newcomer`, `counted`
    and `until` as in `BetaThompson`.
    """

    def __init__(self, arrays: Arrays) -> None:
        super().__init__(arrays)
        self._feature = np.ascontiguousarray(arrays["feature"], dtype=np.float32)
        self._bank = np.ascontiguousarray(arrays["bank"].T, dtype=np.float32)

    def _scores(
        self, item_ids: Sequence[str], relevance: NDArray[np.float64], seed: int, rankings: int
    ) -> NDArray[np.float32]:
        find, unknown = self._vocabulary.code.get, len(self._vocabulary)
        row = np.array([find(item_id, unknown) for item_id in item_ids], dtype=np.int64)
        score = np.empty((len(item_ids), rankings), dtype=np.float32)
        factor = np.asarray(relevance, dtype=np.float32)
        _kernel().linear_scores(self._bank, self._feature[row], factor, np.float32(LEAST_RATE), np.uint64(seed), score)
        return score


EXPLORERS: dict[str, type[BetaThompson] | type[LinearThompson]] = {
    "position-thompson": BetaThompson,
    "cascade-thompson": BetaThompson,
    "linear-thompson": LinearThompson,
}
"""Ways to explore that learn, by the name that a policy gives."""


def explorer_from_arrays(arrays: Arrays) -> BetaThompson | LinearThompson:
    """The explorer that some arrays are: one with a bank of draws is linear."""
    return LinearThompson(arrays) if "bank" in arrays else BetaThompson(arrays)


def _counted(score: NDArray[np.float32], k: int, seed: np.uint64) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """One ranking at random, and the share of all rankings that have each of its items at the same place."""
    kernel: Any = _kernel()
    with np.errstate(over="ignore"):
        u, _ = kernel.uniform(np.uint64(seed ^ np.uint64(GROWTH)))
    order, chance = np.empty(k, dtype=np.int32), np.empty(k)
    kernel.best(score, int(u * score.shape[1]), order)
    kernel.shares(score, order, chance)
    return order, chance


def _kernel() -> Any:
    """The compiled loops; imported late, because the compiler takes half a second that `thinslice --help` has not."""
    from thinslice.recommend.explore import kernel

    return kernel
