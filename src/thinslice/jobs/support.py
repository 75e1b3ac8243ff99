"""How far the log reaches to policies before their launch: from their shadow, or by asking their models again."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec

from thinslice.experiments.assign import UNCHANGED
from thinslice.experiments.support import MIN_SLATES, Compared, Support, nothing_known, support
from thinslice.jobs.lesson import Stored, stored
from thinslice.jobs.off_policy import LOOK_BACK_S
from thinslice.jobs.recipes import read_model
from thinslice.metrics.statistics import rows_of
from thinslice.metrics.unit_table import text
from thinslice.records import Experiment, Model, Variant
from thinslice.serving.shelves import RECIPES
from thinslice.sessions import SESSION_EVENTS
from thinslice.settings import Workspace
from thinslice.store.artifacts import FileArtifacts
from thinslice.store.lake import Lake

HISTORY_DAYS = 28
"""So many days of slates and views are counted."""

MOST_SLATES = 1_000
"""So many of the newest slates are compared."""


def support_of(workspace: Workspace, experiment: Experiment, now: datetime) -> list[Support]:
    """How far the log reaches to each variant's policy; variants that change nothing are left out.

    What an experiment logged in shadow is taken where there is enough of it; else the live models are asked again what
    they would have shown in the newest slates. Rules (stock, prices) do not count in the second case.

    Args:
        workspace: Whose lake and models.
        experiment: One that has not begun; its placement says which slates count.
        now: Aware.
    """
    lake = Lake(workspace.lake)
    asked = [each for each in experiment.variants if each.policy not in (UNCHANGED, "none")]
    bundle: Stored | None = None
    if lake.version("exposures") < 0:
        bundle = stored(FileArtifacts(workspace.models), experiment.tenant, "live")
        why = "nothing was shown here yet, so nothing is known of what it shows."
        return [_untrained(bundle, each) or nothing_known(each.name, each.policy, why) for each in asked]
    since = now - timedelta(days=HISTORY_DAYS)
    connection = lake.connect(tenant=experiment.tenant)
    try:
        place = "" if experiment.placement == "*" else f" AND placement = {text(experiment.placement)}"
        window = _window(since, now)
        live = f"exposures WHERE NOT shadow AND NOT is_bot AND len(items) > 0 AND {window}{place}"
        logged = int(rows_of(connection, f"SELECT count(*) AS n FROM {live}")[0]["n"])
        shows = _counts(connection, f"SELECT unnest(items) AS item_id FROM {live}")
        names = ", ".join(text(name) for name in sorted(SESSION_EVENTS))
        views = _counts(
            connection,
            f"SELECT item_id FROM events WHERE name IN ({names}) AND NOT is_bot AND NOT duplicate AND {window}",
        )
        shadowed = lake.version("shadows") >= 0
        found = []
        for variant in asked:
            compared = _from_shadow(connection, experiment, variant.name, window) if shadowed else None
            source = "shadow"
            if compared is None or len(compared.shown) < MIN_SLATES:
                source = "replay"
                if bundle is None:
                    bundle = stored(FileArtifacts(workspace.models), experiment.tenant, "live")
                model = _model(bundle, variant.policy)
                if model is None:
                    why = f"its policy {variant.policy!r} is asked about more than a session, so it is not asked again."
                    found.append(_untrained(bundle, variant) or nothing_known(variant.name, variant.policy, why))
                    continue
                compared = _replayed(connection, experiment, model, _model(bundle, "popular"), live)
            found.append(
                support(compared, shows, views, variant=variant.name, policy=variant.policy, source=source,
                        logged_slates=logged)
            )  # fmt: skip
    finally:
        connection.close()
    return found


def _untrained(bundle: Stored, variant: Variant) -> Support | None:
    """What visitors of a variant see while its policy has no model; None when it has one, or needs none of its own."""
    if not bundle.arrays:
        why = (
            "nothing is trained yet, so until the first training its visitors see the catalog in its own order, as "
            "those of every variant do: until then there is nothing to compare. `thinslice train` trains now."
        )
    elif variant.policy in RECIPES or _model(bundle, variant.policy) is not None:
        return None
    else:
        why = (
            f"its policy {variant.policy!r} has no model yet: until the next training its visitors see what the live "
            "models for sessions show, or what is popular. `thinslice train` trains now."
        )
    return msgspec.structs.replace(nothing_known(variant.name, variant.policy, why), verdict="untrained")


def _window(since: datetime, until: datetime) -> str:
    low, high = (f"TIMESTAMPTZ {text(at.isoformat())}" for at in (since, until))
    return f"occurred_at > {low} AND occurred_at <= {high}"


def _counts(connection: Any, query: str) -> dict[str, int]:
    rows = rows_of(connection, f"SELECT item_id, count(*) AS n FROM ({query}) WHERE item_id IS NOT NULL GROUP BY ALL")
    return {str(row["item_id"]): int(row["n"]) for row in rows}


def _from_shadow(connection: Any, experiment: Experiment, variant: str, window: str) -> Compared:
    """What the shadow would have shown beside what was shown in its place."""
    segments = ", ".join(
        f"coalesce(s.segments[{text(name)}], 'unknown') AS s{at}" for at, name in enumerate(experiment.segments)
    )
    rows = rows_of(
        connection,
        f"""
        SELECT coalesce(e.visitor_id, e.session_id, e.user_id, recommendation_id) AS who, e.items AS shown,
               e.slot_propensities AS chances, s.items AS would{", " + segments if segments else ""}
        FROM (SELECT * FROM shadows WHERE experiment = {text(experiment.name)} AND variant = {text(variant)}
              AND {window} ORDER BY occurred_at DESC, recommendation_id LIMIT {10 * MOST_SLATES}) AS s
        JOIN (SELECT * FROM exposures WHERE NOT shadow AND {window}) AS e USING (recommendation_id)
        WHERE len(e.items) > 0 ORDER BY e.occurred_at, recommendation_id
        """,
    )
    return _compared(rows, [list(row["would"]) for row in rows], experiment.segments)


def _replayed(connection: Any, experiment: Experiment, model: Model, popular: Model | None, live: str) -> Compared:
    """What a model would have shown in the newest slates, asked again with what their visitors had looked at.

    Places that it cannot fill are filled by what is popular, as in a slate.
    """
    segments = ", ".join(
        f"coalesce(segments[{text(name)}], 'unknown') AS s{at}" for at, name in enumerate(experiment.segments)
    )
    seen = ", ".join(text(name) for name in sorted(SESSION_EVENTS))
    rows = rows_of(
        connection,
        f"""
        WITH slates AS (
            SELECT recommendation_id, occurred_at AS shown_at, coalesce(visitor_id, session_id, user_id) AS who,
                   items AS shown, slot_propensities AS chances{", " + segments if segments else ""}
            FROM (SELECT * FROM {live} ORDER BY occurred_at DESC, recommendation_id LIMIT {MOST_SLATES})
        ), trail AS (
            SELECT slates.recommendation_id AS recommendation_id,
                   list(item_id ORDER BY events.occurred_at, event_id) AS trail
            FROM slates JOIN events ON coalesce(events.visitor_id, events.session_id, events.user_id) = who
            WHERE name IN ({seen}) AND NOT duplicate AND item_id IS NOT NULL AND events.occurred_at < shown_at
              AND epoch(events.occurred_at) > epoch(shown_at) - {LOOK_BACK_S} GROUP BY slates.recommendation_id
        )
        SELECT slates.* EXCLUDE (shown_at) REPLACE (coalesce(who, slates.recommendation_id) AS who),
               coalesce(trail, []) AS trail
        FROM slates LEFT JOIN trail USING (recommendation_id) ORDER BY shown_at, recommendation_id
        """,
    )
    would = []
    for row in rows:
        session = list(row["trail"])
        places = len(row["shown"])
        ranked = list(model.recommend(session, places + 1).item_ids)
        if len(ranked) <= places and popular is not None:
            ranked = list(dict.fromkeys([*ranked, *popular.recommend(session, 2 * places + 1).item_ids]))
        page = session[-1] if session else None
        would.append([item_id for item_id in ranked if item_id != page][:places])
    return _compared(rows, would, experiment.segments)


def _compared(rows: Sequence[Mapping[str, Any]], would: Sequence[Sequence[str]], segments: Sequence[str]) -> Compared:
    return Compared(
        units=[str(row["who"]) for row in rows],
        shown=[list(row["shown"]) for row in rows],
        chances=[list(row["chances"]) or [1.0] * len(row["shown"]) for row in rows],
        would=would,
        segments={name: [str(row[f"s{at}"]) for row in rows] for at, name in enumerate(segments)},
    )


def _model(bundle: Stored, policy: str) -> Model | None:
    name = bundle.manifest.get("aliases", {}).get(policy, policy)
    if name not in bundle.arrays:
        kinds = bundle.manifest.get("policies", {})
        name = next((each for each, kind in kinds.items() if kind == name and each in bundle.arrays), "")
    return read_model(name, bundle.arrays[name], bundle.manifest) if name else None
