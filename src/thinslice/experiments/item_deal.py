"""Items dealt out to variants: each new one belongs to one of them, so that none lives on another's discoveries."""

from collections.abc import Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import ArrayLike, NDArray

from thinslice.errors import BadInput, Corrupt
from thinslice.experiments.assign import FNV_OFFSET, FNV_PRIME, GRAIN, bucket, seed_of, seed_state
from thinslice.records import Experiment

_FNV64_OFFSET = np.uint64(0xCBF29CE484222325)
_FNV64_PRIME = np.uint64(0x100000001B3)


class KnownItems:
    """The items that were there when an experiment began, in eight bytes each.

    Ids are kept as 64-bit hashes: that a new item is taken for one of a million old ones has a chance of 5 in 10^14.

    Args:
        item_ids: Any order.

    >>> KnownItems(["a", "b"]).hold(["b", "c"]).tolist()
    [True, False]
    """

    def __init__(self, item_ids: Sequence[str]) -> None:
        self._keys = np.unique(_hashes(item_ids))

    def __len__(self) -> int:
        return len(self._keys)

    def hold(self, item_ids: Sequence[str]) -> NDArray[np.bool_]:
        """Shape (items,): which of them were there."""
        if not len(self._keys):
            return np.zeros(len(item_ids), dtype=np.bool_)
        found = _hashes(item_ids)
        at = np.minimum(np.searchsorted(self._keys, found), len(self._keys) - 1)
        return np.asarray(self._keys[at] == found, dtype=np.bool_)

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """What is stored: `keys` (items,) uint64, ascending."""
        return {"keys": self._keys}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.generic]]) -> "KnownItems":
        """The items of what `arrays` gave.

        Raises:
            Corrupt: There is no such array.
        """
        keys = arrays.get("keys")
        if keys is None or keys.dtype != np.uint64 or keys.ndim != 1:
            raise Corrupt("the arrays of known items do not belong together.")
        made = cls([])
        made._keys = np.unique(keys.astype(np.uint64))
        return made


class ItemDeal:
    """Which items one variant may show, and which sessions' clicks on them may teach it.

    Args:
        experiment: Whose `deal_items` and weights (those of its start: a ramp moves no item).
        variant: Whose.
        known: What was there at the start, for `deal_items = "new"`; None: nothing was.

    Raises:
        BadInput: The experiment has no such variant.

    Source: Su et al., Long-term value of exploration (arXiv 2305.07764): users and items diverted together.
    """

    def __init__(self, experiment: Experiment, variant: str, known: KnownItems | None = None) -> None:
        names = [each.name for each in experiment.variants]
        if variant not in names:
            raise BadInput(f"experiment {experiment.name!r} has no variant {variant!r} (there is: {', '.join(names)}).")
        first = experiment.history[0].weights if experiment.history else {}
        self._ends = np.cumsum([first.get(each.name, each.weight) for each in experiment.variants])
        self._place, self._last = names.index(variant), len(names) - 1
        self._seed = f"{seed_of(experiment.tenant, experiment.name)}:items"
        self._known = known if experiment.deal_items == "new" else None
        self._none = experiment.deal_items == "none"
        self._masks: WeakKeyDictionary[Any, NDArray[np.bool_]] = WeakKeyDictionary()

    def may(self, item_id: str) -> bool:
        """Whether the variant may show one item."""
        if self._none:
            return True
        owner = min(int(np.searchsorted(self._ends, bucket(self._seed, item_id), side="right")), self._last)
        return owner == self._place or (self._known is not None and bool(self._known.hold([item_id])[0]))

    def own(self, item_ids: Sequence[str]) -> NDArray[np.bool_]:
        """Shape (items,): which of them the variant may show; about 0.3 microseconds each."""
        if self._none:
            return np.ones(len(item_ids), dtype=np.bool_)
        owner = np.minimum(np.searchsorted(self._ends, buckets(self._seed, item_ids), side="right"), self._last)
        mine = np.asarray(owner == self._place, dtype=np.bool_)
        return mine if self._known is None else mine | self._known.hold(item_ids)

    def mask(self, words: Any) -> NDArray[np.bool_]:
        """As `own`, for a model's vocabulary; remembered for as long as that lives.

        Args:
            words: `model.item_ids`; what cannot be remembered (a plain list) is asked anew.
        """
        if isinstance(words, list | tuple):
            return self.own(words)
        mask = self._masks.get(words)
        if mask is None or len(mask) != len(words):
            mask = self._masks[words] = self.own(list(words))
        return mask


def buckets(seed: str, values: Sequence[str]) -> NDArray[np.float64]:
    """`assign.bucket` of many values at once.

    >>> buckets("seed", ["a", "b"]).tolist() == [bucket("seed", "a"), bucket("seed", "b")]
    True
    """
    found = np.empty(len(values), dtype=np.float64)
    plain = np.fromiter((value.isascii() for value in values), dtype=np.bool_, count=len(values))
    for at in np.flatnonzero(~plain).tolist():
        found[at] = bucket(seed, values[at])
    where = np.flatnonzero(plain)
    if where.size:
        table, lengths = _bytes_of([values[at].encode("ascii") for at in where.tolist()])
        state = np.full(where.size, seed_state(seed), dtype=np.uint32)
        for place in range(table.shape[1]):
            inside = place < lengths
            state = np.where(inside, (state ^ table[:, place]) * np.uint32(FNV_PRIME), state)
        found[where] = _second_hash(state)
    return found


def _second_hash(state: NDArray[np.uint32]) -> NDArray[np.float64]:
    """The second half of `bucket` for many first hashes at once: the hash over the decimal text of each.

    Args:
        state: Shape (values,), first hashes.
    """
    found = np.full(state.shape, FNV_OFFSET, dtype=np.uint32)
    begun = np.zeros(state.shape, dtype=np.bool_)
    for power in range(9, -1, -1):
        digit = (state // np.uint32(10**power)) % np.uint32(10)
        begun |= (digit > 0) | (power == 0)
        found = np.where(begun, (found ^ (digit + np.uint32(48))) * np.uint32(FNV_PRIME), found)
    return np.asarray((found % np.uint32(GRAIN)) / GRAIN, dtype=np.float64)


def _hashes(item_ids: Sequence[str]) -> NDArray[np.uint64]:
    """FNV-1a, 64 bit, over UTF-8."""
    if not len(item_ids):
        return np.empty(0, dtype=np.uint64)
    table, lengths = _bytes_of([item_id.encode("utf-8", "surrogatepass") for item_id in item_ids])
    state = np.full(len(item_ids), _FNV64_OFFSET, dtype=np.uint64)
    for place in range(table.shape[1]):
        inside = place < lengths
        state = np.where(inside, (state ^ table[:, place].astype(np.uint64)) * _FNV64_PRIME, state)
    return state


def _bytes_of(values: Sequence[bytes]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Shape (values, longest) of bytes, padded with zeros, and the lengths."""
    lengths = np.fromiter((len(value) for value in values), dtype=np.int64, count=len(values))
    longest = max(int(lengths.max()), 1)
    table = np.array(values, dtype=f"S{longest}").view(np.uint8).reshape(len(values), longest)
    return table, lengths


def foreign_rows(deal: ItemDeal, items: ArrayLike, times: ArrayLike, start: float) -> NDArray[np.bool_]:
    """Shape (rows,): clicks since the start on items that belong to another variant.

    Args:
        deal: Of the variant that is to learn.
        items: Shape (rows,), item ids.
        times: Shape (rows,), unix seconds.
        start: Unix seconds.
    """
    names, codes = np.unique(np.asarray(items, dtype=str), return_inverse=True)
    mine = deal.own(names.tolist())
    return np.asarray(~mine[codes.ravel()] & (np.asarray(times, dtype=np.float64) >= start), dtype=np.bool_)
