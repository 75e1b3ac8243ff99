"""From two tables of units to the evidence of an experiment: sums and products by SQL, never the rows themselves."""

from collections.abc import Mapping, Sequence
from itertools import combinations_with_replacement
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from thinslice.experiments.evidence import (
    WEIGHT,
    Ages,
    Evidence,
    Split,
    capped_columns,
    metric_columns,
    planned_shares,
    quantile_of,
)
from thinslice.metrics.statistics import Database, cumulative_moments, moments_by, rows_of
from thinslice.metrics.unit_table import identifier, text
from thinslice.records import Experiment
from thinslice.stats import EARLY_DAYS, LATE_FROM, Cell, Moments, Sample, moments_from_sums

UNITS = "experiment_units"
"""One row a unit: unit_id, key (what was randomized as a whole), variant, mixed, entry (the day of the first exposure,
counted from 0; NULL when unknown), seen_days (how many whole days of it are in the data), batch (the order of its
allocation in time), p0… (logged probability of each variant in the experiment's order), s0… (segments), and columns of
what was known before the first exposure."""

PERIODS_TABLE = "unit_periods"
"""One row per unit, period and age in which it did something: unit_id, key, variant, period (a number from 0), age
(whole days since its first exposure, NULL when unknown), and increments of the metric columns."""


class Shape(NamedTuple):
    """What the two tables hold.

    Attributes:
        allocations: Probabilities were logged, so `p0`… are there and units are weighted when they differ.
        weighted: Units do not all count the same: results are weighted by one over the probability.
        clusters: `key` is not the unit itself.
        segments: Names of `s0`…
        pasts: Metric column → the column of the units that counted the same before.
        covariate: A column of the units for every metric, in place of `pasts`.
        labels: Period → what it is called in the curve.
        days: Entry → what that day is called; empty when days are unknown.
    """

    allocations: bool = False
    weighted: bool = False
    clusters: bool = False
    segments: Sequence[str] = ()
    pasts: Mapping[str, str] = {}
    covariate: str | None = None
    labels: Mapping[int, Any] = {}
    days: Mapping[int, str] = {}


def count(database: Database, experiment: Experiment, shape: Shape) -> Evidence:
    """The evidence in `experiment_units` and `unit_periods`.

    Makes the table `unit_totals`, one row a unit that is in one variant only.

    Args:
        database: With the two tables.
        experiment: Whose metrics and variants; caps are numbers by now.
        shape: What the tables hold.
    """
    names = [variant.name for variant in experiment.variants]
    columns = [*metric_columns(experiment)]
    before = list(dict.fromkeys([*shape.pasts.values(), *([shape.covariate] if shape.covariate else [])]))
    _total(database, columns, before, shape, names)
    planned = planned_shares(experiment)
    whole = _groups(database, names, shape, (), planned).get((), Split(np.zeros((1, len(names))), planned))
    units = rows_of(database, "SELECT variant, count(*) AS n FROM unit_totals GROUP BY variant")
    found = {row["variant"]: int(row["n"]) for row in units}
    every = columns + before + ([WEIGHT] if shape.weighted or shape.clusters else [])
    return Evidence(
        variants=moments_by(database, _rows(every, shape), every, ())[()] if found else {},
        counts=whole.counts,
        propensities=whole.propensities,
        units={name: found.get(name, 0) for name in names},
        mixed_units=rows_of(database, f"SELECT count(*) AS n FROM {UNITS} WHERE mixed")[0]["n"],
        weighted=shape.weighted,
        covariate=shape.covariate,
        clusters=shape.clusters,
        segments={
            name: {
                str(value[0]): of
                for value, of in moments_by(database, _rows(every, shape, (f"s{at}",)), every, (f"s{at}",)).items()
            }
            for at, name in enumerate(shape.segments)
        },
        cumulative=_cumulative(database, every, before, shape),
        pasts=shape.pasts,
        cells=_cells(database, [*columns, *before], names) if shape.weighted and not shape.clusters else (),
        quantiles=_quantiles(database, experiment, names),
        splits=_splits(database, names, shape, planned),
        ages=(
            _with_days(_ages(database, columns), shape)
            if shape.days and found and not (shape.clusters or shape.weighted)
            else None
        ),
    )


def capped_sql(experiment: Experiment, rows: str) -> str:
    """Rows of `unit_periods` with a column for each capped sum, as increments: a unit's total stops at the cap."""
    over = "OVER (PARTITION BY unit_id ORDER BY period, age ROWS UNBOUNDED PRECEDING)"
    capped = [
        f", least(sum({identifier(raw)}) {over}, {cap!r}) - least(sum({identifier(raw)}) {over} - {identifier(raw)}, "
        f"{cap!r}) AS {identifier(name)}"
        for name, (raw, cap) in capped_columns(experiment).items()
    ]
    return f"SELECT *{''.join(capped)} FROM ({rows})"


def with_caps(database: Database, experiment: Experiment, rows: str) -> Experiment:
    """The experiment with caps that are numbers: a quantile is that of all variants' units together.

    Args:
        database: Where `rows` can be asked for.
        experiment: Whose metrics.
        rows: A table or subquery with unit_id and the raw columns, as increments.
    """
    metrics = []
    for metric in experiment.metrics:
        if metric.cap_quantile is not None and metric.cap is None:
            totals = f"SELECT sum({identifier(metric.numerator)}) AS total FROM {rows} GROUP BY unit_id"
            found = rows_of(database, f"SELECT quantile_cont(total, {metric.cap_quantile!r}) AS cap FROM ({totals})")
            cap = found[0]["cap"]
            metrics.append(metric if cap is None else msgspec.structs.replace(metric, cap=float(cap)))
        else:
            metrics.append(metric)
    return msgspec.structs.replace(experiment, metrics=metrics)


def _total(
    database: Database, columns: Sequence[str], before: Sequence[str], shape: Shape, names: Sequence[str]
) -> None:
    """Makes `unit_totals`: one row a unit that is in one variant only, with its weight."""
    sums = "".join(f", sum({identifier(name)}) AS {identifier(name)}" for name in columns)
    kept = ["variant", "key", "entry", "seen_days", "batch", *(f"s{at}" for at in range(len(shape.segments)))]
    kept += [f"p{at}" for at in range(len(names))] if shape.allocations else []
    kept += [identifier(name) for name in before]
    served = " ".join(f"WHEN {text(name)} THEN p{at}" for at, name in enumerate(names))
    weight = f"1 / CASE variant {served} END" if shape.weighted else "1.0"
    database.execute(
        f"CREATE OR REPLACE TEMP TABLE unit_totals AS SELECT {', '.join(['unit_id', *kept])}, {weight} AS {WEIGHT}, "
        f"d.* EXCLUDE (unit_id) FROM (SELECT unit_id{sums} FROM {PERIODS_TABLE} GROUP BY unit_id) AS d "
        f"JOIN (SELECT * FROM {UNITS} WHERE NOT mixed) USING (unit_id)"
    )


def _rows(columns: Sequence[str], shape: Shape, by: Sequence[str] = ()) -> str:
    """One row for each thing that was randomized, with weighted columns."""
    scaled = [
        identifier(name)
        if name == WEIGHT or not shape.weighted
        else f"{identifier(name)} * {WEIGHT} AS {identifier(name)}"
        for name in columns
    ]
    if not shape.clusters:
        return f"(SELECT {', '.join(['variant', *by, *scaled])} FROM unit_totals)"
    sums = [
        f"sum({identifier(name)}{f' * {WEIGHT}' if name != WEIGHT else ''}) AS {identifier(name)}" for name in columns
    ]
    keys = ", ".join(["key", "variant", *by])
    return f"(SELECT {keys}, {', '.join(sums)} FROM unit_totals GROUP BY {keys})"


def _cumulative(
    database: Database, columns: Sequence[str], before: Sequence[str], shape: Shape
) -> list[tuple[Any, Mapping[str, Moments]]]:
    """The growing periods; what a unit has once (weight, past) is added in the first period that it is seen in."""
    if not shape.labels:
        return []
    once = [name for name in columns if name == WEIGHT or name in before]
    table = PERIODS_TABLE
    if once:
        first = "row_number() OVER (PARTITION BY unit_id ORDER BY period, age) = 1"
        parts = []
        for name in columns:
            of = identifier(name)
            value = f"CASE WHEN {first} THEN u.{of} ELSE 0 END" if name in once else f"d.{of}"
            parts.append(value if name == WEIGHT else f"{value} * u.{WEIGHT}")
        kept = ", ".join(f"{value} AS {identifier(name)}" for value, name in zip(parts, columns, strict=True))
        table = (
            f"(SELECT unit_id, u.key AS key, u.variant AS variant, period, {kept} "
            f"FROM {PERIODS_TABLE} AS d JOIN unit_totals AS u USING (unit_id))"
        )
    if shape.clusters:
        sums = ", ".join(f"sum({identifier(name)}) AS {identifier(name)}" for name in columns)
        table = f"(SELECT key AS unit_id, variant, period, {sums} FROM {table} GROUP BY ALL)"
    return [(shape.labels[period], of) for period, of in cumulative_moments(database, table, columns)]


def _cells(database: Database, columns: Sequence[str], names: Sequence[str]) -> list[Cell]:
    """Units by batch and logged probabilities, unweighted."""
    shares = [f"p{at}" for at in range(len(names))]
    found = moments_by(database, "unit_totals", columns, ("batch", *shares))
    return [Cell(int(key[0]), dict(zip(names, key[1:], strict=True)), of) for key, of in found.items()]


def _quantiles(database: Database, experiment: Experiment, names: Sequence[str]) -> dict[str, dict[str, Sample | str]]:
    """The one thing that needs every unit's value: a column is read, sorted and let go."""
    found: dict[str, dict[str, Sample | str]] = {}
    for metric in experiment.metrics:
        if metric.quantile is None:
            continue
        for name in names:
            column = f"SELECT {identifier(metric.numerator)} AS value FROM unit_totals WHERE variant = {text(name)}"
            values = database.execute(column).fetchnumpy()["value"]
            found.setdefault(metric.name, {})[name] = quantile_of(values, metric.quantile)
    return found


def _groups(
    database: Database, names: Sequence[str], shape: Shape, by: Sequence[str], planned: NDArray[np.float64]
) -> dict[tuple[Any, ...], Split]:
    """How what was randomized fell, per slice and group of equal probabilities."""
    shares = [f"p{at}" for at in range(len(names))] if shape.allocations else []
    lowest = "".join(f", min({name}) AS {name}" for name in shares)
    inner = f"SELECT key, variant{''.join(f', {name}' for name in by)}{lowest} FROM unit_totals GROUP BY key, variant"
    inner += "".join(f", {name}" for name in by)
    source = f"({inner})" if shape.clusters else "unit_totals"
    kept = ", ".join([*by, *shares, "variant"])
    found: dict[tuple[Any, ...], dict[tuple[float, ...], NDArray[np.float64]]] = {}
    for row in rows_of(database, f"SELECT {kept}, count(*) AS n FROM {source} GROUP BY {kept} ORDER BY {kept}"):
        group = tuple(float(row[name]) for name in shares)
        counts = found.setdefault(tuple(row[name] for name in by), {}).setdefault(group, np.zeros(len(names)))
        counts[names.index(row["variant"])] += row["n"]
    return {
        key: Split(np.array(list(groups.values())), np.array(list(groups)) if shares else planned)
        for key, groups in found.items()
    }


def _splits(
    database: Database, names: Sequence[str], shape: Shape, planned: NDArray[np.float64]
) -> dict[str, dict[str, Split]]:
    splits = {}
    if shape.days:
        by_day = _groups(database, names, shape, ("entry",), planned)
        splits["entry day"] = {shape.days[key[0]]: split for key, split in sorted(by_day.items())}
    for at, name in enumerate(shape.segments):
        by_value = _groups(database, names, shape, (f"s{at}",), planned)
        splits[name] = {str(key[0]): split for key, split in by_value.items()}
    return splits


def _ages(database: Database, columns: Sequence[str]) -> Ages:
    """Sums by whole days since the first exposure; a unit that did nothing on a day counts with zeros."""
    quoted = [identifier(name) for name in columns]
    pairs = list(combinations_with_replacement(range(len(columns)), 2))
    sums = [f"sum({name}) AS sum_{at}" for at, name in enumerate(quoted)]
    sums += [f"sum(CAST({quoted[a]} AS DOUBLE) * {quoted[b]}) AS product_{a}_{b}" for a, b in pairs]
    by_unit = ", ".join(f"sum({name}) AS {name}" for name in quoted)
    days = (
        f"(SELECT unit_id, d.age, {by_unit} FROM {PERIODS_TABLE} AS d JOIN (SELECT unit_id AS unit_id, seen_days FROM "
        "unit_totals) AS u USING (unit_id) WHERE d.age < u.seen_days GROUP BY unit_id, d.age)"
    )
    totals = "(SELECT unit_id, variant FROM unit_totals)"
    rows = rows_of(
        database, f"SELECT variant, age, {', '.join(sums)} FROM {days} JOIN {totals} USING (unit_id) GROUP BY ALL"
    )
    seen = rows_of(database, "SELECT variant, seen_days, count(*) AS n FROM unit_totals GROUP BY ALL")
    by_age: dict[int, dict[str, Moments]] = {}
    for row in rows:
        n = sum(of["n"] for of in seen if of["variant"] == row["variant"] and of["seen_days"] > row["age"])
        product = np.zeros((len(columns), len(columns)))
        for a, b in pairs:
            product[a, b] = product[b, a] = row[f"product_{a}_{b}"]
        totals_of_day = [row[f"sum_{at}"] for at in range(len(columns))]
        by_age.setdefault(int(row["age"]), {})[row["variant"]] = moments_from_sums(columns, n, totals_of_day, product)
    return Ages(sorted(by_age.items()), *_change(database, columns))


def _with_days(ages: Ages, shape: Shape) -> Ages:
    return ages._replace(cohorts=[(shape.days[entry], of) for entry, of in ages.cohorts])


def _change(
    database: Database, columns: Sequence[str]
) -> tuple[dict[str, Moments], list[tuple[Any, dict[str, Moments]]]]:
    """Averages a day, early and late, and the tilt over time, of the units that could be seen in both stretches.

    The tilt of a unit is the sum of z y over its days, z being log(1 + age) less its mean over the unit's days: over
    the sum of z squared (`tilt scale`) that is the slope within units.
    """
    named, parts = ["tilt scale"], ['any_value(z_squared) AS "tilt scale"']
    for name in columns:
        of = identifier(name)
        for word, total in (
            ("early", f"sum({of}) FILTER (WHERE age < {EARLY_DAYS}) / {EARLY_DAYS}"),
            ("late", f"sum({of}) FILTER (WHERE age >= {LATE_FROM}) / any_value(seen_days - {LATE_FROM})"),
            ("tilt", f"sum({of} * (ln(1 + age) - z_mean))"),
        ):
            named.append(f"{word} {name}")
            parts.append(f"coalesce({total}, 0) AS {identifier(named[-1])}")
    days = rows_of(database, f"SELECT DISTINCT seen_days FROM unit_totals WHERE seen_days > {LATE_FROM}")
    if not days:
        return {}, []
    steps = {row["seen_days"]: np.log1p(np.arange(row["seen_days"])) for row in days}
    scales = ", ".join(
        f"({n}, {float(z.mean())!r}::DOUBLE, {float(((z - z.mean()) ** 2).sum())!r}::DOUBLE)" for n, z in steps.items()
    )
    units = (
        "SELECT unit_id, variant, entry, seen_days, z_mean, z_squared FROM unit_totals "
        f"JOIN (VALUES {scales}) AS scales(seen_days, z_mean, z_squared) USING (seen_days)"
    )
    database.execute(
        "CREATE OR REPLACE TEMP TABLE unit_changes AS SELECT any_value(variant) AS variant, any_value(entry) AS entry, "
        f"{', '.join(parts)} FROM ({units}) AS u LEFT JOIN (SELECT * EXCLUDE (variant, key) FROM {PERIODS_TABLE}) AS d "
        "ON d.unit_id = u.unit_id AND d.age < u.seen_days GROUP BY u.unit_id"
    )
    whole = moments_by(database, "unit_changes", named)
    by_entry = moments_by(database, "unit_changes", named, ("entry",))
    return whole.get((), {}), [(key[0], of) for key, of in by_entry.items()]
