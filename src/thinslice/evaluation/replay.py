"""Plays test sessions back to a model: before each click it is asked what comes next."""

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from thinslice.records import Model

Progress = Callable[[int], None]
"""Called with how many queries were answered since the last call."""


class Replay(NamedTuple):
    """The answers to all queries.

    Attributes:
        rank: Shape (queries,), int32: place of the clicked item from 1, ties against the model; 0 = not among k.
        session: Shape (queries,), int32: which test session a query belongs to.
        cpu_us: Shape (queries,), float64: CPU time of this thread for a query, microseconds.
        wall_us: Shape (queries,), float64: the same by the clock on the wall.
        shown: How many different items stood in any list.
    """

    rank: NDArray[np.int32]
    session: NDArray[np.int32]
    cpu_us: NDArray[np.float64]
    wall_us: NDArray[np.float64]
    shown: int


def replay(model: Model, sessions: Sequence[Sequence[str]], k: int, *, progress: Progress | None = None) -> Replay:
    """Every prefix of every session is a query and its next item the answer looked for; nothing is filtered.

    One item more than `k` is asked for: an item is among the best k against ties exactly if fewer than k others score
    as much or more, and a tie that goes on beyond the list shows in that last one.

    Args:
        model: Answers with scores, best first.
        sessions: Item ids, oldest first.
        k: Length of a list.
        progress: Told every few hundred queries.
    """
    queries = sum(len(session) - 1 for session in sessions)
    rank, owner = np.zeros(queries, dtype=np.int32), np.empty(queries, dtype=np.int32)
    cpu_ns, wall_ns = np.empty(queries, dtype=np.int64), np.empty(queries, dtype=np.int64)
    shown: set[str] = set()
    query = told = 0
    for number, session in enumerate(sessions):
        for step in range(1, len(session)):
            prefix = session[:step]
            wall, cpu = time.perf_counter_ns(), time.thread_time_ns()
            found = model.recommend(prefix, k + 1)
            cpu_ns[query] = time.thread_time_ns() - cpu
            wall_ns[query] = time.perf_counter_ns() - wall
            rank[query] = rank_against_ties(found.item_ids, found.scores, session[step], k)
            owner[query] = number
            shown.update(found.item_ids[:k])
            query += 1
        if progress is not None and query - told >= 500:
            progress(query - told)
            told = query
    if progress is not None:
        progress(query - told)
    return Replay(rank, owner, cpu_ns / 1000, wall_ns / 1000, len(shown))


def rank_against_ties(item_ids: Sequence[str], scores: Sequence[float], wanted: str, k: int) -> int:
    """The place of an item from 1 if every tie goes against it; 0 if that is beyond `k` or it is not there.

    >>> rank_against_ties(["a", "b", "c"], [3.0, 2.0, 2.0], "b", 20)
    3
    """
    try:
        place = item_ids.index(wanted)
    except ValueError:
        return 0
    while place + 1 < len(scores) and scores[place + 1] == scores[place]:
        place += 1
    return place + 1 if place < k else 0
