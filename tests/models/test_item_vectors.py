"""Item vectors: items that lead to the same places point the same way, and those of other places do not."""

import numpy as np
import pytest

from thinslice.models.item_graph import CSR, transitions
from thinslice.models.item_vectors import SIZE, item_vectors


def blocks(sizes=(12, 12, 12), sessions=600, rng=0):
    """Sessions that stay in one block of items."""
    draw = np.random.default_rng(rng)
    starts = np.concatenate([[0], np.cumsum(sizes)])
    clicks = []
    for _ in range(sessions):
        block = int(draw.integers(len(sizes)))
        clicks.append(draw.integers(starts[block], starts[block + 1], 5))
    ptr = np.arange(sessions + 1) * 5
    return transitions(ptr, np.concatenate(clicks), int(starts[-1]), backward=1.0, loops=False), starts


def unit(graph):
    coarse, step = item_vectors(graph)
    assert coarse.dtype == np.int8
    return coarse.astype(float) * step[:, None]


def test_items_of_one_block_are_alike_and_items_of_two_are_not():
    graph, starts = blocks()
    vectors = unit(graph)
    alike = vectors @ vectors.T
    owner = np.repeat(np.arange(3), np.diff(starts))
    same = owner[:, None] == owner[None, :]
    assert alike[same & ~np.eye(36, dtype=bool)].mean() > 0.5
    assert alike[same].mean() > alike[~same].mean() + 0.5


def test_vectors_have_length_one_to_the_step_of_a_byte():
    vectors = unit(blocks()[0])
    assert vectors.shape == (36, SIZE)
    assert np.sqrt(np.square(vectors).sum(axis=1)) == pytest.approx(np.ones(36), abs=0.02)


def test_the_same_graph_gives_the_same_bytes():
    first, second = (item_vectors(blocks()[0]) for _ in range(2))
    assert all(left.tobytes() == right.tobytes() for left, right in zip(first, second, strict=True))


@pytest.mark.parametrize("items", [0, 1, 2, 5])
def test_items_without_edges_have_no_direction(items):
    graph = CSR(np.zeros(items + 1, np.int32), np.empty(0, np.int32), np.empty(0, np.float32))
    coarse, step = item_vectors(graph)
    assert coarse.shape[0] == len(step) == items
    assert not coarse.any()
    assert not step.any()
