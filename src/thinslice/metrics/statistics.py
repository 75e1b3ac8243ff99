"""From unit rows to sufficient statistics, inside the database: a report moves a few hundred numbers, not the rows."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations_with_replacement
from typing import Any, Protocol

import numpy as np

from thinslice.metrics.unit_table import identifier
from thinslice.stats import Moments, moments_from_sums


def statistics_sql(table: str, columns: Sequence[str], by: Sequence[str] = ("variant",)) -> str:
    """Counts, averages and covariances of unit columns, one row per group.

    Args:
        table: A table or subquery with one row a unit.
        columns: The unit columns.
        by: What to group by.
    """
    keys = ", ".join(identifier(name) for name in by)
    names = [identifier(name) for name in columns]
    averages = [f"avg({name}) AS mean_{place}" for place, name in enumerate(names)]
    pairs = [
        f"covar_samp({names[a]}, {names[b]}) AS cov_{a}_{b}"
        for a, b in combinations_with_replacement(range(len(names)), 2)
    ]
    return f"SELECT {', '.join([keys, 'count(*) AS n', *averages, *pairs])} FROM {table} GROUP BY {keys}"


def read_statistics(row: Mapping[str, Any], columns: Sequence[str]) -> Moments:
    """One row of `statistics_sql` as moments."""
    size = len(columns)
    cov = np.zeros((size, size))
    for a, b in combinations_with_replacement(range(size), 2):
        cov[a, b] = cov[b, a] = row[f"cov_{a}_{b}"] or 0.0
    mean = np.array([row[f"mean_{place}"] for place in range(size)], dtype=np.float64)
    return Moments(tuple(columns), int(row["n"]), mean, cov)


def cumulative_sql(table: str, columns: Sequence[str]) -> str:
    """By how much each period changes the sums and sums of products of the units' running totals.

    A unit's total after a period is what it did until then. A period changes the sum of products by (after - before) of
    the units that were active in it, so one pass is enough for all periods.

    Args:
        table: One row per unit and period in which it was active: unit_id, variant, period (an integer), columns.
        columns: The unit columns, as increments.
    """
    names = [identifier(name) for name in columns]
    after = [f"sum({name}) OVER w AS after_{place}" for place, name in enumerate(names)]
    before = [f"(sum({name}) OVER w) - {name} AS before_{place}" for place, name in enumerate(names)]
    sums = [f"sum(after_{place} - before_{place}) AS sum_{place}" for place in range(len(names))]
    pairs = [
        f"sum(CAST(after_{a} AS DOUBLE) * after_{b} - CAST(before_{a} AS DOUBLE) * before_{b}) AS product_{a}_{b}"
        for a, b in combinations_with_replacement(range(len(names)), 2)
    ]
    return (
        f"WITH running AS (SELECT variant, period, row_number() OVER w = 1 AS is_new, {', '.join(after + before)} "
        f"FROM {table} WINDOW w AS (PARTITION BY unit_id ORDER BY period ROWS UNBOUNDED PRECEDING)) "
        f"SELECT variant, period, count_if(is_new) AS n, {', '.join(sums + pairs)} FROM running "
        "GROUP BY variant, period ORDER BY period"
    )


def read_cumulative(rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> list[tuple[int, dict[str, Moments]]]:
    """Rows of `cumulative_sql` as (period, variant → moments up to and with that period)."""
    size = len(columns)
    n: dict[str, int] = {}
    sums: dict[str, Any] = {}
    products: dict[str, Any] = {}
    periods: dict[int, dict[str, Moments]] = {}
    for row in rows:
        variant = row["variant"]
        n[variant] = n.get(variant, 0) + int(row["n"])
        step = np.array([row[f"sum_{place}"] for place in range(size)], dtype=np.float64)
        sums[variant] = sums.get(variant, 0.0) + step
        change = np.zeros((size, size))
        for a, b in combinations_with_replacement(range(size), 2):
            change[a, b] = change[b, a] = row[f"product_{a}_{b}"]
        products[variant] = products.get(variant, 0.0) + change
        so_far = {name: moments_from_sums(columns, n[name], sums[name], products[name]) for name in n}
        periods[int(row["period"])] = so_far
    return sorted(periods.items())


class Database(Protocol):
    """What runs SQL: a DuckDB connection."""

    def execute(self, query: str) -> Any:
        """Runs one query; the answer has `description` and `fetchall`."""
        ...


def rows_of(database: Database, sql: str) -> list[dict[str, Any]]:
    """The rows of a query as dictionaries."""
    answer = database.execute(sql)
    names = [column[0] for column in answer.description]
    return [dict(zip(names, row, strict=True)) for row in answer.fetchall()]


def moments_by(
    database: Database, table: str, columns: Sequence[str], by: Sequence[str] = ()
) -> dict[tuple[Any, ...], dict[str, Moments]]:
    """Moments per value of the columns `by` (none: the empty tuple) and variant, of a table with one row a unit."""
    found: dict[tuple[Any, ...], dict[str, Moments]] = {}
    for row in rows_of(database, statistics_sql(table, columns, by=("variant", *by))):
        key = tuple(row[name] for name in by)
        found.setdefault(key, {})[row["variant"]] = read_statistics(row, columns)
    return dict(sorted(found.items()))


def cumulative_moments(database: Database, table: str, columns: Sequence[str]) -> list[tuple[int, dict[str, Moments]]]:
    """(period, variant → moments up to and with that period) of a table as `cumulative_sql` takes it."""
    return read_cumulative(rows_of(database, cumulative_sql(table, columns)), columns)
