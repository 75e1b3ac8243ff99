"""The compiled inner loops of linear models: add rows of weights, or factors, and choose the best k.

Every score is a sum that is added in one fixed order, so the same item has the same score to the bit whichever items
are asked for beside it, in `rank_rows` as in `row_terms`, in `rank_factors` as in `factor_scores`.
"""

import numpy as np
from numba import njit

BLOCK = 2048
"""Items whose sums are made together: they stay in the fastest cache."""


@njit(nogil=True, cache=True)
def rank_rows(session, worth, row_ptr, target, weight, scratch, touched, k, allowed):  # type: ignore[no-untyped-def]
    """The best `k` allowed items by the sum of the session's rows; items whose sum is not positive are left out.

    Args:
        session: Shape (clicks,), int32 codes, oldest first.
        worth: Shape (clicks,), float64: what each click counts.
        row_ptr: Shape (items + 1,), int64.
        target: int32, rising within a row.
        weight: float32.
        scratch: Shape (items,), float64, all zero before and after.
        touched: Shape (items,), int32, scratch.
        k: Length of the list.
        allowed: Mask over the items; an empty one allows all.

    Returns:
        Codes int32 and scores float64, best first, equal scores by code.
    """
    candidates = 0
    for c in range(session.size):
        if worth[c] == 0:
            continue
        for p in range(row_ptr[session[c]], row_ptr[session[c] + 1]):
            code = target[p]
            before = scratch[code]
            if before == 0:
                touched[candidates] = code
                candidates += 1
            after = before + worth[c] * weight[p]
            scratch[code] = after if after != 0 else 1e-300  # a sum that comes back to zero is noted only once
    limited = allowed.size > 0
    kept = 0
    score = np.empty(candidates, np.float64)
    for n in range(candidates):
        code = touched[n]
        value = scratch[code]
        scratch[code] = 0
        if value > 1e-200 and (not limited or allowed[code]):
            touched[kept] = code
            score[kept] = value
            kept += 1
    return best(touched[:kept], score[:kept], k)


@njit(nogil=True, cache=True)
def sum_rows(session, worth, row_ptr, target, weight, items):  # type: ignore[no-untyped-def]
    """The sum of the session's rows for every item, shape (items,), float64; see `rank_rows`."""
    total = np.zeros(items, np.float64)
    for c in range(session.size):
        for p in range(row_ptr[session[c]], row_ptr[session[c] + 1]):
            total[target[p]] += worth[c] * weight[p]
    return total


@njit(nogil=True, cache=True)
def row_terms(session, worth, row_ptr, target, weight, codes):  # type: ignore[no-untyped-def]
    """What each click gave to the scores of some items: shape (codes, clicks), and the scores, shape (codes,)."""
    parts = np.zeros((codes.size, session.size), np.float64)
    total = np.zeros(codes.size, np.float64)
    for n in range(codes.size):
        for c in range(session.size):
            low = row_ptr[session[c]]
            end = row_ptr[session[c] + 1]
            high = end
            while low < high:
                middle = (low + high) >> 1
                if target[middle] < codes[n]:
                    low = middle + 1
                else:
                    high = middle
            if low < end and target[low] == codes[n]:
                parts[n, c] = worth[c] * weight[low]
                total[n] += parts[n, c]
    return parts, total


@njit(nogil=True, cache=True)
def factor_scores(user, factors, bias, codes):  # type: ignore[no-untyped-def]
    """Scores of some items: bias + user · factors, added in the order of the factors.

    Args:
        user: Shape (f,), float64.
        factors: Shape (f, items), float32.
        bias: Shape (items,), float32.
        codes: Shape (n,), int32.
    """
    score = np.empty(codes.size, np.float64)
    for n in range(codes.size):
        value = np.float64(bias[codes[n]])
        for f in range(user.size):
            value += user[f] * factors[f, codes[n]]
        score[n] = value
    return score


@njit(nogil=True, cache=True)
def rank_factors(user, factors, bias, k, allowed):  # type: ignore[no-untyped-def]
    """The best `k` of all allowed items by bias + user · factors; see `factor_scores` for the shapes."""
    items = bias.size
    limited = allowed.size > 0
    code = np.empty(items, np.int32)
    score = np.empty(items, np.float64)
    block = np.empty(BLOCK, np.float64)
    kept = 0
    for start in range(0, items, BLOCK):
        stop = min(start + BLOCK, items)
        for i in range(start, stop):
            block[i - start] = np.float64(bias[i])
        for f in range(user.size):
            value = user[f]
            row = factors[f]
            for i in range(start, stop):
                block[i - start] += value * row[i]
        for i in range(start, stop):
            if not limited or allowed[i]:
                code[kept] = i
                score[kept] = block[i - start]
                kept += 1
    return best(code[:kept], score[:kept], k)


@njit(nogil=True, cache=True)
def best(code, score, k):  # type: ignore[no-untyped-def]
    """The best `k` of candidates in any order: codes int32 and scores float64, best first, equal scores by code."""
    k = min(k, code.size)
    top_code = np.empty(k, np.int32)
    top_score = np.empty(k, np.float64)
    size = 0
    for n in range(code.size):  # a heap with the worst of the best on top
        value = score[n]
        name = code[n]
        if size < k:
            hole = size
            size += 1
            while hole > 0:
                parent = (hole - 1) >> 1
                if top_score[parent] < value or (top_score[parent] == value and top_code[parent] > name):
                    break
                top_score[hole] = top_score[parent]
                top_code[hole] = top_code[parent]
                hole = parent
        elif k > 0 and (value > top_score[0] or (value == top_score[0] and name < top_code[0])):
            hole = _sink(top_score, top_code, size, value, name)
        else:
            continue
        top_score[hole] = value
        top_code[hole] = name
    for last in range(size - 1, 0, -1):
        value = top_score[last]
        name = top_code[last]
        top_score[last] = top_score[0]
        top_code[last] = top_code[0]
        hole = _sink(top_score, top_code, last, value, name)
        top_score[hole] = value
        top_code[hole] = name
    return top_code, top_score


@njit(nogil=True, cache=True)
def _sink(heap_score, heap_code, size, value, code):  # type: ignore[no-untyped-def]
    """Moves the hole at the top of a heap down to where (value, code) belongs, and returns it."""
    hole = 0
    while True:
        child = 2 * hole + 1
        if child >= size:
            return hole
        right = child + 1
        if right < size and (
            heap_score[right] < heap_score[child]
            or (heap_score[right] == heap_score[child] and heap_code[right] > heap_code[child])
        ):
            child = right
        if value < heap_score[child] or (value == heap_score[child] and code > heap_code[child]):
            return hole
        heap_score[hole] = heap_score[child]
        heap_code[hole] = heap_code[child]
        hole = child
