"""A small network as plain arrays: scores the candidates of a query by their features, and says what each gave.

`neural_ranker_fit` learns it.
"""

from functools import cache, partial
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from thinslice.errors import BadInput
from thinslice.models.forest import Scored, readable
from thinslice.records import Arrays

FARTHEST = 5.0
"""A feature counts as at most so many standard deviations from its mean."""

PIECE = 50
"""So many rows are scored at once: matrices of this size are multiplied on one thread and stay in the cache."""

LAYERS = ("hidden", "hidden_bias", "narrow", "narrow_bias", "out")


class Network:
    """Two hidden layers of rectified units over features, each as it is and as a logarithm; threads may ask at once."""

    def __init__(self, arrays: Arrays) -> None:
        self._arrays = {name: np.asarray(array, dtype=np.float32) for name, array in arrays.items()}
        self._per_unit, self._gain, self._shift = (self._arrays[name] for name in ("per_unit", "gain", "shift"))
        self._hidden, self._hidden_bias, self._narrow, self._narrow_bias, self._out = (
            self._arrays[name] for name in LAYERS
        )
        self.features = len(self._per_unit)
        usual = self._layers(np.zeros((1, 2 * self.features), np.float32))
        explaining = (self._hidden, self._narrow.T, self._out, usual[0][0], usual[1][0])
        self._explaining = tuple(readable(array) for array in explaining)

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> Self:
        """The same network from what `arrays` gave; they may be memory-mapped and read-only."""
        return cls(arrays)

    def arrays(self) -> Arrays:
        """Everything that it is: `scale` of the inputs, and the layers."""
        return dict(self._arrays)

    @property
    def span(self) -> float:
        """No two scores are further apart: a bound by intervals."""
        most = FARTHEST * np.abs(self._hidden).sum(axis=0) + np.abs(self._hidden_bias)
        most = most @ np.abs(self._narrow) + np.abs(self._narrow_bias)
        return float(most @ np.abs(self._out))

    def predict(self, rows: NDArray[np.float32]) -> NDArray[np.float64]:
        """The score of each row.

        Args:
            rows: Shape (rows, features), float32.

        Returns:
            Shape (rows,).

        Raises:
            BadInput: The number of features is not that of the training.
        """
        inputs = self.inputs(rows)
        scores = np.empty(len(rows))
        for first in range(0, len(rows), PIECE):
            scores[first : first + PIECE] = self._layers(inputs[first : first + PIECE])[2] @ self._out
        return scores

    def score(self, rows: NDArray[np.float32], block: int) -> Scored:
        """The scores of a question's candidates: those of `predict`, whatever is ranked by itself."""
        del block
        inputs = self.inputs(rows)
        score, pieces = np.empty(len(rows)), []
        for first in range(0, max(len(rows), 1), PIECE):
            pieces.append(self._layers(inputs[first : first + PIECE]))
            score[first : first + PIECE] = pieces[-1][2] @ self._out
        return Scored(score, partial(self._given, inputs, pieces))

    def _given(
        self, inputs: NDArray[np.float32], pieces: list[tuple[NDArray[np.float32], ...]], at: NDArray[np.int64],
        first: int | None,
    ) -> NDArray[np.float64]:  # fmt: skip
        """See `Scored.given`, here also of no row (-1); the pieces are what `_layers` said of the inputs."""
        before, narrow, _ = pieces[0] if len(pieces) == 1 else map(np.concatenate, zip(*pieces, strict=True))
        each, others = _kernel().contributions(inputs, before, narrow, at, first or 0, *self._explaining)
        gave: NDArray[np.float64] = each if first is None else others
        return gave

    def contributions(self, rows: NDArray[np.float32]) -> NDArray[np.float64]:
        """What each feature gave to each score, against the average candidate of the training.

        A change of a unit's input is passed on times the slope of the chord between the two, and so back to the
        features (the rescale rule of DeepLIFT, Shrikumar, Greenside and Kundaje, ICML 2017).

        Args:
            rows: As for `predict`.

        Returns:
            Shape (rows, features); a row's sum plus the score of the average candidate is its score.
        """
        return self.score(rows, 0).given(np.arange(len(rows)), None)

    def inputs(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """What the first layer sees: features and their logarithms in standard deviations, shape (rows, 2 features)."""
        if rows.ndim != 2 or rows.shape[1] != self.features:
            raise BadInput(f"rows must have the shape (rows, {self.features}), got {rows.shape}.")
        seen: NDArray[np.float32] = widened(rows, self._per_unit)
        seen *= self._gain
        seen += self._shift
        np.minimum(seen, FARTHEST, out=seen)
        return np.maximum(seen, -FARTHEST, out=seen)

    def _layers(self, inputs: NDArray[np.float32]) -> tuple[NDArray[np.float32], ...]:
        """Inputs of the units of both layers, and outputs of the second."""
        before: NDArray[np.float32] = inputs @ self._hidden
        before += self._hidden_bias
        narrow: NDArray[np.float32] = np.maximum(before, 0) @ self._narrow
        narrow += self._narrow_bias
        return before, narrow, np.maximum(narrow, 0)


def widened(rows: NDArray[np.float32], per_unit: NDArray[np.float32]) -> NDArray[np.float32]:
    """Features, and beside them their logarithms: sign(x) log(1 + |x| per_unit); shape (rows, 2 features)."""
    logs = np.abs(rows, dtype=np.float32)
    logs *= per_unit
    logs += 1
    np.log(logs, out=logs)
    np.copysign(logs, rows, out=logs)
    return np.concatenate([rows, logs], axis=1, dtype=np.float32)


@cache
def _kernel() -> Any:
    """The compiled loop, imported late."""
    from thinslice.models import neural_ranker_kernel

    return neural_ranker_kernel
