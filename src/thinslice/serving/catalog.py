"""The catalog as one worker sees it: at most a quarter of a second behind what any worker was told."""

import heapq
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

from thinslice.recommend import Availability
from thinslice.records import Item, LiveStore, Model

REFRESH_S = 0.25
"""So old (seconds) may a view be; then it asks the live store for changes."""


class CatalogView:
    """One tenant's items, and for each model that serves it a mask of what may be shown.

    Args:
        live: Where items and their changes lie.
        tenant: Whose.
    """

    def __init__(self, live: LiveStore, tenant: str) -> None:
        self._live = live
        self._tenant = tenant
        self._sequence = 0
        self._asked_at = float("-inf")
        self._turns: list[tuple[float, str]] = []
        self._available: dict[str, bool] = {}
        self._masks: weakref.WeakKeyDictionary[Any, Availability] = weakref.WeakKeyDictionary()
        self._lock = threading.Lock()
        self._meanwhile: dict[int, list[tuple[str, bool]]] = {}
        self.items: dict[str, Item] = {}

    def refresh(self, now: float, *, at_once: bool = False) -> None:
        """Takes in what changed since the last time; does nothing when that was under `REFRESH_S` ago.

        Args:
            now: Unix seconds.
            at_once: Looks even then.
        """
        if not at_once and 0 <= now - self._asked_at < REFRESH_S:
            return
        self._asked_at = now
        self._sequence, changed = self._live.item_changes(self._tenant, self._sequence)
        for item in changed:
            self.items[item.item_id] = item
            for moment in (item.published_at, item.expires_at):
                if moment is not None and moment.timestamp() > now:
                    heapq.heappush(self._turns, (moment.timestamp(), item.item_id))
        due = [item.item_id for item in changed]
        while self._turns and self._turns[0][0] <= now:
            due.append(heapq.heappop(self._turns)[1])
        if due:
            self._update((item_id, is_available(self.items[item_id], now)) for item_id in due)

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
        with self._lock:
            mask.update(self._meanwhile.pop(ticket))
            self._masks.setdefault(owner, mask)

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
