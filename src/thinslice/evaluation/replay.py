"""Plays test sessions back to a model: before each click it is asked what comes next."""

import time
from collections.abc import Callable, Sequence
from inspect import signature
from typing import Any, NamedTuple

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
        known: Shape (queries,), int32: how many clicks of the session were known when it was asked.
        target: Shape (queries,), int32: the clicked item, a code of the model; -1 where it does not know it.
        lists: Shape (queries, k), int32: what was shown, codes of the model, best first; -1 where a list ended.
    """

    rank: NDArray[np.int32]
    session: NDArray[np.int32]
    cpu_us: NDArray[np.float64]
    wall_us: NDArray[np.float64]
    shown: int
    known: NDArray[np.int32]
    target: NDArray[np.int32]
    lists: NDArray[np.int32]


def replay(
    model: Model,
    sessions: Sequence[Sequence[str]],
    k: int,
    *,
    users: Sequence[str | None] | None = None,
    first: Sequence[int] | None = None,
    progress: Progress | None = None,
) -> Replay:
    """Every prefix of every session is a query and its next item the answer looked for; nothing is filtered.

    One item more than `k` is asked for: an item is among the best k against ties exactly if fewer than k others score
    as much or more, and a tie that goes on beyond the list shows in that last one.

    Args:
        model: Answers with scores, best first. With `recommend_codes` it is asked in codes, else in texts.
        sessions: Item ids, oldest first.
        k: Length of a list.
        users: Who the visitor of each session is, None where nobody knows; only told to a model that `knows_users`.
        first: The first click of each session that is asked for; the clicks before it are history. At least 1.
        progress: Told every few hundred queries.
    """
    starts = [1] * len(sessions) if first is None else [max(1, number) for number in first]
    queries = sum(max(0, len(session) - start) for session, start in zip(sessions, starts, strict=True))
    rank, owner, known, target = (np.zeros(queries, dtype=np.int32) for _ in range(4))
    cpu_ns, wall_ns = np.empty(queries, dtype=np.int64), np.empty(queries, dtype=np.int64)
    lists = np.full((queries, k), -1, dtype=np.int32)
    code = {name: number for number, name in enumerate(model.item_ids)}
    coded = [np.array([code.get(name, -1) for name in session], dtype=np.int32) for session in sessions]
    answer = _answers(model, sessions, coded, k, users)
    query = told = 0
    for number, codes in enumerate(coded):
        wanted = codes.tolist()
        for step in range(starts[number], len(wanted)):
            wall, cpu = time.perf_counter_ns(), time.thread_time_ns()
            found, scores = answer(number, step)
            cpu_ns[query] = time.thread_time_ns() - cpu
            wall_ns[query] = time.perf_counter_ns() - wall
            names = found.tolist() if isinstance(found, np.ndarray) else [code[name] for name in found]
            values = scores.tolist() if isinstance(scores, np.ndarray) else scores
            rank[query] = rank_against_ties(names, values, wanted[step], k)
            owner[query], known[query], target[query] = number, step, wanted[step]
            shown = names[:k]
            lists[query, : len(shown)] = shown
            query += 1
        if progress is not None and query - told >= 500:
            progress(query - told)
            told = query
    if progress is not None:
        progress(query - told)
    seen = np.zeros(len(code) + 1, dtype=np.bool_)
    seen[lists] = True
    return Replay(rank, owner, cpu_ns / 1000, wall_ns / 1000, int(seen[:-1].sum()), known, target, lists)


def _answers(
    model: Model,
    sessions: Sequence[Sequence[str]],
    coded: Sequence[NDArray[np.int32]],
    k: int,
    users: Sequence[str | None] | None,
) -> Callable[[int, int], tuple[Any, Any]]:
    """How this model is asked: in codes where it can, in texts where it must."""
    asked: Any = model

    def in_texts(number: int, step: int) -> tuple[Any, Any]:
        found = asked.recommend(sessions[number][:step], k + 1)
        return found.item_ids, found.scores

    def with_user(number: int, step: int) -> tuple[Any, Any]:
        assert users is not None
        found = asked.recommend(sessions[number][:step], k + 1, user_id=users[number])
        return found.item_ids, found.scores

    def with_user_in_codes(number: int, step: int) -> tuple[Any, Any]:
        assert users is not None
        found: tuple[Any, Any] = asked.recommend_codes(coded[number][:step], k + 1, user_id=users[number])
        return found

    def in_codes(number: int, step: int) -> tuple[Any, Any]:
        found: tuple[Any, Any] = asked.recommend_codes(coded[number][:step], k + 1)
        return found

    if users is not None and any(users) and getattr(model, "knows_users", False):
        in_code = hasattr(model, "recommend_codes") and "user_id" in signature(asked.recommend_codes).parameters
        return with_user_in_codes if in_code else with_user
    return in_codes if hasattr(model, "recommend_codes") else in_texts


def rank_against_ties(items: Sequence[object], scores: Sequence[float], wanted: object, k: int) -> int:
    """The place of an item from 1 if every tie goes against it; 0 if that is beyond `k` or it is not there.

    >>> rank_against_ties(["a", "b", "c"], [3.0, 2.0, 2.0], "b", 20)
    3
    """
    try:
        place = items.index(wanted)
    except ValueError:
        return 0
    while place + 1 < len(scores) and scores[place + 1] == scores[place]:
        place += 1
    return place + 1 if place < k else 0
