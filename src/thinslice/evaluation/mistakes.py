"""The sessions in which a model is most wrong: what it knew, what it showed, what was clicked, how far off it was."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from thinslice.evaluation.figures import reciprocal_ranks
from thinslice.evaluation.replay import replay
from thinslice.evaluation.splits import Split
from thinslice.records import Model

DEPTH = 1000
"""How deep a ranking is searched for the clicked item."""

LOOKED_AT = 2000
"""Only so many sessions, those with the worst short lists, are searched so deep."""


class Missed(NamedTuple):
    """One query of a session that went wrong.

    Attributes:
        known: Item ids of the session at that moment, oldest first.
        shown: The list, best first.
        clicked: What was clicked instead or from far down.
        rank: Its place from 1, ties against the model; None when it is not among the first `DEPTH`.
        clicks: How often it was clicked in what the model learned from.
    """

    known: list[str]
    shown: list[str]
    clicked: str
    rank: int | None
    clicks: int


class Mistake(NamedTuple):
    """One session and its queries, the worst first.

    Attributes:
        session: Item ids, oldest first.
        user: Who it was; None when nobody knows.
        bits: How wrong: the sum of log2(place) over its queries / (queries + 1), so that many misses outweigh one.
        missed: Its queries, the worst first.
    """

    session: list[str]
    user: str | None
    bits: float
    missed: list[Missed]


def mistakes(model: Model, split: Split, k: int, count: int = 50) -> list[Mistake]:
    """The `count` sessions in which a model is most wrong, the worst first.

    Equal ones are ordered by how much the missed items were clicked before: to miss what everybody buys is worse.

    Args:
        model: Learned from `split.train`.
        split: Whose test sessions are asked.
        k: Length of a list.
        count: How many sessions.
    """
    short = replay(model, split.sessions, k, users=split.users, first=split.first)
    queries = np.bincount(short.session, minlength=len(split.sessions))
    found = np.bincount(short.session, weights=reciprocal_ranks(short.rank), minlength=len(split.sessions))
    share = (found + 0.5) / (queries + 1)  # few queries say less
    worst = np.sort(np.argsort(share, kind="stable")[:LOOKED_AT])
    sessions = [split.sessions[number] for number in worst]
    deep = replay(
        model, sessions, DEPTH,
        users=[split.users[number] for number in worst], first=[split.first[number] for number in worst],
    )  # fmt: skip
    clicks = np.bincount(split.train.item, minlength=len(split.train.item_ids))
    place = {name: code for code, name in enumerate(split.train.item_ids)}
    rows: list[tuple[tuple[float, int], Mistake]] = []
    ends = np.searchsorted(deep.session, np.arange(len(sessions) + 1))
    for number, session in enumerate(sessions):
        part = range(int(ends[number]), int(ends[number + 1]))
        missed = [
            Missed(
                known=session[: int(deep.known[at])],
                shown=_names(model, deep.lists[at, :k]),
                clicked=(clicked := session[int(deep.known[at])]),
                rank=int(deep.rank[at]) or None,
                clicks=int(clicks[place[clicked]]) if clicked in place else 0,
            )
            for at in part
        ]
        bits = sum(float(np.log2(one.rank or DEPTH + 1)) for one in missed) / (len(missed) + 1)
        missed.sort(key=lambda one: (-(one.rank or DEPTH + 1), -one.clicks))
        avoidable = sum(one.clicks for one in missed if one.rank is None)
        rows.append(((-bits, -avoidable), Mistake(list(session), split.users[int(worst[number])], bits, missed)))
    rows.sort(key=lambda row: row[0])
    return [mistake for _, mistake in rows[:count]]


def summary(found: Sequence[Mistake]) -> dict[str, Any]:
    """What these sessions have in common, in plain values: sessions, queries, never found, median rank of the rest."""
    ranks = [one.rank for mistake in found for one in mistake.missed]
    places = [rank for rank in ranks if rank is not None]
    return {
        "sessions": len(found),
        "queries": len(ranks),
        "not_in_first_1000": sum(rank is None for rank in ranks),
        "median_rank_of_the_others": float(np.median(places)) if places else None,
        "one_click_known_share": _share([len(one.known) == 1 for mistake in found for one in mistake.missed]),
        "clicked_at_most_5_times_share": _share([one.clicks <= 5 for mistake in found for one in mistake.missed]),
    }


def _share(values: list[bool]) -> float | None:
    return sum(values) / len(values) if values else None


def _names(model: Model, codes: NDArray[np.int32]) -> list[str]:
    return [model.item_ids[code] for code in codes.tolist() if code >= 0]
