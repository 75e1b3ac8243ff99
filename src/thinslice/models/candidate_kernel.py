"""The compiled loops of the session ranker: from a session to its candidates and what is known of each of them.

Three sources propose: neighbors of session kNN, the two-step walk over items, and items that occur in the same
sessions. A candidate is one row of 64 bytes in a table that stays in the cache, found by one look-up an item. An item
that the session clicked often is followed once. Places in arrays are numbers without a sign, as in `knn_kernel`.
"""

import numpy as np
from numba import njit

from thinslice.models.forest_kernel import first_bit
from thinslice.models.knn_kernel import extent, gather

(
    KNN, VOTES, NEWEST, WALK, WALK_FLAT, COSINE, COSINE_FLAT, NEXT, NEXT_LAST, NEXT_SECOND, COSINE_LAST, BEFORE_LAST,
    COMPANY,
) = range(13)  # fmt: skip
TIMES, SINCE, BLEND = 13, 14, 15
EVIDENCE, COLUMNS = 13, 16
"""Columns of the table of candidates: thirteen of evidence, two of the session itself, the blended score."""

LONG = 400
"""So many of a session's clicks are counted, the newest."""

BLENDED = 6
"""How many sources are blended: kNN, walk and cosine by recency of the click, walk and cosine of all clicks, next."""


@njit(nogil=True, cache=True)
def place(code, slot, touched, table, size):  # type: ignore[no-untyped-def] # numba infers these
    """A new row in the table of candidates, for an item that has none: its number plus one; 0 when the table is full.

    Most look-ups find a row; those that do are made without a call.
    """
    if size >= touched.size:
        return np.uint64(0)
    touched[size] = code
    for column in range(COLUMNS):
        table[size, column] = 0
    row = size + np.uint64(1)
    slot[code] = row
    return row


@njit(nogil=True, cache=True)
def remember(session, recency, slot, touched, table, near):  # type: ignore[no-untyped-def]
    """The first rows of the table: the distinct items among the clicks that are looked at, newest first.

    So many items as `recency` has steps are followed; clicks beyond its steps count for those alone, and up to `LONG`
    clicks in all. `near` (items that are followed, 4) is filled beside them: what the clicks on an item count for walk,
    cosine and next, and how many they are.

    Returns:
        Number of clicks that were looked at, of distinct items among them.
    """
    distinct = np.uint64(0)
    clicks = seen = 0
    steps = np.uint64(recency.shape[1])
    for position in range(session.size - 1, -1, -1):
        code = session[position]
        if code < 0 or code >= slot.size:
            continue
        if seen == LONG:
            break
        seen += 1
        row = np.uint64(slot[code])
        if row == 0:
            if distinct >= steps:
                continue
            row = place(np.uint32(code), slot, touched, table, distinct)
            if row == 0:
                continue
            near[distinct] = 0
            distinct = row
            table[row - np.uint64(1), SINCE] = clicks + 1
        row -= np.uint64(1)
        table[row, TIMES] += 1
        if clicks < recency.shape[1]:
            for source in range(3):
                near[row, source] += recency[source, clicks]
        near[row, 3] += 1
        clicks += 1
    return clicks, distinct


@njit(nogil=True, cache=True)
def hear(  # type: ignore[no-untyped-def]
    found, known, neighbor, mask, start, strength, session_ptr, item, distance, candidate_weight, slot, touched, table,
    size,
):  # fmt: skip
    """Lets the neighbors that `knn_kernel.gather` found vote, newest first; returns the number of rows after."""
    back, ahead = extent(distance)
    reach = distance.size // 2
    clicked = item.view(np.uint32)
    for n in range(found):
        match = np.uint32(known[first_bit(np.uint32(mask[n]))])
        neighboring = np.uint32(neighbor[n])
        stop = session_ptr[neighboring + np.uint32(1)]
        at = stop - 1
        while clicked[np.uint64(at)] != match:
            at -= 1
        vote = strength[n]
        age = np.float32(session_ptr.size - 1 - neighboring)
        shift = np.uint64(reach) - np.uint64(at)
        for p in range(np.uint64(max(start[n], at - back)), np.uint64(min(stop, at + ahead + 1))):
            code = clicked[p]
            row = np.uint64(slot[code])
            if row == 0:
                row = place(code, slot, touched, table, size)
                if row == 0:
                    continue
                size = row
            row -= np.uint64(1)
            if table[row, VOTES] == 0:
                table[row, NEWEST] = age
            table[row, KNN] += vote * distance[p + shift]
            table[row, VOTES] += 1
    for heard in range(size):
        table[heard, KNN] *= candidate_weight[touched[heard]]
    return size


@njit(nogil=True, cache=True)
def propose(  # type: ignore[no-untyped-def]
    session, session_ptr, item, posting_ptr, posting, age, age_weight, item_weight, candidate_weight, decay, distance,
    sample, wanted, known, weight, subsets, neighbor, mask, start, strength,
    walk_ptr, walk_item, walk_weight, cosine_ptr, cosine_item, cosine_weight, next_ptr, next_item, next_weight,
    before_ptr, before_item, before_weight, company, recency, blend, lean, slot, touched, table, total,
):  # fmt: skip
    """Fills the table of candidates.

    `session` holds item codes, oldest first; negative ones are passed over. What follows up to `strength` belongs to
    session kNN, as in `knn_kernel.rank`. Then come four graphs, each as start of the rows (items + 1,), items and
    weights: the two-step walk, the cosine with self, what came soon after an item, what came soon before it; `company`
    weighs the edges of the cosine a second time. `recency` (3, clicks looked at) is what a click counts for walk,
    cosine and next, the newest first; `blend` (6,) weighs the sources; `lean` leaves out sources without weight, where
    only the blended score is wanted. Scratch: `slot` (items,), uint32, all zero before, emptied by `forget` after;
    `touched` and `table` (most candidates, 16 columns) are filled with item and row of each candidate, `total` (16, 2)
    with the sum and maximum of each column.

    Returns:
        Number of rows, of clicks that were looked at, of distinct items among them (the first rows, newest first), of
        distinct items that session kNN looked at, of neighbors that voted.
    """
    near = np.empty((recency.shape[1], 4), np.float32)
    clicks, distinct = remember(session, recency, slot, touched, table, near)
    if clicks == 0:
        return 0, 0, 0, 0, 0
    size = distinct
    walks = not lean or blend[1] > 0 or blend[5] > 0
    cosines = not lean or blend[2] > 0 or blend[3] > 0
    nexts = not lean or blend[4] > 0
    heard = found = 0
    if not lean or blend[0] > 0:
        heard, found = gather(
            session, session_ptr, item, posting_ptr, posting, age, age_weight, item_weight, decay, sample, wanted,
            known, weight, subsets, neighbor, mask, start, strength,
        )  # fmt: skip
        size = hear(
            found, known, neighbor, mask, start, strength, session_ptr, item, distance, candidate_weight, slot, touched,
            table, size,
        )  # fmt: skip
    walk_to, cosine_to, next_to = walk_item.view(np.uint32), cosine_item.view(np.uint32), next_item.view(np.uint32)
    for n in range(distinct):
        code = np.uint32(touched[n])
        if cosines:
            recent, times = near[n, 1], near[n, 3]
            for p in range(np.uint32(cosine_ptr[code]), np.uint32(cosine_ptr[code + np.uint32(1)])):
                other = cosine_to[p]
                row = np.uint64(slot[other])
                if row == 0:
                    row = place(other, slot, touched, table, size)
                    size = max(size, row)
                if row > 0:
                    row -= np.uint64(1)
                    table[row, COSINE] += recent * cosine_weight[p]
                    table[row, COSINE_FLAT] += times * cosine_weight[p]
                    table[row, COMPANY] += company[p]
                    if n == 0:
                        table[row, COSINE_LAST] = cosine_weight[p]
        if walks:
            recent, times = near[n, 0], near[n, 3]
            for p in range(np.uint32(walk_ptr[code]), np.uint32(walk_ptr[code + np.uint32(1)])):
                other = walk_to[p]
                row = np.uint64(slot[other])
                if row == 0:
                    row = place(other, slot, touched, table, size)
                    size = max(size, row)
                if row > 0:
                    row -= np.uint64(1)
                    table[row, WALK] += recent * walk_weight[p]
                    table[row, WALK_FLAT] += times * walk_weight[p]
        recent = near[n, 2]
        if nexts and (recent > 0 or n < 2):
            for p in range(np.uint32(next_ptr[code]), np.uint32(next_ptr[code + np.uint32(1)])):
                other = next_to[p]
                row = np.uint64(slot[other])
                if row == 0:
                    row = place(other, slot, touched, table, size)
                    size = max(size, row)
                if row > 0:
                    row -= np.uint64(1)
                    table[row, NEXT] += recent * next_weight[p]
                    if n == 0:
                        table[row, NEXT_LAST] = next_weight[p]
                    elif n == 1:
                        table[row, NEXT_SECOND] = next_weight[p]
    last = touched[0]
    for p in range(before_ptr[last], before_ptr[last + 1]):
        row = slot[before_item[p]]
        if row > 0:
            table[row - np.uint64(1), BEFORE_LAST] = before_weight[p]
    mix(table, size, blend, total)
    return np.int64(size), clicks, np.int64(distinct), heard, found


@njit(nogil=True, cache=True)
def mix(table, size, blend, total):  # type: ignore[no-untyped-def]
    """Fills `total` with the sum and maximum of each column, and the blended scores."""
    whole = np.zeros(COLUMNS, np.float32)
    most = np.zeros(COLUMNS, np.float32)
    for row in range(size):
        each = table[row]
        for column in range(COLUMNS):
            whole[column] += each[column]
            most[column] = max(most[column], each[column])
    part = np.zeros(BLENDED, np.float32)
    for source in range(BLENDED):
        if whole[column_of(source)] > 0:
            part[source] = blend[source] / whole[column_of(source)]
    best = np.float32(0)
    for row in range(size):
        each = table[row]
        each[BLEND] = (
            part[0] * each[KNN] + part[1] * each[WALK] + part[2] * each[COSINE] + part[3] * each[COSINE_FLAT]
            + part[4] * each[NEXT] + part[5] * each[WALK_FLAT]
        )  # fmt: skip
        best = max(best, each[BLEND])
    most[BLEND] = best
    for column in range(COLUMNS):
        total[column, 0] = whole[column]
        total[column, 1] = most[column]


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
