"""Trees and a small network rank together: they learn the same lessons, err in different ways, and are added up.

Where the network does not help on the newest questions of a shop, the trees rank alone.
"""

from functools import partial
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from thinslice.models.candidates import Lessons
from thinslice.models.forest import Forest, Scored
from thinslice.models.lambdamart import Trees, visible
from thinslice.models.neural_ranker_network import Network
from thinslice.records import Arrays

NETWORK = "network_"
"""The arrays of the network begin so; those of the trees have no beginning of their own."""

NEAR = 40
"""The network is asked about so many candidates of a question, those that the trees put first; hardly any other comes
among the 20 best: over the 10,149 newest train questions of four public logs HR@20 and MRR@20 are as with all."""

TRIAL_EPOCHS, EPOCHS = 4, 8
"""Rounds over the lessons to see whether the network helps, and in earnest; few are gone through more often."""


class ForestWithNetwork(Forest):
    """A forest, and a network whose scores are added where there is one; threads may ask at the same time."""

    def __init__(self, arrays: Arrays) -> None:
        own = {name.removeprefix(NETWORK): array for name, array in arrays.items() if name.startswith(NETWORK)}
        super().__init__({name: array for name, array in arrays.items() if not name.startswith(NETWORK)})
        self.network = Network(own) if own else None
        if self.network is not None:
            self.span += self.network.span

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> Self:
        """The same from what `arrays` gave; they may be memory-mapped and read-only."""
        own = {name: array for name, array in arrays.items() if name.startswith(NETWORK)}
        return cls({**Forest.from_arrays(arrays).arrays(), **own})

    def arrays(self) -> Arrays:
        """Everything that it is."""
        own = {} if self.network is None else self.network.arrays()
        return {**super().arrays(), **{NETWORK + name: array for name, array in own.items()}}

    def predict(self, rows: NDArray[np.float32]) -> NDArray[np.float64]:
        """The score of each row; see `Forest.predict`."""
        score = super().predict(rows)
        if self.network is not None:
            score += self.network.predict(rows)
        return score

    def score(self, rows: NDArray[np.float32], block: int) -> Scored:
        """The scores of a question's candidates, of which each `block` is ranked by itself; 0: those of `predict`.

        The network is asked about the `NEAR` that the trees put first. The others get the least that it said, which
        leaves them behind those, in the order of the trees.
        """
        trees = super().score(rows, block)
        if self.network is None:
            return trees
        asked = []
        for first in range(0, len(rows), block or max(len(rows), 1)):
            own = trees.score[first : first + (block or len(rows))]
            near = (-own).argsort(kind="stable")[:NEAR] if block else np.arange(len(rows))
            said = self.network.score(rows[first + near], block)
            best = own[near] + said.score
            own += said.score.min()
            own[near] = best
            asked.append((first + near, said))
        return Scored(trees.score, partial(_given, trees, asked))

    def contributions(self, rows: NDArray[np.float32]) -> NDArray[np.float64]:
        """What each feature gave to each score, by trees and network; the rest of a score is the same for all."""
        gave = super().contributions(rows)
        if self.network is not None:
            gave += self.network.contributions(rows)
        return gave


def _given(
    trees: Scored, asked: list[tuple[NDArray[np.int64], Scored]], at: NDArray[np.int64], first: int | None
) -> NDArray[np.float64]:
    """See `Scored.given`; `asked`: of which rows the network was asked, and what it said; others got nothing of it."""
    gave = trees.given(at, first)
    for rows, said in asked:
        place = np.empty(len(trees.score), np.int64)
        place.fill(-1)
        place[rows] = np.arange(len(rows))
        gave += said.given(place[at], first)
    return gave


class TreesAndNetwork(NamedTuple):
    """Learns trees, and a network beside them: a `tuning.Learner`.

    Attributes:
        trees: Learns the trees, and alone what is added for people who are known.
    """

    trees: Trees

    @property
    def settings(self) -> dict[str, Any]:
        """Those of the trees; the network has none of its own."""
        return self.trees.settings

    def trials(self, part: Lessons, exam: Lessons) -> dict[str, ForestWithNetwork]:
        """A third of the trees, of the older lessons only; and the same with a network."""
        forest = ForestWithNetwork(self.trees.trials(part, exam)["trees"].arrays())
        return {"trees": forest, "trees and network": self._with_network(forest, part, TRIAL_EPOCHS)}

    def whole(self, lessons: Lessons, trial: ForestWithNetwork) -> ForestWithNetwork:
        """All trees, of all lessons, and the network if the trial has one."""
        forest = ForestWithNetwork(self.trees.whole(lessons, trial).arrays())
        return forest if trial.network is None else self._with_network(forest, lessons, EPOCHS)

    def trial_of_known(
        self, part: Lessons, begin: NDArray[np.float64], exam: Lessons, exam_begin: NDArray[np.float64]
    ) -> Forest:
        """As the trees alone."""
        return self.trees.trial_of_known(part, begin, exam, exam_begin)

    def whole_of_known(self, lessons: Lessons, begin: NDArray[np.float64], trial: Forest) -> Forest:
        """As the trees alone."""
        return self.trees.whole_of_known(lessons, begin, trial)

    def _with_network(self, forest: Forest, lessons: Lessons, epochs: int) -> ForestWithNetwork:
        """The network's scores are brought to the spread of the trees', so that both count alike."""
        from thinslice.models.neural_ranker_fit import learn

        seen = lessons._replace(rows=visible(lessons.rows, self.settings.get("without", "none")))
        own, _ = learn(seen, epochs=epochs, seed=self.settings["seed"])
        spread = float(Network(own).predict(seen.rows).std())
        own["out"] *= np.float32(forest.predict(seen.rows).std() / max(spread, 1e-30))
        return ForestWithNetwork({**forest.arrays(), **{NETWORK + name: array for name, array in own.items()}})
