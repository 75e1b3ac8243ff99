"""Analyzes an experiment that ran elsewhere: a Parquet or CSV file of units or exposures becomes a report."""

import math
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import duckdb

from thinslice.errors import BadInput
from thinslice.experiments.analyze import report
from thinslice.experiments.checks import check_file
from thinslice.experiments.counting import PERIODS_TABLE, UNITS, Shape, capped_sql, count, with_caps
from thinslice.experiments.definition import role_of
from thinslice.experiments.evidence import Evidence, Look
from thinslice.jobs.daily import days_of_file
from thinslice.jobs.file_blocks import file_block_evidence
from thinslice.jobs.file_days import DAY_OF, Days, read_days
from thinslice.jobs.file_question import (
    Question,
    asked_margins,
    asked_metrics,
    check_design,
    entries_of,
    number_of,
)
from thinslice.jobs.file_source import LINE, check_column, open_file
from thinslice.metrics.statistics import rows_of
from thinslice.metrics.unit_table import identifier, text
from thinslice.records import Experiment, Metric, Report, Variant

__all__ = ["Analyzed", "Question", "analyze_file", "read_file"]


class Analyzed(NamedTuple):
    """What a file told: the experiment as the question and the file describe it, and its report."""

    experiment: Experiment
    report: Report


def analyze_file(path: Path, ask: Question, now: datetime) -> Report:
    """The report of a file: see `read_file`, which also says what was compared."""
    return read_file(path, ask, now).report


def read_file(path: Path, ask: Question, now: datetime) -> Analyzed:
    """An experiment and its report from a file: one row per unit, or several (per exposure, per day), that are summed.

    Raises:
        BadInput: A file, column, value or share that cannot be used; the message says what, where and what to do.
    """
    check_design(ask)
    database = duckdb.connect()
    try:
        database.execute("SET TimeZone = 'UTC'")
        open_file(database, path)
        return _File(database, path, ask).analyzed(now)
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
        self.metrics = asked_metrics(ask, set(self.types))
        self.margins = asked_margins(ask.margins, [metric.name for metric in self.metrics])
        for column in (ask.unit, ask.variant, *ask.segments, ask.day, ask.exposure, ask.cluster, ask.block):
            if column is not None:
                self._require(column, number=False)
        numbers = [column for metric in self.metrics for column in (metric.numerator, metric.denominator)]
        for column in (*numbers, ask.covariate):
            if column is not None:
                self._require(column, number=True)
        self.names = self._variant_names()
        self.shares = self._planned()
        self.propensities = self._propensity_columns()
        self.sums = list(dict.fromkeys(column for column in numbers if column is not None))

    def analyzed(self, now: datetime) -> Analyzed:
        """The experiment and its report as of now."""
        self._project()
        if self.ask.block is not None:
            experiment = self._experiment()
            evidence = file_block_evidence(self.database, self.path.name, self.ask, self.types, experiment)
            return Analyzed(experiment, report(evidence, experiment, now, check_file(evidence, experiment)))
        days = read_days(self.database, self.path.name, self.ask, self.types)
        experiment = self._experiment()
        self._make_units(days)
        self._check_clusters()
        experiment = with_caps(
            self.database, experiment, f"(SELECT unit AS unit_id, * FROM projected JOIN {DAY_OF} USING (line))"
        )
        self._make_periods(days, experiment)
        evidence = self._evidence(experiment, days)
        return Analyzed(experiment, report(evidence, experiment, now, check_file(evidence, experiment)))

    def _experiment(self) -> Experiment:
        metrics = [
            Metric(
                name=metric.name,
                numerator=f"m{self.sums.index(metric.numerator)}",
                denominator=None if metric.denominator is None else f"m{self.sums.index(metric.denominator)}",
                role=role_of(place, self.margins.get(metric.name)),
                margin=self.margins.get(metric.name),
                quantile=metric.quantile, cap=metric.cap, cap_quantile=metric.cap_quantile,
            )
            for place, metric in enumerate(self.metrics)
        ]  # fmt: skip
        variants = [Variant(name=name, policy="", weight=share) for name, share in self.shares.items()]
        unit = "unit" if self.ask.cluster is None else "cluster"
        return Experiment(
            name=self.path.stem, tenant="", control=self.ask.control, variants=variants, metrics=metrics,
            unit=unit if self.ask.block is None else "block", cluster=self.ask.cluster or "",
        )  # fmt: skip

    def _evidence(self, experiment: Experiment, days: Days) -> Evidence:
        ask = self.ask
        vectors = "SELECT DISTINCT " + ", ".join(f"p{at}" for at in range(len(self.names))) + f" FROM {UNITS}"
        constant = not self.propensities or len(rows_of(self.database, f"{vectors} WHERE NOT mixed LIMIT 2")) < 2
        shape = Shape(
            allocations=bool(self.propensities),
            weighted=not constant,
            clusters=ask.cluster is not None,
            segments=ask.segments,
            covariate=None if ask.covariate is None else "covariate",
            labels=days.labels,
            days=days.entries,
        )
        shares = f"1 - p{self.names.index(self.ask.control)}" if self.propensities else "NULL"
        daily = days_of_file(self.database, experiment, shares) if days.entries else []
        return count(self.database, experiment, shape)._replace(
            look=self._look(days), findings=days.findings, daily=daily
        )

    def _look(self, days: Days) -> Look | None:
        """Which of the planned looks this is: by the days seen of those planned; without days it is the last."""
        if not self.ask.looks:
            return None
        if not days.span:
            return Look(self.ask.looks, self.ask.looks)
        planned = self.ask.planned_days or self.ask.looks
        return Look(
            max(1, min(self.ask.looks, math.floor(self.ask.looks * days.span / planned + 1e-9))), self.ask.looks
        )

    def _make_units(self, days: Days) -> None:
        """Makes the table of units, each as its first row says."""
        ask, order = self.ask, list(self.propensities)
        kept = [f"arg_min(p{order.index(name)}, line) AS p{at}" for at, name in enumerate(self.names) if order]
        kept += [f"arg_min(s{at}, line) AS s{at}" for at in range(len(ask.segments))]
        kept += ["avg(covariate) AS covariate"] if ask.covariate is not None else []
        kept += [f"{days.entry} AS entry", f"{days.seen} AS seen_days"]
        batch = "entry" if self.propensities and days.entries else "0"
        self.database.execute(
            f"CREATE TEMP TABLE {UNITS} AS SELECT *, {batch} AS batch FROM (SELECT unit AS unit_id, "
            "min(variant) AS variant, count(DISTINCT variant) > 1 AS mixed, arg_min(key, line) AS key, "
            f"{', '.join(kept)} FROM projected JOIN {DAY_OF} USING (line) GROUP BY unit)"
        )

    def _make_periods(self, days: Days, experiment: Experiment) -> None:
        """Makes the table of increments: per unit, period of the curve, and age."""
        sums = ", ".join(f"sum(m{at}) AS m{at}" for at in range(len(self.sums)))
        rows = (
            f"SELECT unit AS unit_id, u.key AS key, u.variant AS variant, period, {days.age} AS age, {sums} "
            f"FROM projected JOIN {DAY_OF} USING (line) JOIN {UNITS} AS u ON u.unit_id = unit WHERE NOT u.mixed "
            "GROUP BY ALL"
        )
        self.database.execute(f"CREATE TEMP TABLE {PERIODS_TABLE} AS {capped_sql(experiment, rows)}")

    def _project(self) -> None:
        """Makes `projected`: the file's rows under our own names, so that the file's names cannot get in the way."""
        ask = self.ask
        wanted = {
            "unit": f"CAST({identifier(ask.unit)} AS VARCHAR)",
            "variant": f"CAST({identifier(ask.variant)} AS VARCHAR)",
            "key": f"CAST({identifier(ask.cluster or ask.unit)} AS VARCHAR)",
        }
        wanted |= {f"s{at}": f"CAST({identifier(name)} AS VARCHAR)" for at, name in enumerate(ask.segments)}
        numbers = {f"m{at}": name for at, name in enumerate(self.sums)}
        numbers |= {f"p{at}": name for at, name in enumerate(self.propensities.values())}
        numbers |= {"covariate": ask.covariate} if ask.covariate is not None else {}
        wanted |= {name: f"CAST({identifier(column)} AS DOUBLE)" for name, column in numbers.items()}
        columns = ", ".join(f"{sql} AS {name}" for name, sql in wanted.items())
        self.database.execute(f"CREATE TEMP TABLE projected AS SELECT {LINE} AS line, {columns} FROM source")

    def _require(self, column: str, *, number: bool) -> None:
        check_column(self.database, self.path.name, self.types, column, number=number)

    def _variant_names(self) -> list[str]:
        """Control first, then the others by name."""
        column = identifier(self.ask.variant)
        rows = rows_of(self.database, f"SELECT DISTINCT CAST({column} AS VARCHAR) AS variant FROM source")
        found = sorted(row["variant"] for row in rows)
        alike: dict[str, str] = {}
        for name in found:
            other = alike.setdefault(name.strip().casefold(), name)
            if other != name:
                raise BadInput(
                    f"column {self.ask.variant!r} names {other!r} and {name!r}, which differ by case or spaces alone.",
                    hint="Write each variant in one way.",
                )
        if self.ask.control not in found:
            known = ", ".join(found) or "no row at all"
            raise BadInput(f"control {self.ask.control!r} does not occur in column {self.ask.variant!r} ({known}).")
        named = [entry.split("=", 1)[0].strip() for entry in entries_of(self.ask.expected) if "=" in entry]
        named += [entry.split("=", 1)[0].strip() for entry in entries_of(self.ask.propensity) if "=" in entry]
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
        entries = entries_of(self.ask.expected)
        if not entries:
            return dict.fromkeys(self.names, 1 / len(self.names))
        shares = {name: number_of(value, "--expected") for name, value in self._by_name(entries, "--expected").items()}
        total = math.fsum(shares.values())
        if min(shares.values()) < 0 or abs(total - 1) > 1e-6:
            raise BadInput(f"--expected sums to {total:g}; shares lie between 0 and 1 and sum to 1.")
        return shares

    def _propensity_columns(self) -> dict[str, str]:
        """Variant → column of its logged probability, checked row by row."""
        entries = entries_of(self.ask.propensity)
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
        found = f"SELECT key FROM {UNITS} WHERE NOT mixed GROUP BY key HAVING {split}"
        torn = rows_of(self.database, f"SELECT count(*) AS n, min(key) AS one FROM ({found})")[0]
        if torn["n"]:
            raise BadInput(
                f"{torn['n']:,} clusters ({torn['one']!r} for one) hold units of several variants or probabilities: "
                "they were not randomized as a whole.",
                hint="Leave --cluster out, or name the column that was randomized.",
            )
