"""Clusters from the lake: people who are tied by edges, items that are seen together."""

from datetime import datetime

import numpy as np

from thinslice.errors import NotReady
from thinslice.experiments.communities import Communities, communities, seen_together
from thinslice.records import Experiment
from thinslice.settings import Workspace
from thinslice.store.lake import Lake

LARGEST_SHARE = 0.02
"""No community of a graph has more than this share of all nodes, so that 50 clusters or more can be compared."""

GRAPH_DAYS = 90
"""Items are tied by the sessions of so many days."""


def graph_communities(workspace: Workspace, experiment: Experiment, now: datetime) -> tuple[list[str], Communities]:
    """The communities of a tenant's graph: ids, and who belongs together.

    Args:
        workspace: Whose.
        experiment: Its `cluster` says which graph: items that follow each other in sessions, or people by edges.
        now: Aware; ties after it are left out.

    Raises:
        NotReady: There are no ties.
    """
    connection = Lake(workspace.lake).connect(tenant=experiment.tenant)
    try:
        if experiment.cluster == "people-graph":
            rows = connection.execute(
                "SELECT from_id, to_id, weight FROM edges WHERE kind != 'block' AND occurred_at <= ? ORDER BY ALL",
                [now],
            ).fetchall()
        else:
            rows = connection.execute(
                f"""
                SELECT coalesce(session_id, visitor_id) AS who, item_id FROM events
                WHERE item_id IS NOT NULL AND coalesce(session_id, visitor_id) IS NOT NULL AND NOT is_bot
                  AND NOT duplicate AND consent = 'personalization' AND name IN ('view_item', 'add_to_cart')
                  AND occurred_at <= ? AND occurred_at > CAST(? AS TIMESTAMPTZ) - INTERVAL {GRAPH_DAYS} DAY
                ORDER BY who, occurred_at, event_id
                """,
                [now, now],
            ).fetchall()
    finally:
        connection.close()
    people = experiment.cluster == "people-graph"
    ids = sorted({node for row in rows for node in (row[:2] if people else row[1:])})
    code = {name: place for place, name in enumerate(ids)}
    if people:
        ends = ([code[row[0]] for row in rows], [code[row[1]] for row in rows])
        weights = [max(float(row[2] or 1.0), 1e-9) for row in rows]
    else:
        first, second, count = seen_together(
            np.array([row[0] for row in rows], dtype=object), [code[row[1]] for row in rows]
        )
        ends, weights = (first.tolist(), second.tolist()), count.astype(float).tolist()
    if not ends[0]:
        what = "no edges" if people else "no sessions with two items"
        raise NotReady(f"tenant {experiment.tenant!r} has {what}, so {experiment.cluster} has no communities.")
    largest = max(2, int(LARGEST_SHARE * len(ids)))
    return ids, communities(len(ids), ends, weights, rng=np.random.default_rng(0), largest=largest)
