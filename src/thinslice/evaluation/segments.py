"""Where a model is good: by what was known of the session, and by how well known the item was that was clicked."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from thinslice.evaluation.figures import clustered_mean, hits, reciprocal_ranks
from thinslice.records import Interactions

LENGTHS = ((1, 1), (2, 2), (3, 4), (5, 9), (10, None))
"""Clicks known when a query was asked, from … to."""

HEAD_SHARE = 0.2
"""The most clicked items, this share of all, are the head, the others the tail."""

YOUNG_SHARE = 0.1
"""An item is young when its first click is in this newest share of what was learned from."""


class ItemKinds:
    """Head and tail, young and old, of the items of a log.

    Args:
        train: What was learned from.

    >>> from thinslice.models import from_columns
    >>> log = from_columns(["a"] * 10, list("ppppppqqrs"), range(10))
    >>> kinds = ItemKinds(log)
    >>> [name for name, head in zip(log.item_ids, kinds.head) if head], [
    ...     name for name, young in zip(log.item_ids, kinds.young) if young]
    (['p'], ['s'])
    """

    def __init__(self, train: Interactions) -> None:
        self.clicks = np.bincount(train.item, minlength=len(train.item_ids)).astype(np.float64)
        order = np.argsort(-self.clicks, kind="stable")
        self.head = np.zeros(len(train.item_ids), dtype=np.bool_)
        self.head[order[: max(1, round(HEAD_SHARE * len(order)))]] = True
        first = np.full(len(train.item_ids), np.inf)
        np.minimum.at(first, train.item, train.time)
        self.young = first > np.quantile(train.time, 1 - YOUNG_SHARE)


def segments(rank: NDArray[np.int32], session: NDArray[np.int32], known: NDArray[np.int32],
             head: NDArray[np.bool_], young: NDArray[np.bool_]) -> list[dict[str, Any]]:  # fmt: skip
    """Hit rate and reciprocal rank of each segment of the queries, with clustered standard errors.

    Args:
        rank: Shape (queries,): place of the clicked item, 0 = not in the list.
        session: Shape (queries,): which session each belongs to.
        known: Shape (queries,): clicks of the session known at that moment.
        head: Shape (queries,): whether the clicked item is of the head.
        young: Shape (queries,): whether it is young.

    Returns:
        `by` and `segment` name it; n, hr, hr_se, mrr, mrr_se; empty segments are left out.
    """
    found = []
    for low, high in LENGTHS:
        name = f"{low} or more" if high is None else str(low) if low == high else f"{low} to {high}"
        found.append(("clicks known", name, (known >= low) & (known <= (high or known.max(initial=0)))))
    found += [
        ("item clicked", f"head (most clicked {HEAD_SHARE:.0%} of items)", head),
        ("item clicked", "tail", ~head),
        ("item clicked", f"young (first seen in the newest {YOUNG_SHARE:.0%} of the log)", young),
    ]
    return [{"by": by, "segment": name, **figures_of(rank[mask], session[mask])}
            for by, name, mask in found if mask.any()]  # fmt: skip


def unseen_segment(rank: NDArray[np.int32], session: NDArray[np.int32]) -> dict[str, Any]:
    """The segment of clicks on items that nobody had clicked before; not part of the other figures."""
    return {"by": "item clicked", "segment": "new (never seen before, beside the other figures)",
            **figures_of(rank, session)}  # fmt: skip


def figures_of(rank: NDArray[np.int32], session: NDArray[np.int32]) -> dict[str, Any]:
    """n, hr, hr_se, mrr and mrr_se of some queries (at least one)."""
    hr, hr_se = clustered_mean(hits(rank), session)
    mrr, mrr_se = clustered_mean(reciprocal_ranks(rank), session)
    return {"n": len(rank), "hr": hr, "hr_se": hr_se, "mrr": mrr, "mrr_se": mrr_se}
