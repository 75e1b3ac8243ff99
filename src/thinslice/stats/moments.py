"""The waist of every report: how many units, their averages, and how these vary together; events stop here."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from thinslice.errors import StatisticsError

LARGEST = 1e60
"""Values beyond this are refused: their squares and products would not be numbers any more."""


class Moments(NamedTuple):
    """Sufficient statistics of some columns over the units of one variant.

    Attributes:
        names: The columns.
        n: How many units.
        mean: Shape (columns,), averages over units.
        cov: Shape (columns, columns), sample covariances (divided by n - 1); zeros for fewer than two units.
    """

    names: tuple[str, ...]
    n: int
    mean: NDArray[np.float64]
    cov: NDArray[np.float64]

    def mean_of(self, name: str) -> float:
        """The average of one column."""
        return float(self.mean[self.names.index(name)])

    def var_of(self, name: str) -> float:
        """The sample variance of one column."""
        place = self.names.index(name)
        return float(self.cov[place, place])


def moments(columns: Mapping[str, ArrayLike]) -> Moments:
    """Sufficient statistics from columns, one row a unit.

    Raises:
        StatisticsError: A column has another length, or holds NaN or infinity.

    >>> moments({"clicks": [0, 1, 2]}).var_of("clicks")
    1.0
    """
    names = tuple(columns)
    arrays = [np.asarray(columns[name], dtype=np.float64) for name in names]
    lengths = sorted({array.size for array in arrays})
    if len(lengths) > 1:
        raise StatisticsError(f"columns have different lengths: {lengths[0]} and {lengths[-1]} rows.")
    for name, array in zip(names, arrays, strict=True):
        bad = int(array.size - np.isfinite(array).sum())
        if bad:
            raise StatisticsError(f"column {name!r} has {bad} of {array.size} values that are no finite numbers.")
    n = lengths[0] if lengths else 0
    if n == 0:
        return Moments(names, 0, np.zeros(len(names)), np.zeros((len(names), len(names))))
    data = np.stack(arrays)
    largest = float(np.abs(data).max(initial=0.0))
    if largest > LARGEST:
        raise StatisticsError(f"values up to {largest:.3g} are too large to be squared (at most {LARGEST:g}).")
    mean = data.mean(axis=1)
    centered = data - mean[:, None]
    return Moments(names, n, mean, centered @ centered.T / max(n - 1, 1))


def moments_from_sums(names: Iterable[str], n: int, sums: ArrayLike, products: ArrayLike) -> Moments:
    """Sufficient statistics from plain sums, as a database that counts in one pass gives them.

    Args:
        names: The columns.
        n: How many units.
        sums: Shape (columns,), sum of each column.
        products: Shape (columns, columns), sum over units of each product of two columns.
    """
    total = np.asarray(sums, dtype=np.float64)
    raw = np.asarray(products, dtype=np.float64)
    mean = total / max(n, 1)
    return Moments(tuple(names), n, mean, (raw - n * np.outer(mean, mean)) / max(n - 1, 1))


def merge(parts: Iterable[Moments]) -> Moments:
    """The moments of all units together, without seeing any of them again.

    Source: Chan, Golub and LeVeque, Updating formulae and a pairwise algorithm for computing sample variances (1979).

    Raises:
        StatisticsError: There is no part, or two parts have different columns.
    """
    rows = list(parts)
    if not rows:
        raise StatisticsError("needs at least 1 part to merge, got 0.")
    if any(part.names != rows[0].names for part in rows):
        raise StatisticsError("parts have different columns.")
    n = sum(part.n for part in rows)
    if n == 0:
        return rows[0]
    mean: NDArray[Any] = sum((part.n * part.mean for part in rows), np.zeros_like(rows[0].mean)) / n
    scatter = np.zeros_like(rows[0].cov)
    for part in rows:
        scatter += max(part.n - 1, 0) * part.cov + part.n * np.outer(part.mean - mean, part.mean - mean)
    return Moments(rows[0].names, n, mean, scatter / max(n - 1, 1))
