"""What a replay says of a model: hit rate, reciprocal rank, and how sure we are of them."""

import math

import numpy as np
from numpy.typing import NDArray

from thinslice.errors import TooFewUnits


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


def hits(rank: NDArray[np.int32]) -> NDArray[np.float64]:
    """1 where the clicked item was in the list."""
    return (rank > 0).astype(np.float64)


def reciprocal_ranks(rank: NDArray[np.int32]) -> NDArray[np.float64]:
    """1 / place, 0 where the clicked item was not in the list."""
    return np.where(rank > 0, 1 / np.maximum(rank, 1), 0.0)


def quantiles(microseconds: NDArray[np.float64]) -> dict[str, float]:
    """p50, p90 and p99, to a tenth of a microsecond."""
    p50, p90, p99 = np.quantile(microseconds, [0.5, 0.9, 0.99]).tolist()
    return {"p50": round(p50, 1), "p90": round(p90, 1), "p99": round(p99, 1)}
