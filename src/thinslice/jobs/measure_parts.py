"""Counts an experiment part by part, each holding all that some of the units did: little memory, exact sums."""

import json
import math
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import msgspec
import numpy as np

from thinslice.errors import BadInput
from thinslice.experiments.evidence import capped_columns, metric_columns, raw_columns
from thinslice.experiments.tallies import Column, Tally, exact_counts, quantile_of_counts, quoted
from thinslice.jobs.interactions import count_meeting
from thinslice.jobs.watch import Some
from thinslice.metrics import acts_sql, past_sql, sightings_sql, units_sql
from thinslice.metrics.statistics import Database, rows_of
from thinslice.metrics.unit_table import (
    ORDER_COLUMNS,
    PAST_COLUMNS,
    VECTOR,
    event_unit,
    identifier,
    opened_sql,
    openings_sql,
    text,
)
from thinslice.records import Experiment
from thinslice.stats import EARLY_DAYS, LATE_FROM

PERIODS = 30
"""At most so many points has the curve of the cumulative effect."""

DAY_S = 86_400

STEP = 2**16
"""A period and a day since the first exposure are one number: the period so many times, and the day."""

TILT = 2**20
"""Days on the log scale are counted in so many steps, so that their sums are whole numbers."""


class Parts(NamedTuple):
    """How an experiment's rows are looked at: part by part.

    Attributes:
        shows: For each part the statements after which the views `exposure_variants`, `events` and `orders` hold it,
            which is all rows of some of the units.
        vector: The logged probabilities of an exposure as text, in SQL.
        contexts: All (variant, probabilities, segments…) in the order of letters, where `exposure_variants` has their
            numbers as `context_code` and `variant_code`.
        some: How the checks of what variants share look at some of the units.
    """

    shows: Sequence[Sequence[str]] = ((),)
    vector: str = VECTOR
    contexts: Sequence[Sequence[str]] = ()
    some: Some | None = None


class Counted(NamedTuple):
    """What was counted.

    Attributes:
        experiment: With caps that are whole numbers.
        tally: By name: `units`, `segment 0`…, `curve`, `ages`, `active`, `change`, `values METRIC`, `mixed`, `bots`,
            `served`, `seen`, `meets OTHER`; `thinslice.experiments.gathering` reads it.
        columns: The columns of `units`, segments and curve: metric columns, then those of the past.
        pasts: Metric column → the column that counts the same before the first exposure.
        start: The moment (seconds) from which days and periods are counted; None when nobody was exposed.
        width: Seconds of a period.
    """

    experiment: Experiment
    tally: Tally
    columns: Sequence[str]
    pasts: dict[str, str]
    start: float | None
    width: float


def goal_columns(experiment: Experiment) -> list[str]:
    """The columns of the goal: whether its effect lasts is looked at day by day."""
    goal = next((metric for metric in experiment.metrics if metric.role == "goal" and metric.quantile is None), None)
    return [] if goal is None else metric_columns(msgspec.structs.replace(experiment, metrics=[goal]))


def count_parts(
    database: Database, experiment: Experiment, until: datetime, parts: Parts, others: Collection[Experiment] = ()
) -> Counted:
    """Counts every part.

    Args:
        database: Where the views are.
        experiment: Its units are visitors, users or sessions.
        until: Only what happened before.
        parts: How to look at its rows; with more than one the experiment has to have a start.
        others: Experiments that may share units.

    Raises:
        BadInput: Exposures name a variant that the file does not.
    """
    experiment, served = _with_whole_caps(database, experiment, until, parts)
    pasts = {}
    if experiment.covariate_days is not None:
        pasts = {column: f"past {column}" for column in raw_columns(experiment) if column in PAST_COLUMNS}
    columns = [*metric_columns(experiment), *pasts.values()]
    part = _Part(database, experiment, until, parts, Tally(), pasts)
    for at, statements in enumerate(parts.shows):
        for statement in statements:
            database.execute(statement)
        if part.units(served[at] if served else _served(database, experiment, until, parts, at)):
            part.steps()
            part.totals()
            part.ages()
            part.sightings()
            for other in others:
                count_meeting(database, part.tally, experiment, other, until, parts.vector, part.named)
        if len(parts.shows) > 1:
            database.execute(f"DROP TABLE served_units_{at}")
    start = part.start
    return Counted(experiment, part.tally, columns, pasts, start, 0.0 if start is None else _width(start, until))


def _width(start: float, until: datetime) -> float:
    return max((until.timestamp() - start) / PERIODS, 1e-3)


def _served(database: Database, experiment: Experiment, until: datetime, parts: Parts, at: int) -> str:
    """Makes the table of the units in one part; how it is read, in SQL."""
    table, openings = f"served_units_{at}", openings_sql(experiment, until, parts.contexts)
    units = units_sql(experiment, until, parts.vector) if openings is None else openings
    database.execute(f"CREATE OR REPLACE TEMP TABLE {table} AS {units}")
    return table if openings is None else f"({opened_sql(experiment, table, parts.contexts)})"


def _with_whole_caps(
    database: Database, experiment: Experiment, until: datetime, parts: Parts
) -> tuple[Experiment, list[str]]:
    """Caps as whole numbers: what is counted is whole, and a quantile is that of all units together.

    Returns:
        The experiment, and each part's units where they had to be looked up for it, in SQL.
    """
    open_caps = {metric.numerator for metric in experiment.metrics if metric.cap is None and metric.cap_quantile}
    served, tally = [], Tally()
    for at, statements in enumerate(parts.shows if open_caps else ()):
        for statement in statements:
            database.execute(statement)
        served.append(_served(database, experiment, until, parts, at))
        for column in sorted(open_caps):
            tally.add(column, _totals_of(database, experiment, until, served[-1], column))
    metrics = []
    for metric in experiment.metrics:
        cap = metric.cap
        if cap is None and metric.cap_quantile is not None:
            counts = {key[0]: number for key, (number,) in tally.of(metric.numerator).items()}
            cap = quantile_of_counts(counts, metric.cap_quantile)
        metrics.append(metric if cap is None else msgspec.structs.replace(metric, cap=float(math.floor(cap))))
    return msgspec.structs.replace(experiment, metrics=metrics), served


def _totals_of(
    database: Database, experiment: Experiment, until: datetime, served: str, column: str
) -> Iterable[tuple[tuple[int], tuple[int]]]:
    """(a unit's sum of a column, how many units have it)."""
    (kept,) = rows_of(database, f"SELECT count(*) AS n FROM {served} AS u WHERE NOT mixed AND NOT is_bot")
    units = served
    if column in ORDER_COLUMNS:
        bought = f"SELECT {event_unit(experiment)} FROM orders WHERE tenant = {text(experiment.tenant)}"
        units = f"(SELECT * FROM {served} AS u WHERE unit_id IN ({bought}))"
    acts = acts_sql(experiment, until, units=units, columns=[column])
    sums = f"SELECT sum({column}) AS total FROM ({acts}) GROUP BY unit_id"
    rows = rows_of(database, f"SELECT total, count(*) AS n FROM ({sums}) GROUP BY total")
    found = [((int(row["total"]),), (int(row["n"]),)) for row in rows]
    return [*found, ((0,), (int(kept["n"]) - sum(number for _, (number,) in found),))]


class _Part:
    """The tables of one part, made anew for each, and the tally of all.

    What joins and groups is numbers: `cell` stands for a variant under one vector of probabilities.
    """

    def __init__(
        self, database: Database, experiment: Experiment, until: datetime, parts: Parts, tally: Tally,
        pasts: dict[str, str],
    ) -> None:  # fmt: skip
        self.tally = tally
        self.start = None if experiment.started_at is None else experiment.started_at.timestamp()
        self.named: dict[int, tuple[str, tuple[float, ...]]] = {}
        self._database = database
        self._experiment = experiment
        self._until = until
        self._parts = parts
        self._pasts = pasts
        self._columns = metric_columns(experiment)
        self._goal = goal_columns(experiment)

    def units(self, served: str) -> bool:
        """Makes `experiment_units`, one row a unit that counts, of those that were served; False without any."""
        experiment, names = self._experiment, [variant.name for variant in self._experiment.variants]
        groups = self._rows(f"SELECT DISTINCT propensities, variant FROM {served} AS u")
        vectors = {}
        for row in groups:
            logged = json.loads(row["propensities"])
            strange = sorted({row["variant"], *logged} - set(names))
            if strange:
                raise BadInput(
                    f"exposures of experiment {experiment.name!r} name a variant {strange[0]!r} "
                    f"(there is: {', '.join(names)}).",
                    hint="Start the changed experiment under a new name.",
                )
            vectors[row["propensities"]] = tuple(float(logged.get(name, 0.0)) for name in names)
        bots = self._rows(
            f"SELECT propensities, variant, count(*) AS n FROM {served} AS u WHERE is_bot AND NOT mixed GROUP BY ALL"
        )
        self.tally.add("bots", [((row["variant"], vectors[row["propensities"]]), (int(row["n"]),)) for row in bots])
        (found,) = self._rows(
            "SELECT count_if(mixed) AS mixed, count_if(NOT mixed) AS kept, epoch(min(first_exposure)) AS at "
            f"FROM {served} AS u WHERE NOT is_bot"
        )
        self.tally.add("mixed", [((), (int(found["mixed"] or 0),))])
        if found["at"] is None:
            return False
        if self.start is None:
            self.start = float(found["at"])
        if not found["kept"]:
            return False
        pairs = sorted((row["variant"], row["propensities"]) for row in groups)
        self.named = {cell: (variant, vectors[vector]) for cell, (variant, vector) in enumerate(pairs)}
        known = ", ".join(f"({text(vector)}, {text(name)}, {cell})" for cell, (name, vector) in enumerate(pairs))
        segments = "".join(f", u.s{at}" for at in range(len(experiment.segments)))
        past, join = "", ""
        if self._pasts:
            past = "".join(
                f", CAST(coalesce(past.{column}, 0) AS BIGINT) AS {identifier(name)}"
                for column, name in self._pasts.items()
            )
            join = f"LEFT JOIN ({past_sql(experiment, served)}) AS past USING (unit_id)"
        self._make(
            "experiment_units",
            f"SELECT u.unit_id, cells.cell AS cell, u.slates, u.first_exposure, "
            f"CAST(floor((epoch(first_exposure) - {self.start!r}) / {DAY_S}) AS INTEGER) AS entry, "
            f"CAST(floor(({self._until.timestamp()!r} - epoch(first_exposure)) / {DAY_S}) AS INTEGER) AS seen_days"
            f"{segments}{past} FROM {served} AS u "
            f"JOIN (VALUES {known}) AS cells(propensities, variant, cell) USING (propensities, variant) {join} "
            "WHERE NOT is_bot AND NOT mixed",
        )
        return True

    def steps(self) -> None:
        """Makes `unit_steps`: a row per unit, period and day in which it did something, with its sums before and after.

        Column i is `a{i}` after it and `b{i}` before; what was known before the first exposure comes with the first.
        """
        assert self.start is not None
        raw = raw_columns(self._experiment)
        few = [name for name in raw if name != "exposures"]
        self._make("unit_slates", self._deeds(["exposures"], ["count(*) AS exposures"]))
        deeds = self._running("unit_slates", raw, raw)
        if few:
            # Most units are shown slates and do nothing else: of them nothing else is summed.
            self._make("unit_acts", self._deeds(few, [f"CAST(sum({name}) AS BIGINT) AS {name}" for name in few]))
            names = ", ".join(f"coalesce({name}, 0) AS {name}" for name in raw)
            active = (
                f"(SELECT coalesce(s.unit_id, o.unit_id) AS unit_id, coalesce(s.step, o.step) AS step, {names} FROM "
                "(SELECT * FROM unit_slates SEMI JOIN unit_acts USING (unit_id)) AS s FULL JOIN unit_acts AS o "
                "ON s.unit_id = o.unit_id AND s.step = o.step)"
            )
            still = "(SELECT * FROM unit_slates ANTI JOIN unit_acts USING (unit_id))"
            deeds = f"{self._running(active, raw, raw)} UNION ALL {self._running(still, raw, ['exposures'])}"
        capped = capped_columns(self._experiment)
        parts = []
        for at, name in enumerate(self._columns):
            source, cap = capped.get(name, (name, None))
            after = identifier(f"to {source}")
            before = f"{after} - {source}"
            if cap is not None:
                after, before = f"least({after}, {int(cap)})", f"least({before}, {int(cap)})"
            parts.append(f"{after} AS a{at}, {before} AS b{at}")
        for at, name in enumerate(self._pasts.values(), len(self._columns)):
            past = f"u.{identifier(name)}"
            parts.append(f"{past} AS a{at}, CASE WHEN is_new THEN 0 ELSE {past} END AS b{at}")
        self._make(
            "unit_steps",
            f"SELECT d.unit_id AS unit_id, u.cell AS cell, u.seen_days AS seen_days, step // {STEP} AS period, "
            f"step % {STEP} AS age, is_new, is_last, {', '.join(parts)} FROM ({deeds}) AS d "
            "JOIN experiment_units AS u ON u.unit_id = d.unit_id",
        )
        columns = [Column(f"a{at}", f"b{at}") for at in range(len(self._columns) + len(self._pasts))]
        self._count("curve", "unit_steps", columns, ["period"], count="count_if(is_new)")

    def _running(self, rows: str, columns: Sequence[str], counted: Collection[str]) -> str:
        """Rows by unit and step with sums so far; columns that are not counted are zeros. In SQL."""
        each = "(PARTITION BY unit_id ORDER BY step)"
        so_far = f"OVER {each[:-1]} ROWS UNBOUNDED PRECEDING)"
        sums = "".join(
            f", {name}, CAST(sum({name}) {so_far} AS BIGINT) AS {identifier(f'to {name}')}"
            if name in counted
            else f", 0 AS {name}, 0 AS {identifier(f'to {name}')}"
            for name in columns
        )
        return (
            f"SELECT unit_id, step, row_number() OVER {each} = 1 AS is_new, lead(step) OVER {each} IS NULL AS is_last"
            f"{sums} FROM {rows} AS r"
        )

    def _deeds(self, columns: Sequence[str], sums: Sequence[str]) -> str:
        """Sums of what each unit did by step, which is a period and a day since its first exposure, in SQL."""
        assert self.start is not None
        since, span = round(self.start * 10**6), round(_width(self.start, self._until) * PERIODS * 10**6)
        period = f"least((epoch_us(done_at) - {since}) * {PERIODS} // {span}, {PERIODS - 1})"
        age = f"(epoch_us(done_at) - epoch_us(first_exposure)) // {DAY_S * 10**6}"
        units = (
            "(SELECT unit_id, 0 AS key, 0 AS variant, first_exposure, false AS mixed, false AS is_bot "
            "FROM experiment_units)"
        )
        acts = acts_sql(self._experiment, self._until, units=units, columns=columns)
        return (
            f"SELECT {', '.join(['unit_id', 'step', *sums])} FROM (SELECT *, {period} * {STEP} + {age} AS step "
            f"FROM ({acts})) GROUP BY unit_id, step"
        )

    def totals(self) -> None:
        """Makes `unit_totals`, one row a unit with its columns and those of the early and late days, and counts it."""
        scales = self._scales()
        changes, sums = [], []
        for name in self._goal if scales else []:
            at = self._columns.index(name)
            step = f"(a{at} - b{at})"
            changes += [f"early {name}", f"late {name}", f"tilt {name}"]
            for column, part, where in zip(
                changes[-3:], (step, step, f"{step} * CAST(round((ln(1 + age) - z_mean) * {TILT}) AS BIGINT)"),
                (f"age < {EARLY_DAYS}", f"age >= {LATE_FROM}", "true"), strict=True,
            ):  # fmt: skip
                sums.append(
                    f"CAST(coalesce(sum(CASE WHEN {where} THEN {part} END), 0) AS BIGINT) AS {identifier(column)}"
                )
        known = [f"t.a{at} AS {identifier(name)}" for at, name in enumerate([*self._columns, *self._pasts.values()])]
        known += [f"u.s{at} AS s{at}" for at in range(len(self._experiment.segments))]
        known += [f"coalesce(c.{identifier(name)}, 0) AS {identifier(name)}" for name in changes]
        changed = (
            f"LEFT JOIN (SELECT unit_id, {', '.join(sums)} FROM unit_steps JOIN (VALUES {scales}) AS scales(days, "
            f"z_mean) ON days = seen_days WHERE age < seen_days AND {self._changed()} GROUP BY unit_id) AS c "
            "ON c.unit_id = t.unit_id"
        )
        self._make(
            "unit_totals",
            f"SELECT t.unit_id AS unit_id, t.cell AS cell, u.entry AS entry, t.seen_days AS seen_days, "
            f"{', '.join(known)} FROM unit_steps AS t JOIN experiment_units AS u ON u.unit_id = t.unit_id "
            f"{changed if changes else ''} WHERE t.is_last",
        )
        columns = quoted([*self._columns, *self._pasts.values()])
        self._count("units", "unit_totals", columns, ["entry", "seen_days"])
        for at in range(len(self._experiment.segments)):
            self._count(f"segment {at}", "unit_totals", columns, [f"s{at}"])
        if changes:
            late = f"seen_days > {LATE_FROM}"
            self._count("change", "unit_totals", quoted(changes), ["entry", "seen_days"], where=late)
        for metric in self._experiment.metrics:
            if metric.quantile is not None:
                self._count(f"values {metric.name}", "unit_totals", [], [identifier(metric.numerator)])

    def ages(self) -> None:
        """Counts the goal by whole days since the first exposure."""
        if not self._goal:
            return
        self._count("active", "unit_steps", [], ["age"], where="age < seen_days")
        places = [self._columns.index(name) for name in self._goal]
        sums = ", ".join(f"CAST(sum(a{at} - b{at}) AS BIGINT) AS g{at}" for at in places)
        self._make(
            "unit_ages",
            f"SELECT min(cell) AS cell, age, {sums} FROM unit_steps WHERE age < seen_days AND {self._changed()} "
            "GROUP BY unit_id, age",
        )
        self._count("ages", "unit_ages", [Column(f"g{at}") for at in places], ["age"])

    def sightings(self) -> None:
        """Counts slates that were served, and those of them that were reported as seen."""
        tenant = text(self._experiment.tenant)
        listed = self._rows(f"SELECT 1 FROM events WHERE tenant = {tenant} AND name = 'view_item_list' LIMIT 1")
        units = "(SELECT unit_id, cell AS variant, slates, false AS mixed FROM experiment_units)"
        rows = "SELECT cell, slates AS served, CAST(0 AS BIGINT) AS seen FROM experiment_units"
        if listed:
            found = sightings_sql(self._experiment, self._until, units)
            rows = f"SELECT variant AS cell, served, seen FROM ({found})"
            self.tally.add("seen", [((), (1,))])
        self._make("unit_sightings", rows)
        self._count("served", "unit_sightings", quoted(["served", "seen"]), [])

    def _changed(self) -> str:
        """Which steps changed the goal, in SQL."""
        return f"({' OR '.join(f'a{at} <> b{at}' for at in map(self._columns.index, self._goal))})"

    def _scales(self) -> str:
        """Days that a unit could be seen → the mean of log(1 + age) over them, as rows of SQL."""
        if not self._goal:
            return ""
        days = self._rows(f"SELECT DISTINCT seen_days FROM experiment_units WHERE seen_days > {LATE_FROM}")
        return ", ".join(
            f"({day}, {float(log_days(day).mean())!r}::DOUBLE)" for day in sorted(row["seen_days"] for row in days)
        )

    def _count(
        self, what: str, table: str, columns: Sequence[Column], by: Sequence[str], *, where: str = "true",
        count: str = "count(*)",
    ) -> None:  # fmt: skip
        rows = exact_counts(self._database, table, columns, ["cell", *by], where=where, count=count)
        self.tally.add(what, [((*self.named[key[0]], *key[1:]), counts) for key, counts in rows])

    def _make(self, table: str, sql: str) -> None:
        self._database.execute(f"CREATE OR REPLACE TEMP TABLE {table} AS {sql}")

    def _rows(self, sql: str) -> list[dict[str, Any]]:
        return rows_of(self._database, sql)


def log_days(days: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """log(1 + age) of so many days."""
    return np.log1p(np.arange(days))
