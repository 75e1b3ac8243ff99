"""What a replay says of a model: how often it was right, how early, how daring; and how sure we are of it."""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from thinslice.errors import TooFewUnits

Z = 1.959963984540054
"""Half the width of a 95 % interval in standard errors."""


class Estimate(NamedTuple):
    """A figure and its standard error, which is None where there is only one session."""

    value: float
    error: float | None

    def interval(self) -> list[float | None]:
        """[low, high] at 95 %, null where unbounded."""
        if self.error is None:
            return [None, None]
        return [self.value - Z * self.error, self.value + Z * self.error]


def clustered_mean(values: NDArray[np.float64], cluster: NDArray[np.int32]) -> tuple[float, float | None]:
    """The mean over queries and its standard error, clustered by session: clicks of one session are not independent.

    The linearized variance of a ratio of sums over C clusters, with the correction C / (C - 1).

    Args:
        values: Shape (queries,).
        cluster: Shape (queries,), the number of each query's session.

    Returns:
        Mean and standard error; None where there is only one session.

    Raises:
        TooFewUnits: There are no queries.

    >>> clustered_mean(np.array([1.0, 0.0, 1.0, 0.0]), np.array([0, 0, 1, 1]))
    (0.5, 0.0)
    """
    if len(values) == 0:
        raise TooFewUnits(needed=1, got=0, what="queries")
    mean = float(values.mean())
    _, code = np.unique(cluster, return_inverse=True)
    residual = np.bincount(code, weights=values - mean)
    clusters = len(residual)
    if clusters < 2:
        return mean, None
    return mean, math.sqrt(float(np.square(residual).sum()) * clusters / (clusters - 1)) / len(values)


def clustered_ratio(
    above: NDArray[np.float64], below: NDArray[np.float64], cluster: NDArray[np.int32]
) -> tuple[float, float | None]:
    """The ratio of two means over queries and its standard error by the delta method, clustered by session.

    Raises:
        TooFewUnits: There are no queries.

    >>> clustered_ratio(np.array([2.0, 4.0]), np.array([1.0, 2.0]), np.array([0, 1]))
    (2.0, 0.0)
    """
    mean, _ = clustered_mean(below, cluster)
    ratio = clustered_mean(above, cluster)[0] / mean
    return ratio, clustered_mean((above - ratio * below) / mean, cluster)[1]


def hits(rank: NDArray[np.int32]) -> NDArray[np.float64]:
    """1 where the clicked item was in the list."""
    return (rank > 0).astype(np.float64)


def reciprocal_ranks(rank: NDArray[np.int32]) -> NDArray[np.float64]:
    """1 / place, 0 where the clicked item was not in the list."""
    return np.where(rank > 0, 1 / np.maximum(rank, 1), 0.0)


def discounted_gains(rank: NDArray[np.int32]) -> NDArray[np.float64]:
    """1 / log2(1 + place), 0 outside of the list: NDCG where one item is right (Järvelin and Kekäläinen, 2002).

    >>> discounted_gains(np.array([1, 3, 0])).tolist()
    [1.0, 0.5, 0.0]
    """
    return np.where(rank > 0, 1 / np.log2(1 + np.maximum(rank, 1)), 0.0)


def surprise_bits(clicks: NDArray[np.float64]) -> NDArray[np.float64]:
    """Self-information of each item in bits: -log2 of its share of all clicks, each item given one click more.

    A list of such items is as novel as their mean (Zhou et al., PNAS 2010; Vargas and Castells, RecSys 2011).

    >>> surprise_bits(np.array([3.0, 0.0, 1.0, 0.0])).tolist()
    [1.0, 3.0, 2.0, 3.0]
    """
    return np.asarray(-np.log2((clicks + 1) / (clicks.sum() + len(clicks))), dtype=np.float64)


def list_means(lists: NDArray[np.int32], worth: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean of `worth` over the items of each list; NaN for an empty list.

    Args:
        lists: Shape (queries, k), codes, -1 where a list ended.
        worth: Shape (items,).

    >>> list_means(np.array([[0, 1], [1, -1]]), np.array([2.0, 4.0])).tolist()
    [3.0, 4.0]
    """
    padded = np.append(worth, 0.0)
    means = np.full(len(lists), np.nan)
    piece = max(1, (1 << 20) // max(lists.shape[1], 1))  # long lists of many queries would fill the memory
    for start in range(0, len(lists), piece):
        part = lists[start : start + piece]
        length = (part >= 0).sum(axis=1)
        np.divide(padded[part].sum(axis=1), length, out=means[start : start + piece], where=length > 0)
    return means


def quantiles(microseconds: NDArray[np.float64]) -> dict[str, float]:
    """p50, p90 and p99, to a tenth of a microsecond."""
    p50, p90, p99 = np.quantile(microseconds, [0.5, 0.9, 0.99]).tolist()
    return {"p50": round(p50, 1), "p90": round(p90, 1), "p99": round(p99, 1)}
