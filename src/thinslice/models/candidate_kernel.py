"""The compiled loops of the session ranker: from a session to its candidates and what is known of each of them.

Three sources propose: neighbors of session kNN, the two-step walk over items, and items that occur in the same
sessions. A candidate is one row of 64 bytes in a table that stays in the cache, found by one look-up an item.
"""

import numpy as np
from numba import njit

from thinslice.models.knn_kernel import gather

KNN, VOTES, NEWEST, WALK, WALK_FLAT, COSINE, COSINE_FLAT, NEXT, NEXT_LAST, NEXT_SECOND, COSINE_LAST, BEFORE_LAST = (
    range(12)
)
TIMES, SINCE, BLEND = 12, 13, 14
EVIDENCE, COLUMNS = 12, 16
"""Columns of the table of candidates: twelve of evidence, two of the session itself, the blended score, one free."""

BLENDED = 6
"""How many sources are blended: kNN, walk and cosine by recency of the click, walk and cosine of all clicks, next."""


@njit(nogil=True, cache=True)
def place(code, slot, touched, table, size):  # type: ignore[no-untyped-def] # numba infers these
    """The row of an item in the table of candidates, a new one if need be; -1 when the table is full."""
    row = slot[code] - 1
    if row < 0 and size < touched.size:
        row = size
        slot[code] = size + 1
        touched[size] = code
        for column in range(COLUMNS):
            table[size, column] = 0
    return row


@njit(nogil=True, cache=True)
def propose(  # type: ignore[no-untyped-def]
    session, session_ptr, item, posting_ptr, posting, age, age_weight, item_weight, candidate_weight, decay, distance,
    sample, wanted, known, weight, subsets, neighbor, mask, start, strength,
    walk_ptr, walk_item, walk_weight, cosine_ptr, cosine_item, cosine_weight, next_ptr, next_item, next_weight,
    before_ptr, before_item, before_weight, recency, blend, lean, slot, touched, table, total,
):  # fmt: skip
    """Fills the table of candidates.

    `session` holds item codes, oldest first; negative ones are passed over. What follows up to `strength` belongs to
    session kNN, as in `knn_kernel.rank`. Then come four graphs, each as start of the rows (items + 1,), items and
    weights: the two-step walk, the cosine with self, what came soon after an item, what came soon before it.
    `recency` (3, clicks looked at) is what a click counts for walk, cosine and next, the newest first; `blend` (6,)
    weighs the sources; `lean` leaves out sources without weight, where only the blended score is wanted. Scratch:
    `slot` (items,), all zero before, emptied by `forget` after; `touched` and `table` (most candidates, 16 columns)
    are filled with item and row of each candidate, `total` (16, 2) with the sum and maximum of each column.

    Returns:
        Number of rows, of clicks that were looked at, of distinct items among them (the first rows, newest first), of
        neighbors that voted.
    """
    size = 0
    clicks = 0
    items = item_weight.size
    for position in range(session.size - 1, -1, -1):
        code = session[position]
        if code < 0 or code >= items:
            continue
        if clicks == recency.shape[1]:
            break
        row = slot[code] - 1
        if row < 0:
            row = place(code, slot, touched, table, size)
            size += 1
            table[row, SINCE] = clicks + 1
        table[row, TIMES] += 1
        clicks += 1
    if clicks == 0:
        return 0, 0, 0, 0
    distinct = size
    last = touched[0]
    second = touched[1] if distinct > 1 else -1
    walks = not lean or blend[1] > 0 or blend[5] > 0
    cosines = not lean or blend[2] > 0 or blend[3] > 0
    nexts = not lean or blend[4] > 0
    found = 0
    if not lean or blend[0] > 0:
        _, found = gather(
            session, session_ptr, item, posting_ptr, posting, age, age_weight, item_weight, decay, sample, wanted,
            known, weight, subsets, neighbor, mask, start, strength,
        )  # fmt: skip
    reach = distance.size // 2
    for n in range(found):  # newest first
        bits = mask[n]
        first = 0
        while (bits >> first) & 1 == 0:
            first += 1
        match = known[first]
        stop = session_ptr[neighbor[n] + 1]
        at = stop - 1
        while item[at] != match:
            at -= 1
        vote = strength[n]
        for p in range(max(start[n], at - reach), min(stop, at + reach + 1)):
            row = place(item[p], slot, touched, table, size)
            if row < 0:
                continue
            size = max(size, row + 1)
            if table[row, VOTES] == 0:
                table[row, NEWEST] = session_ptr.size - 1 - neighbor[n]
            table[row, KNN] += vote * distance[p - at + reach]
            table[row, VOTES] += 1
    for row in range(size):
        table[row, KNN] *= candidate_weight[touched[row]]
    clicks = 0
    for position in range(session.size - 1, -1, -1):
        code = session[position]
        if code < 0 or code >= items:
            continue
        if clicks == recency.shape[1]:
            break
        for p in range(cosine_ptr[code], cosine_ptr[code + 1] if cosines else 0):
            row = place(cosine_item[p], slot, touched, table, size)
            if row >= 0:
                size = max(size, row + 1)
                table[row, COSINE] += recency[1, clicks] * cosine_weight[p]
                table[row, COSINE_FLAT] += cosine_weight[p]
                if code == last:
                    table[row, COSINE_LAST] = cosine_weight[p]
        for p in range(walk_ptr[code], walk_ptr[code + 1] if walks else 0):
            row = place(walk_item[p], slot, touched, table, size)
            if row >= 0:
                size = max(size, row + 1)
                table[row, WALK] += recency[0, clicks] * walk_weight[p]
                table[row, WALK_FLAT] += walk_weight[p]
        for p in range(next_ptr[code], next_ptr[code + 1] if nexts else 0):
            row = place(next_item[p], slot, touched, table, size)
            if row >= 0:
                size = max(size, row + 1)
                table[row, NEXT] += recency[2, clicks] * next_weight[p]
                if code == last:
                    table[row, NEXT_LAST] = next_weight[p]
                elif code == second:
                    table[row, NEXT_SECOND] = next_weight[p]
        clicks += 1
    for p in range(before_ptr[last], before_ptr[last + 1]):
        row = slot[before_item[p]] - 1
        if row >= 0:
            table[row, BEFORE_LAST] = before_weight[p]
    total[:] = 0
    for row in range(size):
        for column in range(EVIDENCE):
            value = table[row, column]
            total[column, 0] += value
            total[column, 1] = max(total[column, 1], value)
    part = np.zeros(BLENDED, np.float32)
    for source in range(BLENDED):
        whole = total[column_of(source), 0]
        if whole > 0:
            part[source] = blend[source] / whole
    for row in range(size):
        each = table[row]
        each[BLEND] = (
            part[0] * each[KNN] + part[1] * each[WALK] + part[2] * each[COSINE] + part[3] * each[COSINE_FLAT]
            + part[4] * each[NEXT] + part[5] * each[WALK_FLAT]
        )  # fmt: skip
    return size, clicks, distinct, found


@njit(nogil=True, cache=True)
def column_of(source):  # type: ignore[no-untyped-def]
    """The column of a blended source."""
    if source == 0:
        return KNN
    if source == 1:
        return WALK
    if source == 2:
        return COSINE
    if source == 3:
        return COSINE_FLAT
    if source == 4:
        return NEXT
    return WALK_FLAT


@njit(nogil=True, cache=True)
def forget(slot, touched, size):  # type: ignore[no-untyped-def]
    """Empties the look-up."""
    for row in range(size):
        slot[touched[row]] = 0


@njit(nogil=True, cache=True)
def strongest(table, touched, size, first, stop, order):  # type: ignore[no-untyped-def]
    """The rows whose blended score is number `first` to `stop`, best first, equal scores by item; none without score.

    `order` (most candidates,) is scratch and filled; the rest is what `propose` filled.

    Returns:
        How many stand in `order`, from `order[0]` on.
    """
    held = 0
    for row in range(size):  # a heap with the worst of the best `stop` on top
        if table[row, BLEND] <= 0:
            continue
        if held < stop:
            hole = held
            held += 1
            while hole > 0:
                parent = (hole - 1) >> 1
                if not before(table, touched, order[parent], row):
                    break
                order[hole] = order[parent]
                hole = parent
            order[hole] = row
        elif stop > 0 and before(table, touched, row, order[0]):
            order[sift(table, touched, order, held, row)] = row
    for last in range(held - 1, 0, -1):
        row = order[last]
        order[last] = order[0]
        order[sift(table, touched, order, last, row)] = row
    count = max(0, held - first)
    for n in range(count):
        order[n] = order[first + n]
    return count


@njit(nogil=True, cache=True)
def before(table, touched, left, right):  # type: ignore[no-untyped-def]
    """Whether the row `left` stands before the row `right`."""
    mine = table[left, BLEND]
    other = table[right, BLEND]
    return mine > other or (mine == other and touched[left] < touched[right])


@njit(nogil=True, cache=True)
def sift(table, touched, order, size, row):  # type: ignore[no-untyped-def]
    """Moves the hole at the top of a heap down to where `row` belongs, and returns it."""
    hole = 0
    while True:
        child = 2 * hole + 1
        if child >= size:
            return hole
        if child + 1 < size and before(table, touched, order[child], order[child + 1]):
            child += 1
        if not before(table, touched, row, order[child]):
            return hole
        order[hole] = order[child]
        hole = child
