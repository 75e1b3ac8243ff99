"""The compiled loop of the small network that ranks: says of the items that are shown which feature gave how much."""

import numpy as np
from numba import njit


@njit(nogil=True, cache=True, fastmath={"reassoc", "contract"})
def contributions(inputs, before, narrow, at, first, hidden, inner, out, usual_before, usual_narrow):  # type: ignore[no-untyped-def]
    """What features gave to the scores of some rows, against the average candidate: see `Network.contributions`.

    Args:
        inputs: Shape (rows, 2 features), float32: what the first layer sees.
        before: Shape (rows, units), float32: inputs of the units of the first layer.
        narrow: Shape (rows, fewer units), float32: those of the second.
        at: Which rows, int64.
        first: How many features, from the first on.
        hidden: Shape (2 features, units), float32: weights of the first layer.
        inner: Shape (fewer units, units), float32: those of the second.
        out: Shape (fewer units,), float32: those of the score.
        usual_before: Shape (units,), float32: `before` of the average candidate.
        usual_narrow: Shape (fewer units,), float32: its `narrow`.

    Returns:
        Shape (at, first), float64.
    """
    units, features = out.size, hidden.shape[0] // 2
    found = np.empty((at.size, first), np.float64)
    back = np.empty(hidden.shape[1], np.float32)
    for n in range(at.size):
        row = at[n]
        back[:] = 0
        for v in range(units):
            slope = chord(narrow[row, v], usual_narrow[v]) * out[v]
            if slope != 0:
                for u in range(back.size):
                    back[u] += slope * inner[v, u]
        for u in range(back.size):
            back[u] *= chord(before[row, u], usual_before[u])
        for j in range(first):
            plain = logarithm = np.float32(0)
            for u in range(back.size):
                plain += hidden[j, u] * back[u]
                logarithm += hidden[features + j, u] * back[u]
            found[n, j] = inputs[row, j] * plain + inputs[row, features + j] * logarithm
    return found


@njit(nogil=True, cache=True)
def chord(before, usual):  # type: ignore[no-untyped-def]
    """The slope of a rectifier between two inputs: (max(a, 0) - max(b, 0)) / (a - b); where a = b, its slope there."""
    if before == usual:
        return np.float32(before > 0)
    return (max(before, np.float32(0)) - max(usual, np.float32(0))) / (before - usual)
