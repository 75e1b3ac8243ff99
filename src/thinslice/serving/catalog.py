"""The catalog as one worker sees it: at most a quarter of a second behind what any worker was told."""

import heapq
import math
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thinslice.recommend import Availability
from thinslice.recommend.diversity import Traits
from thinslice.recommend.masks import Facts, RuleMasks, rows_of
from thinslice.recommend.rules import Asked, RuleBook
from thinslice.records import Item, LiveStore, Model
from thinslice.settings import AnyRule

REFRESH_S = 0.25
"""So old (seconds) may a view be; then it asks the live store for changes."""

MOST_CHANGES = 500
"""So many changes are taken in at once, in about three milliseconds, so that a new feed holds up no slate."""


class CatalogView:
    """One tenant's items, and for each model that serves it a mask of what may be shown.

    Args:
        live: Where items and their changes lie.
        tenant: Whose.
        rules: All rules of the tenant.
        currency: Of the shop.
    """

    def __init__(self, live: LiveStore, tenant: str, rules: Sequence[AnyRule] = (), currency: str = "EUR") -> None:
        self._live = live
        self._tenant = tenant
        self._sequence = 0
        self._asked_at = float("-inf")
        self._known = False
        self._turns: list[tuple[float, str]] = []
        self._available: dict[str, bool] = {}
        self._masks: weakref.WeakKeyDictionary[Any, Availability] = weakref.WeakKeyDictionary()
        self._lock = threading.Lock()
        self._meanwhile: dict[int, list[tuple[str, bool]]] = {}
        self._facts = Facts(rules, currency) if rules else None
        self._books: dict[int, RuleBook] = {}
        self._ruled: weakref.WeakKeyDictionary[Any, dict[int, RuleMasks]] = weakref.WeakKeyDictionary()
        self.traits = Traits()
        self._shelves: dict[str, dict[str, None]] = {}
        self._codes: weakref.WeakKeyDictionary[Any, dict[str, tuple[int, NDArray[np.int64]]]]
        self._codes = weakref.WeakKeyDictionary()
        self.items: dict[str, Item] = {}

    def refresh(self, now: float, *, at_once: bool = False) -> bool:
        """Takes in what changed since the last time; does nothing when that was under `REFRESH_S` ago.

        The first time it takes in the whole catalog, later at most `MOST_CHANGES`.

        Args:
            now: Unix seconds.
            at_once: Looks even then.

        Returns:
            Whether there may be more: the next call takes it in, however soon it comes.
        """
        if not at_once and 0 <= now - self._asked_at < REFRESH_S:
            return False
        most, self._known = (MOST_CHANGES if self._known else None), True
        self._sequence, changed = self._live.item_changes(self._tenant, self._sequence, most)
        more = len(changed) == most
        self._asked_at = float("-inf") if more else now
        for item in changed:
            self._shelve(self.items.get(item.item_id), item)
            self.items[item.item_id] = item
            for moment in (item.published_at, item.expires_at):
                if moment is not None and moment.timestamp() > now:
                    heapq.heappush(self._turns, (moment.timestamp(), item.item_id))
        due = [item.item_id for item in changed]
        while self._turns and self._turns[0][0] <= now:
            due.append(heapq.heappop(self._turns)[1])
        if due:
            self._update((item_id, is_available(self.items[item_id], now)) for item_id in due)
        return more

    def availability(self, model: Model) -> Availability:
        """Which items of a model may be shown; kept current from now on, for as long as its vocabulary lives.

        Models that share a vocabulary share the mask, so that a new generation costs nothing when no item came or went.
        """
        owner = _owner(model)
        mask = self._masks.get(owner)
        if mask is None:
            with self._lock:
                mask = self._masks[owner] = Availability(model.item_ids, self._available)
        return mask

    def prepare(self, model: Model, pause: Callable[[], object]) -> None:
        """Makes the mask of a model before it serves, in the thread that loaded it: in slices, while slates go out.

        Args:
            model: Loaded and not yet asked.
            pause: Called after each slice.
        """
        owner, ticket = _owner(model), threading.get_ident()
        with self._lock:
            if owner in self._masks:
                return
            known = dict(self._available)
            self._meanwhile[ticket] = []
        mask = Availability(model.item_ids, known, pause)
        rows = None if self._facts is None else rows_of(mask, self._facts, pause)
        with self._lock:
            changed = self._meanwhile.pop(ticket)
            mask.update(changed)
            mask = self._masks.setdefault(owner, mask)
            if self._facts is None:
                return
            books = self._ruled.setdefault(owner, {})
            for book in self._books.values():
                masks = books.setdefault(id(book), RuleMasks(mask, self._facts, book, rows))
                masks.update(self.items[item_id] for item_id, _ in changed)

    def masks(self, model: Model, book: RuleBook) -> RuleMasks:
        """What a placement's rules let through of a model; kept current from now on, as `availability` is."""
        if self._facts is None:
            raise ValueError("a tenant without rules has no masks of rules")
        owner = _owner(model)
        books = self._ruled.setdefault(owner, {})
        masks = books.get(id(book))
        if masks is None:
            availability = self.availability(model)
            with self._lock:
                self._books[id(book)] = book
                masks = books[id(book)] = RuleMasks(availability, self._facts, book)
        return masks

    def breaks(self, book: RuleBook, asked: Asked, item_id: str, *, hard_only: bool = False) -> int | None:
        """The number of the first rule that keeps one item out; None when none does."""
        return None if self._facts is None else self._facts.breaks(book, asked, item_id, hard_only=hard_only)

    def boosts(self, book: RuleBook, item_id: str) -> Mapping[str, float]:
        """Rule → the factor by which it multiplies the score of one item."""
        facts = self._facts
        if facts is None:
            return {}
        return {book.names[place]: factor for place, factor in book.boosts if facts.holds(place, item_id)}

    def booster(self, book: RuleBook) -> Callable[[str], float]:
        """Item → all its factors in one."""
        facts = self._facts
        if facts is None:
            return _plain
        factors = dict(book.boosts)
        known: dict[int, float] = {}  # items with the same bits have the same factor, and there are few of them

        def factor(item_id: str) -> float:
            bits = facts.bits_of(item_id)
            product = known.get(bits)
            if product is None:
                product = known[bits] = math.prod(each for place, each in factors.items() if bits >> place & 1)
            return product

        return factor

    def within(self, model: Model, categories: Iterable[str]) -> NDArray[np.bool_]:
        """Which items of a model lie in one of some categories: shape (items,)."""
        availability = self.availability(model)
        known = self._codes.setdefault(_owner(model), {})
        mask = np.zeros(len(availability.codes), dtype=np.bool_)
        for category in categories:
            shelf = self._shelves.get(category, {})
            size, codes = known.get(category, (-1, np.empty(0, dtype=np.int64)))
            if size != self._sequence:
                found = [code for item_id in shelf if (code := availability.codes.get(item_id)) is not None]
                codes = np.array(found, dtype=np.int64)
                known[category] = (self._sequence, codes)
            mask[codes] = True
        return mask

    def in_order(self) -> Iterator[str]:
        """Available items, the newest first: what an untrained shop shows."""
        return (item_id for item_id in reversed(self._available) if self._available[item_id])

    def may_show(self, item_id: str) -> bool:
        """Whether the catalog has nothing against an item; it knows nothing against one that it does not hold."""
        return self._available.get(item_id, True)

    def title(self, item_id: str) -> str:
        """An item's title, its id when it has none."""
        item = self.items.get(item_id)
        return item.title if item is not None and item.title else item_id

    def first(self, count: int) -> list[str]:
        """The first available items in the catalog's order."""
        return list(islice(self.in_order(), count))

    def _update(self, changes: Iterable[tuple[str, bool]]) -> None:
        changed = dict(changes)
        with self._lock:
            self._available.update(changed)
            for mask in self._masks.values():
                mask.update(changed.items())
            for waiting in self._meanwhile.values():
                waiting.extend(changed.items())
            if self._facts is not None:
                items = [self.items[item_id] for item_id in changed]
                self._facts.update(items)
                for masks in [each for books in self._ruled.values() for each in books.values()]:
                    masks.update(items)

    def _shelve(self, old: Item | None, new: Item) -> None:
        """Notes in which categories an item lies."""
        for category in old.categories if old is not None else ():
            self._shelves[category].pop(new.item_id, None)
        for category in new.categories:
            self._shelves.setdefault(category, {})[new.item_id] = None


def _plain(item_id: str) -> float:
    """Nothing is boosted."""
    del item_id
    return 1.0


def _owner(model: Model) -> Any:
    """What a mask lives as long as: the vocabulary, which models may share; the model itself when it has a list."""
    words: Any = model.item_ids
    return model if isinstance(words, list | tuple) else words


def is_available(item: Item, now: float) -> bool:
    """Whether an item may be shown at a moment (unix seconds): live, in stock, published and not expired."""
    return (
        item.status == "live"
        and item.in_stock
        and (item.published_at is None or item.published_at.timestamp() <= now)
        and (item.expires_at is None or item.expires_at.timestamp() > now)
    )
