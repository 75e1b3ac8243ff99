"""What known users did in all their sessions: what each item counts, what they refused, whether they come back."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from thinslice.records import ACTIONS, Interactions

STRENGTH = {"add_to_cart": 2.0, "add_to_wishlist": 2.0, "purchase": 3.0, "refund": 0.0, "report": 0.0, "hide": 0.0}
"""What an action counts in a user's history, against 1 of a view; the last action on an item decides when it is 0."""


class Histories(NamedTuple):
    """What known users took and refused.

    Attributes:
        pairs: Shape (pairs, 2), int64: user and item, in rising order.
        worth: Shape (pairs,), float64: what each counts, ln(1 + actions by strength and age).
        bought: Shape (pairs,), bool: whether the user bought the item.
        refused: Shape (refused, 2), int64: user and item whose last action refused it, in rising order.
    """

    pairs: NDArray[np.int64]
    worth: NDArray[np.float64]
    bought: NDArray[np.bool_]
    refused: NDArray[np.int64]


def histories(interactions: Interactions, code: Sequence[int], half_life_days: float) -> Histories:
    """What each known user did with each item; what came before a refusal does not count.

    Args:
        interactions: The clicks.
        code: Of each of `interactions.user_ids`, the code that stands for it.
        half_life_days: Days after which an action counts half.
    """
    owner = np.repeat(_users(interactions), np.diff(interactions.session_ptr))
    known = np.flatnonzero(owner >= 0)
    known = known[np.argsort(interactions.time[known], kind="stable")]
    strength = np.array([STRENGTH.get(name, 1.0) for name in ACTIONS])
    action = np.zeros(len(owner), dtype=np.uint8) if interactions.action is None else interactions.action
    base = strength[action[known]]
    age_days = (interactions.time.max(initial=0.0) - interactions.time[known]) / 86_400
    decay = np.ones(len(known)) if interactions.order_only else np.exp2(-age_days / half_life_days)
    width = max(len(interactions.item_ids), 1)
    own = np.append(np.array(code, dtype=np.int64), 0)[owner[known]]
    pair, place = np.unique(own * width + interactions.item[known], return_inverse=True)
    row = np.arange(len(known))
    refusal = np.full(len(pair), -1)
    refusal[place[base == 0]] = row[base == 0]  # rows are in the order of time: the last one stays
    counts = row > refusal[place]
    worth = np.bincount(place[counts], weights=(base * decay)[counts], minlength=len(pair))
    bought = np.bincount(place, weights=action[known] == ACTIONS.index("purchase"), minlength=len(pair)) > 0
    taken = np.bincount(place[counts], minlength=len(pair)) > 0
    both = np.column_stack(np.divmod(pair, width))
    return Histories(both[taken], np.log1p(worth[taken]), bought[taken], both[~taken])


def _users(interactions: Interactions) -> NDArray[Any]:
    """Shape (sessions,): the user of each, -1 for nobody."""
    nobody = np.full(len(interactions.session_ptr) - 1, -1)
    return nobody if interactions.user is None else interactions.user


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
