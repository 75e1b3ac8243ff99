"""How the neural ranker learns: PyTorch, one thread, the same bytes each time. Imported only for learning."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from thinslice.models.candidates import Lessons
from thinslice.models.lambdamart import figures, ranked
from thinslice.models.neural_ranker_network import Network, widened
from thinslice.models.session_transformer_fit import torch_or_refuse
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
"""Weight decay (Loshchilov and Hutter, ICLR 2019)."""


def learn(
    lessons: Lessons,
    exam: Lessons | None,
    *,
    hidden: int,
    epochs: int,
    learning_rate: float,
    seed: int,
    rounds: int | None = None,
    begin: NDArray[np.float64] | None = None,
    exam_begin: NDArray[np.float64] | None = None,
) -> tuple[Arrays, int]:
    """A network whose softmax over the candidates of a question gives the clicked one the most (ListNet, top one).

    Cao, Qin, Liu, Tsai and Li: Learning to rank: from pairwise approach to listwise approach, ICML 2007.

    Args:
        lessons: At least one question with its answer among the candidates.
        exam: Questions with all their candidates by which the best round is chosen; None takes the last.
        hidden: Units of the first hidden layer, even.
        epochs: Rounds over the lessons at most; few lessons up to `MOST_ROUNDS`.
        learning_rate: Of Adam.
        seed: Where the weights start, and the order of the lessons.
        rounds: Exactly so many rounds.
        begin: Shape (rows,): scores that those of the network are added to; it starts by adding nothing.
        exam_begin: The same for the exam.

    Returns:
        The arrays of `neural_ranker_network.Network`, and after which round, from 1, they were best.
    """
    torch = torch_or_refuse()
    asked = len(lessons.sizes)
    together = min(max(asked // STEPS, QUESTIONS[0]), QUESTIONS[1])
    steps = -(-asked // together)
    planned = rounds if rounds is not None else max(epochs, min(MOST_ROUNDS, -(-MIN_STEPS // steps)))
    scale = scale_of(lessons.rows)
    untrained = Network({**scale, **_started(np.random.default_rng(seed), 2 * lessons.rows.shape[1], hidden)})
    weights = {
        name: torch.nn.Parameter(torch.from_numpy(array.copy()))
        for name, array in untrained.arrays().items()
        if name not in scale
    }
    inputs = torch.from_numpy(untrained.inputs(lessons.rows))
    before = torch.zeros(len(lessons.rows))
    if begin is not None:
        before = torch.from_numpy(begin.astype(np.float32))
        weights["out"].data.zero_()
    first = np.concatenate([[0], np.cumsum(lessons.sizes)])
    right = np.flatnonzero(lessons.label == 1) - first[:-1]
    draw = np.random.default_rng([seed, 2])
    best: tuple[float, Arrays, int] = (-1.0, {}, 0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        optimizer = torch.optim.AdamW(weights.values(), lr=learning_rate, betas=(0.9, 0.98), weight_decay=REG)
        for number in range(1, planned + 1):
            order = draw.permutation(asked)
            for step in range(steps):
                done = ((number - 1) * steps + step + 1) / (planned * steps)
                for group in optimizer.param_groups:
                    group["lr"] = learning_rate * min(1.0, 20 * done) * (0.51 + 0.49 * np.cos(np.pi * done))
                chosen = np.sort(order[step * together : (step + 1) * together])
                at = torch.from_numpy(places(first, chosen))
                there = at >= 0
                given = _scores(torch, weights, inputs[at[there]]) + before[at[there]]
                scores = torch.full(at.shape, -1e9).masked_scatter(there, given)
                loss = torch.nn.functional.cross_entropy(scores, torch.from_numpy(right[chosen]))
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
            learned = {**scale, **{name: weight.detach().numpy().copy() for name, weight in weights.items()}}
            if exam is None:
                best = (0.0, learned, number)
                continue
            foreseen = Network(learned).predict(exam.rows)
            told = figures(ranked(foreseen if exam_begin is None else exam_begin + foreseen, exam), 0)
            if told["hr"] + told["mrr"] > best[0]:
                best = (told["hr"] + told["mrr"], learned, number)
            elif number - best[2] >= PATIENCE:
                break
    finally:
        torch.set_num_threads(threads)
    return best[1], best[2]


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


def places(begin: NDArray[np.int64], chosen: NDArray[np.int64]) -> NDArray[np.int64]:
    """The rows of some questions, shape (questions, most rows of one), filled up with -1.

    >>> places(np.array([0, 2, 5, 6]), np.array([0, 1])).tolist()
    [[0, 1, -1], [2, 3, 4]]
    """
    sizes = begin[chosen + 1] - begin[chosen]
    step = np.arange(sizes.max())
    return np.where(step < sizes[:, None], begin[chosen][:, None] + step, -1)


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


def _scores(torch: Any, w: dict[str, Any], inputs: Any) -> Any:
    relu = torch.nn.functional.relu
    return relu(relu(inputs @ w["hidden"] + w["hidden_bias"]) @ w["narrow"] + w["narrow_bias"]) @ w["out"]
