"""Masks: what the rules let through of a whole model, kept current with the catalog and shared by all requests."""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from thinslice.recommend.availability import Availability
from thinslice.recommend.ladder import Filter
from thinslice.recommend.rules import Asked, RuleBook, column, is_hard, judged, key_of, lets, needs, passes
from thinslice.records import Item
from thinslice.settings import AnyRule

KEPT = 64
"""So many masks of different requests are remembered for one model and one set of rules."""

SLICE = 2048
"""So many items are looked up in one turn."""


class Facts:
    """What the rules of a tenant want to know of each item of the catalog, in columns.

    Args:
        rules: All rules of the tenant.
        currency: Of the shop.

    Attributes:
        version: Rises with every change of the catalog, also with those that only touch availability.
        row: Item id → row; row 0 stands for items that the catalog does not know.
    """

    def __init__(self, rules: Sequence[AnyRule], currency: str) -> None:
        self.rules = list(rules)
        self.version = 0
        self.row: dict[str, int] = {}
        self._currency = currency
        self.bits: NDArray[np.uint64] = np.zeros(16, dtype=np.uint64)
        self.columns: dict[int, NDArray[np.float64]] = {
            place: np.full((16, needs(rule)), np.nan) for place, rule in enumerate(rules) if needs(rule)
        }
        self._count = 1
        self._write(0, None)

    def update(self, items: Iterable[Item]) -> None:
        """Takes in items that came or changed."""
        for item in items:
            row = self.row.get(item.item_id)
            if row is None:
                row = self.row[item.item_id] = self._count
                self._count += 1
                if row >= len(self.bits):
                    self.bits = np.concatenate([self.bits, np.zeros_like(self.bits)])
                    self.columns = {
                        place: np.concatenate([each, np.full_like(each, np.nan)])
                        for place, each in self.columns.items()
                    }
            self._write(row, item)
        self.version += 1

    def _write(self, row: int, item: Item | None) -> None:
        bits = 0
        for place, rule in enumerate(self.rules):
            if passes(rule, item, self._currency):
                bits |= 1 << place
            if place in self.columns:
                self.columns[place][row] = column(rule, item, self._currency)
        self.bits[row] = bits

    def holds(self, place: int, item_id: str) -> bool:
        """Whether rule number `place` lets an item through, or (a boost) is about it."""
        return bool(self.bits_of(item_id) >> place & 1)

    def bits_of(self, item_id: str) -> int:
        """All of that for one item, a bit a rule."""
        return int(self.bits[self.row.get(item_id, 0)])

    def breaks(self, book: RuleBook, asked: Asked, item_id: str, *, hard_only: bool = False) -> int | None:
        """The number of the first rule that keeps one item out of this request's slate; None when none does."""
        row = self.row.get(item_id, 0)
        bits = int(self.bits[row])
        for place in book.filters:
            rule = self.rules[place]
            if hard_only and not is_hard(rule):
                continue
            if not bits >> place & 1:
                return place
            if place in self.columns:
                key = key_of(rule, asked)
                if key is not None and not lets(rule, self.columns[place][row].tolist(), key):
                    return place
        return None


def rows_of(availability: Availability, facts: Facts, pause: Callable[[], object] = bool) -> NDArray[np.int64]:
    """The row of each of a model's items among the facts: shape (items,), 0 for those that the catalog does not know.

    Args:
        availability: Knows the model's items.
        facts: Of the tenant.
        pause: Called after each `SLICE` items, as in `Availability`.
    """
    names = list(availability.codes)
    rows: NDArray[np.int64] = np.empty(len(names), dtype=np.int64)
    find = facts.row.get
    for start in range(0, len(names), SLICE):
        part = names[start : start + SLICE]
        rows[start : start + len(part)] = [find(name, 0) for name in part]
        pause()
    return rows


class RuleMasks:
    """The rules of one placement over one model's items.

    Args:
        availability: Which of them may be shown at all.
        facts: Of the tenant.
        book: Of the placement.
        rows: What `rows_of` found, when it was asked before; rows that items got since then come by `update`.
    """

    def __init__(
        self, availability: Availability, facts: Facts, book: RuleBook, rows: NDArray[np.int64] | None = None
    ) -> None:
        self._availability = availability
        self._facts = facts
        self._book = book
        self.codes = availability.codes
        self._row: NDArray[np.int64] = rows_of(availability, facts) if rows is None else rows.copy()
        self._columns = {
            place: _upright(each[self._row]) for place, each in facts.columns.items() if place in book.filters
        }
        self._seen = -1
        self._fixed: dict[bool, NDArray[np.bool_]] = {}
        self._masks: OrderedDict[tuple[object, ...], NDArray[np.bool_]] = OrderedDict()
        self._counts: dict[tuple[object, ...], int] = {}
        self._shown: dict[int, tuple[NDArray[np.bool_], int]] = {}

    def update(self, items: Iterable[Item]) -> None:
        """Takes in items that came or changed; call it after the facts know them."""
        for item in items:
            code = self._availability.codes.get(item.item_id)
            if code is not None:
                row = self._row[code] = self._facts.row[item.item_id]
                for place, each in self._columns.items():
                    each[:, code] = self._facts.columns[place][row]

    def mask(self, asked: Asked, *, hard_only: bool = False) -> NDArray[np.bool_]:
        """What may be shown at a request: shape (items,); the caller must not write."""
        self._refresh()
        fixed = self._fixed.get(hard_only)
        if fixed is None:
            bits = np.uint64(sum(1 << place for place in self._filters(hard_only) if place not in self._columns))
            fixed = self._fixed[hard_only] = self._availability.mask & ((self._facts.bits & bits) == bits)[self._row]
        keys = [
            (place, key) for place in self._filters(hard_only)
            if place in self._columns and (key := self._key(place, asked)) is not None
        ]  # fmt: skip
        if not keys:
            return fixed
        whole = (hard_only, *keys)
        found = self._masks.get(whole)
        if found is None:
            found = fixed & self._one(*keys[0])
            for each in keys[1:]:
                found &= self._one(*each)
            self._remember(whole, found)
        else:
            self._masks.move_to_end(whole)
        return found

    def count(self, asked: Asked, *, hard_only: bool = False) -> int:
        """How many items `mask` lets through, counted once for each kind of request."""
        mask = self.mask(asked, hard_only=hard_only)
        known = self._shown.get(id(mask))
        if known is None or known[0] is not mask:
            if len(self._shown) > 2 * KEPT:
                self._shown.clear()
            known = self._shown[id(mask)] = (mask, int(np.count_nonzero(mask)))
        return known[1]

    def removed(self, asked: Asked) -> dict[str, int]:
        """How many of the available items each filter takes out by itself."""
        self._refresh()
        counts = {}
        for place in self._book.filters:
            single = (place, self._key(place, asked))
            if single not in self._counts:
                self._counts[single] = int(np.count_nonzero(self._availability.mask & ~self._one(*single)))
            counts[self._book.names[place]] = self._counts[single]
        return counts

    def _filters(self, hard_only: bool) -> list[int]:
        rules = self._facts.rules
        return [place for place in self._book.filters if not hard_only or is_hard(rules[place])]

    def _key(self, place: int, asked: Asked) -> tuple[float, ...] | None:
        return key_of(self._facts.rules[place], asked) if place in self._columns else ()

    def _one(self, place: int, key: tuple[float, ...] | None) -> NDArray[np.bool_]:
        """One rule over all items."""
        found = self._masks.get((place, key))
        if found is None:
            if key is None:
                found = np.ones(len(self._row), dtype=np.bool_)
            elif place in self._columns:
                found = judged(self._facts.rules[place], self._columns[place], key)
            else:
                found = (self._facts.bits & np.uint64(1 << place)).astype(np.bool_)[self._row]
            self._remember((place, key), found)
        return found

    def _remember(self, key: tuple[object, ...], mask: NDArray[np.bool_]) -> None:
        self._masks[key] = mask
        while len(self._masks) > KEPT:
            self._masks.popitem(last=False)

    def _refresh(self) -> None:
        if self._facts.version != self._seen:
            self._seen = self._facts.version
            self._fixed.clear()
            self._masks.clear()
            self._counts.clear()
            self._shown.clear()


class Ruled:
    """What the rules let one request see of one model: a rung's filter.

    Args:
        masks: Of the model and the placement.
        asked: What the request says.
        hard_only: Only the rules that hold even when nothing else is left.
    """

    def __init__(self, masks: RuleMasks, asked: Asked, *, hard_only: bool = False) -> None:
        self._masks = masks
        self._asked = asked
        self._hard_only = hard_only

    def allowed(self, without: Iterable[str]) -> NDArray[np.bool_]:
        """The mask without some items; the caller must not write."""
        whole = self._masks.mask(self._asked, hard_only=self._hard_only)
        find = self._masks.codes.get
        codes = [code for item_id in without if (code := find(item_id)) is not None]
        if not codes:
            return whole
        mask = whole.copy()
        mask[codes] = False
        return mask

    def count(self, without: Iterable[str]) -> int:
        """How many items it lets through."""
        whole, codes = self._masks.mask(self._asked, hard_only=self._hard_only), self._masks.codes
        out = sum(bool(whole[codes[item_id]]) for item_id in set(without) if item_id in codes)
        return self._masks.count(self._asked, hard_only=self._hard_only) - out

    def removed(self) -> Mapping[str, int]:
        """Filter → how many of the available items it takes out by itself."""
        return self._masks.removed(self._asked)


class Within:
    """A filter that is narrowed by one more mask.

    Args:
        outer: Which items may be shown.
        mask: Which of them are asked for; shape (items,).
    """

    def __init__(self, outer: Filter, mask: NDArray[np.bool_]) -> None:
        self._outer = outer
        self._mask = mask

    def allowed(self, without: Iterable[str]) -> NDArray[np.bool_]:
        """Both masks at once."""
        return self._outer.allowed(without) & self._mask

    def count(self, without: Iterable[str]) -> int:
        """How many items both let through."""
        return int(np.count_nonzero(self.allowed(without)))


class Listed:
    """The filter of a short list of items, each asked for by itself.

    Args:
        item_ids: The list.
        may: Whether one of them may be shown.
    """

    def __init__(self, item_ids: Sequence[str], may: Callable[[str], bool]) -> None:
        self._item_ids = item_ids
        self._may = may

    def allowed(self, without: Iterable[str]) -> NDArray[np.bool_]:
        """The mask over the list without some items."""
        out = set(without)
        return np.array([each not in out and self._may(each) for each in self._item_ids], dtype=np.bool_)

    def count(self, without: Iterable[str]) -> int:
        """How many items of the list may be shown."""
        return int(np.count_nonzero(self.allowed(without)))


def _upright(columns: NDArray[np.float64]) -> NDArray[np.float64]:
    """Columns of shape (items, n) as rows of shape (n, items), each in one piece of memory."""
    return np.ascontiguousarray(columns.T)
