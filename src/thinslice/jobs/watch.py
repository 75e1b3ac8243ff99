"""Watches for what variants share, on the lake: the goal day by day, and what neighbors do to control."""

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from thinslice.experiments.evidence import Daily, Spillover
from thinslice.experiments.tallies import exact_moments
from thinslice.jobs.daily import DAILY_UNITS, before_sql, count_days
from thinslice.jobs.neighbors import spillovers
from thinslice.metrics.statistics import Database, rows_of
from thinslice.metrics.unit_table import VECTOR, event_key, served_sql, text
from thinslice.records import Experiment
from thinslice.stats import Moments
from thinslice.store.lake import Lake
from thinslice.store.views import EXPOSURES_BY_EXPERIMENT, ROWS

MOST_ROWS = 10_000_000
"""A lake with more slates is not read for neighbors, nor for any of this where an experiment keeps no journal."""

MOST_SLATES = 2_000_000
"""About so many slates are looked at: of a larger experiment some units stand for all."""

MEMORY_MB = 2_048


NOTHING_BEFORE = "SELECT '' AS unit_id, '' AS recommendation_id, now() AS occurred_at WHERE false"


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


class Some(NamedTuple):
    """How some of an experiment's units are looked at: all while it is small, then those with the smallest hashes.

    Attributes:
        shows: The statements after which the views `exposure_variants`, `events`, `orders` and `slates_before` hold all
            rows of these units and no others, their ids as 64-bit hashes.
        one_in: One in so many units.
        vector: The logged probabilities of an exposure as text, in SQL.
    """

    shows: Sequence[str]
    one_in: int
    vector: str = VECTOR


def one_in(slates: int) -> int:
    """One in so many units of an experiment with so many slates is looked at."""
    return max(1, math.ceil(slates / MOST_SLATES))


def some_units(unit: str, each: int) -> str:
    """Whether a unit is one of those, in SQL over the hash of its id."""
    return "true" if each == 1 else f"{unit} < {2**64 // each}::UBIGINT"


def watch(database: Database, experiment: Experiment, until: datetime, some: Some) -> Watched:
    """What a report's checks of shared training, ramps, cold starts and neighbors need.

    Args:
        database: From `Lake.connect`; its views are covered by others.
        experiment: With the metrics that it is judged by.
        until: Only what happened before.
        some: How to look at it.
    """
    if experiment.started_at is None or experiment.unit == "block":
        return NOTHING
    for statement in some.shows:
        database.execute(statement)
    days = count_days(database, experiment, until, some.vector)
    steady = len({each.weights.get(experiment.control_name) for each in experiment.history}) <= 1
    found = []
    if days and steady and some.one_in == 1 and _slates_of(database, f"{ROWS}.exposures") <= MOST_ROWS:
        found = spillovers(database, experiment)
    seen = _seen(database, experiment, until) if days else {}
    return Watched(days, found, seen, _duplicates(database, experiment, until))


def watch_rows(lake: Lake, experiment: Experiment, until: datetime) -> Watched:
    """The same from the rows of the lake, for experiments without a journal; nothing in a lake that is too large.

    Args:
        lake: The tenant's.
        experiment: With the metrics that it is judged by.
        until: Only what happened before.
    """
    database = lake.connect(tenant=experiment.tenant, memory_mb=MEMORY_MB)
    try:
        if _slates_of(database, "exposures") > MOST_ROWS:
            return NOTHING
        return watch(database, experiment, until, some_of_rows(database, experiment, until))
    finally:
        database.close()


def some_of_rows(database: Database, experiment: Experiment, until: datetime) -> Some:
    """How the rows of the lake are looked at.

    Args:
        database: From `Lake.connect`.
        experiment: Whose units.
        until: Only what happened before.
    """
    each = one_in(_slates_of(database, f"exposure_variants WHERE {served_sql(experiment, until)}"))
    key, ids = event_key(experiment), ["visitor_id", "session_id", "user_id"]
    rows = {table: f"{ROWS}.{table}" for table in ("exposures", "events", "orders")}
    rows["exposure_variants"] = f"({EXPOSURES_BY_EXPERIMENT.format(exposures=rows['exposures'])})"
    rows["slates_before"] = f"({before_sql(experiment, rows['exposures']) or NOTHING_BEFORE})"
    named = {
        "exposure_variants": ("visitor_id" if experiment.unit == "cluster" else "unit_id", [*ids, "unit_id"]),
        "exposures": (key, ids), "events": (key, ids), "orders": (key, ids), "slates_before": ("unit_id", ["unit_id"]),
    }  # fmt: skip
    shows = []
    for view, (unit, names) in named.items():
        slate = [] if view == "orders" else ["recommendation_id"]
        numbers = ", ".join(f"{hashed(name)} AS {name}" for name in [*names, *slate])
        shows.append(
            f"CREATE OR REPLACE TEMP VIEW {view} AS SELECT * REPLACE ({numbers}) FROM {rows[view]} "
            f"WHERE {some_units(f'hash({unit})', each)}"
        )
    return Some(shows, each)


def hashed(column: str) -> str:
    """A hash where there is something, in SQL: that of nothing is a number, too."""
    return f"CASE WHEN {column} IS NULL THEN NULL ELSE hash({column}) END"


def _slates_of(database: Database, source: str) -> int:
    return int(rows_of(database, f"SELECT count(*) AS n FROM {source}")[0]["n"])


def _seen(database: Database, experiment: Experiment, until: datetime) -> dict[str, dict[str, dict[str, Moments]]]:
    """Slates that were served and reported as seen, by segment; empty where pages report nothing."""
    tenant = text(experiment.tenant)
    if not rows_of(database, f"SELECT 1 FROM events WHERE tenant = {tenant} AND name = 'view_item_list' LIMIT 1"):
        return {}
    start = experiment.started_at
    if experiment.rerandomize_days is not None or start is None:
        return {}
    unit = "visitor_id" if experiment.unit == "cluster" else "unit_id"
    reported = (
        f"SELECT unit_id, count(*) AS seen FROM (SELECT {unit} AS unit_id, recommendation_id FROM exposure_variants "
        f"WHERE {served_sql(experiment, until)}) SEMI JOIN (SELECT {event_key(experiment)} AS unit_id, "
        f"recommendation_id FROM events WHERE tenant = {tenant} AND name = 'view_item_list' "
        f"AND occurred_at >= TIMESTAMPTZ {text(start.isoformat())} "
        f"AND occurred_at < TIMESTAMPTZ {text(until.isoformat())}) USING (unit_id, recommendation_id) GROUP BY unit_id"
    )
    values = "".join(f", s{at}" for at in range(len(experiment.segments)))
    database.execute(
        "CREATE OR REPLACE TEMP TABLE daily_seen AS SELECT variant, slates AS served, "
        f"coalesce(seen, 0) AS seen{values} FROM {DAILY_UNITS} LEFT JOIN ({reported}) USING (unit_id) WHERE NOT pooled"
    )
    return {
        name: {
            str(key[0]): of
            for key, of in exact_moments(database, "daily_seen", ["served", "seen"], (f"s{at}",)).items()
        }
        for at, name in enumerate(experiment.segments)
    }


def _duplicates(database: Database, experiment: Experiment, until: datetime) -> dict[str, tuple[int, int]]:
    """Slates, and those that were logged more than once."""
    rows = rows_of(
        database,
        "SELECT variant, count(*) AS n, count(*) FILTER (WHERE times > 1) AS again FROM (SELECT variant, "
        f"count(*) AS times FROM exposure_variants WHERE {served_sql(experiment, until)} "
        "GROUP BY variant, recommendation_id) GROUP BY variant ORDER BY variant",
    )
    return {row["variant"]: (int(row["n"]), int(row["again"])) for row in rows}
