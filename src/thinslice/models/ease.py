"""EASE: the best table of weights from item to item, in closed form; for catalogs that fit into one square matrix.

EASE (Steck, WWW 2019) with the bounded diagonal of SLIS (Choi et al., WWW 2021): every session is a row of 0 and 1, the
table B minimizes |X - XB|² + reg |B|². EASE forbids an item to foretell itself; in sessions visitors do come back,
so here it may, up to the weight `repeats`; with 0 it is plain EASE.
"""

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from thinslice.errors import BadInput, TooLarge
from thinslice.models.factors import one_thread
from thinslice.models.item_to_item import ItemToItem, click_counts
from thinslice.records import Interactions, Item

LARGEST_CATALOG = 10_000
"""Items; the matrix takes 8 bytes a pair, 0.8 GB at this size, and about a minute."""


class EASE(ItemToItem):
    """Linear autoencoder of sessions; weights may be below zero."""

    name = "ease"

    @classmethod
    def fit(
        cls,
        interactions: Interactions,
        items: Sequence[Item] | None = None,
        *,
        rng: np.random.Generator | int | None = None,
        reg: float = 50.0,
        repeats: float = 0.3,
        decay: float = 2.0,
        top: int = 300,
    ) -> Self:
        """Solves for the table.

        Args:
            interactions: The clicks.
            items: Not needed: only clicked items are learned.
            rng: Not needed: nothing is random.
            reg: Weight of the squared table, in sessions.
            repeats: The largest weight of an item for itself, from 0 up to 1.
            decay: Clicks after which a click of the session counts 1/e as much as the newest.
            top: How many weights are kept an item, the largest by size.

        Raises:
            TooLarge: There are 10,000 clicked items or more.
            BadInput: A setting is out of its range.
        """
        del items, rng
        if not 0 <= repeats < 1 or not 0 < reg <= 1e9 or not 0.1 <= decay <= 1e6 or top < 1 or top != int(top):
            raise BadInput(
                "reg must be above 0, repeats from 0 to below 1, decay from 0.1 and top a whole number from 1, "
                f"got {reg}, {repeats}, {decay} and {top}."
            )
        count = len(interactions.item_ids)
        if count >= LARGEST_CATALOG:
            raise TooLarge(
                f"ease needs a catalog below {LARGEST_CATALOG:,} items, this one has {count:,}.",
                hint="implicit-tfidf and session-knn learn from catalogs of any size.",
            )
        clicks = click_counts(interactions.session_ptr, interactions.item, count)
        clicks.data[:] = 1
        row, target, weight = largest_weights(solve(clicks, reg, repeats), top)
        return cls.from_table(row, target, weight, interactions.item_ids, np.exp(-np.arange(60) / decay))


def solve(rows: Any, reg: float, repeats: float) -> NDArray[np.float64]:
    """The table B of shape (items, items) that minimizes |X - XB|² + reg |B|² with no B[j, j] above `repeats`.

    Args:
        rows: X, a scipy CSR matrix.
        reg: Above 0.
        repeats: From 0 to below 1.
    """
    size = rows.shape[1]
    if not size:
        return np.zeros((0, 0))
    with one_thread():
        from scipy.linalg import lapack

        # as Fortran sees it; the matrix is symmetric
        table = np.asfortranarray((rows.T @ rows).toarray(), dtype=np.float64)
        table[np.diag_indices(size)] += reg
        table, failed = lapack.dpotrf(table, lower=1, overwrite_a=1)
        if not failed:
            table, failed = lapack.dpotri(table, lower=1, overwrite_c=1)
    if failed:
        raise BadInput(f"the clicks of {size} items have no stable solution with reg {reg}.", hint="Raise reg.")
    for start in range(0, size, 512):  # only the lower half is solved for
        stop = min(start + 512, size)
        corner = np.tril(table[start:stop, start:stop])
        table[start:stop, stop:] = table[stop:, start:stop].T
        table[start:stop, start:stop] = corner + np.tril(corner, -1).T
    own = np.diag(table).copy()
    scale = np.where(1 - reg * own <= repeats, reg, (1 - repeats) / own)
    table *= -scale
    table[np.diag_indices(size)] += 1
    found: NDArray[np.float64] = table
    return found


def largest_weights(
    table: NDArray[np.float64], top: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """The `top` largest weights by size of each row of a table: row, column, weight."""
    size = table.shape[1]
    kept = min(top, size)
    rows, columns = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for start in range(0, len(table), 512):
        block = np.abs(table[start : start + 512])
        near = np.argpartition(-block, kept - 1, axis=1)[:, :kept]
        rows.append(np.repeat(np.arange(start, start + len(block)), kept))
        columns.append(near.ravel())
    row, column = np.concatenate(rows), np.concatenate(columns)
    return row, column, table[row, column]
