"""The compiled loop of the small network that ranks: says of the items that are shown which feature gave how much."""

import numpy as np
from numba import njit


@njit(nogil=True, cache=True, error_model="numpy", fastmath={"reassoc", "contract"})
def contributions(inputs, before, narrow, at, begin, hidden, inner, out, usual_before, usual_narrow):  # type: ignore[no-untyped-def]
    """What features gave to the scores of some rows, against the average candidate: see `Network.contributions`.

    Args:
        inputs: Shape (rows, 2 features), float32: what the first layer sees.
        before: Shape (rows, units), float32: inputs of the units of the first layer.
        narrow: Shape (rows, fewer units), float32: those of the second.
        at: Which rows, int64; a negative one is none, and gave nothing.
        begin: The first of the features.
        hidden: Shape (2 features, units), float32: weights of the first layer.
        inner: Shape (fewer units, units), float32: those of the second.
        out: Shape (fewer units,), float32: those of the score.
        usual_before: Shape (units,), float32: `before` of the average candidate.
        usual_narrow: Shape (fewer units,), float32: its `narrow`.

    Returns:
        What each feature from `begin` on gave, shape (at, features - begin), float64; and the ones before it together.
    """
    features = hidden.shape[0] // 2
    found = np.empty((at.size, features - begin), np.float64)
    others = np.empty(at.size, np.float64)
    slope = np.empty(out.size, np.float32)
    back = np.empty(hidden.shape[1], np.float32)
    for n in range(at.size):
        row = at[n]
        if row < 0:
            found[n] = 0
            others[n] = 0
            continue
        back[:] = 0
        for v in range(out.size):
            slope[v] = chord(narrow[row, v], usual_narrow[v]) * out[v]
        for v in range(out.size):
            for u in range(back.size):
                back[u] += slope[v] * inner[v, u]
        for u in range(back.size):
            back[u] *= chord(before[row, u], usual_before[u])
        total = np.float32(0)  # what all features gave
        for u in range(back.size):
            total += back[u] * (before[row, u] - usual_before[u])
        others[n] = total
        for j in range(begin, features):
            plain = logarithm = np.float32(0)
            for u in range(back.size):
                plain += hidden[j, u] * back[u]
                logarithm += hidden[features + j, u] * back[u]
            found[n, j - begin] = inputs[row, j] * plain + inputs[row, features + j] * logarithm
            others[n] -= found[n, j - begin]
    return found, others


@njit(nogil=True, cache=True, error_model="numpy")
def chord(before, usual):  # type: ignore[no-untyped-def]
    """The slope of a rectifier between two inputs: (max(a, 0) - max(b, 0)) / (a - b); where a = b, its slope there."""
    rise = max(before, np.float32(0)) - max(usual, np.float32(0))
    return np.float32(before > 0) if before == usual else rise / (before - usual)
