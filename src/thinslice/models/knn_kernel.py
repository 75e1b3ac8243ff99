"""The compiled inner loops of session kNN: build the index, rank one session, break a ranking into its terms.

Sessions are numbered by recency (a larger number is newer), so "the newest m sessions that contain any of these items"
is an m-way merge of posting lists that are already sorted; no hash table. A neighbor is remembered with a mask of the
session items that it contains, so its similarity is a table look-up and choosing the k most similar is counting.
Arrays are plain, read only here except for the scratch; each function is compiled once, for one set of types. Places in
arrays are read as numbers without a sign where time counts: the compiler then leaves out the check for places that are
counted from the end, a quarter of the time.
"""

import numpy as np
from numba import njit

from thinslice.models.forest_kernel import first_bit

NOBODY = np.uint32(2**32 - 1)
"""No session."""


@njit(nogil=True, cache=True)
def build(session_ptr, item, item_count, newest):  # type: ignore[no-untyped-def] # numba infers these
    """Posting lists: for each item its sessions, newest first, each once, at most `newest` of them.

    Args:
        session_ptr: Shape (sessions + 1,), int32.
        item: Shape (clicks,), int32.
        item_count: Number of item codes.
        newest: The longest posting list.

    Returns:
        posting_ptr (items + 1,) int32; posting int32; session_count (items,) int32, before the cut at `newest`.
    """
    item = item.view(np.uint32)
    start = session_ptr.view(np.uint32)
    last = np.full(item_count, NOBODY, np.uint32)
    session_count = np.zeros(item_count, np.int32)
    sessions = np.uint32(session_ptr.size - 1)
    for s in range(sessions):
        for p in range(start[s], start[s + 1]):
            i = item[p]
            if last[i] != s:
                last[i] = s
                session_count[i] += 1
    posting_ptr = np.zeros(item_count + 1, np.int32)
    state = np.empty((item_count, 4), np.uint32)  # last session, next place, end of the places: in one cache line
    for i in range(item_count):
        posting_ptr[i + 1] = posting_ptr[i] + min(session_count[i], newest)
        state[i, 0] = NOBODY
        state[i, 1] = posting_ptr[i]
        state[i, 2] = posting_ptr[i + 1]
    posting = np.empty(posting_ptr[item_count], np.int32)
    for newer in range(sessions):
        session = sessions - np.uint32(1) - np.uint32(newer)
        for p in range(start[session], start[session + np.uint32(1)]):
            i = item[p]
            if state[i, 0] != session:
                state[i, 0] = session
                slot = state[i, 1]
                if slot < state[i, 2]:
                    posting[slot] = session
                    state[i, 1] = slot + np.uint32(1)
    return posting_ptr, posting, session_count


@njit(nogil=True, cache=True)
def gather(  # type: ignore[no-untyped-def]
    session, session_ptr, item, posting_ptr, posting, age, age_weight, item_weight, decay, sample, wanted,
    known, weight, table, neighbor, mask, start, strength,
):  # fmt: skip
    """Finds the newest `sample` sessions that contain any session item, and keeps the `wanted` most similar of them.

    Args:
        session: Item codes, oldest first; negative ones are passed over.
        session_ptr: Shape (sessions + 1,).
        item: Shape (clicks,).
        posting_ptr: Shape (items + 1,).
        posting: Session numbers, newest first inside an item.
        age: Shape (sessions,), uint8.
        age_weight: Shape (256,), float32.
        item_weight: Shape (items,), float32: idf.
        decay: Shape (clicks looked at,), float32, the newest click first.
        sample: How many sessions to look at.
        wanted: How many of them to keep; of equally similar ones the newest.
        known: Scratch (clicks looked at,), filled with the distinct items, newest first: bit b of a mask is known[b].
        weight: Scratch beside `known`, filled with weight = idf × decay by position.
        table: Scratch (2 ** clicks looked at,), filled with the similarity of each mask.
        neighbor: Scratch (sample,), filled with the kept sessions, newest first.
        mask: Scratch beside `neighbor`, filled with which session items each contains.
        start: Scratch beside `neighbor`, filled with where its clicks begin in `item`.
        strength: Scratch beside `neighbor`, filled with similarity × weight of its age.

    Returns:
        Number of distinct items, number of kept neighbors.
    """
    items = 0
    clicks = 0
    for position in range(session.size - 1, -1, -1):
        code = session[position]
        if code < 0 or code >= item_weight.size:
            continue
        if clicks == decay.size:
            break
        seen = False
        for b in range(items):
            if known[b] == code:
                seen = True
        if not seen:
            known[items] = code
            weight[items] = item_weight[code] * decay[clicks]
            items += 1
        clicks += 1
    table[0] = np.float32(0)
    for b in range(items):
        for low in range(1 << b):
            table[(1 << b) + low] = table[low] + weight[b]
    found = 0
    least = np.float32(0)  # the least similarity that is kept, and how many of exactly that one
    equal = sample
    if items == 1:
        begin = posting_ptr[known[0]]
        found = min(sample, wanted, posting_ptr[known[0] + 1] - begin)
        for n in range(found):
            neighbor[n] = posting[begin + n]
            mask[n] = 1
    elif items > 1:
        found = merge(known[:items], posting_ptr, posting, sample, neighbor, mask)
        if found > wanted:
            least, equal = threshold(table, 1 << items, mask[:found], wanted)
    kept = 0
    for n in range(found):
        bits = mask[n]
        similarity = table[np.uint32(bits)]
        if similarity == least:
            equal -= 1
        if similarity > least or (similarity == least and equal >= 0):
            s = np.uint32(neighbor[n])
            neighbor[kept] = s
            mask[kept] = bits
            start[kept] = session_ptr[s]
            strength[kept] = similarity * age_weight[age[s]]
            kept += 1
    # Reads the first click of each neighbor now, so that memory fetches many at once; later they are in the cache.
    for n in range(kept):
        neighbor[n] = neighbor[n] if item[np.uint32(start[n])] >= 0 else 0
    return items, kept


@njit(nogil=True, cache=True)
def extent(distance):  # type: ignore[no-untyped-def]
    """How many clicks before and after the match a vote is worth something: outside them `distance` is zero."""
    reach = distance.size // 2
    back = reach
    while back > 0 and distance[reach - back] == 0:
        back -= 1
    ahead = reach
    while ahead > 0 and distance[reach + ahead] == 0:
        ahead -= 1
    return back, ahead


@njit(nogil=True, cache=True)
def merge(known, posting_ptr, posting, sample, neighbor, mask):  # type: ignore[no-untyped-def]
    """The newest `sample` sessions of several posting lists, each once, with the mask of the lists that it is in."""
    room = known.size + 1  # one more, so that -1 ends the lists
    head = np.full(room, -1, np.int32)  # the lists' next sessions, newest first: a list sinks to its place after a step
    at = np.empty(room, np.uint32)
    end = np.empty(room, np.uint32)
    bit = np.empty(room, np.int32)
    lists = 0
    for b in range(known.size):
        first = posting_ptr[known[b]]
        if first < posting_ptr[known[b] + 1]:
            session = posting[first]
            place = lists
            while place > 0 and head[place - 1] < session:
                head[place], at[place], end[place], bit[place] = (
                    head[place - 1], at[place - 1], end[place - 1], bit[place - 1],
                )  # fmt: skip
                place -= 1
            head[place], at[place], end[place], bit[place] = session, first, posting_ptr[known[b] + 1], 1 << b
            lists += 1
    found = np.uint32(0)
    wanted = np.uint32(sample)
    newest = head[0]
    bits = np.int32(0)
    while lists > 0:
        if head[0] != newest:
            neighbor[found] = newest
            mask[found] = bits
            found += np.uint32(1)
            if found == wanted:
                return found
            newest = head[0]
            bits = np.int32(0)
        bits |= bit[0]
        mine = bit[0]
        following = at[0] + np.uint32(1)
        stop = end[0]
        session = posting[following] if following < stop else np.int32(-1)
        place = 0
        while head[place + 1] > session:
            head[place], at[place], end[place], bit[place] = (
                head[place + 1], at[place + 1], end[place + 1], bit[place + 1],
            )  # fmt: skip
            place += 1
        head[place], at[place], end[place], bit[place] = session, following, stop, mine
        if session < 0:
            lists -= 1
    if newest >= 0:
        neighbor[found] = newest
        mask[found] = bits
        found += np.uint32(1)
    return found


@njit(nogil=True, cache=True)
def threshold(table, masks, mask, wanted):  # type: ignore[no-untyped-def]
    """Counts instead of sorting, from the leading bit of the similarity on; there are more than `wanted`.

    Returns:
        The least similarity among the `wanted` best, and how many of exactly that similarity belong to them.
    """
    count = np.zeros(masks, np.int32)
    for n in range(mask.size):
        count[mask[n]] += 1
    value = np.empty(masks, np.float32)
    kinds = 0
    for bits in range(1, masks):
        if count[bits] > 0:
            value[kinds] = table[bits]
            count[kinds] = count[bits]
            kinds += 1
    whole = value[:kinds].view(np.uint32)  # positive numbers are ordered as their bits are
    least = np.uint32(0)
    for bit in range(30, -1, -1):
        trial = least | (np.uint32(1) << np.uint32(bit))
        reached = 0
        for k in range(kinds):
            reached += count[k] if whole[k] >= trial else 0
        if reached >= wanted:
            least = np.uint32(trial)
    above = 0
    for k in range(kinds):
        above += count[k] if whole[k] > least else 0
    one = np.empty(1, np.uint32)
    one[0] = least
    return one.view(np.float32)[0], wanted - above


@njit(nogil=True, cache=True)
def best(  # type: ignore[no-untyped-def]
    session, session_ptr, item, posting_ptr, posting, age, age_weight, item_weight, candidate_weight, decay, distance,
    sample, wanted, known, weight, table, neighbor, mask, start, strength, score, allowed, touched,
    best_code, best_score,
):  # fmt: skip
    """Fills codes and scores with the best allowed items, best first, equal scores by code; returns how many.

    A neighbor gives each of its items similarity × weight of its age × weight of the distance (in clicks) from the
    newest session item that it contains. `score` (items,) is scratch and all zero before and after;
    `touched` (items + 1,) is scratch.
    """
    _, found = gather(
        session, session_ptr, item, posting_ptr, posting, age, age_weight, item_weight, decay, sample, wanted,
        known, weight, table, neighbor, mask, start, strength,
    )  # fmt: skip
    back, ahead = extent(distance)
    reach = distance.size // 2
    candidates = np.uint64(0)
    clicked = item.view(np.uint32)
    for n in range(found):
        bits = mask[n]
        match = np.uint32(known[first_bit(np.uint32(bits))])
        stop = session_ptr[neighbor[n] + 1]
        at = stop - 1
        while clicked[np.uint64(at)] != match:
            at -= 1
        vote = strength[n]
        shift = np.uint64(reach) - np.uint64(at)
        for p in range(np.uint64(max(start[n], at - back)), np.uint64(min(stop, at + ahead + 1))):
            code = clicked[p]
            before = score[code]
            touched[candidates] = code
            candidates += np.uint64(before == 0)
            score[code] = before + vote * distance[p + shift]
    limited = allowed.size > 0
    k = best_code.size
    size = 0
    for n in range(candidates):  # a heap with the worst of the best on top
        code = np.uint32(touched[n])
        value = score[code] * candidate_weight[code]
        score[code] = 0
        if limited and not allowed[code]:
            continue
        if size < k:
            hole = size
            size += 1
            while hole > 0:
                parent = (hole - 1) >> 1
                if best_score[parent] < value or (best_score[parent] == value and best_code[parent] > code):
                    break
                best_score[hole] = best_score[parent]
                best_code[hole] = best_code[parent]
                hole = parent
        elif k > 0 and (value > best_score[0] or (value == best_score[0] and code < best_code[0])):
            hole = sift(best_score, best_code, size, value, code)
        else:
            continue
        best_score[hole] = value
        best_code[hole] = code
    for last in range(size - 1, 0, -1):
        value = best_score[last]
        code = best_code[last]
        best_score[last] = best_score[0]
        best_code[last] = best_code[0]
        hole = sift(best_score, best_code, last, value, code)
        best_score[hole] = value
        best_code[hole] = code
    return size


@njit(nogil=True, cache=True)
def rank(  # type: ignore[no-untyped-def]
    session, session_ptr, item, posting_ptr, posting, age, age_weight, item_weight, candidate_weight, decay, distance,
    sample, wanted, known, weight, table, neighbor, mask, start, strength, score, allowed, touched, k,
):  # fmt: skip
    """The best `k` allowed items, see `best`: codes int32 and scores float32."""
    code = np.empty(k, np.int32)
    value = np.empty(k, np.float32)
    size = best(
        session, session_ptr, item, posting_ptr, posting, age, age_weight, item_weight, candidate_weight, decay,
        distance, sample, wanted, known, weight, table, neighbor, mask, start, strength, score, allowed, touched,
        code, value,
    )  # fmt: skip
    return code[:size], value[:size]


@njit(nogil=True, cache=True)
def rank_batch(  # type: ignore[no-untyped-def]
    clicks, begin, end, session_ptr, item, posting_ptr, posting, age, age_weight, item_weight, candidate_weight, decay,
    distance, sample, wanted, known, weight, table, neighbor, mask, start, strength, score, allowed, touched, k,
):  # fmt: skip
    """`rank` for many sessions, which stand in `clicks` one after the other, each from `begin` to before `end`.

    Returns:
        Codes (sessions, k), int32, -1 where there are fewer; scores beside them, float32.
    """
    code = np.full((begin.size, k), -1, np.int32)
    value = np.zeros((begin.size, k), np.float32)
    for q in range(begin.size):
        size = best(
            clicks[begin[q] : end[q]], session_ptr, item, posting_ptr, posting, age, age_weight, item_weight,
            candidate_weight, decay, distance, sample, wanted, known, weight, table, neighbor, mask, start, strength,
            score, allowed, touched, code[q], value[q],
        )  # fmt: skip
        code[q, size:] = -1
        value[q, size:] = 0
    return code, value


@njit(nogil=True, cache=True)
def sift(heap_score, heap_code, size, value, code):  # type: ignore[no-untyped-def]
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


@njit(nogil=True, cache=True)
def terms(  # type: ignore[no-untyped-def]
    session, codes, session_ptr, item, posting_ptr, posting, age, age_weight, item_weight, candidate_weight, decay,
    distance, sample, wanted, known, weight, table, neighbor, mask, start, strength, score,
):  # fmt: skip
    """Breaks the scores of some items into the parts that each session item gave.

    Returns:
        The session's distinct items (newest first); parts, shape (codes, items), float64; and the scores, float32,
        added in the order of `rank`, so they are equal to its scores to the bit.
    """
    items, found = gather(
        session, session_ptr, item, posting_ptr, posting, age, age_weight, item_weight, decay, sample, wanted,
        known, weight, table, neighbor, mask, start, strength,
    )  # fmt: skip
    parts, total = given(
        codes, session_ptr, item, candidate_weight, distance, items, found, known, weight, table, neighbor, mask, start,
        strength, score,
    )  # fmt: skip
    return known[:items].copy(), parts, total


@njit(nogil=True, cache=True)
def given(  # type: ignore[no-untyped-def]
    codes, session_ptr, item, candidate_weight, distance, items, found, known, weight, table, neighbor, mask, start,
    strength, score,
):  # fmt: skip
    """What each of the `items` distinct session items gave to the scores of some items, after `gather`.

    Returns:
        Parts, shape (codes, items), float64; and the scores, float32, added in the order of `rank`.
    """
    parts = np.zeros((codes.size, items), np.float64)
    total = np.zeros(codes.size, np.float32)
    for slot in range(codes.size):
        score[codes[slot]] = slot + 1  # the scratch remembers which slot an item has
    clicked = item.view(np.uint32)
    back, ahead = extent(distance)
    reach = distance.size // 2
    end = np.empty(found, np.int64)
    for n in range(found):
        end[n] = session_ptr[neighbor[n] + 1]
    largest = np.uint32(0)
    for n in range(found):  # fetches from far apart, all at once, what the walk below would fetch one after the other
        largest = max(largest, clicked[np.uint64(end[n] - 1)])
    for n in range(found if largest < score.size else 0):
        bits = mask[n]
        match = np.uint32(known[first_bit(np.uint32(bits))])
        stop = end[n]
        at = stop - 1
        while clicked[np.uint64(at)] != match:
            at -= 1
        vote = strength[n]
        shift = np.uint64(reach) - np.uint64(at)
        for p in range(np.uint64(max(start[n], at - back)), np.uint64(min(stop, at + ahead + 1))):
            place = np.int64(score[clicked[p]]) - 1
            if place >= 0:
                near = distance[p + shift]
                total[place] += vote * near
                for b in range(items):
                    if (bits >> b) & 1:
                        parts[place, b] += np.float64(weight[b]) / table[bits] * vote * near
    for slot in range(codes.size):
        score[codes[slot]] = 0
        total[slot] *= candidate_weight[codes[slot]]
        for b in range(items):
            parts[slot, b] *= candidate_weight[codes[slot]]
    return parts, total
