"""The compiled inner loops of the content model: similarity of a session's profile to every item, and item by item."""

import numpy as np
from numba import njit


@njit(nogil=True, cache=True)
def score_all(feature, worth, posting_ptr, posting, weight, vector, vectors):  # type: ignore[no-untyped-def]
    """Similarity of a profile to every item, shape (items,), float64.

    Args:
        feature: Shape (n,), int32: the features of the profile.
        worth: Shape (n,), float64.
        posting_ptr: Shape (features + 1,), int64.
        posting: Items of each feature, int32.
        weight: float32.
        vector: Shape (d,), float64: the profile's supplied vectors.
        vectors: Shape (d, items), float32.
    """
    score = np.zeros(vectors.shape[1], np.float64)
    for n in range(feature.size):
        for p in range(posting_ptr[feature[n]], posting_ptr[feature[n] + 1]):
            score[posting[p]] += worth[n] * weight[p]
    for d in range(vector.size):
        value = vector[d]
        row = vectors[d]
        for i in range(score.size):
            score[i] += value * row[i]
    return score


@njit(nogil=True, cache=True)
def pairs(left, right, ptr, feature, weight, vectors, share):  # type: ignore[no-untyped-def]
    """Similarity of items to items, shape (left, right), float64; an item's with itself is 0.

    Args:
        left: Codes, int32.
        right: Codes, int32.
        ptr: Shape (items + 1,), int64.
        feature: int32, rising within a row.
        weight: float32.
        vectors: Shape (d, items), float32.
        share: What supplied vectors weigh against features.
    """
    found = np.zeros((left.size, right.size), np.float64)
    for n in range(left.size):
        for m in range(right.size):
            if left[n] == right[m]:
                continue
            p = ptr[left[n]]
            q = ptr[right[m]]
            total = 0.0
            while p < ptr[left[n] + 1] and q < ptr[right[m] + 1]:
                if feature[p] < feature[q]:
                    p += 1
                elif feature[p] > feature[q]:
                    q += 1
                else:
                    total += np.float64(weight[p]) * weight[q]
                    p += 1
                    q += 1
            near = 0.0
            for d in range(vectors.shape[0]):
                near += np.float64(vectors[d, left[n]]) * vectors[d, right[m]]
            found[n, m] = total + share * near
    return found
