"""Analyzes an experiment that ran elsewhere: a Parquet or CSV file of units or exposures becomes a report."""

import math
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import numpy as np

from thinslice.errors import BadInput
from thinslice.experiments.analyze import report
from thinslice.experiments.checks import mixed_assignment, sample_ratio
from thinslice.experiments.definition import role_of
from thinslice.experiments.evidence import WEIGHT, Evidence, planned_shares
from thinslice.metrics.statistics import cumulative_moments, moments_by_segment, moments_by_variant, rows_of
from thinslice.metrics.unit_table import identifier, text
from thinslice.records import Experiment, Metric, Report, Variant
from thinslice.stats.moments import LARGEST

PERIODS = 30
"""At most so many points has the curve of the cumulative effect."""


LINE = "data_row_of_the_file"
"""The column that numbers the rows of a file from 1."""


class Question(NamedTuple):
    """What to compare in a file, as the command line says it.

    Attributes:
        unit: The column of the unit's id.
        variant: The column of the variant.
        control: The control's name.
        metrics: `NAME=COL` or `NAME=COL/COL`; the first is the goal.
        margins: `NAME=0.02`, relative and positive.
        expected: Planned shares, control first and then the others by name, or `NAME=SHARE`; empty: equal shares.
        propensity: Columns with the logged probability of each variant, in the same order, or `NAME=COL`.
        covariate: A column that was known before the assignment.
        segment: A column that was known before the assignment, to look at its values one by one.
        day: A column of days or times, for the cumulative effect.
        cluster: The column of what was randomized as a whole.
    """

    unit: str
    variant: str
    control: str
    metrics: Sequence[str]
    margins: Sequence[str] = ()
    expected: str = ""
    propensity: str = ""
    covariate: str | None = None
    segment: str | None = None
    day: str | None = None
    cluster: str | None = None


class _Metric(NamedTuple):
    name: str
    numerator: str
    denominator: str | None


def analyze_file(path: Path, ask: Question, now: datetime) -> Report:
    """The report of a file: one row per unit, or several (per exposure, per day), which are then summed.

    Raises:
        BadInput: A file, column, value or share that cannot be used; the message says what, where and what to do.
    """
    database = duckdb.connect()
    try:
        _open(database, path)
        return _File(database, path, ask).report(now)
    finally:
        database.close()


class _File:
    """One file under one question, step by step: check, sum per unit, count per variant."""

    def __init__(self, database: duckdb.DuckDBPyConnection, path: Path, ask: Question) -> None:
        self.database, self.path, self.ask = database, path, ask
        self.types = {row["column_name"]: row["column_type"] for row in rows_of(database, "DESCRIBE source")}
        self.types.pop(LINE)
        if not rows_of(database, "SELECT 1 FROM source LIMIT 1"):
            raise BadInput(f"{path.name} has no rows.")
        self.metrics = [_parse_metric(entry, set(self.types)) for entry in ask.metrics]
        self.margins = _parse_margins(ask.margins, [metric.name for metric in self.metrics])
        for column in (ask.unit, ask.variant, ask.segment, ask.day, ask.cluster):
            if column is not None:
                self._require(column, number=False)
        for metric in self.metrics:
            self._require(metric.numerator, number=True)
            if metric.denominator is not None:
                self._require(metric.denominator, number=True)
        if ask.covariate is not None:
            self._require(ask.covariate, number=True)
        self.names = self._variant_names()
        self.shares = self._planned()
        self.propensities = self._propensity_columns()
        parts = [column for metric in self.metrics for column in (metric.numerator, metric.denominator)]
        self.sums = list(dict.fromkeys(column for column in parts if column is not None))

    def report(self, now: datetime) -> Report:
        """The report as of now."""
        experiment = self._experiment()
        evidence = self._evidence(experiment)
        checks = [sample_ratio(evidence, experiment), mixed_assignment(evidence)]
        return report(evidence, experiment, now, checks)

    def _experiment(self) -> Experiment:
        metrics = [
            Metric(
                name=metric.name,
                numerator=f"m{self.sums.index(metric.numerator)}",
                denominator=None if metric.denominator is None else f"m{self.sums.index(metric.denominator)}",
                role=role_of(place, self.margins.get(metric.name)),
                margin=self.margins.get(metric.name),
            )
            for place, metric in enumerate(self.metrics)
        ]
        variants = [Variant(name=name, policy="", weight=share) for name, share in self.shares.items()]
        return Experiment(name=self.path.stem, tenant="", control=self.ask.control, variants=variants, metrics=metrics)

    def _evidence(self, experiment: Experiment) -> Evidence:
        ask, database = self.ask, self.database
        self._sum_units()
        mixed = rows_of(database, "SELECT count(*) AS n FROM units WHERE mixed")[0]["n"]
        self._check_clusters()
        counts, propensities = self._allocation(experiment)
        weighted, clustered = bool(self.propensities), ask.cluster is not None
        columns = [f"m{place}" for place in range(len(self.sums))]
        columns += ["covariate"] if ask.covariate is not None else []
        columns += [WEIGHT] if weighted or clustered else []
        sums = ", ".join(f"sum({name}) AS {name}" for name in columns)
        database.execute(
            f"CREATE TEMP TABLE keyed AS SELECT key AS unit_id, variant, period, segment, {sums} FROM unit_periods "
            "GROUP BY ALL"
        )
        whole = f"(SELECT unit_id, variant, {sums} FROM keyed GROUP BY ALL)"
        by_segment = f"(SELECT unit_id, variant, segment, {sums} FROM keyed GROUP BY ALL)"
        by_period = f"(SELECT unit_id, variant, period, {sums} FROM keyed GROUP BY ALL)"
        units = rows_of(database, "SELECT variant, count(*) AS n FROM units WHERE NOT mixed GROUP BY variant")
        found = {row["variant"]: int(row["n"]) for row in units}
        return Evidence(
            variants=moments_by_variant(database, whole, columns),
            counts=counts,
            propensities=propensities,
            units={name: found.get(name, 0) for name in self.shares},
            mixed_units=mixed,
            weighted=weighted,
            covariate="covariate" if ask.covariate is not None else None,
            clusters=clustered,
            segments=(
                {ask.segment: moments_by_segment(database, by_segment, columns, "segment")} if ask.segment else {}
            ),
            cumulative=self._cumulative(by_period, columns),
        )

    def _sum_units(self) -> None:
        """Makes `units` (one row a unit) and `unit_periods` (one row per unit and period, weighted, unmixed units)."""
        ask, database = self.ask, self.database
        self._project()
        own = " ".join(f"WHEN {text(name)} THEN p{at}" for at, name in enumerate(self.propensities))
        extra = "".join(f", arg_min(p{at}, line) AS p{at}" for at in range(len(self.propensities)))
        extra += ", avg(covariate) AS covariate" if ask.covariate is not None else ""
        database.execute(
            "CREATE TEMP TABLE units AS SELECT unit, min(variant) AS variant, count(DISTINCT variant) > 1 AS mixed, "
            f"arg_min(segment, line) AS segment, arg_min(key, line) AS key{extra} FROM projected GROUP BY unit"
        )
        self._number_periods()
        sums = ", ".join(f"sum(m{at}) AS m{at}" for at in range(len(self.sums)))
        is_first = "CASE WHEN row_number() OVER (PARTITION BY unit ORDER BY period) = 1 THEN weight ELSE 0 END"
        scaled = [f"m{at} * weight AS m{at}" for at in range(len(self.sums))] + [f"{is_first} AS {WEIGHT}"]
        scaled += [f"{is_first} * covariate AS covariate"] if ask.covariate is not None else []
        weight = f"1 / CASE variant {own} END" if own else "1"
        database.execute(
            f"CREATE TEMP TABLE unit_periods AS SELECT key, variant, segment, period, {', '.join(scaled)} "
            f"FROM (SELECT unit, period, {sums} FROM projected JOIN periods USING (line) GROUP BY unit, period) "
            f"JOIN (SELECT *, {weight} AS weight FROM units WHERE NOT mixed) USING (unit)"
        )

    def _project(self) -> None:
        """Makes `projected`: the file's rows under our own names, so that the file's names cannot get in the way."""
        ask = self.ask
        wanted = {
            "unit": f"CAST({identifier(ask.unit)} AS VARCHAR)",
            "variant": f"CAST({identifier(ask.variant)} AS VARCHAR)",
            "key": f"CAST({identifier(ask.cluster or ask.unit)} AS VARCHAR)",
            "segment": "NULL" if ask.segment is None else f"CAST({identifier(ask.segment)} AS VARCHAR)",
            "day": "NULL" if ask.day is None else identifier(ask.day),
        }
        if ask.day is not None and (self.types[ask.day].startswith("TIMESTAMP") or self.types[ask.day] == "DATE"):
            wanted["day"] = f"CAST({wanted['day']} AS DATE)"
        numbers = {f"m{at}": name for at, name in enumerate(self.sums)}
        numbers |= {f"p{at}": name for at, name in enumerate(self.propensities.values())}
        numbers |= {"covariate": ask.covariate} if ask.covariate is not None else {}
        wanted |= {name: f"CAST({identifier(column)} AS DOUBLE)" for name, column in numbers.items()}
        columns = ", ".join(f"{sql} AS {name}" for name, sql in wanted.items())
        self.database.execute(f"CREATE TEMP TABLE projected AS SELECT {LINE} AS line, {columns} FROM source")

    def _number_periods(self) -> None:
        """Makes `periods`: the period of each line, at most `PERIODS`, each with its days."""
        if self.ask.day is None:
            self.database.execute("CREATE TEMP TABLE periods AS SELECT line, 0 AS period FROM projected")
            return
        period = f"CASE WHEN days <= {PERIODS} THEN place ELSE floor(place * {PERIODS} / days) END"
        self.database.execute(
            "CREATE TEMP TABLE periods AS WITH ranked AS (SELECT line, day, dense_rank() OVER (ORDER BY day) - 1 AS "
            "place FROM projected), total AS (SELECT max(place) + 1 AS days FROM ranked) "
            f"SELECT line, CAST(day AS VARCHAR) AS label, CAST({period} AS INTEGER) AS period, place FROM ranked, total"
        )

    def _cumulative(self, table: str, columns: list[str]) -> list[tuple[Any, Any]]:
        if self.ask.day is None:
            return []
        last = rows_of(self.database, "SELECT period, arg_max(label, place) AS label FROM periods GROUP BY period")
        label = {row["period"]: row["label"] for row in last}
        return [(label[period], of) for period, of in cumulative_moments(self.database, table, columns)]

    def _allocation(self, experiment: Experiment) -> tuple[Any, Any]:
        """Randomized rows (units or clusters) per group of equal probabilities."""
        names = [variant.name for variant in experiment.variants]
        vector = ", ".join(f"min(p{at}) AS p{at}" for at in range(len(self.propensities)))
        group = ", ".join(f"p{at}" for at in range(len(self.propensities)))
        inner = f"SELECT key, variant{', ' if vector else ''}{vector} FROM units WHERE NOT mixed GROUP BY key, variant"
        rows = rows_of(
            self.database,
            f"SELECT variant{', ' if group else ''}{group}, count(*) AS n FROM ({inner}) GROUP BY ALL",
        )
        if not self.propensities:
            counts = np.zeros((1, len(names)))
            for row in rows:
                counts[0, names.index(row["variant"])] = row["n"]
            return counts, planned_shares(experiment)
        order = list(self.propensities)
        vectors: dict[tuple[float, ...], list[float]] = {}
        for row in rows:
            shares = tuple(row[f"p{order.index(name)}"] for name in names)
            vectors.setdefault(shares, [0.0] * len(names))[names.index(row["variant"])] += row["n"]
        return np.array(list(vectors.values())), np.array(list(vectors))

    def _require(self, column: str, *, number: bool) -> None:
        """Refuses a column that is missing, has empty values, or should be numbers and is not."""
        if column not in self.types:
            raise BadInput(f"{self.path.name} has no column {column!r} (there is: {', '.join(self.types)}).")
        name, kind = identifier(column), self.types[column]
        empty = f"{name} IS NULL"
        if number:
            plain = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "FLOAT", "DOUBLE", "DECIMAL", "BOOLEAN")
            if not kind.removeprefix("U").startswith(plain):
                raise BadInput(f"column {column!r} of {self.path.name} is {kind}, where numbers are needed.")
            empty += f" OR NOT abs(CAST({name} AS DOUBLE)) <= {LARGEST!r}"
        bad = rows_of(self.database, f"SELECT count(*) AS n, min({LINE}) AS line FROM source WHERE {empty}")[0]
        if bad["n"]:
            raise BadInput(
                f"column {column!r} of {self.path.name} has {bad['n']:,} values that are empty or no finite numbers, "
                f"the first in data row {bad['line']}.",
                hint="Write 0 where nothing happened, and leave out rows that are not meant.",
            )

    def _variant_names(self) -> list[str]:
        """Control first, then the others by name."""
        column = identifier(self.ask.variant)
        rows = rows_of(self.database, f"SELECT DISTINCT CAST({column} AS VARCHAR) AS variant FROM source")
        found = sorted(row["variant"] for row in rows)
        if self.ask.control not in found:
            known = ", ".join(found) or "no row at all"
            raise BadInput(f"control {self.ask.control!r} does not occur in column {self.ask.variant!r} ({known}).")
        named = [entry.split("=", 1)[0].strip() for entry in _entries(self.ask.expected) if "=" in entry]
        named += [entry.split("=", 1)[0].strip() for entry in _entries(self.ask.propensity) if "=" in entry]
        names = [self.ask.control, *sorted({*found, *named} - {self.ask.control})]
        if len(names) < 2:
            raise BadInput(f"{self.path.name} has only one variant, {self.ask.control!r}: there is nothing to compare.")
        return names

    def _by_name(self, entries: list[str], option: str) -> dict[str, str]:
        """Entries of --expected or --propensity by variant, whether they are named or only ordered."""
        if all("=" in entry for entry in entries):
            pairs = [(name.strip(), value.strip()) for name, value in (entry.split("=", 1) for entry in entries)]
            named = dict(pairs)
            missing = [name for name in self.names if name not in named]
            if missing or len(named) < len(pairs):
                raise BadInput(
                    f"{option} has to name each variant once; {missing[0] if missing else 'one'!r} is not named once."
                )
            return {name: named[name] for name in self.names}
        if any("=" in entry for entry in entries) or len(entries) != len(self.names):
            raise BadInput(
                f"{option} has {len(entries)} entries for {len(self.names)} variants ({', '.join(self.names)}).",
                hint="Give one each in this order, or NAME=VALUE for each.",
            )
        return dict(zip(self.names, entries, strict=True))

    def _planned(self) -> dict[str, float]:
        entries = _entries(self.ask.expected)
        if not entries:
            return dict.fromkeys(self.names, 1 / len(self.names))
        shares = {name: _number(value, "--expected") for name, value in self._by_name(entries, "--expected").items()}
        total = math.fsum(shares.values())
        if min(shares.values()) < 0 or abs(total - 1) > 1e-6:
            raise BadInput(f"--expected sums to {total:g}; shares lie between 0 and 1 and sum to 1.")
        return shares

    def _propensity_columns(self) -> dict[str, str]:
        """Variant → column of its logged probability, checked row by row."""
        entries = _entries(self.ask.propensity)
        if not entries:
            return {}
        columns = self._by_name(entries, "--propensity")
        for column in columns.values():
            self._require(column, number=True)
        names = [f"CAST({identifier(column)} AS DOUBLE)" for column in columns.values()]
        served = " ".join(
            f"WHEN {text(name)} THEN {value}" for name, value in zip(columns, names, strict=True)
        )  # fmt: skip
        wrong = " OR ".join([f"abs({' + '.join(names)} - 1) > 1e-6", *(f"{name} < 0" for name in names)])
        wrong += f" OR NOT CASE CAST({identifier(self.ask.variant)} AS VARCHAR) {served} END > 0"
        bad = rows_of(self.database, f"SELECT count(*) AS n, min({LINE}) AS line FROM source WHERE {wrong}")[0]
        if bad["n"]:
            raise BadInput(
                f"{bad['n']:,} rows of {self.path.name}, the first in data row {bad['line']}, have probabilities that "
                "do not sum to 1, are negative, or are 0 for the variant that was served.",
                hint="--propensity needs the logged probability of every variant in every row.",
            )
        return columns

    def _check_clusters(self) -> None:
        if self.ask.cluster is None:
            return
        unit, cluster = identifier(self.ask.unit), identifier(self.ask.cluster)
        inside = f"SELECT {unit} FROM source GROUP BY {unit} HAVING count(DISTINCT {cluster}) > 1"
        moving = rows_of(self.database, f"SELECT count(*) AS n FROM ({inside})")[0]["n"]
        if moving:
            raise BadInput(f"{moving:,} units lie in more than one cluster of column {self.ask.cluster!r}.")
        differ = [f"count(DISTINCT p{at}) > 1" for at in range(len(self.propensities))]
        split = " OR ".join(["count(DISTINCT variant) > 1", *differ])
        found = f"SELECT key FROM units WHERE NOT mixed GROUP BY key HAVING {split}"
        torn = rows_of(self.database, f"SELECT count(*) AS n, min(key) AS one FROM ({found})")[0]
        if torn["n"]:
            raise BadInput(
                f"{torn['n']:,} clusters ({torn['one']!r} for one) hold units of several variants or probabilities: "
                "they were not randomized as a whole.",
                hint="Leave --cluster out, or name the column that was randomized.",
            )


def _open(database: duckdb.DuckDBPyConnection, path: Path) -> None:
    if not path.is_file():
        raise BadInput(f"there is no file {path}.")
    reader = {".parquet": "read_parquet", ".pq": "read_parquet", ".csv": "read_csv", ".tsv": "read_csv"}
    kind = reader.get(path.suffix.lower())
    if kind is None:
        raise BadInput(f"{path.name} is neither Parquet nor CSV.", hint="Its name has to end in .parquet or .csv.")
    try:
        options = ", header = true, sample_size = -1" if kind == "read_csv" else ""
        database.execute(
            f"CREATE TEMP TABLE source AS SELECT *, row_number() OVER () AS {LINE} "
            f"FROM {kind}({text(str(path))}{options})"
        )
    except duckdb.Error as error:
        raise BadInput(f"{path.name} cannot be read: {str(error).splitlines()[0]}") from None


def _parse_metric(entry: str, columns: set[str]) -> _Metric:
    name, equals, formula = entry.partition("=")
    if not (name and equals and formula):
        raise BadInput(f"--metric {entry!r} is not NAME=COLUMN or NAME=COLUMN/COLUMN.")
    if formula in columns or "/" not in formula:
        return _Metric(name, formula, None)
    numerator, _, denominator = formula.partition("/")
    return _Metric(name, numerator, denominator)


def _parse_margins(entries: Sequence[str], names: list[str]) -> dict[str, float]:
    if not names:
        raise BadInput("at least one --metric is needed, got 0.")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise BadInput(f"metric {twice[0]!r} occurs twice.")
    margins = {}
    for entry in entries:
        name, _, value = entry.partition("=")
        if name not in names:
            raise BadInput(f"--margin names metric {name!r}, which is not among: {', '.join(names)}.")
        margins[name] = _number(value, f"--margin {name}")
        if not 0 < margins[name] < 1:
            raise BadInput(f"--margin {entry}: a margin is relative and positive, 0.02 for 2 % worse.")
    return margins


def _number(value: str, option: str) -> float:
    try:
        number = float(value)
    except ValueError:
        raise BadInput(f"{option}: {value!r} is no number.") from None
    if not math.isfinite(number):
        raise BadInput(f"{option}: {value!r} is no finite number.")
    return number


def _entries(value: str) -> list[str]:
    return [entry.strip() for entry in value.split(",")] if value.strip() else []
