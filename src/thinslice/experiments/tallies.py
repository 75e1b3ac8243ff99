"""Exact counts of an experiment: whole numbers that are the same in whatever order and parts they are counted."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations_with_replacement
from typing import Any, NamedTuple

import numpy as np

from thinslice.metrics.statistics import Database, rows_of
from thinslice.metrics.unit_table import identifier
from thinslice.stats import Moments

LARGEST_WHOLE = 2**63 - 1
"""Sums that may go beyond it are taken in 128 bits."""

Counts = tuple[int, ...]
"""How many rows, then the sum of each column, then the sum of each product of two columns."""


class Tally:
    """What was counted so far, by name and key; parts are added in any order and give the same to the last digit.

    >>> tally = Tally()
    >>> tally.add("units", [(("old",), (2, 5, 13))])
    >>> tally.add("units", [(("old",), (1, 3, 9))])
    >>> tally.of("units")
    {('old',): (3, 8, 22)}
    """

    def __init__(self) -> None:
        self._counts: dict[str, dict[tuple[Any, ...], Counts]] = {}

    def add(self, what: str, rows: Iterable[tuple[tuple[Any, ...], Counts]]) -> None:
        """Adds rows of (key, counts); those of a known key are added up."""
        known = self._counts.setdefault(what, {})
        for key, counts in rows:
            old = known.get(key)
            known[key] = counts if old is None else tuple(a + b for a, b in zip(old, counts, strict=True))

    def of(self, what: str) -> dict[tuple[Any, ...], Counts]:
        """Key → counts, by key; empty when nothing of that name was counted."""
        found = self._counts.get(what, {})
        return dict(sorted(found.items(), key=lambda row: tuple((value is None, value) for value in row[0])))

    def total(self, what: str) -> int:
        """How many rows were counted under a name."""
        return sum(counts[0] for counts in self._counts.get(what, {}).values())


class Column(NamedTuple):
    """A whole number in SQL whose sum, and sums of products with others, are taken.

    Attributes:
        after: The value.
        before: What is taken off again: of a product of two columns `after * after - before * before` is added up.
            None where nothing is.
    """

    after: str
    before: str | None = None


def exact_counts(
    database: Database, table: str, columns: Sequence[Column], by: Sequence[str], *, where: str = "true",
    count: str = "count(*)",
) -> list[tuple[tuple[Any, ...], Counts]]:  # fmt: skip
    """Counts, sums and sums of products of whole numbers, exactly: one row per value of `by`.

    Products are taken in 64 bits where the largest values say that no sum can go beyond, else in 128.

    Args:
        database: Where the table is.
        table: A table or subquery.
        columns: Its columns.
        by: What to group by, in SQL.
        where: Which rows.
        count: How rows are counted.
    """
    largest = _largest(database, table, columns, where)
    if largest is None:
        return []
    parts = [f"{count} AS n"] + [
        f"sum({column.after}{'' if column.before is None else f' - {column.before}'}) AS sum_{at}"
        for at, column in enumerate(columns)
    ]
    for a, b in combinations_with_replacement(range(len(columns)), 2):
        wide = largest[0] * largest[1 + a] * largest[1 + b] > LARGEST_WHOLE // 2
        product = _product(columns[a].after, columns[b].after, wide)
        one, other = columns[a].before, columns[b].before
        if one is not None and other is not None:
            product += f" - {_product(one, other, wide)}"
        parts.append(f"sum({product}) AS product_{a}_{b}")
    keys = [f"{name} AS key_{at}" for at, name in enumerate(by)]
    grouped = f"GROUP BY {', '.join(by)}" if by else ""
    rows = rows_of(database, f"SELECT {', '.join([*keys, *parts])} FROM {table} WHERE {where} {grouped}")
    return [
        (tuple(row[f"key_{at}"] for at in range(len(by))),
         tuple(int(value or 0) for name, value in row.items() if not name.startswith("key_")))
        for row in rows
    ]  # fmt: skip


def moments_of(
    columns: Sequence[str], counts: Counts, scale: Sequence[float] | None = None, *, n: int | None = None
) -> Moments:
    """Exact counts as moments, each rounded once.

    Args:
        columns: Their names.
        counts: As `exact_counts` gives them.
        scale: What each column is multiplied by afterwards; None is 1.
        n: How many rows there are, where not all of them were counted: the others are zeros.

    >>> moments_of(["clicks"], (3, 3, 5)).var_of("clicks")
    1.0
    """
    size = len(columns)
    number = counts[0] if n is None else n
    sums, products = counts[1 : 1 + size], iter(counts[1 + size :])
    mean, cov = np.zeros(size), np.zeros((size, size))
    for a in range(size):
        mean[a] = sums[a] / max(number, 1)
    for a, b in combinations_with_replacement(range(size), 2):
        scatter = number * next(products) - sums[a] * sums[b]
        cov[a, b] = cov[b, a] = scatter / (max(number, 1) * max(number - 1, 1))
    if scale is not None:
        factors = np.asarray(scale, dtype=np.float64)
        mean, cov = mean * factors, cov * np.outer(factors, factors)
    return Moments(tuple(columns), number, mean, cov)


def exact_moments(
    database: Database, table: str, columns: Sequence[str], by: Sequence[str] = ()
) -> dict[tuple[Any, ...], dict[str, Moments]]:
    """Moments of whole numbers per value of the columns `by` and variant, the same in whatever order rows lie.

    Args:
        database: Where the table is.
        table: Its name; one row a unit.
        columns: Its columns.
        by: What to group by besides the variant.
    """
    found: dict[tuple[Any, ...], dict[str, Moments]] = {}
    for (variant, *key), counts in sorted(exact_counts(database, table, quoted(columns), ["variant", *by])):
        found.setdefault(tuple(key), {})[variant] = moments_of(columns, counts)
    return dict(sorted(found.items()))


def with_constant(of: Moments, name: str, value: float) -> Moments:
    """Moments with one more column that has the same value in every row."""
    size = len(of.names)
    cov = np.zeros((size + 1, size + 1))
    cov[:size, :size] = of.cov
    return Moments((*of.names, name), of.n, np.append(of.mean, value), cov)


def quantile_of_counts(counts: Mapping[float, int], share: float) -> float | None:
    """A quantile of values that occur so often each, between two of them in proportion; None of nothing.

    >>> quantile_of_counts({0: 3, 10: 1}, 0.9)
    7.0
    """
    if not counts:
        return None
    values = sorted(counts)
    ends = np.cumsum([counts[value] for value in values])
    place = share * (int(ends[-1]) - 1)
    low = int(np.floor(place))
    left, right = (
        values[int(np.searchsorted(ends, at, side="right"))] for at in (low, min(low + 1, int(ends[-1]) - 1))
    )
    return round(float(left + (right - left) * (place - low)), 9)


def _largest(database: Database, table: str, columns: Sequence[Column], where: str) -> list[int] | None:
    """How many rows, and the largest size of each column; None without rows."""
    sizes = []
    for column in columns:
        values = [column.after] if column.before is None else [column.after, column.before]
        sizes += [f"{end}({value})" for value in values for end in ("min", "max")]
    named = ", ".join(f"{size} AS of_{at}" for at, size in enumerate(sizes))
    (row,) = rows_of(database, f"SELECT count(*) AS n{', ' + named if named else ''} FROM {table} WHERE {where}")
    if not row["n"]:
        return None
    found, at = [int(row["n"])], 0
    for column in columns:
        width = 2 if column.before is None else 4
        found.append(max(abs(int(row[f"of_{at + place}"])) for place in range(width)))
        at += width
    return found


def _product(one: str, other: str, wide: bool) -> str:
    return f"CAST({one} AS HUGEINT) * {other}" if wide else f"{one} * {other}"


def quoted(names: Iterable[str]) -> list[Column]:
    """Columns by their plain names."""
    return [Column(identifier(name)) for name in names]
