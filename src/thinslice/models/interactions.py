"""Turns columns of clicks (session, item, time) into the compact shape that models learn from."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thinslice.errors import BadInput
from thinslice.records import ACTIONS, Interactions

CLOCK_STARTS_S = 1e8
"""Times below this (March 1973 in unix seconds) are an order index: no shop kept a clock then."""

Column = Sequence[Any] | NDArray[Any]


def from_columns(
    session_ids: Column,
    item_ids: Column,
    times: Column,
    *,
    order_only: bool | None = None,
    actions: NDArray[np.uint8] | None = None,
    users: Column | None = None,
    session_users: Sequence[str] | None = None,
    item_names: Sequence[str] | None = None,
) -> Interactions:
    """Groups clicks by session, sessions oldest first by the time of their last click.

    Clicks with equal times keep the order of the rows. The vocabulary is sorted, so the order of the rows of different
    sessions changes nothing.

    Args:
        session_ids: Shape (clicks,), integers or texts.
        item_ids: Shape (clicks,), integers or texts.
        times: Shape (clicks,), unix seconds, or any number that grows with time when `order_only`.
        order_only: Whether `times` only tells the order; None finds out (see `is_order_index`).
        actions: Shape (clicks,), codes into `records.ACTIONS`; None when every click is a view.
        users: Shape (clicks,), texts, empty where the visitor was anonymous; a session belongs to the last one named.
        session_users: The same by session, where session_ids are whole numbers: place → text; instead of `users`.
        item_names: Where item_ids are whole numbers: the texts that they stand for, sorted; None: they are the ids.

    Raises:
        BadInput: The columns are not equally long, a time is not a finite number, or an action has no name.
    """
    time = np.asarray(times, dtype=np.float64)
    lengths = (len(session_ids), len(item_ids), len(time))
    if len(set(lengths)) != 1:
        raise BadInput(f"session_ids, item_ids and times must be equally long, got {lengths}.")
    for name, column in (("actions", actions), ("users", users)):
        if column is not None and len(column) != len(time):
            raise BadInput(f"{name} must have {len(time)} values, one a click, got {len(column)}.")
    if actions is not None and len(actions) and int(actions.max()) >= len(ACTIONS):
        raise BadInput(f"actions must be below {len(ACTIONS)}, got {int(actions.max())}.")
    if not np.isfinite(time).all():
        raise BadInput(f"{int((~np.isfinite(time)).sum())} of {len(time)} times are not finite numbers.")
    session, session_count, numbers = _codes(session_ids)
    item, _, names = _codes(item_ids)
    if item_names is not None:
        names = [item_names[int(number)] for number in names]
    last = np.full(session_count, -np.inf)
    np.maximum.at(last, session, time)
    rank = np.empty(session_count, dtype=np.int64)
    rank[np.argsort(last, kind="stable")] = np.arange(session_count)
    session = rank[session]
    order = np.lexsort((time, session))
    session_ptr = np.zeros(session_count + 1, dtype=np.int64)
    np.cumsum(np.bincount(session, minlength=session_count), out=session_ptr[1:])
    if order_only is None:
        order_only = is_order_index(time)
    if session_users is None:
        user, user_ids = _users(users, session, order, session_count)
    else:
        user, user_ids = _session_users([session_users[int(number)] for number in numbers], rank)
    return Interactions(
        session_ptr,
        item[order].astype(np.int32),
        time[order],
        names,
        order_only,
        None if actions is None else np.asarray(actions, dtype=np.uint8)[order],
        user,
        user_ids,
    )


def _users(
    users: Column | None, session: NDArray[np.int64], order: NDArray[np.int64], sessions: int
) -> tuple[NDArray[np.int32] | None, list[str]]:
    """The last user named in each session, -1 where none is, and their ids; None when nobody is known."""
    if users is None:
        return None, []
    code, _, names = _codes(np.asarray(users, dtype=np.str_))
    code = code - 1 if names[:1] == [""] else code
    known = [name for name in names if name]
    if not known:
        return None, []
    user = np.full(sessions, -1, dtype=np.int32)
    named = order[code[order] >= 0]
    user[session[named]] = code[named]  # of equal places the last one assigned stays
    return user, known


def _session_users(users: list[str], rank: NDArray[np.int64]) -> tuple[NDArray[np.int32] | None, list[str]]:
    """The user of each session, -1 where nobody is known, and their ids; None when nobody is."""
    known = sorted({name for name in users if name})
    if not known:
        return None, []
    code = {"": -1, **{name: number for number, name in enumerate(known)}}
    user = np.empty(len(users), dtype=np.int32)
    user[rank] = [code[name] for name in users]
    return user, known


def goes_together(interactions: Interactions) -> bool:
    """Whether any session holds two different items: else nothing can be learned of what comes after what."""
    item = interactions.item
    session = np.repeat(np.arange(len(interactions.session_ptr) - 1), np.diff(interactions.session_ptr))
    return bool(((session[1:] == session[:-1]) & (item[1:] != item[:-1])).any())


def is_order_index(times: NDArray[np.float64]) -> bool:
    """Whether times are a running number instead of a clock.

    >>> is_order_index(np.arange(5.0)), is_order_index(np.array([1.7e9]))
    (True, False)
    """
    return bool(times.size == 0 or times.max() < CLOCK_STARTS_S)


def _codes(values: Column) -> tuple[NDArray[np.int64], int, list[str]]:
    """Codes into the sorted distinct values, how many there are, and their texts."""
    column = np.asarray(values)
    if column.dtype.kind == "S":
        column = column.astype(np.str_)
    if column.dtype.kind not in "iu":  # as text; a dictionary is faster here than sorting every click
        texts = column.tolist() if column.dtype.kind == "U" else [str(value) for value in values]
        names = sorted(set(texts))
        place = {name: number for number, name in enumerate(names)}
        return np.fromiter(map(place.__getitem__, texts), dtype=np.int64, count=len(texts)), len(names), names
    low = int(column.min()) if column.size else 0
    span = int(column.max()) - low + 1 if column.size else 0
    if 0 < span <= 4 * column.size:  # close numbers: mark instead of sort
        there = np.zeros(span, dtype=np.bool_)
        wide = column.astype(np.int64 if column.dtype.kind == "i" else np.uint64)
        offset = (wide - wide.min()).astype(np.int64)
        there[offset] = True
        code = np.cumsum(there) - 1
        return code[offset], int(code[-1]) + 1, [str(low + number) for number in np.flatnonzero(there).tolist()]
    distinct, inverse = np.unique(column, return_inverse=True)
    return inverse.astype(np.int64).ravel(), len(distinct), [str(value) for value in distinct.tolist()]
