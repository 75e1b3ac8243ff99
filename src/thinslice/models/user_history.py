"""What known users did in all their sessions: what each item counts, what they refused, whether they come back."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thinslice.records import ACTIONS, Interactions

STRENGTH = {"add_to_cart": 2.0, "add_to_wishlist": 2.0, "purchase": 3.0, "refund": 0.0, "report": 0.0, "hide": 0.0}
"""What an action counts in a user's history, against 1 of a view; the last action on an item decides when it is 0."""


def histories(
    interactions: Interactions, code: Sequence[int], half_life_days: float
) -> tuple[dict[tuple[int, int], float], set[tuple[int, int]]]:
    """(user, item) → what it counts, ln(1 + actions by strength and age); and what a user refused last."""
    worth: dict[tuple[int, int], float] = {}
    refused: set[tuple[int, int]] = set()
    if interactions.user is None:
        return worth, refused
    owner = np.repeat(interactions.user, np.diff(interactions.session_ptr))
    known = np.flatnonzero(owner >= 0)
    known = known[np.argsort(interactions.time[known], kind="stable")]
    strength = np.array([STRENGTH.get(name, 1.0) for name in ACTIONS])
    action = np.zeros(len(owner), dtype=np.uint8) if interactions.action is None else interactions.action
    age_days = (interactions.time.max(initial=0.0) - interactions.time[known]) / 86_400
    decay = np.ones(len(known)) if interactions.order_only else np.exp2(-age_days / half_life_days)
    for user, item, base, near in zip(
        owner[known].tolist(), interactions.item[known].tolist(), strength[action[known]].tolist(), decay.tolist(),
        strict=True,
    ):  # fmt: skip
        pair = (code[user], item)
        if base == 0:
            refused.add(pair)
            worth.pop(pair, None)
        else:
            refused.discard(pair)
            worth[pair] = worth.get(pair, 0.0) + base * near
    return {pair: math.log1p(value) for pair, value in worth.items()}, refused


def purchases(interactions: Interactions, code: Sequence[int]) -> set[tuple[int, int]]:
    """(user, item) of all that known users bought."""
    if interactions.user is None or interactions.action is None:
        return set()
    owner = np.repeat(interactions.user, np.diff(interactions.session_ptr))
    rows = np.flatnonzero((owner >= 0) & (interactions.action == ACTIONS.index("purchase")))
    return {
        (code[user], item) for user, item in zip(owner[rows].tolist(), interactions.item[rows].tolist(), strict=True)
    }


def user_rows(interactions: Interactions, pairs: NDArray[np.int64], users: int, width: int) -> Any:
    """Users, then anonymous sessions × items and traits, 1 where there is something: a scipy CSR matrix."""
    from scipy.sparse import csr_matrix

    length = np.diff(interactions.session_ptr)
    anonymous = np.ones(len(length), dtype=np.bool_) if interactions.user is None else interactions.user < 0
    row = np.repeat(np.where(anonymous, np.cumsum(anonymous) - 1, -1), length)
    inside = row >= 0
    rows = np.concatenate([pairs[:, 0], row[inside] + users])
    columns = np.concatenate([pairs[:, 1], interactions.item[inside].astype(np.int64)])
    table = csr_matrix(
        (np.ones(len(rows), dtype=np.float32), (rows, columns)), shape=(users + int(anonymous.sum()), width)
    )
    table.data[:] = 1  # what came twice was added
    return table


def odds_of_return(interactions: Interactions) -> float:
    """The odds that what a known user takes in a session is something of this user's earlier sessions, at most 9.

    Twenty items that were new are added to the count, so that a little data promises nothing.

    >>> from thinslice.models.interactions import from_columns
    >>> odds_of_return(from_columns(["s", "t"], ["a", "a"], [1, 2], users=["ann", "ann"]))
    0.05
    """
    if interactions.user is None:
        return 0.0
    width = max(len(interactions.item_ids), 1)
    session = np.repeat(np.arange(len(interactions.session_ptr) - 1), np.diff(interactions.session_ptr))
    session, item = np.divmod(np.unique(session * width + interactions.item.astype(np.int64)), width)
    user = interactions.user[session].astype(np.int64)
    session, item, user = session[user >= 0], item[user >= 0], user[user >= 0]
    opened = np.full(len(interactions.user_ids), np.iinfo(np.int64).max)
    np.minimum.at(opened, user, session)
    pair = user * width + item
    _, first, place = np.unique(pair, return_index=True, return_inverse=True)  # sessions rise, so first is oldest
    later = session > opened[user]
    back = int((later & (session > session[first][place])).sum())
    return min(back / (int(later.sum()) - back + 20), 9.0)
