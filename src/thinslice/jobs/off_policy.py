"""What another policy would have earned on a tenant's logged slates: its ranking is replayed at each of them.

Only places that were left to chance can tell. A place that always holds the same item says nothing of any other item,
so it is left out and counted; at the others the other policy's item has the probability 1, all others 0. Its model
learns from what happened before the slates that it is judged by.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from thinslice.errors import NotReady, UnknownName
from thinslice.evaluation.off_policy import off_policy
from thinslice.jobs.bandits import CLICKS, count_refusals
from thinslice.jobs.recipes import Recipe
from thinslice.jobs.training_data import interactions_of, read_clicks, read_items
from thinslice.models import MODELS
from thinslice.recommend import Candidates
from thinslice.recommend.arrangement import arranger
from thinslice.recommend.diversity import likeness_of, mix_of
from thinslice.recommend.objectives import ActionRates
from thinslice.records import Item, Model
from thinslice.sessions import SESSION_EVENTS
from thinslice.settings import BUILT_IN_POLICIES, Policy, Settings, Workspace, read_settings
from thinslice.store.lake import Lake

LOOK_BACK_S = 4 * 3600
"""A visitor's clicks of so many seconds before a slate are the session that it answered."""

DEPTH = 100
"""So many of the other policy's candidates are ranked."""


class Slates(NamedTuple):
    """Logged slates, oldest first.

    Attributes:
        visitor: Who saw each, a text.
        session: What they had clicked before, item ids, oldest first.
        items: What was shown.
        chances: How likely each item was at its place.
        clicked: Which of the items were clicked.
    """

    visitor: list[str]
    session: list[list[str]]
    items: list[list[str]]
    chances: list[list[float]]
    clicked: list[list[bool]]


def judge(
    workspace: Workspace, tenant: str, target: str, *, logged: str | None = None, days: float = 7.0, now: datetime,
    rng: int = 0,
) -> dict[str, Any]:  # fmt: skip
    """What `target` would have earned on the slates of `logged`, in clicks a slate on the places left to chance.

    Args:
        workspace: Whose lake and settings.
        tenant: Whose slates.
        target: A policy; what it would leave to chance itself is left out: its ranking is judged.
        logged: Whose slates; None: those of the policy that explored most.
        days: How far back.
        now: Aware UTC.
        rng: The seed.

    Returns:
        As `off_policy`, with target, logged, slates, places (how many of all were left to chance) and matched (the
        share of those where both policies put the same item).

    Raises:
        UnknownName: There is no such tenant or policy, or it has no model.
        NotReady: No slate was left to chance, or nothing happened before the slates.
    """
    settings = read_settings(workspace)
    policy = _policy(settings, tenant, target)
    lake = Lake(workspace.lake)
    since = now - timedelta(days=days)
    logged = logged or explored_most(lake, tenant, since, now)
    slates = read_slates(lake, tenant, logged, since, now)
    everything = sum(len(items) for items in slates.items)
    left = sum(chance < 1 for chances in slates.chances for chance in chances)
    if not left:
        raise NotReady(
            f"none of the {everything:,} places of {len(slates.items):,} slates of {logged!r} was left to chance.",
            hint='A policy with explore = "epsilon-slot" shows what others would have earned.',
        )
    clicks, items = read_clicks(lake, tenant, since), read_items(lake, tenant)
    if not len(clicks.item):
        raise NotReady(f"nothing happened before {since:%Y-%m-%d %H:%M} that {target!r} could have learned from.")
    interactions = interactions_of(clicks, np.ones(len(clicks.started), dtype=np.bool_))
    model = Recipe(policy, quick=True).make(interactions, items, rng)
    rates = ActionRates.fit(interactions, refusals=count_refusals(lake, tenant, since)) if policy.objectives else None
    columns, matched = replayed(slates, model, policy, rates, items)
    return {
        "target": target, "logged": logged, "slates": len(slates.items), "places": left, "places_shown": everything,
        "matched": matched, "since": since.isoformat(), **off_policy(columns, rng=rng),
    }  # fmt: skip


def replayed(
    slates: Slates, model: Model, policy: Policy, rates: ActionRates | None, items: Sequence[Item]
) -> tuple[dict[str, NDArray[Any]], float]:
    """The rows of `off_policy`, one a place that was left to chance; and the share of them where both agree.

    A place below fixed ones is judged given what stands there: the other policy's best items that do not.

    Args:
        slates: What was logged.
        model: Of the other policy.
        policy: The other policy.
        rates: For its objectives.
        items: The catalog, for its diversity.
    """
    catalog = {item.item_id: item for item in items}
    plain = msgspec.structs.replace(policy, explore="none", exploration={})
    session: list[str] = []  # of the slate at hand
    arrange = arranger(
        plain, explorer=None, rates=rates, seed=0,
        likeness=lambda ids: likeness_of([catalog.get(each) for each in ids]),
        mix=lambda ids: mix_of(list(map(catalog.get, ids)), list(map(catalog.get, session))),
    )  # fmt: skip
    rows: dict[str, list[Any]] = {name: [] for name in ("reward", "propensity", "target", "unit", "slate", "position")}
    for number, shown in enumerate(slates.items):
        chances = slates.chances[number]
        fixed = {item_id for item_id, chance in zip(shown, chances, strict=True) if chance >= 1}
        session = slates.session[number]
        ranked = model.recommend(session, DEPTH)
        order: Sequence[int] = range(len(ranked.item_ids))
        if arrange is not None:
            many = len(ranked.item_ids)
            found = Candidates(ranked.item_ids, ranked.scores, [ranked.source] * many, [0] * many, many)
            order = arrange(found, many).order
        page = session[-1] if session else None
        would = [each for at in order if (each := ranked.item_ids[at]) not in fixed and each != page]
        turn = 0
        for place, (item_id, chance) in enumerate(zip(shown, chances, strict=True)):
            if chance >= 1:
                continue
            rows["reward"].append(float(slates.clicked[number][place]))
            rows["propensity"].append(chance)
            rows["target"].append(float(turn < len(would) and would[turn] == item_id))
            rows["unit"].append(slates.visitor[number])
            rows["slate"].append(number)
            rows["position"].append(place)
            turn += 1
    columns = {name: np.array(column) for name, column in rows.items()}
    return columns, float(columns["target"].mean()) if len(columns["target"]) else 0.0


def explored_most(lake: Lake, tenant: str, since: datetime, until: datetime) -> str:
    """The policy with the most places that were left to chance.

    Raises:
        NotReady: There is none.
    """
    connection = lake.connect(tenant=tenant)
    try:
        row = connection.execute(
            """
            SELECT policy, sum(len(list_filter(slot_propensities, p -> p < 1))) AS places FROM exposures
            WHERE NOT shadow AND NOT is_bot AND occurred_at > ? AND occurred_at <= ?
            GROUP BY policy HAVING places > 0 ORDER BY places DESC, policy LIMIT 1
            """,
            [since, until],
        ).fetchone()
    finally:
        connection.close()
    if row is None:
        raise NotReady(
            f"no slate since {since:%Y-%m-%d %H:%M} left a place to chance.",
            hint='A policy with explore = "epsilon-slot" shows what others would have earned.',
        )
    return str(row[0])


def read_slates(lake: Lake, tenant: str, policy: str, since: datetime, until: datetime) -> Slates:
    """A policy's slates that were shown to people, what these had clicked before, and what they clicked then."""
    clicks = ", ".join(f"'{name}'" for name in CLICKS)
    seen = ", ".join(f"'{name}'" for name in sorted(SESSION_EVENTS))
    connection = lake.connect(tenant=tenant)
    try:
        rows = connection.execute(
            f"""
            WITH slates AS (
                SELECT recommendation_id, occurred_at AS shown_at, coalesce(visitor_id, session_id, user_id) AS who,
                       items, slot_propensities AS chances
                FROM exposures
                WHERE policy = $policy AND NOT shadow AND NOT is_bot AND occurred_at > $since AND occurred_at <= $until
                  AND len(items) > 0 AND len(items) = len(slot_propensities)
            ), taken AS (
                SELECT recommendation_id, list(DISTINCT item_id) AS taken FROM events
                WHERE name IN ({clicks}) AND NOT duplicate AND item_id IS NOT NULL
                  AND recommendation_id IN (SELECT recommendation_id FROM slates) GROUP BY recommendation_id
            ), trail AS (
                SELECT slates.recommendation_id, list(item_id ORDER BY events.occurred_at, event_id) AS trail
                FROM slates JOIN events ON coalesce(events.visitor_id, events.session_id, events.user_id) = who
                WHERE name IN ({seen}) AND NOT duplicate AND item_id IS NOT NULL AND events.occurred_at < shown_at
                  AND epoch(events.occurred_at) > epoch(shown_at) - {LOOK_BACK_S} GROUP BY slates.recommendation_id
            )
            SELECT coalesce(who, slates.recommendation_id), coalesce(trail, []), items, chances, coalesce(taken, [])
            FROM slates LEFT JOIN taken USING (recommendation_id) LEFT JOIN trail USING (recommendation_id)
            ORDER BY shown_at, slates.recommendation_id
            """,
            {"policy": policy, "since": since, "until": until},
        ).fetchall()
    finally:
        connection.close()
    return Slates(
        [row[0] for row in rows],
        [list(row[1]) for row in rows],
        [list(row[2]) for row in rows],
        [list(row[3]) for row in rows],
        [[item_id in set(row[4]) for item_id in row[2]] for row in rows],
    )


def _policy(settings: Settings, tenant: str, name: str) -> Policy:
    every = {**BUILT_IN_POLICIES, **settings.tenant(tenant).policies}
    there = {name: policy for name, policy in every.items() if policy.model in MODELS}
    if name not in there:
        raise UnknownName(f"there is no policy {name!r} of {tenant!r} that has a model (there is: {', '.join(there)}).")
    return there[name]
