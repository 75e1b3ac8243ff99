"""Sessions at job time: a log of events, in columns, becomes sessions, each with its variant as of its start."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from thinslice.records import SESSION_GAP_S

Texts = Sequence[str] | NDArray[Any]
"""A column of ids, empty where there is none; or of whole numbers that stand for them, -1 where there is none."""


class Sessions(NamedTuple):
    """The sessions of a log, in the order of their start.

    Attributes:
        code: Shape (events,), int64: the session of each event, 0 ... sessions - 1; -1 for one without any identity.
        started: Shape (sessions,), float64, unix seconds of the first event.
        ended: Shape (sessions,), float64, unix seconds of the last event.
        first: Shape (sessions,), int64: the row of each session's first event.
        event_count: Shape (sessions,), int64.
    """

    code: NDArray[np.int64]
    started: NDArray[np.float64]
    ended: NDArray[np.float64]
    first: NDArray[np.int64]
    event_count: NDArray[np.int64]


def sessionize(
    visitor: Texts, session_id: Texts, time: Sequence[float] | NDArray[Any], *, user: Texts | None = None,
    gap_s: float = SESSION_GAP_S,
) -> Sessions:  # fmt: skip
    """Groups events into sessions.

    A session id that the shop gave is never split, however long its silences. Events without one are grouped by
    visitor, else by user, and a silence of more than `gap_s` seconds begins a new session.

    Args:
        visitor: Shape (events,), ids, empty where unknown.
        session_id: Shape (events,), ids, empty where unknown.
        time: Shape (events,), unix seconds, in any order.
        user: Shape (events,), ids, empty where unknown.
        gap_s: Seconds of silence that end a session.

    >>> sessionize(["a", "a", "b", "a"], ["", "", "", ""], [0, 60, 100, 5000]).code.tolist()
    [0, 0, 1, 2]
    """
    at = np.asarray(time, dtype=np.float64)
    events = len(at)
    key, given = _identities(visitor, session_id, user, events)
    order = np.lexsort((at, key))
    order = order[key[order] >= 0]
    if not len(order):
        nothing = np.empty(0, dtype=np.float64)
        none = np.empty(0, dtype=np.int64)
        return Sessions(np.full(events, -1, dtype=np.int64), nothing, nothing.copy(), none, none.copy())
    sorted_key, sorted_at = key[order], at[order]
    silent = np.diff(sorted_at) > gap_s
    begins = np.empty(len(order), dtype=np.bool_)
    begins[0] = True
    begins[1:] = (np.diff(sorted_key) != 0) | (silent & ~given[order[1:]])
    heads = np.flatnonzero(begins)
    tails = np.append(heads[1:], len(order)) - 1
    started = sorted_at[heads]
    rank = np.empty(len(heads), dtype=np.int64)
    by_start = np.lexsort((order[heads], started))
    rank[by_start] = np.arange(len(heads))
    code = np.full(events, -1, dtype=np.int64)
    code[order] = rank[np.cumsum(begins) - 1]
    return Sessions(
        code, started[by_start], sorted_at[tails][by_start], order[heads][by_start], (tails - heads + 1)[by_start]
    )


def visits(
    session: NDArray[Any], item: NDArray[Any], action: NDArray[np.uint8]
) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Clicks as the live session counts them: on the same item twice in a row is one visit.

    Who puts an item into the cart on its page has not gone on to another one, so there is nothing to foresee in it.

    Args:
        session: Shape (clicks,), codes, in the order of time.
        item: Shape (clicks,), codes.
        action: Shape (clicks,), codes, the weakest interest first.

    Returns:
        The row of the last click of each visit, in the order of time, and the strongest action in the visit.

    >>> rows, strongest = visits(np.array([0, 0, 1, 0]), np.array([7, 7, 7, 8]), np.array([0, 4, 0, 0], np.uint8))
    >>> rows.tolist(), strongest.tolist()
    ([1, 2, 3], [4, 0, 0])
    """
    order = np.argsort(session, kind="stable")
    begins = np.ones(len(order), dtype=np.bool_)
    begins[1:] = (np.diff(session[order]) != 0) | (np.diff(item[order]) != 0)
    heads = np.flatnonzero(begins)
    last = order[np.append(heads[1:], len(order)) - 1] if len(order) else order
    strongest = np.maximum.reduceat(action[order], heads) if len(order) else action
    by_time = np.argsort(last)
    return last[by_time], strongest[by_time]


def assigned_at_start(
    started: NDArray[np.float64],
    ended: NDArray[np.float64],
    unit: Texts,
    exposed_unit: Texts,
    exposed_at: Sequence[float] | NDArray[Any],
    exposed_variant: Texts,
) -> NDArray[np.str_]:
    """The variant of one experiment that each session belongs to, as of its start.

    That is the variant of the unit's last exposure before the session; for a session that saw the unit's first
    exposure, the variant of that one, since it was in force from the start.

    Args:
        started: Shape (sessions,), unix seconds.
        ended: Shape (sessions,), unix seconds.
        unit: Shape (sessions,), ids of the experiment's unit, empty where unknown.
        exposed_unit: Shape (exposures,), ids.
        exposed_at: Shape (exposures,), unix seconds.
        exposed_variant: Shape (exposures,), names.

    Returns:
        Shape (sessions,): a variant's name, or empty for a session outside the experiment.
    """
    codes: dict[str, int] = {}
    exposures = _codes(exposed_unit, codes)
    units = np.fromiter((codes.get(each, -1) for each in _listed(unit)), dtype=np.int64, count=len(started))
    variants = np.asarray(["", *_listed(exposed_variant)], dtype=np.str_)
    at = np.asarray(exposed_at, dtype=np.float64)
    order = np.lexsort((at, exposures))
    exposures, at = exposures[order], at[order]
    place = np.full(len(started), -1, dtype=np.int64)
    asked = np.flatnonzero(units >= 0)
    begin = np.searchsorted(exposures, units[asked], side="left")
    # Exposures of one unit are in order of time, so unit and time together are in order.
    before = _search(exposures, at, units[asked], started[asked])
    within = begin < len(at)
    within[within] &= (exposures[begin[within]] == units[asked][within]) & (at[begin[within]] <= ended[asked][within])
    place[asked] = np.where(before > begin, before - 1, np.where(within, begin, -1))
    row = np.where(place >= 0, order[np.maximum(place, 0)] + 1 if len(order) else 0, 0)
    return np.asarray(variants[row], dtype=np.str_)


def _search(
    unit: NDArray[np.int64], at: NDArray[np.float64], asked: NDArray[np.int64], when: NDArray[np.float64]
) -> NDArray[np.int64]:
    """How many exposures stand at or before (asked, when), in the order of unit and time."""
    rows = np.concatenate([unit, asked])
    times = np.concatenate([at, when])
    is_question = np.concatenate([np.zeros(len(unit), np.int64), np.ones(len(asked), np.int64)])
    order = np.lexsort((is_question, times, rows))
    seen = np.cumsum(is_question[order] == 0)
    counts = np.empty(len(rows), dtype=np.int64)
    counts[order] = seen
    return counts[len(unit) :]


def _identities(
    visitor: Texts, session_id: Texts, user: Texts | None, events: int
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """A number for who each event belongs to, -1 for nobody; and whether that is a session the shop named."""
    sessions, visitors = _codes(session_id, {}), _codes(visitor, {})
    users = np.full(events, -1, dtype=np.int64) if user is None else _codes(user, {})
    given = sessions >= 0
    key = np.where(
        given, sessions * 3, np.where(visitors >= 0, visitors * 3 + 1, np.where(users >= 0, users * 3 + 2, -1))
    )
    return key, given


def _codes(texts: Texts, known: dict[str, int]) -> NDArray[np.int64]:
    """A number for each text, in the order of their first coming; -1 for an empty one. Numbers stay what they are."""
    if isinstance(texts, np.ndarray) and texts.dtype.kind == "i":
        return texts.astype(np.int64)
    values = _listed(texts)
    number = known.setdefault
    return np.fromiter((number(each, len(known)) if each else -1 for each in values), dtype=np.int64, count=len(values))


def _listed(texts: Texts) -> list[str]:
    return texts.tolist() if isinstance(texts, np.ndarray) else list(texts)
