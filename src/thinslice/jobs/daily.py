"""The goal day by day, before the start and after it, from the lake: for the checks of what variants share."""

from collections.abc import Sequence
from datetime import datetime, timedelta

import msgspec

from thinslice.experiments.counting import PERIODS_TABLE, UNITS
from thinslice.experiments.evidence import Daily, column_of
from thinslice.experiments.interactions import goal_of
from thinslice.experiments.lineage import POOLED_LEAF
from thinslice.experiments.tallies import exact_moments
from thinslice.metrics import acts_sql, units_sql
from thinslice.metrics.statistics import Database, moments_by, rows_of
from thinslice.metrics.unit_table import UNIT_KEYS, VECTOR, event_key, identifier, text
from thinslice.records import Experiment, Metric

DAY_S = 86_400

DAYS_BEFORE = 14
"""So many days before the start control's level is compared with that after it."""

OF_SLATES = frozenset({"clicks", "impressions", "exposures"})
"""Columns that belong to a slate, and so mean the same before the start, when nobody was in the experiment."""

DAILY_UNITS, DAILY_DEEDS = "daily_units", "daily_deeds"
"""Tables that stay for other checks: one row a unit (as `units_sql`, with entry and pooled); one row a unit and day
on which it did something (unit_id, key, variant, pooled, day, exposures, the goal's columns)."""


def count_days(database: Database, experiment: Experiment, until: datetime, vector: str = VECTOR) -> list[Daily]:
    """The goal by days of the calendar, of the units that were served on each, and the treatments' share of traffic.

    Makes the tables `daily_units` and `daily_deeds`. Nothing where there is no start or the goal is a quantile.

    Args:
        database: With the views `exposure_variants`, `events`, `orders` and `slates_before`.
        experiment: A started one.
        until: Only what happened before.
        vector: The probabilities of an exposure as text, in SQL.
    """
    goal = goal_of(experiment)
    if goal is None or goal.quantile is not None or experiment.started_at is None or experiment.unit == "block":
        return []
    start = experiment.started_at.timestamp()
    everybody = msgspec.structs.replace(experiment, pooled_share=0.0)
    marked = (
        f"unit_id IN (SELECT unit_id FROM exposure_variants WHERE tenant = {text(experiment.tenant)} AND experiment = "
        f"{text(experiment.name)} AND context_leaf = {text(POOLED_LEAF)})"
    )
    database.execute(
        f"CREATE OR REPLACE TEMP TABLE {DAILY_UNITS} AS SELECT *, "
        f"CAST(floor((epoch(first_exposure) - {start!r}) / {DAY_S}) AS INTEGER) AS entry, "
        f"{marked if experiment.pooled_share else 'false'} AS pooled FROM ({units_sql(everybody, until, vector)}) "
        "WHERE NOT mixed AND NOT is_bot"
    )
    raw = list(dict.fromkeys(["exposures", goal.numerator, *([goal.denominator] if goal.denominator else [])]))
    deeds = acts_sql(everybody, until, units=DAILY_UNITS, columns=raw)
    sums = ", ".join(f"sum({identifier(name)}) AS {identifier(name)}" for name in raw)
    database.execute(
        f"CREATE OR REPLACE TEMP TABLE {DAILY_DEEDS} AS SELECT * FROM (SELECT unit_id, any_value(key) AS key, "
        f"any_value(variant) AS variant, CAST(floor((epoch(done_at) - {start!r}) / {DAY_S}) AS INTEGER) AS day, {sums} "
        f"FROM ({deeds}) GROUP BY unit_id, day) JOIN (SELECT unit_id, pooled FROM {DAILY_UNITS}) USING (unit_id)"
    )
    columns = _named(goal)
    shown = ", ".join(f"sum({identifier(raw)}) AS {identifier(name)}" for name, raw in columns.items())
    unit = "key" if experiment.unit == "cluster" else "unit_id"
    database.execute(
        f"CREATE OR REPLACE TEMP TABLE daily_rows AS SELECT variant, pooled, day, {shown} FROM {DAILY_DEEDS} "
        f"WHERE exposures > 0 GROUP BY {unit}, variant, pooled, day"
    )
    counted = exact_moments(database, "daily_rows", list(columns), ("day", "pooled"))
    days = sorted({key[0] for key in counted})
    found = [
        Daily(int(day), counted.get((day, False), {}), _share(experiment, int(day)), counted.get((day, True), {}))
        for day in days
    ]
    return [*_before(database, experiment, goal), *found]


def days_of_file(database: Database, experiment: Experiment, shares: str = "NULL") -> list[Daily]:
    """The same from the tables that a file is counted from: a row is a unit on a day on which it did something.

    Args:
        database: With `experiment_units` and `unit_periods`.
        experiment: Whose goal.
        shares: The treatments' logged share of a unit, in SQL over its row; a day has the mean of who came on it.
    """
    goal = goal_of(experiment)
    if goal is None or goal.quantile is not None:
        return []
    columns = _named(goal)
    shown = ", ".join(f"sum(d.{identifier(name)}) AS {identifier(name)}" for name in columns)
    rows = (
        f"(SELECT u.variant AS variant, u.entry + d.age AS day, {shown} FROM {PERIODS_TABLE} AS d "
        f"JOIN (SELECT unit_id, key, variant, entry FROM {UNITS} WHERE NOT mixed AND entry IS NOT NULL) AS u "
        "USING (unit_id) GROUP BY u.key, u.variant, u.entry + d.age)"
    )
    came = rows_of(database, f"SELECT entry AS day, avg({shares}) AS share FROM {UNITS} WHERE NOT mixed GROUP BY entry")
    share = {row["day"]: row["share"] for row in came}
    found = moments_by(database, rows, list(columns), ("day",))
    return [Daily(int(str(key[0])), of, share.get(key[0])) for key, of in found.items()]


def _named(goal: Metric) -> dict[str, str]:
    """The goal's columns, by what they are made of; a cap is one of a unit's total, so days go without it."""
    columns = {column_of(goal): goal.numerator}
    return columns if goal.denominator is None else columns | {goal.denominator: goal.denominator}


def _share(experiment: Experiment, day: int) -> float | None:
    """The treatments' share of the traffic on one day of an experiment; None on a day on which it changed."""
    start = experiment.started_at
    assert start is not None
    begins, ends = start + timedelta(days=day), start + timedelta(days=day + 1)
    known = [each for each in experiment.history if each.since <= begins]
    if any(begins < each.since < ends for each in experiment.history):
        return None
    if known:
        coverage, weights = known[-1].coverage, known[-1].weights
    else:
        coverage, weights = experiment.coverage, {each.name: each.weight for each in experiment.variants}
    return coverage * (1.0 - weights.get(experiment.control_name, 0.0))


def before_sql(experiment: Experiment, exposures: str = "exposures") -> str | None:
    """Slates of control's policy in the days before the start, where it served the same placement.

    Args:
        experiment: Whose control.
        exposures: The view of all slates.

    Returns:
        SQL: unit_id, recommendation_id, occurred_at. None where the goal is none of slates.
    """
    start, goal, unit = experiment.started_at, goal_of(experiment), UNIT_KEYS.get(experiment.unit)
    if start is None or goal is None or unit is None or goal.denominator is None:
        return None
    if not {goal.numerator, goal.denominator} <= OF_SLATES:
        return None
    policy = next(each.policy for each in experiment.variants if each.name == experiment.control_name)
    place = "" if experiment.placement == "*" else f" AND placement = {text(experiment.placement)}"
    return (
        f"SELECT {unit} AS unit_id, recommendation_id, occurred_at FROM {exposures} "
        f"WHERE tenant = {text(experiment.tenant)} AND policy = {text(policy)} AND NOT shadow AND NOT is_bot{place} "
        f"AND {unit} IS NOT NULL AND occurred_at < TIMESTAMPTZ {text(start.isoformat())} "
        f"AND occurred_at >= TIMESTAMPTZ {text((start - timedelta(days=DAYS_BEFORE)).isoformat())}"
    )


def _before(database: Database, experiment: Experiment, goal: Metric) -> Sequence[Daily]:
    """Control's policy on the days before the start; only for goals of slates."""
    if before_sql(experiment) is None or experiment.started_at is None:
        return []
    key, tenant = event_key(experiment), text(experiment.tenant)
    since = text((experiment.started_at - timedelta(days=DAYS_BEFORE)).isoformat())
    day = f"CAST(floor((epoch(occurred_at) - {experiment.started_at.timestamp()!r}) / {DAY_S}) AS INTEGER)"
    answers = (
        f"SELECT {key} AS unit_id, recommendation_id, count(*) FILTER (WHERE name = 'select_item') AS clicks, "
        f"count(*) FILTER (WHERE name = 'view_item_list') AS impressions FROM events WHERE tenant = {tenant} "
        "AND NOT is_bot AND NOT duplicate AND recommendation_id IS NOT NULL "
        f"AND name IN ('select_item', 'view_item_list') AND occurred_at >= TIMESTAMPTZ {since} "
        f"GROUP BY {key}, recommendation_id"
    )
    values = {"exposures": "count(*)"} | {name: f"sum(coalesce({name}, 0))" for name in ("clicks", "impressions")}
    shown = ", ".join(f"{values[raw]} AS {identifier(name)}" for name, raw in _named(goal).items())
    database.execute(
        f"CREATE OR REPLACE TEMP TABLE daily_before AS SELECT {text(experiment.control_name)} AS variant, day, {shown} "
        f"FROM (SELECT unit_id, recommendation_id, {day} AS day FROM slates_before) "
        f"LEFT JOIN ({answers}) USING (unit_id, recommendation_id) GROUP BY unit_id, day"
    )
    found = exact_moments(database, "daily_before", list(_named(goal)), ("day",))
    return [Daily(int(key[0]), of, 0.0) for key, of in found.items()]
