"""Watches for what variants share, on the lake: the goal day by day, and what neighbors do to control."""

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from thinslice.experiments.evidence import Daily, Spillover
from thinslice.jobs.daily import DAILY_UNITS, count_days
from thinslice.jobs.neighbors import spillovers
from thinslice.metrics.statistics import Database, moments_by, rows_of
from thinslice.metrics.unit_table import served_sql, text
from thinslice.records import Experiment
from thinslice.stats import Moments
from thinslice.store.lake import Lake

MOST_ROWS = 10_000_000
"""A lake with more slates is not read a second time for this: these checks are then absent from its reports."""

MOST_IDS = 1_000_000
"""So many slates are looked at for being logged twice."""

MEMORY_MB = 2_048


class Watched(NamedTuple):
    """What was seen; empty where there is nothing to compare.

    Attributes:
        daily: The goal day by day.
        spillovers: What neighbors do to control.
        served_by: Segment → value → variant → moments of slates that were served and reported as seen.
        duplicates: Variant → (slates that were looked at, those of them that were logged more than once).
    """

    daily: Sequence[Daily] = ()
    spillovers: Sequence[Spillover] = ()
    served_by: Mapping[str, Mapping[str, Mapping[str, Moments]]] = {}
    duplicates: Mapping[str, tuple[int, int]] = {}


NOTHING = Watched()
"""Nobody looked."""


def watch(lake: Lake, experiment: Experiment, until: datetime) -> Watched:
    """What a report's checks of shared training, ramps, cold starts and neighbors need.

    Args:
        lake: The tenant's.
        experiment: With the metrics that it is judged by.
        until: Only what happened before.
    """
    if experiment.started_at is None or experiment.unit == "block":
        return NOTHING
    database = lake.connect(tenant=experiment.tenant, memory_mb=MEMORY_MB)
    try:
        if rows_of(database, "SELECT count(*) AS n FROM exposures")[0]["n"] > MOST_ROWS:
            return NOTHING
        counted = count_days(database, experiment, until)
        steady = len({each.weights.get(experiment.control_name) for each in experiment.history}) <= 1
        found = spillovers(database, experiment) if counted.days and steady and not counted.sampled else []
        seen = _seen(database, experiment, until) if counted.days else {}
        return Watched(counted.days, found, seen, _duplicates(database, experiment, until))
    finally:
        database.close()


def _seen(database: Database, experiment: Experiment, until: datetime) -> dict[str, dict[str, dict[str, Moments]]]:
    """Slates that were served and reported as seen, by segment; empty where pages report nothing."""
    tenant = text(experiment.tenant)
    if not rows_of(database, f"SELECT 1 FROM events WHERE tenant = {tenant} AND name = 'view_item_list' LIMIT 1"):
        return {}
    unit = "visitor_id" if experiment.unit == "cluster" else "unit_id"
    if experiment.rerandomize_days is not None:
        return {}
    reported = (
        f"SELECT {unit} AS unit_id, count(*) AS seen FROM (SELECT {unit}, recommendation_id FROM exposure_variants "
        f"WHERE {served_sql(experiment, until)}) SEMI JOIN (SELECT recommendation_id FROM events "
        f"WHERE tenant = {tenant} AND name = 'view_item_list' AND occurred_at < TIMESTAMPTZ {text(until.isoformat())}) "
        f"USING (recommendation_id) GROUP BY {unit}"
    )
    found: dict[str, dict[str, dict[str, Moments]]] = {}
    for at, name in enumerate(experiment.segments):
        rows = (
            f"(SELECT variant, s{at} AS value, slates AS served, coalesce(seen, 0) AS seen FROM {DAILY_UNITS} "
            f"LEFT JOIN ({reported}) USING (unit_id) WHERE NOT pooled)"
        )
        found[name] = {
            str(key[0]): of for key, of in moments_by(database, rows, ["served", "seen"], ("value",)).items()
        }
    return found


def _duplicates(database: Database, experiment: Experiment, until: datetime) -> dict[str, tuple[int, int]]:
    """Slates, and those that were logged more than once, of some ids that are drawn by their hash."""
    whole = rows_of(database, f"SELECT count(*) AS n FROM exposure_variants WHERE {served_sql(experiment, until)}")
    each = max(1, math.ceil(int(whole[0]["n"]) / MOST_IDS))
    rows = rows_of(
        database,
        "SELECT variant, count(*) AS n, count(*) FILTER (WHERE times > 1) AS again FROM (SELECT variant, "
        f"count(*) AS times FROM exposure_variants WHERE {served_sql(experiment, until)} AND "
        f"hash(recommendation_id) % {each} = 0 GROUP BY variant, recommendation_id) GROUP BY variant ORDER BY variant",
    )
    return {row["variant"]: (int(row["n"]), int(row["again"])) for row in rows}
