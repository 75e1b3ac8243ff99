"""What policies learn beside their models: explorers from the slates they showed, and the chances of actions.

Each explorer learns from the slates of its own policy, in batches: those that were shown since the last training and
long enough ago for their clicks to have come. In a variant that learns apart only its own slates count. A policy that
is or was in shadow also learns from what others showed in its place until its launch, so that it does not begin cold.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import numpy as np

from thinslice.jobs.recipes import read_model
from thinslice.recommend.explore import BANDIT, Shown, learn, similar_prior
from thinslice.recommend.objectives import RATES, REFUSALS, ActionRates
from thinslice.records import Arrays, Experiment, Interactions, Item, Model
from thinslice.settings import Policy
from thinslice.store.lake import Lake

CLICKS = ("select_item", "view_item", "add_to_cart", "purchase")
"""An event of these names that names a slate and one of its items is a click on it."""

FORGOTTEN = 10
"""After so many half-lives a slate counts less than a thousandth: it is not read any more."""


class Warm(NamedTuple):
    """What warms an explorer before its policy is launched.

    Attributes:
        placement: Where slates of any policy count; `*` is everywhere.
        until: Unix seconds of the launch; None: not yet.
    """

    placement: str
    until: float | None


class Extras(NamedTuple):
    """What stands in a bundle beside its models.

    Attributes:
        arrays: Name → arrays: `bandit-POLICY` and `action-rates`.
        kinds: Name → what it was made by, for the manifest.
    """

    arrays: dict[str, Arrays]
    kinds: dict[str, dict[str, Any]]


def learn_extras(
    lake: Lake,
    tenant: str,
    policies: Mapping[str, Policy],
    interactions: Interactions,
    items: Sequence[Item],
    *,
    now: datetime,
    before: Extras | None = None,
    content: Model | None = None,
    variant: tuple[str, str] | None = None,
    warm: Mapping[str, Warm] | None = None,
    rng: int = 0,
) -> Extras:
    """Explorers of the policies that draw their slates, and the chances of actions where a policy weighs them.

    Args:
        lake: Holds exposures and events.
        tenant: Whose.
        policies: Those of the bundle, by name.
        interactions: What the models of the bundle learn from.
        items: The catalog.
        now: Aware UTC.
        before: What the live bundle of the slot has; batches are added to it when the settings are the same.
        content: A model that answers what is like an item: new items start from it. None: from the mean.
        variant: Experiment and variant, when only their slates count.
        warm: Policy → what it learns from besides its own slates, of policies that are or were in shadow.
        rng: The seed.
    """
    found = Extras({}, {})
    for name, policy in sorted(policies.items()):
        if policy.explore.endswith("-thompson"):
            key = BANDIT + name
            chance = policy.chance
            recipe = {
                "explore": policy.explore, "half_life_days": chance.half_life_days,
                "pseudo_count": chance.pseudo_count, "features": chance.features, "settle_s": chance.settle_s,
            }  # fmt: skip
            warmed = (warm or {}).get(name)
            if warmed is not None:
                recipe["warm"] = [warmed.placement, warmed.until]
            old = None
            if before is not None and key in before.arrays and before.kinds.get(key) == recipe:
                old = before.arrays[key]
            until = now.timestamp() - chance.settle_s
            since = until - FORGOTTEN * chance.half_life_days * 86_400 if old is None else float(old["until"][0])
            shown = read_shown(lake, tenant, name, since, until, variant=variant, warm=warmed)
            found.arrays[key] = learn(
                policy.explore, shown, before=old, items=items,
                prior=None if content is None else similar_prior(content), features=chance.features,
                half_life_days=chance.half_life_days, pseudo_count=chance.pseudo_count, rng=rng,
            )  # fmt: skip
            found.kinds[key] = recipe
    if any(policy.objectives for policy in policies.values()):
        rates = ActionRates.fit(interactions, refusals=count_refusals(lake, tenant, now))
        found.arrays[RATES] = rates.arrays()
        found.kinds[RATES] = {"pseudo_count": rates.pseudo_count}
    return found


def warm_of(experiments: Sequence[Experiment]) -> dict[str, Warm]:
    """Policy → what it may learn from besides its own slates: where it stood in shadow, what others showed until then.

    Args:
        experiments: Those that run, and those in shadow.
    """
    return {
        variant.policy: Warm(each.placement, None if each.started_at is None else each.started_at.timestamp())
        for each in experiments if each.shadow_at is not None
        for variant in each.variants
    }  # fmt: skip


def content_of(models: Mapping[str, Arrays], manifest: Mapping[str, Any]) -> Model | None:
    """The model of a bundle that knows items by their content; None without one."""
    kinds = manifest.get("policies", {})
    names = [name for name in models if kinds.get(name) == "content"]
    return read_model(names[0], models[names[0]], manifest) if names else None


def variant_of(manifest: Mapping[str, Any]) -> tuple[str, str] | None:
    """The experiment and variant that a bundle belongs to; None for the live one."""
    return (manifest["experiment"], manifest["variant"]) if "variant" in manifest else None


def read_shown(
    lake: Lake, tenant: str, policy: str, since: float, until: float, *, variant: tuple[str, str] | None = None,
    warm: Warm | None = None,
) -> Shown:  # fmt: skip
    """The places of a policy's slates and which were clicked, oldest first.

    Bots, and slates that were logged but not shown, do not count.

    Args:
        lake: Holds exposures and events.
        tenant: Whose.
        policy: Whose slates.
        since: Unix seconds; slates shown after this.
        until: Unix seconds; slates shown at this time or before.
        variant: Experiment and variant, when only their slates count.
        warm: Slates of any policy count too, until this policy's launch.
    """
    names = ", ".join(f"'{name}'" for name in CLICKS)
    own = "" if variant is None else (
        "AND len(list_filter(experiments, e -> e.experiment = $experiment AND e.variant = $variant)) > 0"
    )  # fmt: skip
    values: dict[str, Any] = {"policy": policy, "since": since, "until": until}
    if variant is not None:
        values |= {"experiment": variant[0], "variant": variant[1]}
    others = ""
    if warm is not None:
        others = "OR (epoch(occurred_at) <= $warm_until AND ($placement = '*' OR placement = $placement))"
        values |= {"warm_until": until if warm.until is None else warm.until, "placement": warm.placement}
    connection = lake.connect(tenant=tenant)
    try:
        rows = connection.execute(
            f"""
            WITH slates AS (
                SELECT recommendation_id, epoch(occurred_at) AS shown_at, items FROM exposures
                WHERE ((policy = $policy {own}) {others}) AND NOT shadow AND NOT is_bot AND len(items) > 0
                  AND consent = 'personalization'
                  AND epoch(occurred_at) > $since AND epoch(occurred_at) <= $until
            ), places AS (
                SELECT recommendation_id, shown_at, unnest(items) AS item_id, unnest(range(len(items))) AS slot
                FROM slates
            ), clicks AS (
                SELECT DISTINCT recommendation_id, item_id FROM events
                WHERE name IN ({names}) AND NOT duplicate AND NOT is_bot
                  AND recommendation_id IN (SELECT recommendation_id FROM slates)
            )
            SELECT places.item_id AS item_id, slot, clicks.item_id IS NOT NULL AS clicked,
                   dense_rank() OVER (ORDER BY shown_at, places.recommendation_id) AS slate, shown_at
            FROM places LEFT JOIN clicks
              ON places.recommendation_id = clicks.recommendation_id AND places.item_id = clicks.item_id
            ORDER BY slate, slot
            """,
            values,
        ).fetchnumpy()
    finally:
        connection.close()
    return Shown(
        np.asarray(rows["item_id"], dtype=object).astype(np.str_),
        np.asarray(rows["slot"], dtype=np.int64),
        np.asarray(rows["clicked"], dtype=np.bool_),
        np.asarray(rows["slate"], dtype=np.int64),
        np.asarray(rows["shown_at"], dtype=np.float64),
    )


def count_refusals(lake: Lake, tenant: str, now: datetime) -> dict[str, dict[str, int]]:
    """Action (`refund`, `report`, `hide`) → item → visitors' sessions that did it."""
    names = ", ".join(f"'{name}'" for name in sorted(REFUSALS))
    connection = lake.connect(tenant=tenant)
    try:
        rows = connection.execute(
            f"""
            SELECT name, item_id, count(DISTINCT coalesce(session_id, visitor_id, user_id)) AS sessions FROM events
            WHERE name IN ({names}) AND item_id IS NOT NULL AND NOT is_bot AND NOT duplicate
              AND consent = 'personalization' AND epoch(occurred_at) <= ?
            GROUP BY ALL ORDER BY ALL
            """,
            [now.timestamp()],
        ).fetchall()
    finally:
        connection.close()
    found: dict[str, dict[str, int]] = {}
    for name, item_id, sessions in rows:
        found.setdefault(str(name), {})[str(item_id)] = int(sessions)
    return found
