"""The two tables that a report is counted from, made of the lake: who was exposed when, and what each did since."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import numpy as np

from thinslice.errors import BadInput
from thinslice.experiments.counting import PERIODS_TABLE, UNITS, Shape, capped_sql, with_caps
from thinslice.experiments.evidence import Split, raw_columns
from thinslice.metrics import acts_sql, past_sql, sightings_sql, units_sql
from thinslice.metrics.statistics import Database, moments_by, rows_of
from thinslice.metrics.unit_table import PAST_COLUMNS, text
from thinslice.records import Experiment
from thinslice.stats import Moments

PERIODS = 30
"""At most so many points has the curve of the cumulative effect."""

DAY_S = 86_400


class Tables(NamedTuple):
    """What was made.

    Attributes:
        experiment: With caps that are numbers.
        shape: What the tables hold; None when no unit was exposed.
        bots: How units that were left out as bots had been assigned.
        served: Variant → moments of the slates that a unit was served and of those that were reported as seen.
    """

    experiment: Experiment
    shape: Shape | None
    bots: Split | None
    served: Mapping[str, Moments] = {}


def make_tables(database: Database, experiment: Experiment, until: datetime) -> Tables:
    """Makes `experiment_units` and `unit_periods` from the views `exposure_variants`, `events` and `orders`.

    Raises:
        BadInput: Exposures name a variant that the file does not.
    """
    names = [variant.name for variant in experiment.variants]
    database.execute(f"CREATE OR REPLACE TEMP TABLE served_units AS {units_sql(experiment, until)}")
    vectors = _vectors(database, experiment, names)
    bots = _bots(database, names, vectors)
    kept = "NOT is_bot AND NOT mixed"
    found = rows_of(
        database,
        f"SELECT count(*) AS n, epoch(min(first_exposure)) AS at, count(DISTINCT propensities) FILTER (WHERE {kept}) "
        "AS vectors FROM served_units WHERE NOT is_bot",
    )[0]
    if not found["n"]:
        return Tables(experiment, None, bots)
    start = found["at"] if experiment.started_at is None else experiment.started_at.timestamp()
    pasts = _make_units(database, experiment, until, start, vectors)
    experiment, labels = _make_periods(database, experiment, until, start)
    served = _sightings(database, experiment, until)
    if experiment.unit != "cluster":
        database.execute(
            f"CREATE OR REPLACE TEMP TABLE {UNITS} AS SELECT * REPLACE (key AS unit_id), unit_id AS name FROM {UNITS}"
        )
    entries = rows_of(database, f"SELECT DISTINCT entry FROM {UNITS} WHERE NOT mixed")
    first_day = datetime.fromtimestamp(start, UTC)
    days = {row["entry"]: (first_day + timedelta(days=row["entry"])).date().isoformat() for row in entries}
    shape = Shape(
        allocations=True, weighted=found["vectors"] > 1, clusters=experiment.unit == "cluster",
        segments=experiment.segments, pasts=pasts, labels=labels, days=days,
    )  # fmt: skip
    return Tables(experiment, shape, bots, served)


def _sightings(database: Database, experiment: Experiment, until: datetime) -> dict[str, Moments]:
    tenant = text(experiment.tenant)
    if not rows_of(database, f"SELECT 1 FROM events WHERE tenant = {tenant} AND name = 'view_item_list' LIMIT 1"):
        return {}
    rows = f"({sightings_sql(experiment, until, units=UNITS)})"
    return moments_by(database, rows, ["served", "seen"]).get((), {})


def _vectors(database: Database, experiment: Experiment, names: Sequence[str]) -> dict[str, tuple[float, ...]]:
    """Logged probabilities as text → as numbers in the experiment's order."""
    vectors = {}
    for row in rows_of(database, "SELECT DISTINCT propensities, variant FROM served_units"):
        logged = json.loads(row["propensities"])
        strange = sorted({row["variant"], *logged} - set(names))
        if strange:
            known = ", ".join(names)
            raise BadInput(
                f"exposures of experiment {experiment.name!r} name a variant {strange[0]!r} (there is: {known}).",
                hint="Start the changed experiment under a new name.",
            )
        vectors[row["propensities"]] = tuple(float(logged.get(name, 0.0)) for name in names)
    return vectors


def _bots(database: Database, names: Sequence[str], vectors: dict[str, tuple[float, ...]]) -> Split | None:
    groups: dict[tuple[float, ...], list[float]] = {}
    for row in rows_of(
        database,
        "SELECT propensities, variant, count(*) AS n FROM served_units WHERE is_bot AND NOT mixed GROUP BY ALL",
    ):
        groups.setdefault(vectors[row["propensities"]], [0.0] * len(names))[names.index(row["variant"])] += row["n"]
    return Split(np.array(list(groups.values())), np.array(list(groups))) if groups else None


def _make_units(
    database: Database, experiment: Experiment, until: datetime, start: float, vectors: dict[str, tuple[float, ...]]
) -> dict[str, str]:
    """Makes `experiment_units`; returns which metric column has a past.

    Where units are randomized one by one their key is a number: what follows joins and sorts by it, and the id stays as
    `name`.
    """
    known = ", ".join(f"({text(key)}, {', '.join(f'{p!r}::DOUBLE' for p in of)})" for key, of in vectors.items())
    shares = ", ".join(f"p{at}" for at in range(len(experiment.variants)))
    pasts = {}
    past = ""
    if experiment.covariate_days is not None:
        pasts = {column: f"past {column}" for column in raw_columns(experiment) if column in PAST_COLUMNS}
    if pasts:
        names = ", ".join(f'coalesce(past.{column}, 0) AS "{name}"' for column, name in pasts.items())
        past = f", {names}"
    join = f"LEFT JOIN ({past_sql(experiment, 'served_units')}) AS past USING (unit_id)" if pasts else ""
    number = "" if experiment.unit == "cluster" else " REPLACE (row_number() OVER () AS key)"
    database.execute(
        f"CREATE OR REPLACE TEMP TABLE {UNITS} AS SELECT u.*{number}, "
        f"CAST(floor((epoch(first_exposure) - {start!r}) / {DAY_S}) AS INTEGER) AS entry, "
        f"CAST(floor(({until.timestamp()!r} - epoch(first_exposure)) / {DAY_S}) AS INTEGER) AS seen_days, "
        f"CAST(floor((epoch(first_exposure) - {start!r}) / {DAY_S}) AS INTEGER) AS batch, {shares}{past} "
        f"FROM served_units AS u JOIN (VALUES {known}) AS vectors(propensities, {shares}) USING (propensities) {join} "
        "WHERE NOT is_bot"
    )
    return pasts


def _make_periods(
    database: Database, experiment: Experiment, until: datetime, start: float
) -> tuple[Experiment, dict[int, Any]]:
    """Makes `unit_periods`; returns the experiment with caps as numbers, and the ends of the periods."""
    width = max((until.timestamp() - start) / PERIODS, 1e-3)
    columns = raw_columns(experiment)
    sums = ", ".join(f"sum({name}) AS {name}" for name in columns)
    period = f"least(CAST(floor((epoch(done_at) - {start!r}) / {width!r}) AS INTEGER), {PERIODS - 1})"
    age = f"CAST(floor((epoch(done_at) - epoch(first_exposure)) / {DAY_S}) AS INTEGER)"
    counted = list(dict.fromkeys(["exposures", *columns]))  # each unit has an exposure, so that none gets lost
    deeds = acts_sql(experiment, until, units=UNITS, columns=counted)
    unit = "unit_id" if experiment.unit == "cluster" else "key"
    database.execute(
        f"CREATE OR REPLACE TEMP TABLE unit_deeds AS SELECT {unit} AS unit_id, any_value(key) AS key, "
        f"any_value(variant) AS variant, {period} AS period, {age} AS age, {sums} FROM ({deeds}) "
        f"GROUP BY {unit}, period, age"
    )
    experiment = with_caps(database, experiment, "unit_deeds")
    database.execute(
        f"CREATE OR REPLACE TEMP TABLE {PERIODS_TABLE} AS {capped_sql(experiment, 'SELECT * FROM unit_deeds')}"
    )
    ends = {at: datetime.fromtimestamp(start + (at + 1) * width, until.tzinfo) for at in range(PERIODS)}
    return experiment, ends
