"""The compiled loops of a forest of decision trees: score a block of rows, and say which feature gave how much.

Rows are scored many at a time in the manner of V-QuickScorer (Lucchese et al., SIGIR 2015 and 2016): each tree node
looks at all rows at once and crosses out the leaves that a row can no longer reach, one bit a leaf; the first bit that
is left is the leaf where the row ends. No branch depends on a single row, so the compiler turns the inner loops into
vector instructions. A node that sends all rows the same way is done with one instruction.
"""

from typing import Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import njit
from numba.extending import intrinsic

BLOCK = 16
"""Rows are filled up to a multiple of this: a vector or two of the processor."""

WIDEST = 256
"""So many rows are scored at once, then the next."""

ZERO = np.float32(1e-35)
"""Values this close to 0, and NaN, are 0, as in LightGBM."""


def _first_bit(context, bits):  # type: ignore[no-untyped-def] # noqa: ARG001
    """An instruction of the processor instead of a loop."""

    def generate(_context, builder, _signature, arguments):  # type: ignore[no-untyped-def]
        kind = arguments[0].type
        count = builder.module.declare_intrinsic(
            "llvm.cttz", [kind], ir.FunctionType(kind, [kind, ir.IntType(1)])
        )  # fmt: skip
        return builder.call(count, [arguments[0], ir.Constant(ir.IntType(1), 1)])

    return bits(bits), generate


first_bit: Any = intrinsic(_first_bit)
"""In compiled code: number of zero bits below the lowest set bit; at least one bit must be set."""


@njit(nogil=True, cache=True)
def predict(rows, tree_ptr, feature, threshold, mask, leaf_value, keep):  # type: ignore[no-untyped-def]
    """Sum over the trees of the value of the leaf where each row ends.

    Args:
        rows: Shape (rows, features), float32; NaN counts as 0.
        tree_ptr: Shape (trees + 1,), int32: where the nodes of each tree begin.
        feature: Shape (nodes,), int32.
        threshold: Shape (nodes,), float32: larger values go right.
        mask: Shape (nodes,), uint32 or uint64: zero for the leaves that a row going right can no longer reach.
        leaf_value: Shape (trees, leaves), float64, leaves from left to right.
        keep: Whether somebody wants to know where each row ends.

    Returns:
        Shape (rows,), float64, added in the order of the trees; and, for who wants it, the leaf where each row ends in
        each tree, shape (trees, at least rows), uint8.
    """
    count, features = rows.shape
    width = min(WIDEST, max(1, (count + BLOCK - 1) // BLOCK) * BLOCK)
    found = np.zeros(count, np.float64)
    column = np.empty((features, width), np.float32)
    low = np.empty(features, np.float32)
    high = np.empty(features, np.float32)
    alive = np.empty(width, mask.dtype)
    leaf = np.empty(width, mask.dtype)
    total = np.empty(width, np.float64)
    leaves = np.empty((tree_ptr.size - 1, (count + width - 1) // width * width if keep else 0), np.uint8)
    every = ~mask.dtype.type(0)
    for begin in range(0, count, width):
        size = min(width, count - begin)
        for j in range(features):
            for r in range(width):  # the last row fills the block up
                value = rows[begin + min(r, size - 1), j]
                column[j, r] = value if abs(value) > ZERO else np.float32(0)
        for j in range(features):
            least = column[j, 0]
            most = column[j, 0]
            for r in range(width):
                value = column[j, r]
                least = value if value < least else least
                most = value if value > most else most
            low[j] = least
            high[j] = most
        for r in range(width):
            total[r] = 0
        for tree in range(tree_ptr.size - 1):
            common = every
            for r in range(width):
                alive[r] = every
            for node in range(tree_ptr[tree], tree_ptr[tree + 1]):
                j = feature[node]
                cut = threshold[node]
                if high[j] > cut:
                    if low[j] > cut:
                        common &= mask[node]
                    else:
                        kept = mask[node]
                        for r in range(width):
                            alive[r] &= kept if column[j, r] > cut else every
            for r in range(width):
                leaf[r] = first_bit(alive[r] & common)
            for r in range(width):
                total[r] += leaf_value[tree, leaf[r]]
            if keep:
                ends = leaves[tree, begin : begin + width]
                for r in range(width):
                    ends[r] = leaf[r]
        for r in range(size):
            found[begin + r] = total[r]
    return found, leaves


@njit(nogil=True, cache=True)
def sums(leaves, at, worth):  # type: ignore[no-untyped-def]
    """Sum over the trees of what each leaf is worth, of the leaves where the rows `at` (int64) end; see `predict`."""
    found = np.zeros(at.size, np.float64)
    for tree in range(worth.shape[0]):
        for n in range(at.size):
            found[n] += worth[tree, leaves[tree, at[n]]]
    return found


@njit(nogil=True, cache=True)
def contributions(rows, root, feature, threshold, left, right, node_value, leaf_value):  # type: ignore[no-untyped-def]
    """What each feature gave: at every node of a row's path, how much its split changed the expected value.

    Args:
        rows: Shape (rows, features), float32; NaN counts as 0.
        root: Shape (trees,), int32: the first node of each tree, or -1 for a tree that is one leaf.
        feature: Shape (nodes,), int32.
        threshold: Shape (nodes,), float32.
        left: Shape (nodes,), int32: the next node, or -1 - leaf.
        right: Shape (nodes,), int32, the same for larger values.
        node_value: Shape (nodes,), float64: expected value before the split.
        leaf_value: Shape (trees, leaves), float64.

    Returns:
        Shape (rows, features), float64.
    """
    count, features = rows.shape
    found = np.zeros((count, features), np.float64)
    for r in range(count):
        for tree in range(root.size):
            node = root[tree]
            while node >= 0:
                j = feature[node]
                value = rows[r, j]
                if not abs(value) > ZERO:
                    value = np.float32(0)
                step = right[node] if value > threshold[node] else left[node]
                after = node_value[step] if step >= 0 else leaf_value[tree, -1 - step]
                found[r, j] += after - node_value[node]
                node = step
    return found
