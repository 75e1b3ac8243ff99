"""Identity: a login merges a visitor and a user, so that what was done before it belongs to the same person."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Texts = Sequence[str] | NDArray[Any]

VISITOR = "\x1fvisitor:"
"""What a visitor whom no login names is called among people begins so: the browser is the person."""


class Identities(NamedTuple):
    """Who each session belongs to, as far as that could be known.

    Attributes:
        user: Shape (sessions,), user ids, empty for an anonymous session.
        known_at: Shape (sessions,), unix seconds since when that is known: the end of the session for its own user, the
            start of the session with the login for those that it names in hindsight; infinite for an anonymous one.
    """

    user: NDArray[np.str_]
    known_at: NDArray[np.float64]


def identify(
    visitor: Texts,
    user: Texts,
    started: Sequence[float] | NDArray[Any],
    ended: Sequence[float] | NDArray[Any],
    *,
    as_of: float | None = None,
) -> Identities:
    """Gives anonymous sessions of a visitor the user that this visitor turned out to be.

    A session with a user belongs to that user. An anonymous one belongs to the user of the visitor's next login; after
    the last login to that user only if the visitor never was another one, since others may share the device. With
    `as_of` only sessions that began until then are looked at for logins, and what is known later stays unknown: an
    evaluation that learns up to a moment learns nothing that the shop could not have known then.

    Args:
        visitor: Shape (sessions,), ids, empty where unknown.
        user: Shape (sessions,), ids, empty where nobody was logged in.
        started: Shape (sessions,), unix seconds.
        ended: Shape (sessions,), unix seconds.
        as_of: Unix seconds; None takes all that is there.

    >>> identify(["v", "v", "w"], ["", "ann", ""], [10, 20, 30], [15, 25, 35]).user.tolist()
    ['ann', 'ann', '']
    >>> identify(["v", "v", "w"], ["", "ann", ""], [10, 20, 30], [15, 25, 35], as_of=18).user.tolist()
    ['', '', '']
    """
    begin, end = np.asarray(started, dtype=np.float64), np.asarray(ended, dtype=np.float64)
    found = [str(each) for each in user]
    known_at = np.where([bool(each) for each in found], end, np.inf)
    seen = np.ones(len(found), dtype=np.bool_) if as_of is None else begin <= as_of
    by_visitor: dict[str, list[int]] = {}
    for place in np.lexsort((end, begin)).tolist():
        if visitor[place] and seen[place]:
            by_visitor.setdefault(str(visitor[place]), []).append(place)
    for places in by_visitor.values():
        names = {found[place] for place in places if found[place]}
        if not names:
            continue
        upcoming, since = "", np.inf
        first = next(place for place in places if found[place])
        for place in reversed(places):
            if user[place]:
                upcoming, since = str(user[place]), begin[place]
            elif upcoming:
                found[place], known_at[place] = upcoming, max(since, end[place])
            elif len(names) == 1:  # after the last login of a visitor who never was anybody else
                found[place], known_at[place] = next(iter(names)), max(begin[first], end[place])
    if as_of is not None:
        late = ~seen
        for place in np.flatnonzero(late).tolist():
            found[place], known_at[place] = "", np.inf
    return Identities(np.array(found, dtype=np.str_), known_at)


def person_id(user_id: str | None, visitor_id: str | None) -> str:
    """Who somebody is to models that know people: the user, else the visitor that comes back; empty for nobody.

    >>> person_id("ann", "v1"), person_id(None, None), person_id(None, "v1") == VISITOR + "v1"
    ('ann', '', True)
    """
    return user_id or (VISITOR + visitor_id if visitor_id else "")


def people(user: Texts, visitor: Texts) -> list[str]:
    """`person_id` for many sessions.

    Args:
        user: Shape (sessions,), as `identify` gives them.
        visitor: Shape (sessions,), ids, empty where unknown.
    """
    return [person_id(str(who), str(whose)) for who, whose in zip(user, visitor, strict=True)]


def known_at_start(visitor: Texts, first: Texts, last: Texts, started: Sequence[float] | NDArray[Any]) -> list[str]:
    """The user of each session as the service knew it when the session began: that of today, else of the last login.

    Args:
        visitor: Shape (sessions,), ids, empty where unknown.
        first: Shape (sessions,), the user whom the first event names, empty where it names none.
        last: Shape (sessions,), the user whom the last event with one names.
        started: Shape (sessions,), unix seconds.

    >>> known_at_start(["v", "v", "v"], ["", "", ""], ["", "ann", ""], [10, 20, 30])
    ['', '', 'ann']
    """
    found = [""] * len(first)
    login: dict[str, str] = {}
    for place in np.argsort(np.asarray(started, dtype=np.float64), kind="stable").tolist():
        whose = str(visitor[place])
        found[place] = str(first[place]) or (login.get(whose, "") if whose else "")
        if whose and last[place]:
            login[whose] = str(last[place])
    return found
