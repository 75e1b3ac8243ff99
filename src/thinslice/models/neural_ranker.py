"""The neural ranker: the session ranker with a small network alone where that has trees and a network.

Stage 1, features (those of known people, too), lessons and tuning are those of the session ranker (`session_ranker`),
so an experiment between the two compares what ranks and nothing else.
"""

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from thinslice.errors import BadInput
from thinslice.models.candidates import Lessons
from thinslice.models.factors import check_factor_settings
from thinslice.models.neural_ranker_network import Network
from thinslice.models.session_ranker import SessionRanker, check_ranker_settings
from thinslice.records import Arrays, Interactions, Item, User


class Learner(NamedTuple):
    """Learns a network: a `tuning.Learner`.

    Attributes:
        settings: Those of `neural_ranker_fit.learn`.
    """

    settings: dict[str, Any]

    def trials(self, part: Lessons, exam: Lessons) -> dict[str, "Trial"]:
        """Learns from the older lessons, and stops when it foresees the newest ones no better."""
        from thinslice.models.neural_ranker_fit import learn

        arrays, rounds = learn(part, exam, **self.settings)
        return {"network": Trial(arrays, rounds)}

    def whole(self, lessons: Lessons, trial: "Trial") -> Network:
        """Learns from all lessons for as long as was best in the trial."""
        from thinslice.models.neural_ranker_fit import learn

        return Network(learn(lessons, None, **self.settings, rounds=trial.rounds)[0])

    def trial_of_known(
        self, part: Lessons, begin: NDArray[np.float64], exam: Lessons, exam_begin: NDArray[np.float64]
    ) -> "Trial":
        """Learns what to add to scores from the older lessons, and stops when it foresees the newest ones no better."""
        from thinslice.models.neural_ranker_fit import learn

        arrays, rounds = learn(part, exam, **self.settings, begin=begin, exam_begin=exam_begin)
        return Trial(arrays, rounds)

    def whole_of_known(self, lessons: Lessons, begin: NDArray[np.float64], trial: "Trial") -> Network:
        """Learns what to add to scores from all lessons for as long as was best in the trial."""
        from thinslice.models.neural_ranker_fit import learn

        return Network(learn(lessons, None, **self.settings, rounds=trial.rounds, begin=begin)[0])


class Trial(Network):
    """A network, and how often it went through its lessons until it was best."""

    def __init__(self, arrays: Arrays, rounds: int) -> None:
        super().__init__(arrays)
        self.rounds = rounds


class NeuralRanker(SessionRanker):
    """Two-stage session ranking with a network; see `fit` for the settings. Threads may ask at the same time.

    >>> from thinslice.models import from_columns
    >>> NeuralRanker.fit(from_columns([], [], [])).recommend(["a"], 3).item_ids
    []
    """

    name = "neural-ranker"
    on_request: ClassVar[bool] = True
    """An evaluation runs it when it is named."""
    second: ClassVar[Any] = Network
    begins: ClassVar[str] = "network_"
    groups: ClassVar[dict[str, Any]] = {
        "what is learned from the log (tuning and network)": {"least_questions": 2**31 - 1}
    }
    smaller: ClassVar[dict[str, Any]] = {"hidden": 8, "candidates": 40}

    @classmethod
    def fit(  # type: ignore[override] # a network has other settings than trees
        cls,
        interactions: Interactions,
        items: Sequence[Item] | None = None,
        *,
        rng: np.random.Generator | int | None = None,
        candidates: int = 100,
        hidden: int = 64,
        epochs: int = 8,
        learning_rate: float = 0.003,
        holdout: float = 0.1,
        least_questions: int = 500,
        tune_cpu_s_per_million: float = 60.0,
        users: Sequence[User] = (),
    ) -> Self:
        """Tunes stage 1, learns the network from the same lessons as the trees, and builds the index of all clicks.

        Args:
            interactions: The clicks.
            items: The catalog; only where items are is read, and only clicked ones are learned.
            rng: Where the weights start, and the order of the lessons.
            candidates: How many candidates of a question are ranked at once.
            hidden: Units of the first hidden layer, an even number; the second has half as many.
            epochs: How often the lessons are gone through at most; few lessons up to 20 times.
            learning_rate: Of Adam, after a warm-up, falling to almost nothing.
            holdout: The share (0..1) of the sessions, the newest, that are asked about.
            least_questions: With fewer questions nothing is tuned or learned, and safe defaults serve.
            tune_cpu_s_per_million: About so many CPU seconds a million clicks may be spent, counted as work.
            users: What the shop says of its users: tier, place, attributes; who consented to personalization counts.

        Raises:
            BadInput: A setting is out of its range.
        """
        if hidden < 2 or hidden % 2:
            raise BadInput(f"hidden must be an even number of at least 2, got {hidden}.")
        check_factor_settings(hidden, epochs, learning_rate=learning_rate)
        check_ranker_settings(candidates=candidates, holdout=holdout, least_questions=least_questions,
                              tune_cpu_s_per_million=tune_cpu_s_per_million)  # fmt: skip
        seed = int(np.random.default_rng(rng).integers(2**31))
        budget_s = tune_cpu_s_per_million * max(0.5, len(interactions.item) / 1e6)
        learner = Learner({"hidden": hidden, "epochs": epochs, "learning_rate": learning_rate, "seed": seed})
        return cls._learned(
            interactions, items, users, learner, candidates=candidates, holdout=holdout,
            least_questions=least_questions, budget_s=budget_s, seed=seed,
        )  # fmt: skip

    @classmethod
    def ready(cls) -> bool:
        """Whether the kernels of stage 1 are compiled; the network needs none."""
        return SessionRanker.ready()

    @classmethod
    def warm(cls) -> None:
        """Compiles the kernels, or reads them from the cache."""
        SessionRanker.warm()
