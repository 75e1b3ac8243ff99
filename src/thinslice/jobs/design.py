"""What an experiment would have counted over the last days, read from the lake, so that it can be planned."""

from datetime import datetime, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thinslice.errors import BadInput, NotReady
from thinslice.experiments.communities import labels_of
from thinslice.experiments.design import PAST, Design, History, design, planned_units
from thinslice.experiments.evidence import WEIGHT, raw_columns
from thinslice.jobs.graphs import graph_communities
from thinslice.metrics import UNIT_COLUMNS
from thinslice.metrics.statistics import Database
from thinslice.metrics.unit_table import event_key, identifier, text
from thinslice.records import Experiment
from thinslice.settings import Workspace
from thinslice.stats import cluster_totals
from thinslice.store.lake import Lake

HISTORY_DAYS = 28
"""So many days of the past are what a plan is made from."""


def design_experiment(
    workspace: Workspace, experiment: Experiment, now: datetime, *, history_days: int = HISTORY_DAYS,
    days: float | None = None,
) -> Design:  # fmt: skip
    """What the tenant's own traffic can show of an experiment.

    Args:
        workspace: Whose lake.
        experiment: As its file says; it need not have begun.
        now: Aware; the history ends here.
        history_days: How far it goes back.
        days: How long the experiment is to run; None is as its file says.

    Raises:
        NotReady: The lake holds nobody who came in that time.
        BadInput: The experiment's units cannot be found in the past.
    """
    return design(experiment, read_history(workspace, experiment, now, history_days), days=days)


def planned_units_of(workspace: Workspace, experiment: Experiment, now: datetime) -> int | None:
    """How many units will have come at an experiment's planned end, by the last days; None where nobody knows.

    Args:
        workspace: Whose lake.
        experiment: Without an end nothing is planned.
        now: Aware; the history ends here.
    """
    days = experiment.days
    if days is None and experiment.ends_at is not None:
        days = (experiment.ends_at - (experiment.started_at or now)).total_seconds() / 86_400
    lake = Lake(workspace.lake)
    if days is None or days <= 0 or not any(lake.version(name) >= 0 for name in ("events", "exposures")):
        return None
    if experiment.unit == "block":
        return int(days * 1_440 / (experiment.block_minutes or 1.0))
    if experiment.unit == "cluster":
        return None  # clusters come and go with their visitors: their number is not that of arrivals
    database = lake.connect(tenant=experiment.tenant)
    try:
        _make_units(database, experiment, now - timedelta(days=HISTORY_DAYS), now)
        new_units = _new_units(database, HISTORY_DAYS)
    finally:
        database.close()
    return planned_units(experiment, new_units, days) or None


def _new_units(database: Database, history_days: int) -> list[float]:
    """How many units came first on each day of the past, from the first day with any on."""
    arrivals = database.execute(
        "SELECT CAST(floor(epoch(first_seen - since) / 86400) AS INTEGER) AS day, count(*) FROM units GROUP BY day"
    ).fetchall()
    found = np.zeros(history_days)
    for day, count in arrivals:
        found[min(day, history_days - 1)] += count
    began = np.flatnonzero(found)  # a shop may be younger than that
    return [float(each) for each in found[int(began[0]) :]] if began.size else []


def read_history(workspace: Workspace, experiment: Experiment, now: datetime, history_days: int) -> History:
    """One row a unit that came in the last days: what it did from its first visit in that time on.

    Raises:
        NotReady: Nobody came.
        BadInput: Clusters of items, which visitors belong to only once they are served.
    """
    if experiment.cluster == "item-graph":
        raise BadInput("clusters of items cannot be planned from the past: a visitor belongs to what it is served.")
    if history_days < 1:
        raise BadInput(f"a history of {history_days} days is none; take at least 1.")
    since = now - timedelta(days=history_days)
    database = Lake(workspace.lake).connect(tenant=experiment.tenant)
    try:
        _make_units(database, experiment, since, now)
        block = experiment.unit == "block"
        rows = _counted(database, experiment, "first_seen", "until", block)
        if not len(rows["unit_id"]):
            others = [f"--unit {each}" for each in _units_there(database, since, now) if each != experiment.unit]
            raise NotReady(
                f"tenant {experiment.tenant!r} had no {experiment.unit} in the last {history_days} days.",
                hint=f"The events of that time name no {experiment.unit}; plan with {' or '.join(others)}." if others
                else "`thinslice import events FILE` brings a past; --history looks further back.",
            )  # fmt: skip
        past = {}
        if experiment.covariate_days is not None:
            before = _counted(database, experiment, "past_from", "first_seen", block=False)
            past = {f"{PAST}{name}": before[name] for name in raw_columns(experiment)}
        new_units = _new_units(database, history_days)
    finally:
        database.close()
    columns = {name: rows[name] for name in raw_columns(experiment)} | past
    if block:
        width = (experiment.block_minutes or 1.0) / 1_440
        return History(columns | {WEIGHT: rows["visitors"]}, [1 / width] * len(new_units))
    if experiment.unit == "cluster":
        return _clustered(workspace, experiment, now, rows, columns, len(new_units))
    return History(columns, new_units)


def _units_there(database: Database, since: datetime, until: datetime) -> list[str]:
    """What kinds of units the events of a time name."""
    first, last = (f"TIMESTAMPTZ {text(moment.isoformat())}" for moment in (since, until))
    found = database.execute(
        "SELECT count(visitor_id), count(user_id), count(session_id) FROM events "
        f"WHERE occurred_at >= {first} AND occurred_at < {last}"
    ).fetchall()
    counts = zip(("visitor", "user", "session"), found[0], strict=True)
    return [name for name, count in counts if count]


def _make_units(database: Database, experiment: Experiment, since: datetime, until: datetime) -> None:
    """The temporary table `units`: unit_id, first_seen, since, until, past_from, of slates where there were any."""
    key = event_key(experiment)
    place = "" if experiment.placement == "*" else f" AND placement = {text(experiment.placement)}"
    window = (
        f"occurred_at >= TIMESTAMPTZ {text(since.isoformat())} AND occurred_at < TIMESTAMPTZ {text(until.isoformat())}"
    )
    days = experiment.covariate_days or 0.0
    label = "NULL"
    if experiment.unit == "cluster" and experiment.cluster != "people-graph":
        label = f"any_value(json_extract_string(context, {text('$.' + identifier(experiment.cluster))}))"
    source = f"exposures WHERE NOT is_bot AND NOT shadow{place}"
    found = database.execute(f"SELECT count(*) FROM {source} AND {window}").fetchone()
    if not found or not found[0] or label != "NULL":
        source = "events WHERE NOT is_bot AND NOT duplicate"
    database.execute(
        f"""
        CREATE OR REPLACE TEMP TABLE units AS
        SELECT {key} AS unit_id, min(occurred_at) AS first_seen, TIMESTAMPTZ {text(since.isoformat())} AS since,
               TIMESTAMPTZ {text(until.isoformat())} AS until, any_value(user_id) AS user_id, {label} AS label,
               min(occurred_at) - to_seconds({days * 86_400!r}) AS past_from
        FROM {source} AND {window} AND {key} IS NOT NULL GROUP BY ALL
        """.replace("GROUP BY ALL", f"GROUP BY {key}")
    )


def _counted(database: Database, experiment: Experiment, low: str, high: str, block: bool) -> dict[str, NDArray[Any]]:
    """The unit columns of each unit between two of its own moments, in the order of unit ids; or of each block."""
    key = event_key(experiment)
    unit = (
        f"CAST(floor(epoch(occurred_at) / {(experiment.block_minutes or 1.0) * 60!r}) AS BIGINT)"
        if block
        else "unit_id"
    )
    bought = "kind = 'order'"
    converted = (
        f"count(DISTINCT unit_id) FILTER (WHERE {bought})" if block else f"CAST(count_if({bought}) > 0 AS INTEGER)"
    )
    when = f"occurred_at >= u.{low} AND occurred_at < u.{high}"
    rows = database.execute(
        f"""
        WITH deeds AS (
            SELECT {unit} AS unit, unit_id, 'served' AS kind, session_id, NULL AS amount, true AS ours
            FROM (SELECT {key} AS unit_id, occurred_at, session_id FROM exposures WHERE NOT is_bot AND NOT shadow) AS e
            JOIN units AS u USING (unit_id) WHERE {when}
            UNION ALL
            SELECT {unit}, unit_id, name, session_id, NULL, recommendation_id IS NOT NULL
            FROM (SELECT {key} AS unit_id, name, occurred_at, session_id, recommendation_id FROM events
                  WHERE NOT is_bot AND NOT duplicate) AS e
            JOIN units AS u USING (unit_id) WHERE {when}
            UNION ALL
            SELECT {unit}, unit_id, 'order', session_id, total_minor, false
            FROM (SELECT {key} AS unit_id, * FROM orders) AS o JOIN units AS u USING (unit_id) WHERE {when}
        ),
        counted AS (
            SELECT unit, count(DISTINCT unit_id) AS visitors, count_if(kind = 'served') AS exposures,
                   count_if(kind = 'view_item_list' AND ours) AS impressions,
                   count_if(kind = 'select_item' AND ours) AS clicks, count_if(kind = 'view_item') AS views,
                   count_if(kind = 'add_to_cart') AS carts, count_if(kind = 'order') AS orders,
                   {converted} AS converted,
                   coalesce(sum(amount), 0) AS revenue_minor, count(DISTINCT session_id) AS sessions
            FROM deeds GROUP BY unit
        )
        SELECT {"unit AS unit_id" if block else "unit_id, user_id, label"}, coalesce(visitors, 0) AS visitors,
               {", ".join(f"coalesce({name}, 0) AS {name}" for name in UNIT_COLUMNS)}
        FROM {"counted" if block else "units LEFT JOIN counted ON unit = unit_id"} ORDER BY unit_id
        """
    ).fetchnumpy()
    numbers = {name: np.asarray(rows[name], dtype=np.float64) for name in ("visitors", *UNIT_COLUMNS)}
    return {name: values for name, values in rows.items() if name not in numbers} | numbers


def _clustered(
    workspace: Workspace, experiment: Experiment, now: datetime, rows: dict[str, NDArray[Any]],
    columns: dict[str, NDArray[np.float64]], history_days: int,
) -> History:  # fmt: skip
    """Visitors summed to their clusters; those in none are left out, as an experiment would."""
    if experiment.cluster == "people-graph":
        known = labels_of(*graph_communities(workspace, experiment, now))
        labels = [known.get(str(user), str(user)) if user else "" for user in _texts(rows["user_id"])]
    else:
        labels = _texts(rows["label"])
    inside = np.array([bool(label) for label in labels], dtype=np.bool_)
    if not inside.any():
        raise NotReady(
            f"no event of the last {history_days} days names a {experiment.cluster!r} in its context.",
            hint="Send it with the events, as with the requests.",
        )
    totals = cluster_totals({name: values[inside] for name, values in columns.items()}, np.array(labels)[inside])
    weight = totals.pop("cluster_units")
    return History(totals | {WEIGHT: weight}, [float(len(weight)), *[0.0] * (history_days - 1)])


def _texts(column: Any) -> list[str]:
    """A column of texts with "" where there is none."""
    mask = np.ma.getmaskarray(column)
    return ["" if hidden or value is None else str(value) for value, hidden in zip(column.tolist(), mask, strict=True)]
