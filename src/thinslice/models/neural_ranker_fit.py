"""How the network learns that ranks candidates: NumPy, one thread, the same bytes each time."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from thinslice.models.candidates import Lessons
from thinslice.models.factors import one_thread
from thinslice.models.lambdamart import figures, ranked
from thinslice.models.neural_ranker_network import LAYERS, Network, widened
from thinslice.records import Arrays

QUESTIONS = (32, 256)
"""The fewest and the most that are learned from at each step."""

STEPS = 24
"""Steps of a round over few lessons."""

MIN_STEPS = 400
"""Few lessons are gone through until so many steps are done, or `MOST_ROUNDS` times."""

MOST_ROUNDS = 20
"""Few lessons gone through more often would be known by heart."""

PATIENCE = 3
"""The trial ends when it has foreseen no better for so many rounds."""

REG = 1e-4
"""Weight decay."""

BETAS = (0.9, 0.98)
"""What slopes and their squares were before counts so much at each step."""


def learn(
    lessons: Lessons,
    exam: Lessons | None = None,
    *,
    hidden: int = 64,
    epochs: int = 8,
    learning_rate: float = 0.003,
    seed: int,
    rounds: int | None = None,
    begin: NDArray[np.float64] | None = None,
    exam_begin: NDArray[np.float64] | None = None,
) -> tuple[Arrays, int]:
    """A network whose softmax over the candidates of a question gives the clicked one the most (ListNet, top one).

    Cao, Qin, Liu, Tsai and Li: Learning to rank: from pairwise approach to listwise approach, ICML 2007; steps as in
    Loshchilov and Hutter: Decoupled weight decay regularization (AdamW), ICLR 2019.

    Args:
        lessons: At least one question with its answer among the candidates.
        exam: Questions with all their candidates by which the best round is chosen; None takes the last.
        hidden: Units of the first hidden layer, even.
        epochs: Rounds over the lessons at most; few lessons up to `MOST_ROUNDS`.
        learning_rate: After a warm-up, falling to almost nothing.
        seed: Where the weights start, and the order of the lessons.
        rounds: Exactly so many rounds.
        begin: Shape (rows,): scores that those of the network are added to; it starts by adding nothing.
        exam_begin: The same for the exam.

    Returns:
        The arrays of `neural_ranker_network.Network`, and after which round, from 1, they were best.
    """
    asked = len(lessons.sizes)
    together = min(max(asked // STEPS, QUESTIONS[0]), QUESTIONS[1])
    steps = -(-asked // together)
    planned = rounds if rounds is not None else max(epochs, min(MOST_ROUNDS, -(-MIN_STEPS // steps)))
    scale = scale_of(lessons.rows)
    started = _started(np.random.default_rng(seed), 2 * lessons.rows.shape[1], hidden)
    inputs = Network({**scale, **started}).inputs(lessons.rows)
    weights = [started[name] for name in LAYERS]
    if begin is not None:
        weights[-1][:] = 0
    before = None if begin is None else begin.astype(np.float32)
    first = np.concatenate([[0], np.cumsum(lessons.sizes)])
    right = np.flatnonzero(lessons.label == 1) - first[:-1]
    draw = np.random.default_rng([seed, 2])
    best: tuple[float, Arrays, int] = (-1.0, {}, 0)
    with one_thread():
        adam = Adam(weights)
        for number in range(1, planned + 1):
            order = draw.permutation(asked)
            for step in range(steps):
                done = ((number - 1) * steps + step + 1) / (planned * steps)
                rate = learning_rate * min(1.0, 20 * done) * (0.51 + 0.49 * np.cos(np.pi * done))
                chosen = np.sort(order[step * together : (step + 1) * together])
                at, begins = places(first, chosen)
                already = None if before is None else before[at]
                adam.step(slopes(weights, inputs[at], begins, right[chosen], already), rate)
            learned = {**scale, **{name: weight.copy() for name, weight in zip(LAYERS, weights, strict=True)}}
            if exam is None:
                best = (0.0, learned, number)
                continue
            foreseen = Network(learned).predict(exam.rows)
            told = figures(ranked(foreseen if exam_begin is None else exam_begin + foreseen, exam), 0)
            if told["hr"] + told["mrr"] > best[0]:
                best = (told["hr"] + told["mrr"], learned, number)
            elif number - best[2] >= PATIENCE:
                break
    return best[1], best[2]


def slopes(
    weights: Sequence[NDArray[np.float32]], inputs: NDArray[np.float32], begins: NDArray[np.int64],
    right: NDArray[np.int64], before: NDArray[np.float32] | None = None,
) -> list[NDArray[np.float32]]:  # fmt: skip
    """How the loss rises with each weight: minus the log of the share that each right candidate gets, on average.

    Args:
        weights: Those of `neural_ranker_network.LAYERS`.
        inputs: Shape (rows, inputs): the candidates of some questions, one question after the other.
        begins: Shape (questions,): the first row of each.
        right: Shape (questions,): which of its rows was clicked.
        before: Shape (rows,): scores that those of the network are added to.

    Returns:
        Arrays of the shapes of the weights.
    """
    hidden, hidden_bias, narrow, narrow_bias, out = weights
    sizes = np.diff(np.append(begins, len(inputs)))
    one = inputs @ hidden
    one += hidden_bias
    np.maximum(one, 0, out=one)
    two = one @ narrow
    two += narrow_bias
    np.maximum(two, 0, out=two)
    scores = two @ out
    if before is not None:
        scores += before
    scores -= np.repeat(np.maximum.reduceat(scores, begins), sizes)
    share = np.exp(scores)
    share /= np.repeat(np.add.reduceat(share, begins), sizes)
    share[begins + right] -= 1
    share /= np.float32(len(begins))
    to_two = share[:, None] * out
    to_two *= two > 0
    to_one = to_two @ narrow.T
    to_one *= one > 0
    return [inputs.T @ to_one, to_one.sum(axis=0), one.T @ to_two, to_two.sum(axis=0), two.T @ share]


class Adam:
    """Changes weights in place, step by step, by their slopes and how these were before."""

    def __init__(self, weights: Sequence[NDArray[np.float32]]) -> None:
        self._weights = weights
        self._mean = [np.zeros_like(weight) for weight in weights]
        self._square = [np.zeros_like(weight) for weight in weights]
        self._steps = 0

    def step(self, rises: Sequence[NDArray[np.float32]], rate: float) -> None:
        """One step down.

        Args:
            rises: Slopes, of the shapes of the weights.
            rate: About so far goes each weight.
        """
        self._steps += 1
        fresh, spread = (1 - beta**self._steps for beta in BETAS)
        for weight, mean, square, rise in zip(self._weights, self._mean, self._square, rises, strict=True):
            weight *= np.float32(1 - rate * REG)
            mean += np.float32(1 - BETAS[0]) * (rise - mean)
            square += np.float32(1 - BETAS[1]) * (rise * rise - square)
            weight -= np.float32(rate / fresh) * mean / (np.sqrt(square / np.float32(spread)) + np.float32(1e-8))


def scale_of(rows: NDArray[np.float32]) -> Arrays:
    """How the features are brought to one size; one that never changes in the lessons counts nothing.

    Returns:
        `per_unit`, shape (features,): the inverse of a small value (the 10 % quantile of the sizes that are not 0);
        `gain` and `shift`, shape (2 features,), bring features and logarithms to mean 0 and variance 1.
    """
    per_unit = np.ones(rows.shape[1], np.float32)
    for number, column in enumerate(np.abs(rows.T)):
        there = column[column > 0]
        if len(there):
            per_unit[number] = 1 / max(float(np.quantile(there, 0.1)), 1e-6)
    wide = widened(rows, per_unit)
    mean, away = wide.mean(axis=0, dtype=np.float64), wide.std(axis=0, dtype=np.float64)
    changes = away > 1e-6 * np.maximum(np.abs(mean), 1e-6)
    gain = np.where(changes, 1 / np.where(changes, away, 1.0), 0.0)
    return {"per_unit": per_unit, "gain": gain.astype(np.float32), "shift": (-mean * gain).astype(np.float32)}


def places(begin: NDArray[np.int64], chosen: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The rows of some questions, one question after the other, and where each question begins among them.

    >>> rows, begins = places(np.array([0, 2, 5, 6]), np.array([0, 2]))
    >>> rows.tolist(), begins.tolist()
    ([0, 1, 5], [0, 2])
    """
    sizes = begin[chosen + 1] - begin[chosen]
    begins = np.cumsum(sizes) - sizes
    return np.repeat(begin[chosen] - begins, sizes) + np.arange(sizes.sum()), begins


def _started(draw: np.random.Generator, inputs: int, hidden: int) -> Arrays:
    """Weights to begin with (He et al., ICCV 2015)."""

    def normal(*shape: int) -> NDArray[np.float32]:
        drawn: NDArray[np.float32] = (draw.standard_normal(shape) * np.sqrt(2 / shape[0])).astype(np.float32)
        return drawn

    narrow = hidden // 2
    return {
        "hidden": normal(inputs, hidden), "hidden_bias": np.zeros(hidden, np.float32),
        "narrow": normal(hidden, narrow), "narrow_bias": np.zeros(narrow, np.float32),
        "out": normal(narrow) / np.float32(narrow**0.5),
    }  # fmt: skip
