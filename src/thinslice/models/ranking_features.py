"""What the session ranker knows of a candidate: the names of its features, and what each item brings along."""

import numpy as np
from numpy.typing import NDArray

from thinslice.records import Interactions

EVIDENCE = (
    "blend", "blend_of_best", "blend_rank", "knn", "knn_of_best", "knn_strength", "knn_votes", "knn_newest",
    "walk", "walk_of_best", "walk_flat", "cosine", "cosine_flat", "cosine_flat_of_best",
    "next", "next_last", "next_last_of_best", "next_second", "cosine_last", "before_last", "vector_last",
    "vector_session", "vector_nearest", "vector_near", "company", "company_of_best",
)  # fmt: skip
"""What the session's items say of a candidate: an explanation splits these by session item."""

FEATURES = (
    *EVIDENCE,
    "times", "since", "repeated", "length", "distinct", "repeats", "neighbors", "last_clicks", "last_repeated",
    "clicks", "clicks_newest", "clicks_newer", "trend", "last_seen", "first_seen",
)  # fmt: skip
"""Every feature, in the order of `feature_kernel.describe`."""

TERMS = {
    **dict.fromkeys(("times", "since", "repeated"), "repeat"),
    **dict.fromkeys(("length", "distinct", "repeats", "neighbors", "last_clicks", "last_repeated"), "session"),
    **dict.fromkeys(("clicks", "clicks_newest", "clicks_newer", "trend"), "popularity"),
    **dict.fromkeys(("last_seen", "first_seen"), "newness"),
}
"""Feature → the name of its term in an explanation, for those that are no evidence of session items."""

GROUPS = {
    "neighbors": tuple(name for name in EVIDENCE if name.startswith("knn")),
    "graphs": tuple(name for name in EVIDENCE if name.startswith(("walk", "cosine", "next", "before", "company"))),
    "vectors": tuple(name for name in EVIDENCE if name.startswith("vector")),
    "repeats": tuple(name for name, term in TERMS.items() if term == "repeat"),
    "session": tuple(name for name, term in TERMS.items() if term == "session"),
    "popularity": tuple(name for name, term in TERMS.items() if term in ("popularity", "newness")),
}
"""Features that can be left out together, to see what they bring; the blended score of stage 1 always stays."""

NEWEST_SHARE, NEWER_SHARE = 0.05, 0.5
"""Popularity is also counted in these newest parts of the log."""

PRIOR_SESSIONS = 5.0
"""An item's own share of repeats counts as much as that of all items once it was in so many sessions."""


def item_facts(interactions: Interactions) -> NDArray[np.float32]:
    """What is known of each item whatever the session.

    Shares of the log and not counts, so that the facts mean the same when the log has grown.

    Returns:
        Shape (items, 8), float32: log share of all clicks, of the newest 5 % and of the newer half; the first of these
        two less the second; part (0..1) of the log since the last click; share of its sessions that come back to it;
        part of the log since the first click; empty.
    """
    count, clicks = len(interactions.item_ids), len(interactions.item)
    facts = np.zeros((count, 8), dtype=np.float32)
    if clicks == 0:
        return facts
    item = interactions.item
    everything = np.bincount(item, minlength=count)
    facts[:, 0] = np.log((everything + 0.5) / clicks)
    for column, part in ((1, NEWEST_SHARE), (2, NEWER_SHARE)):
        newest = item[clicks - max(1, int(part * clicks)) :]
        facts[:, column] = np.log((np.bincount(newest, minlength=count) + 0.5) / len(newest))
    facts[:, 3] = facts[:, 1] - facts[:, 2]
    places = np.arange(clicks)
    last, first = np.zeros(count), np.full(count, float(clicks))
    last[item] = places
    first[item[::-1]] = places[::-1]
    facts[:, 4], facts[:, 6] = 1 - last / clicks, 1 - first / clicks
    facts[:, 5] = _repeated(interactions, count)
    return facts


def _repeated(interactions: Interactions, count: int) -> NDArray[np.float64]:
    """The share of each item's sessions that click it more than once, drawn towards that of all items."""
    session = np.repeat(np.arange(len(interactions.session_ptr) - 1), np.diff(interactions.session_ptr))
    pair, times = np.unique(session * count + interactions.item, return_counts=True)
    item = pair % count
    sessions = np.bincount(item, minlength=count)
    again = np.bincount(item, weights=times > 1, minlength=count)
    usual = again.sum() / max(sessions.sum(), 1)
    drawn: NDArray[np.float64] = (again + PRIOR_SESSIONS * usual) / (sessions + PRIOR_SESSIONS)
    return drawn
