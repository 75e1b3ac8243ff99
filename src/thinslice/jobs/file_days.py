"""The days of a file: periods of the curve, when each unit came, and what is missing."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import duckdb

from thinslice.errors import BadInput
from thinslice.jobs.file_question import Question
from thinslice.jobs.file_source import LINE
from thinslice.metrics.statistics import rows_of
from thinslice.metrics.unit_table import identifier
from thinslice.records import Check

PERIODS = 30
"""At most so many points has the curve of the cumulative effect."""

MOST_DAYS = 3_660
"""Whole numbers that span more than ten years are no days; they only put rows in order."""

DAY_OF = "day_of"
"""The table of the rows that count: line, number (of its day, from 0) and period."""

_NUMBERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "FLOAT", "DOUBLE", "DECIMAL")


class Days(NamedTuple):
    """What is known of time, and how it is asked for in SQL over `projected` and `day_of`.

    Attributes:
        labels: Period → the last day in it, as text; empty without days.
        entries: Day of a unit's first row → its label; empty where days cannot be counted (labels that are no dates).
        span: How many days lie between the first and the last, both included; 0 when unknown.
        findings: Missing days, and rows that lie before their unit's exposure.
        entry: SQL for a unit's first day, aggregated over its rows.
        seen: SQL for how many days of a unit are in the file.
        age: SQL for the days between a unit's first day and a row's.
    """

    labels: Mapping[int, Any] = {0: None}
    entries: Mapping[int, str] = {}
    span: int = 0
    findings: Sequence[Check] = ()
    entry: str = "NULL::INTEGER"
    seen: str = "0"
    age: str = "NULL::INTEGER"


def read_days(database: duckdb.DuckDBPyConnection, file: str, ask: Question, types: Mapping[str, str]) -> Days:
    """Makes the table `day_of` and tells what its days are.

    Times are days in UTC: those without a zone are read as UTC, those with one are turned into it.

    Raises:
        BadInput: Times of which some have a zone and others have none, or an exposure column of another kind.
    """
    if ask.day is None:
        database.execute(f"CREATE TEMP TABLE {DAY_OF} AS SELECT {LINE} AS line, 0 AS number, 0 AS period FROM source")
        return Days(labels={})
    kind, day = _as_day(database, file, ask.day, types)
    findings = []
    kept = "true"
    if ask.exposure is not None:
        exposed_kind, exposed = _as_day(database, file, ask.exposure, types)
        if exposed_kind != kind or kind == "text":
            raise BadInput(
                f"columns {ask.day!r} and {ask.exposure!r} of {file} cannot be compared: both have to be dates or "
                "times, or both whole numbers.",
            )
        kept = f"{day} >= {exposed}"
        findings.append(_too_early(database, ask, kept))
    if kind == "text":
        number = "CAST(dense_rank() OVER (ORDER BY day) - 1 AS INTEGER)"
    else:
        number = "CAST(day - min(day) OVER () AS INTEGER)"
    database.execute(
        f"CREATE TEMP TABLE numbered AS SELECT line, CAST(day AS VARCHAR) AS label, {number} AS number FROM "
        f"(SELECT {LINE} AS line, {day} AS day FROM source WHERE {kept})"
    )
    database.execute(
        f"CREATE TEMP TABLE {DAY_OF} AS WITH days AS (SELECT number, min(label) AS label, row_number() OVER (ORDER BY "
        "number) - 1 AS place, count(*) OVER () AS days FROM numbered GROUP BY number) "
        f"SELECT line, number, d.label AS label, d.place AS place, CAST(CASE WHEN days <= {PERIODS} THEN place ELSE "
        f"floor(place * {PERIODS} / days) END AS INTEGER) AS period FROM numbered JOIN days AS d USING (number)"
    )
    last = rows_of(database, f"SELECT period, arg_max(label, place) AS label FROM {DAY_OF} GROUP BY period")
    if not last:
        raise BadInput(f"every row of {file} lies before its unit's first exposure in column {ask.exposure!r}.")
    labels = {row["period"]: row["label"] for row in last}
    found = rows_of(database, f"SELECT count(DISTINCT number) AS days, max(number) + 1 AS span FROM {DAY_OF}")[0]
    if kind == "text" or found["span"] > MOST_DAYS:
        return Days(labels, {}, found["days"], findings)
    rows = rows_of(database, f"SELECT number, min(label) AS label FROM {DAY_OF} GROUP BY number ORDER BY number")
    entries = {row["number"]: row["label"] for row in rows}
    findings.append(_missing(entries, found["span"]))
    entry, seen = "min(number)", f"{found['span']} - min(number)"
    return Days(labels, entries, found["span"], findings, entry, seen, "number - u.entry")


def _as_day(database: duckdb.DuckDBPyConnection, file: str, column: str, types: Mapping[str, str]) -> tuple[str, str]:
    """What a column's values are (date, number or text), and the SQL that reads them."""
    name, kind = identifier(column), types[column]
    if kind == "DATE" or kind.startswith("TIMESTAMP"):
        return "date", f"CAST({name} AS DATE)"
    if kind.removeprefix("U").startswith(_NUMBERS):
        fractions = rows_of(database, f"SELECT count(*) AS n FROM source WHERE {name} <> floor({name})")[0]["n"]
        if fractions:
            raise BadInput(f"column {column!r} of {file} has {fractions:,} numbers that are no whole days.")
        return "number", f"CAST({name} AS BIGINT)"
    zone = rf"regexp_matches({name}, '[0-9]([Zz]|[+-][0-9]{{2}}(:?[0-9]{{2}})?)$') AND {name} LIKE '%:%'"
    row = rows_of(
        database,
        f"SELECT count(*) AS n, count(TRY_CAST({name} AS TIMESTAMPTZ)) AS times, "
        f"count(*) FILTER (WHERE {zone}) AS zoned FROM source",
    )[0]
    if row["times"] < row["n"]:
        return "text", name
    if 0 < row["zoned"] < row["n"]:
        raise BadInput(
            f"column {column!r} of {file} mixes {row['zoned']:,} times with a zone and "
            f"{row['n'] - row['zoned']:,} without.",
            hint="Write all of them in one zone, such as 2026-03-01T09:00:00Z.",
        )
    return "date", f"CAST(CAST({name} AS TIMESTAMPTZ) AS DATE)"


def _too_early(database: duckdb.DuckDBPyConnection, ask: Question, kept: str) -> Check:
    unit = identifier(ask.unit)
    row = rows_of(database, f"SELECT count(*) AS n, count(DISTINCT {unit}) AS units FROM source WHERE NOT ({kept})")[0]
    detail = "no row lies before its unit's first exposure"
    if row["n"]:
        detail = (
            f"{row['n']:,} rows of {row['units']:,} units lie before the unit's first exposure and count nowhere: what "
            "happened before cannot be an effect"
        )
    return Check(
        name="outcomes_before_exposure", passed=row["n"] == 0, statistic=float(row["n"]), pvalue=None, detail=detail
    )


def _missing(there: Mapping[int, str], count: int) -> Check:
    gone = [number for number in range(count) if number not in there]
    detail = f"every one of {count:,} days has rows"
    if gone:
        detail = (
            f"{len(gone):,} of {count:,} days from {there[0]} on have no row (day {gone[0] + 1} is the first): was the "
            "log lost, or did nothing happen? Effects miss those days"
        )
    return Check(name="missing_days", passed=not gone, statistic=float(len(gone)), pvalue=None, detail=detail)
