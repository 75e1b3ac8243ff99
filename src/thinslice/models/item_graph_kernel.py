"""The compiled loops of item graphs: who follows whom, two steps of that, and who shares sessions with whom.

Each row is summed up in one array with a place for every item (Gustavson, 1978), so that what is needed beside clicks
and result is a few numbers an item, however many pairs there are; then the strongest of the row are kept. Everything
is added in one order, so the same clicks give the same bytes.
"""

import numpy as np
from numba import njit

from thinslice.models.knn_kernel import sift

BITS = 19
"""Bits of a float32 that do not count for its level: four of its fraction and its exponent are left."""

LEVELS = 256


@njit(nogil=True, cache=True)
def positions(item, item_count):  # type: ignore[no-untyped-def] # numba infers these
    """Where each item was clicked: ptr (items + 1,) int32 and position (clicks,) int32, rising inside an item."""
    ptr = np.zeros(item_count + 1, np.int32)
    for p in range(item.size):
        ptr[item[p] + 1] += 1
    for i in range(item_count):
        ptr[i + 1] += ptr[i]
    at = ptr[:-1].copy()
    position = np.empty(item.size, np.int32)
    for p in range(item.size):
        i = item[p]
        position[at[i]] = p
        at[i] += 1
    return ptr, position


@njit(nogil=True, cache=True)
def keep(touched, count, score, value, top, kept, weight):  # type: ignore[no-untyped-def]
    """Writes the `top` best of the touched items, in rising order, and sets the score of all touched ones to zero.

    Scores are counted by their leading bits (sixteenths of powers of two below the best), so only those near the cut
    are compared with each other.

    Args:
        touched: Item codes, each once; of equal scores the smaller codes are kept.
        count: How many of `touched` are meant.
        score: Shape (items,), float32, positive.
        value: Scratch beside `touched`, float32.
        top: The longest row.
        kept: Where the codes go.
        weight: Where their scores go.

    Returns:
        How many were written.
    """
    best = np.float32(0)
    for n in range(count):
        code = touched[n]
        value[n] = score[code]
        score[code] = 0
        best = max(best, value[n])
    size = 0
    if count <= top:
        for n in range(count):
            kept[n] = touched[n]
            weight[n] = value[n]
        size = count
    else:
        bits = value.view(np.uint32)
        most = best_level(best)
        level = np.zeros(LEVELS, np.int32)
        for n in range(count):
            level[min(most - (bits[n] >> np.uint32(BITS)), np.uint32(LEVELS - 1))] += 1
        cut = 0
        above = level[0]
        while above <= top:  # ends, since there are more than `top`
            cut += 1
            above += level[cut]
        equal = 0
        for n in range(count):  # those at the cut move to the front of the scratch
            near = min(most - (bits[n] >> np.uint32(BITS)), np.uint32(LEVELS - 1))
            if near < cut:
                kept[size] = touched[n]
                weight[size] = value[n]
                size += 1
            elif near == cut:
                touched[equal] = touched[n]
                value[equal] = value[n]
                equal += 1
        size += select(touched[:equal], value[:equal], kept[size:top], weight[size:top])
    for n in range(size):
        score[kept[n]] = weight[n]
    kept[:size].sort()
    for n in range(size):
        weight[n] = score[kept[n]]
        score[kept[n]] = 0
    return size


@njit(nogil=True, cache=True)
def best_level(best):  # type: ignore[no-untyped-def]
    """The leading bits of a positive float32."""
    one = np.empty(1, np.float32)
    one[0] = best
    return one.view(np.uint32)[0] >> np.uint32(BITS)


@njit(nogil=True, cache=True)
def select(touched, value, kept, weight):  # type: ignore[no-untyped-def]
    """Fills `kept` and `weight` with the best, of equal ones the smaller codes; returns how many were written."""
    top = kept.size
    size = 0
    if top == 0:
        return 0
    for n in range(touched.size):
        code = touched[n]
        if size < top:  # a heap with the worst of the best on top
            hole = size
            size += 1
            while hole > 0:
                parent = (hole - 1) >> 1
                if weight[parent] < value[n] or (weight[parent] == value[n] and kept[parent] > code):
                    break
                weight[hole] = weight[parent]
                kept[hole] = kept[parent]
                hole = parent
        elif value[n] > weight[0] or (value[n] == weight[0] and code < kept[0]):
            hole = sift(weight, kept, size, value[n], code)
        else:
            continue
        weight[hole] = value[n]
        kept[hole] = code
    return size


@njit(nogil=True, cache=True)
def transitions(session_ptr, item, item_count, ahead, back, top, loops, normalize):  # type: ignore[no-untyped-def]
    """Sums for each item what is clicked near it.

    Args:
        session_ptr: Shape (sessions + 1,), int32.
        item: Shape (clicks,), int32.
        item_count: Number of item codes.
        ahead: Weight of one, two, … clicks later, float32, positive.
        back: Weight of one, two, … clicks earlier, float32, positive; may be empty.
        top: The longest row.
        loops: Whether an item may follow itself.
        normalize: Whether a row is divided by its sum before it is cut.

    Returns:
        ptr (items + 1,) int32, item int32, weight float32.
    """
    ptr, position = positions(item, item_count)
    first = np.zeros(item.size + 1, np.bool_)
    for s in range(session_ptr.size):
        first[session_ptr[s]] = True
    room = 0
    reach = ahead.size + back.size
    for i in range(item_count):
        room += min(top, reach * (ptr[i + 1] - ptr[i]))
    row_ptr = np.zeros(item_count + 1, np.int32)
    kept = np.empty(room, np.int32)
    weight = np.empty(room, np.float32)
    score = np.zeros(item_count, np.float32)
    touched = np.empty(item_count + 1, np.int32)
    value = np.empty(item_count + 1, np.float32)
    end = 0
    for i in range(item_count):
        count = 0
        total = 0.0
        for n in range(ptr[i], ptr[i + 1]):
            p = position[n]
            q = p
            for step in range(ahead.size):
                q += 1
                if first[q]:
                    break
                code = item[q]
                if loops or code != i:
                    if score[code] == 0:
                        touched[count] = code
                        count += 1
                    score[code] += ahead[step]
                    total += ahead[step]
            q = p
            for step in range(back.size):
                if first[q]:
                    break
                q -= 1
                code = item[q]
                if loops or code != i:
                    if score[code] == 0:
                        touched[count] = code
                        count += 1
                    score[code] += back[step]
                    total += back[step]
        size = keep(touched, count, score, value, top, kept[end:], weight[end:])
        if normalize and total > 0:
            for n in range(end, end + size):
                weight[n] = np.float32(weight[n] / total)
        end += size
        row_ptr[i + 1] = end
    return row_ptr, kept[:end].copy(), weight[:end].copy()


@njit(nogil=True, cache=True)
def walk(ptr, item, weight, top, normalize):  # type: ignore[no-untyped-def]
    """Two steps: the square of the matrix, its rows divided by their sums first if `normalize`, its rows cut at `top`.

    Returns:
        ptr (items + 1,) int32, item int32, weight float32.
    """
    item_count = ptr.size - 1
    share = weight.copy()
    if normalize:
        for i in range(item_count):
            total = 0.0
            for n in range(ptr[i], ptr[i + 1]):
                total += weight[n]
            if total > 0:
                for n in range(ptr[i], ptr[i + 1]):
                    share[n] = np.float32(weight[n] / total)
    room = 0
    for i in range(item_count):
        reach = 0
        for n in range(ptr[i], ptr[i + 1]):
            reach += ptr[item[n] + 1] - ptr[item[n]]
        room += min(top, reach)
    row_ptr = np.zeros(item_count + 1, np.int32)
    kept = np.empty(room, np.int32)
    found = np.empty(room, np.float32)
    score = np.zeros(item_count, np.float32)
    touched = np.empty(item_count + 1, np.int32)
    value = np.empty(item_count + 1, np.float32)
    start = ptr.view(np.uint32)  # without a sign the compiler leaves out the check for places before the start
    item = item.view(np.uint32)
    end = 0
    for i in range(item_count):
        count = np.uint64(0)
        for n in range(start[i], start[i + 1]):
            way = share[n]
            via = item[n]
            for m in range(start[via], start[via + np.uint32(1)]):
                code = item[m]
                before = score[code]
                touched[count] = code
                count += np.uint64(before == 0)
                score[code] = before + max(way * share[m], SMALLEST)
        end += keep(touched, count, score, value, top, kept[end:], found[end:])
        row_ptr[i + 1] = end
    return row_ptr, kept[:end].copy(), found[:end].copy()


@njit(nogil=True, cache=True)
def transposed(ptr, item, weight, top):  # type: ignore[no-untyped-def]
    """Each edge turned around; rows cut at `top`. Returns ptr (items + 1,) int32, item int32, weight float32."""
    item_count = ptr.size - 1
    to, position = positions(item, item_count)
    source = np.empty(item.size, np.int32)
    for i in range(item_count):
        for n in range(ptr[i], ptr[i + 1]):
            source[n] = i
    room = 0
    for i in range(item_count):
        room += min(top, to[i + 1] - to[i])
    row_ptr = np.zeros(item_count + 1, np.int32)
    kept = np.empty(room, np.int32)
    found = np.empty(room, np.float32)
    score = np.zeros(item_count, np.float32)
    touched = np.empty(item_count + 1, np.int32)
    value = np.empty(item_count + 1, np.float32)
    end = 0
    for i in range(item_count):
        count = 0
        for n in range(to[i], to[i + 1]):
            code = source[position[n]]
            touched[count] = code
            score[code] = weight[position[n]]
            count += 1
        end += keep(touched, count, score, value, top, kept[end:], found[end:])
        row_ptr[i + 1] = end
    return row_ptr, kept, found


@njit(nogil=True, cache=True)
def distinct(session_ptr, item, item_count, longest):  # type: ignore[no-untyped-def]
    """The newest `longest` clicks of each session as its distinct items and how often each was clicked.

    Returns:
        ptr (sessions + 1,) int32, item int32, times float32.
    """
    sessions = session_ptr.size - 1
    ptr = np.zeros(sessions + 1, np.int32)
    found = np.empty(item.size, np.int32)
    times = np.empty(item.size, np.float32)
    place = np.full(item_count, -1, np.int32)
    end = 0
    for s in range(sessions):
        begin = end
        for p in range(max(session_ptr[s], session_ptr[s + 1] - longest), session_ptr[s + 1]):
            i = item[p]
            if place[i] < begin:
                place[i] = end
                found[end] = i
                times[end] = 0
                end += 1
            times[place[i]] += 1
        ptr[s + 1] = end
    return ptr, found[:end].copy(), times[:end].copy()


@njit(nogil=True, cache=True)
def cosine(ptr, item, value, item_count, top, own):  # type: ignore[no-untyped-def]
    """Cosine of every two items over the sessions.

    Args:
        ptr: Shape (sessions + 1,), int32.
        item: Distinct items of the sessions, int32.
        value: Beside `item`, float32; divided in place by the length of the item's vector.
        item_count: Number of item codes.
        top: The longest row.
        own: Whether an item's cosine with itself, 1, belongs to its row.

    Returns:
        ptr (items + 1,) int32, item int32, weight float32.
    """
    length = np.zeros(item_count, np.float64)
    for n in range(item.size):
        length[item[n]] += np.float64(value[n]) ** 2
    for n in range(item.size):
        value[n] = np.float32(value[n] / np.sqrt(length[item[n]]))
    at, position = positions(item, item_count)
    session = np.empty(item.size, np.int32)
    for s in range(ptr.size - 1):
        for n in range(ptr[s], ptr[s + 1]):
            session[n] = s
    room = 0
    for i in range(item_count):
        reach = 0
        for n in range(at[i], at[i + 1]):
            s = session[position[n]]
            reach += ptr[s + 1] - ptr[s]
            if reach > top:
                break
        room += min(top, reach)
    row_ptr = np.zeros(item_count + 1, np.int32)
    kept = np.empty(room, np.int32)
    found = np.empty(room, np.float32)
    score = np.zeros(item_count, np.float32)
    touched = np.empty(item_count + 1, np.int32)
    scratch = np.empty(item_count + 1, np.float32)
    end = 0
    for i in range(item_count):
        count = 0
        for n in range(at[i], at[i + 1]):
            mine = value[position[n]]
            s = session[position[n]]
            for m in range(ptr[s], ptr[s + 1]):
                code = item[m]
                if own or code != i:
                    before = score[code]
                    touched[count] = code
                    count += before == 0
                    score[code] = before + max(mine * value[m], SMALLEST)
        end += keep(touched, count, score, scratch, top, kept[end:], found[end:])
        row_ptr[i + 1] = end
    return row_ptr, kept[:end].copy(), found[:end].copy()


@njit(nogil=True, cache=True)
def company(ptr, item, worth, rare, row_ptr, kept):  # type: ignore[no-untyped-def]
    """What the sessions of two items are worth together, for some pairs of them.

    Args:
        ptr: Shape (sessions + 1,), int32.
        item: Distinct items of the sessions, int32.
        worth: Shape (sessions,), float32, positive.
        rare: Shape (items,), float32: multiplies the pairs that begin with an item.
        row_ptr: Shape (items + 1,), int32: the pairs that begin with each item.
        kept: Shape (pairs,), int32: the other item.

    Returns:
        Shape (pairs,), float32.
    """
    item_count = row_ptr.size - 1
    at, position = positions(item, item_count)
    session = np.empty(item.size, np.int32)
    for s in range(ptr.size - 1):
        for n in range(ptr[s], ptr[s + 1]):
            session[n] = s
    start = ptr.view(np.uint32)
    clicked = item.view(np.uint32)
    found = np.zeros(kept.size, np.float32)
    score = np.zeros(item_count, np.float32)
    for i in range(item_count):
        if row_ptr[i] == row_ptr[i + 1]:
            continue
        for n in range(at[i], at[i + 1]):
            owner = np.uint32(session[position[n]])
            for m in range(start[owner], start[owner + np.uint32(1)]):
                score[clicked[m]] += worth[owner]
        for n in range(row_ptr[i], row_ptr[i + 1]):
            found[n] = rare[i] * score[kept[n]]
        for n in range(at[i], at[i + 1]):
            owner = np.uint32(session[position[n]])
            for m in range(start[owner], start[owner + np.uint32(1)]):
                score[clicked[m]] = 0
    return found


SMALLEST = np.float32(1e-30)
"""An edge is never lost to rounding: zero says that an item was not touched."""
