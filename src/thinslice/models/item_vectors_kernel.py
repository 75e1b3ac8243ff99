"""The compiled loops of item vectors: one step through a graph, inner products, a turn of all vectors."""

import numpy as np
from numba import njit


@njit(nogil=True, cache=True)
def spread(ptr, item, weight, vectors, lazy):  # type: ignore[no-untyped-def] # numba infers these
    """Each item's vector becomes the weighted sum of those of its row, and `lazy` times its own."""
    count, size = vectors.shape
    found = np.empty((count, size), np.float32)
    own = np.float32(lazy)
    for i in range(count):
        to = found[i]
        mine = vectors[i]
        for k in range(size):
            to[k] = own * mine[k]
        for p in range(ptr[i], ptr[i + 1]):
            near = vectors[item[p]]
            part = weight[p]
            for k in range(size):
                to[k] += part * near[k]
    return found


@njit(nogil=True, cache=True)
def inner(left, right):  # type: ignore[no-untyped-def]
    """Inner products of all columns with all columns, float64, shape (columns, columns)."""
    count, size = left.shape
    found = np.zeros((size, size), np.float64)
    for i in range(count):
        other = right[i]
        for j in range(size):
            value = np.float64(left[i, j])
            to = found[j]
            for k in range(size):
                to[k] += value * other[k]
    return found


@njit(nogil=True, cache=True)
def turned(vectors, turn):  # type: ignore[no-untyped-def]
    """The product of the vectors, one a row, and a small matrix."""
    count, size = vectors.shape
    wide = turn.shape[1]
    found = np.zeros((count, wide), np.float32)
    for i in range(count):
        to = found[i]
        for j in range(size):
            value = vectors[i, j]
            by = turn[j]
            for k in range(wide):
                to[k] += value * by[k]
    return found
