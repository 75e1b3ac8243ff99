"""A short vector for each item from who follows whom: items that lead to the same places point the same way.

The leading eigenvectors of the graph of transitions, scaled on both sides by the roots of the degrees (as in spectral
clustering, Ng, Jordan and Weiss, 2001), found by subspace iteration. They reach further than two steps, and where an
item has few clicks of its own they know it by its surroundings.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from thinslice.models.item_graph import CSR

SIZE = 64
"""Numbers in a vector, one byte each: a vector is one line of the cache."""

MORE = 8
"""So many more directions are followed, so that the last ones that are kept are found well, too."""

ROUNDS = 3
"""Rounds of two steps through the graph; after each the directions are made upright again."""

LAZY = 0.2
"""A step stays where it is with this weight, so that directions that swing to and fro fade."""


def item_vectors(graph: CSR) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Vectors of length 1, or 0 for items without edges.

    Args:
        graph: Which item follows which, weights positive, the same in both directions or nearly so.

    Returns:
        Shape (items, 64), int8, and shape (items,), float32: a vector is its bytes times its number.
    """
    count = len(graph.ptr) - 1
    weight = np.log1p(graph.weight)
    owner = np.repeat(np.arange(count), np.diff(graph.ptr))
    degree = np.sqrt(np.maximum(np.bincount(owner, weights=weight, minlength=count), 1e-9))
    weight = (weight / (degree[owner] * degree[graph.item])).astype(np.float32)
    kernel = _kernel()
    follow = np.random.default_rng(0).standard_normal((count, SIZE + MORE), dtype=np.float32)
    for _ in range(ROUNDS):
        follow = kernel.spread(graph.ptr, graph.item, weight, follow, LAZY)
        follow = _upright(kernel.spread(graph.ptr, graph.item, weight, follow, LAZY))
    ahead = kernel.inner(follow, kernel.spread(graph.ptr, graph.item, weight, follow, 0.0))
    value, turn = np.linalg.eigh((ahead + ahead.T) / 2)
    strongest = np.argsort(-value, kind="stable")[1 : SIZE + 1]  # the first only tells the degrees
    scale = np.maximum(value[strongest], 0)
    return _as_bytes(kernel.turned(follow, (turn[:, strongest] * scale).astype(np.float32)))


def _upright(follow: NDArray[np.float32]) -> NDArray[np.float32]:
    """The same space with directions of length 1 at right angles; what has no length of its own becomes 0."""
    kernel = _kernel()
    value, turn = np.linalg.eigh(kernel.inner(follow, follow))
    good = value > 1e-7 * max(float(value[-1]), 1e-30)
    scale = np.where(good, 1 / np.sqrt(np.where(good, value, 1.0)), 0.0)
    upright: NDArray[np.float32] = kernel.turned(follow, (turn * scale).astype(np.float32))
    return upright


def _as_bytes(vectors: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Vectors of length 1 as bytes, each with its own step."""
    length = np.sqrt(np.square(vectors).sum(axis=1, dtype=np.float64))
    unit = vectors / np.where(length > 1e-12, length, np.inf)[:, None]
    largest = np.abs(unit).max(axis=1, initial=0.0)
    step = np.where(largest > 0, largest / 127, 0.0)
    coarse = np.rint(unit / np.where(step > 0, step, np.inf)[:, None]).astype(np.int8)
    return coarse, step.astype(np.float32)


def _kernel() -> Any:
    """The compiled loops, imported late."""
    from thinslice.models import item_vectors_kernel

    return item_vectors_kernel
