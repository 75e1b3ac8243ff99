"""Item to item: each click of the session votes for the items that go with it, by a table of weights."""

import threading
from collections.abc import Sequence
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from thinslice.errors import BadInput
from thinslice.models.array_model import ArrayModel
from thinslice.models.vocabulary import Vocabulary
from thinslice.records import Arrays, Reason

LONGEST_LOOK = 500
"""A session's newest known clicks that count; what is older is passed over."""


class ItemToItem(ArrayModel):
    """A sparse table of weights (row = clicked item, column = item to show) and what a click counts by its place.

    The score of an item is the sum over the session's clicks of what the click counts × the weight in its row. Models
    that learn such a table (cosine, EASE, transitions) inherit from here and only have a `fit`.
    """

    name = "item-to-item"
    _warm: ClassVar[bool] = False

    def __init__(self, arrays: Arrays) -> None:
        super().__init__(arrays)
        self._table = tuple(plain(arrays[name]) for name in ("row_ptr", "target", "weight"))
        self._step_worth = np.asarray(arrays["step_worth"], dtype=np.float64)
        self._scratch = threading.local()

    @classmethod
    def from_table(
        cls,
        row: NDArray[Any],
        target: NDArray[Any],
        weight: NDArray[Any],
        item_ids: Sequence[str],
        step_worth: Sequence[float] | NDArray[np.float64] = (1.0,),
    ) -> Self:
        """A model from the entries of a table, in any order; entries that are zero are left out.

        Args:
            row: Shape (entries,), codes of clicked items.
            target: Shape (entries,), codes of items to show; no pair twice.
            weight: Shape (entries,).
            item_ids: The vocabulary.
            step_worth: What the newest click counts, the one before, and so on; the last value holds for all older.
        """
        there = np.flatnonzero(np.asarray(weight, dtype=np.float32))
        order = there[np.lexsort((target[there], row[there]))]
        row_ptr = np.zeros(len(item_ids) + 1, dtype=np.int64)
        np.cumsum(np.bincount(row[order], minlength=len(item_ids)), out=row_ptr[1:])
        return cls(
            {
                "row_ptr": row_ptr,
                "target": np.asarray(target)[order].astype(np.int32),
                "weight": np.asarray(weight)[order].astype(np.float32),
                "step_worth": np.asarray(step_worth, dtype=np.float64),
                **Vocabulary(item_ids).arrays(),
            }
        )

    @classmethod
    def ready(cls) -> bool:
        """Whether a question is answered at once."""
        return ItemToItem._warm

    @classmethod
    def warm(cls) -> None:
        """Compiles the kernels, or reads them from the cache of an earlier run."""
        if not ItemToItem._warm:
            row, target = np.array([0, 0]), np.array([0, 1])
            model = ItemToItem.from_table(row, target, np.ones(2), ["a", "b"])
            model.recommend(["a"], 1)
            model.explain(["a"], "b")
            kernel().sum_rows(model._clicks(np.zeros(1, np.int32))[0], np.ones(1), *model._table, 2)
            ItemToItem._warm = True

    def recommend_codes(
        self, session: NDArray[np.int32], k: int, allowed: NDArray[np.bool_] | None = None
    ) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
        """`recommend` without texts: item codes, oldest first, -1 for unknown; codes and scores, best first."""
        mask = checked_mask(allowed, len(self._vocabulary))
        clicks, worth = self._clicks(session)
        found: tuple[NDArray[np.int32], NDArray[np.float64]] = kernel().rank_rows(
            clicks, worth, *self._table, *self._room(), max(k, 0), mask
        )
        return found

    def explain_all(self, session: Sequence[str], item_ids: Sequence[str]) -> list[Reason]:
        """`explain` for a whole slate in one pass."""
        clicks, worth = self._clicks(self._vocabulary.codes(session))
        codes = self._vocabulary.codes(item_ids)
        parts, total = kernel().row_terms(clicks, worth, *self._table, np.maximum(codes, 0))
        names = [self._vocabulary[code] for code in clicks.tolist()]
        return [
            Reason(item_id, float(total[n]), terms_by_item(names, parts[n]))
            if codes[n] >= 0 and total[n] > 0
            else Reason(item_id, 0.0, {})
            for n, item_id in enumerate(item_ids)
        ]

    def _clicks(self, session: NDArray[np.int32]) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
        """The known clicks that count, oldest first, and what each counts."""
        clicks = np.ascontiguousarray(session[session >= 0][-LONGEST_LOOK:], dtype=np.int32)
        steps = np.minimum(np.arange(len(clicks) - 1, -1, -1), len(self._step_worth) - 1)
        return clicks, self._step_worth[steps]

    def _room(self) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
        """This thread's scratch, 12 bytes an item."""
        room: tuple[NDArray[np.float64], NDArray[np.int32]] | None = getattr(self._scratch, "room", None)
        if room is None:
            items = len(self._vocabulary)
            room = self._scratch.room = (np.zeros(items, np.float64), np.empty(items, np.int32))
        return room


def strongest(
    row: NDArray[np.int64], target: NDArray[np.int64], weight: NDArray[np.float64], top: int
) -> NDArray[np.int64]:
    """Places of the `top` entries of each row that are largest, equal ones by target.

    >>> strongest(np.array([0, 0, 0, 1]), np.array([5, 6, 7, 5]), np.array([1.0, 3.0, 1.0, 2.0]), 2).tolist()
    [1, 0, 3]
    """
    order = np.lexsort((target, -weight, row))
    heads = np.flatnonzero(np.diff(row[order], prepend=-1))
    place = np.arange(len(order)) - np.repeat(heads, np.diff(np.append(heads, len(order))))
    kept: NDArray[np.int64] = order[place < top]
    return kept


def terms_by_item(names: Sequence[str], parts: NDArray[np.float64]) -> dict[str, float]:
    """What each session item gave, its clicks added; items that gave nothing are left out.

    >>> terms_by_item(["a", "b", "a"], np.array([1.0, 0.0, 0.5]))
    {'a': 1.5}
    """
    terms: dict[str, float] = {}
    for name, part in zip(names, parts.tolist(), strict=True):
        if part != 0:
            terms[name] = terms.get(name, 0.0) + part
    return terms


def checked_mask(allowed: NDArray[np.bool_] | None, items: int) -> NDArray[np.bool_]:
    """A plain mask over the items; an empty one allows all.

    Raises:
        BadInput: It has another length.
    """
    if allowed is None:
        return plain(np.empty(0, dtype=np.bool_))
    if len(allowed) != items:
        raise BadInput(f"allowed must have {items} values, one an item, got {len(allowed)}.")
    return plain(np.asarray(allowed, dtype=np.bool_))


def click_counts(session_ptr: NDArray[np.int64], item: NDArray[np.int32], item_count: int) -> Any:
    """Sessions × items, how often each item was clicked in each session: a scipy CSR matrix, float32, sorted."""
    from scipy.sparse import csr_matrix

    counts = csr_matrix(
        (np.ones(len(item), dtype=np.float32), item.copy(), session_ptr.copy()),  # it is changed in place
        shape=(len(session_ptr) - 1, item_count),
    )
    counts.sum_duplicates()
    return counts


def plain(array: NDArray[Any]) -> NDArray[Any]:
    """A plain read-only view, so that memory-mapped arrays and those in memory share one compiled kernel."""
    view = np.ascontiguousarray(np.asarray(array)).view()
    view.flags.writeable = False
    return view


def kernel() -> Any:
    """The compiled loops; imported late, because the compiler takes half a second that `thinslice --help` has not."""
    from thinslice.models import linear_kernel

    return linear_kernel
