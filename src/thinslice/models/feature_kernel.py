"""The compiled loops that write down what the session ranker sees of each candidate: one row of features."""

import numpy as np
from numba import njit

from thinslice.models.candidate_kernel import (
    BEFORE_LAST,
    BLEND,
    COMPANY,
    COSINE,
    COSINE_FLAT,
    COSINE_LAST,
    KNN,
    LONG,
    NEWEST,
    NEXT,
    NEXT_LAST,
    NEXT_SECOND,
    SINCE,
    TIMES,
    VOTES,
    WALK,
    WALK_FLAT,
    column_of,
    forget,
    place,
    propose,
    strongest,
)

FAR = 99.0
"""Clicks since an item that the session does not hold."""

NEAR = 30
"""So many of the session's newest items are compared with each candidate."""


@njit(nogil=True, cache=True)
def describe(  # type: ignore[no-untyped-def] # numba infers these
    table, touched, total, order, count, first, clicks, distinct, found, sessions, facts, vectors, vector_step,
    newest, whole, rows
):  # fmt: skip
    """Writes the features of some candidates, in the order of `ranking_features.FEATURES`.

    Args:
        table: The table of candidates, as `candidate_kernel.propose` filled it.
        touched: The item of each row of it.
        total: Sum and maximum of each column of it.
        order: Which rows, best first.
        count: How many of them.
        first: The rank of the first of them by blended score.
        clicks: How many clicks of the session were looked at.
        distinct: How many distinct items are among them.
        found: How many neighbors voted.
        sessions: How many sessions the index holds.
        facts: Shape (items, 8), float32: see `ranking_features.item_facts`.
        vectors: Shape (items, 64), int8: see `item_vectors`.
        vector_step: Shape (items,), float32: what a byte of a vector counts.
        newest: Shape (64,), float32: the vector of the newest click.
        whole: Shape (64,), float32: that of the session.
        rows: Shape (at least count, features), float32: filled.
    """
    best = max(total[BLEND, 1], np.float32(1e-30))
    last = touched[0]  # without a click that of the first who joined, which is as good as any
    for n in range(count):
        each = table[order[n]]
        code = touched[order[n]]
        to = rows[n]
        to[0] = each[BLEND]
        to[1] = each[BLEND] / best
        to[2] = first + n
        to[3] = share(each, total, KNN, 0)
        to[4] = share(each, total, KNN, 1)
        to[5] = each[KNN] / max(found, 1)
        to[6] = each[VOTES] / max(found, 1)
        to[7] = each[NEWEST] / sessions if each[VOTES] > 0 else 1.0
        to[8] = share(each, total, WALK, 0)
        to[9] = share(each, total, WALK, 1)
        to[10] = share(each, total, WALK_FLAT, 0)
        to[11] = share(each, total, COSINE, 0)
        to[12] = share(each, total, COSINE_FLAT, 0)
        to[13] = share(each, total, COSINE_FLAT, 1)
        to[14] = share(each, total, NEXT, 0)
        to[15] = each[NEXT_LAST]
        to[16] = share(each, total, NEXT_LAST, 1)
        to[17] = each[NEXT_SECOND]
        to[18] = each[COSINE_LAST]
        to[19] = each[BEFORE_LAST]
        to[20] = likeness(newest, vectors[code]) * vector_step[code]
        to[21] = likeness(whole, vectors[code]) * vector_step[code]
        to[22], to[23] = nearest(code, touched, distinct, vectors, vector_step)
        to[24] = each[COMPANY]
        to[25] = share(each, total, COMPANY, 1)
        to[26] = each[TIMES]
        to[27] = each[SINCE] if each[SINCE] > 0 else FAR
        to[28] = facts[code, 5]
        to[29] = clicks
        to[30] = distinct
        to[31] = clicks - distinct
        to[32] = found
        to[33] = facts[last, 0]
        to[34] = facts[last, 5]
        to[35] = facts[code, 0]
        to[36] = facts[code, 1]
        to[37] = facts[code, 2]
        to[38] = facts[code, 3]
        to[39] = facts[code, 4]
        to[40] = facts[code, 6]


@njit(nogil=True, cache=True)
def share(each, total, column, of):  # type: ignore[no-untyped-def]
    """A candidate's part of the sum (`of` 0) or of the maximum (1) of a column; 0 where nobody has anything."""
    return each[column] / total[column, of] if total[column, of] > 0 else np.float32(0)


@njit(nogil=True, cache=True)
def direction(session, recency, vectors, vector_step, newest, whole):  # type: ignore[no-untyped-def]
    """Fills the vector of the newest known click, and that of the session: its clicks by recency, of length 1."""
    size = vectors.shape[1]
    whole[:] = 0
    clicks = 0
    for position in range(session.size - 1, -1, -1):
        code = session[position]
        if code < 0 or code >= vector_step.size:
            continue
        if clicks == recency.size:
            break
        own = vectors[code]
        if clicks == 0:
            for k in range(size):
                newest[k] = vector_step[code] * own[k]
        part = recency[clicks] * vector_step[code]
        for k in range(size):
            whole[k] += part * own[k]
        clicks += 1
    length = np.float32(0)
    for k in range(size):
        length += whole[k] * whole[k]
    if length > 0:
        whole /= np.sqrt(length)


@njit(nogil=True, cache=True, fastmath=True)
def likeness(direction, vector):  # type: ignore[no-untyped-def]
    """The inner product of a vector and one of bytes."""
    total = np.float32(0)
    for k in range(vector.size):
        total += direction[k] * vector[k]
    return total


@njit(nogil=True, cache=True)
def nearest(code, touched, distinct, vectors, vector_step):  # type: ignore[no-untyped-def]
    """How like an item is to the session item most like it, and to the three most like it together; itself left out."""
    first = second = third = np.float32(-1)
    for row in range(min(distinct, NEAR)):
        other = touched[row]
        if other == code:
            continue
        total = np.int32(0)
        for k in range(vectors.shape[1]):
            total += np.int32(vectors[code, k]) * np.int32(vectors[other, k])
        value = np.float32(total) * vector_step[code] * vector_step[other]
        if value > first:
            first, second, third = value, first, second
        elif value > second:
            second, third = value, second
        elif value > third:
            third = value
    return first, max(first, np.float32(0)) + max(second, np.float32(0)) + max(third, np.float32(0))


@njit(nogil=True, cache=True)
def look(  # type: ignore[no-untyped-def]
    session, index, sample, wanted, room, graphs, recency, blend, facts, vectors, vector_step, slot, touched, table,
    total, order, more, first, stop, lean, rows, codes, blended,
):  # fmt: skip
    """The candidates number `first` to `stop` of one session with their features, and `more` items (int32) after them.

    `index` holds the ten arrays of session kNN, `room` its seven scratch arrays, `graphs` the thirteen arrays of
    the graphs; see `candidate_kernel.propose` for them and for what follows. `rows`, `codes` and `blended` (at least
    stop - first and as many as are in `more`, each) are filled with features, items and blended scores; with `lean`
    without features.

    Returns:
        How many were written, how many candidates there are in all, of how many distinct items session kNN found how
        many neighbors (in `room`, until the next question).
    """
    size, clicks, distinct, heard, found = propose(  # type: ignore[call-arg] # several stars
        session, *index, sample, wanted, *room, *graphs, recency, blend, lean, slot, touched, table, total
    )
    if clicks == 0:
        total[:] = 0
    count = strongest(table, touched, size, first, min(stop, size), order)
    if more.size > 0:
        count, size = join(more, slot, touched, table, order, count, size)
    if count > 0 and not lean:
        newest = np.zeros(vectors.shape[1], np.float32)
        whole = np.empty(vectors.shape[1], np.float32)
        direction(session, recency[1], vectors, vector_step, newest, whole)
        describe(
            table, touched, total, order, count, first, clicks, distinct, found, index[0].size - 1, facts,
            vectors, vector_step, newest, whole, rows,
        )  # fmt: skip
    for n in range(count):
        codes[n] = touched[order[n]]
        blended[n] = table[order[n], BLEND]
    forget(slot, touched, size)
    return count, size, heard, found


@njit(nogil=True, cache=True)
def join(more, slot, touched, table, order, count, size):  # type: ignore[no-untyped-def]
    """Appends the rows of further items to the first `count` of `order`, each once; returns count and size after."""
    before = count
    for code in more:
        row = np.int64(slot[code]) - 1
        if row < 0:
            row = np.int64(place(np.uint32(code), slot, touched, table, np.uint64(size))) - 1
            if row < 0:
                continue
            size = row + 1
        n = 0
        while n < before and order[n] != row:
            n += 1
        if n == before and count < order.size:
            order[count] = row
            count += 1
    return count, size


@njit(nogil=True, cache=True)
def foresee(  # type: ignore[no-untyped-def]
    clicks, begin, end, answer, more_ptr, more, keep, seed, index, sample, wanted, room, graphs, recency, blend, facts,
    vectors, vector_step, slot, touched, table, total, order, stop, found, written, kept, label, kept_code,
):  # fmt: skip
    """Asks many questions whose answers are known: where the answer stands, and rows to learn from.

    A question shows `clicks[begin:end]` and is answered by `answer`; `more[more_ptr[q]:more_ptr[q + 1]]` join its
    candidates. Of its `stop` best candidates and these the right one and the share `keep` of the wrong ones, decided by
    `seed`, are written to `kept` (rows, features), `label` (1 for the right one) and `kept_code`; a negative `keep`
    writes none. `found` is filled with the rank of the answer by blended score, -1 where it is no candidate; `written`
    with the number of rows of the question. The rest is as for `look`.

    Returns:
        The number of rows written.
    """
    size = 0
    lean = keep < 0
    best = np.int64(0)  # no literal: `look` has one compiled form
    ranks = np.empty(order.size, np.int32)
    for q in range(begin.size):
        session = clicks[begin[q] : end[q]]
        rows, looked, distinct, _, neighbors = propose(  # type: ignore[call-arg] # several stars
            session, *index, sample, wanted, *room, *graphs, recency, blend, lean, slot, touched, table, total
        )
        if looked == 0:
            total[:] = 0
        count = strongest(table, touched, rows, best, min(stop, rows), order)
        joined = more[more_ptr[q] : more_ptr[q + 1]]
        if joined.size > 0:
            count, rows = join(joined, slot, touched, table, order, count, rows)
        found[q] = -1
        written[q] = 0
        for n in range(count):
            if touched[order[n]] == answer[q]:
                found[q] = n
        if found[q] >= 0 and not lean:  # only what is kept is described
            chosen = 0
            for n in range(count):
                right = n == found[q]
                if right or chance(seed, q, n) < keep:
                    if size + chosen == label.size:
                        break
                    label[size + chosen] = right
                    kept_code[size + chosen] = touched[order[n]]
                    ranks[chosen] = n
                    order[chosen] = order[n]
                    chosen += 1
            newest = np.zeros(vectors.shape[1], np.float32)
            whole = np.empty(vectors.shape[1], np.float32)
            direction(session, recency[1], vectors, vector_step, newest, whole)
            describe(
                table, touched, total, order, chosen, best, looked, distinct, neighbors, index[0].size - 1, facts,
                vectors, vector_step, newest, whole, kept[size:],
            )  # fmt: skip
            for n in range(chosen):
                kept[size + n, 2] = ranks[n]  # the rank among all, not among those that are kept
            size += chosen
            written[q] = chosen
        forget(slot, touched, rows)
    return size


@njit(nogil=True, cache=True)
def chance(seed, question, candidate):  # type: ignore[no-untyped-def]
    """A number from 0 to 1 that looks random and depends on the arguments alone (the mixer of SplitMix64)."""
    state = np.uint64(seed) + np.uint64(question) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(candidate + 1)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    state = state ^ (state >> np.uint64(31))
    return np.float64(state >> np.uint64(11)) / 9007199254740992.0


@njit(nogil=True, cache=True)
def split(session, codes, graphs, recency, blend, items, total):  # type: ignore[no-untyped-def]
    """Breaks the blended scores of some items into what each session item gave through the graphs, without kNN.

    `items` is how many items there are, `total` what `look` has filled for this session.

    Returns:
        The session's distinct items, newest first; parts, shape (codes, items), float64.
    """
    steps = recency.shape[1]
    known = np.empty(steps, np.int32)
    near = np.zeros((steps, 4))  # what the clicks on an item count for walk, cosine and next; how many
    distinct = clicks = seen = 0
    for position in range(session.size - 1, -1, -1):
        code = session[position]
        if code < 0 or code >= items:
            continue
        if seen == LONG:
            break
        seen += 1
        b = 0
        while b < distinct and known[b] != code:
            b += 1
        if b == distinct:
            if distinct == steps:
                continue
            known[distinct] = code
            distinct += 1
        if clicks < steps:
            for source in range(3):
                near[b, source] += recency[source, clicks]
        near[b, 3] += 1
        clicks += 1
    known = known[:distinct].copy()
    parts = np.zeros((codes.size, distinct), np.float64)
    wide = np.empty(5, np.float64)
    for source in range(1, 6):
        column = column_of(source)
        wide[source - 1] = blend[source] / total[column, 0] if total[column, 0] > 0 else 0.0
    walk_ptr, walk_item, walk_weight, cosine_ptr, cosine_item, cosine_weight, next_ptr, next_item, next_weight = graphs[
        :9
    ]
    for b in range(distinct):
        code = known[b]
        walked = wide[0] * near[b, 0] + wide[4] * near[b, 3]
        alike = wide[1] * near[b, 1] + wide[2] * near[b, 3]
        followed = wide[3] * near[b, 2]
        for n in range(codes.size):
            if walked > 0:
                value = weight_of(codes[n], walk_ptr[code], walk_ptr[code + 1], walk_item, walk_weight)
                parts[n, b] += value * walked
            if alike > 0:
                value = weight_of(codes[n], cosine_ptr[code], cosine_ptr[code + 1], cosine_item, cosine_weight)
                parts[n, b] += value * alike
            if followed > 0:
                value = weight_of(codes[n], next_ptr[code], next_ptr[code + 1], next_item, next_weight)
                parts[n, b] += value * followed
    return known, parts


@njit(nogil=True, cache=True)
def weight_of(code, begin, end, items, weights):  # type: ignore[no-untyped-def]
    """The weight of one item in a row of a graph, whose items rise; 0 where it is not in it."""
    stop = end
    while begin < end:
        middle = (begin + end) >> 1
        if items[middle] < code:
            begin = middle + 1
        else:
            end = middle
    if begin < stop and items[begin] == code:
        return np.float64(weights[begin])
    return 0.0
