"""Availability: which items of a model may stand in a slate this second; kept current, never counted afresh."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice

import numpy as np
from numpy.typing import NDArray

COMPLETE_SHARE = 0.5
"""A catalog that knows less than this share of a model's items is taken as incomplete, and unknown items pass."""

SLICE = 2048
"""So many changes are taken in at once, in about half a millisecond."""


class Availability:
    """A mask over one model's items that follows the catalog.

    Items that the catalog knows pass when they are available. Items that it does not know pass as long as the catalog
    is plainly incomplete: it knows less than half of the model's items (a shop that imported events only has none).

    Args:
        item_ids: The model's vocabulary.
        available: What the catalog knows: item id → may be shown.
        pause: Called after each `SLICE` items: a thread that makes a mask beside others lets them go on.
    """

    def __init__(
        self, item_ids: Sequence[str], available: Mapping[str, bool], pause: Callable[[], object] = bool
    ) -> None:
        codes: dict[str, int] | None = getattr(item_ids, "code", None)  # a vocabulary knows its codes already
        self.codes = {item_id: code for code, item_id in enumerate(item_ids)} if codes is None else codes
        self._known: NDArray[np.bool_] = np.zeros(len(item_ids), dtype=np.bool_)
        self._available: NDArray[np.bool_] = np.ones(len(item_ids), dtype=np.bool_)
        self._known_count = 0
        self.mask: NDArray[np.bool_] = np.ones(len(item_ids), dtype=np.bool_)
        self._count = len(item_ids)
        self._narrowed: NDArray[np.bool_] | None = None
        self._left_out: list[int] = []
        self.update(available.items(), pause)

    def update(self, changes: Iterable[tuple[str, bool]], pause: Callable[[], object] = bool) -> None:
        """Takes in changes of the catalog: (item id, may be shown); of several for one item the last one counts."""
        was_complete = self.complete
        rest = iter(changes)
        while part := list(islice(rest, SLICE)):
            find = self.codes.get
            codes = np.array([find(item_id, -1) for item_id, _ in part], dtype=np.int64)
            inside = codes >= 0
            codes = codes[inside]
            values = np.array([available for _, available in part], dtype=np.bool_)[inside]
            self._known[codes] = True
            self._available[codes] = values
            self.mask[codes] = values
            pause()
        self._known_count = int(np.count_nonzero(self._known))
        if self.complete != was_complete:
            self.mask = self._available & self._known if self.complete else self._available.copy()
        self._count = int(np.count_nonzero(self.mask))
        self._narrowed = None

    @property
    def complete(self) -> bool:
        """Whether the catalog knows enough items to judge those that it does not know."""
        return self._known_count > 0 and self._known_count >= COMPLETE_SHARE * len(self.codes)

    def allowed(self, without: Iterable[str]) -> NDArray[np.bool_]:
        """The mask without some items: shape (items,), True where an item may be shown.

        The caller must not write, and must not keep it: the next call narrows the same piece of memory anew, since to
        copy the mask of a large shop for every slate costs more than to read it.
        """
        find = self.codes.get
        codes = [code for item_id in without if (code := find(item_id)) is not None]
        if not codes:
            return self.mask
        narrowed = self._narrowed
        if narrowed is None:
            narrowed = self._narrowed = self.mask.copy()
        else:
            for code in self._left_out:
                narrowed[code] = self.mask[code]
        for code in codes:
            narrowed[code] = False
        self._left_out = codes
        return narrowed

    def count(self, without: Iterable[str]) -> int:
        """How many items `allowed` lets through, without counting them."""
        codes = self.codes
        return self._count - sum(bool(self.mask[codes[item_id]]) for item_id in set(without) if item_id in codes)

    def passes(self, item_id: str) -> bool:
        """Whether one item may be shown; one that the model does not know may not."""
        code = self.codes.get(item_id)
        return code is not None and bool(self.mask[code])
