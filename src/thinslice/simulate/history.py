"""Two weeks of a shop's past: what its visitors did before there were any recommendations."""

from collections.abc import Iterable
from datetime import datetime, timedelta

import numpy as np

from thinslice.records import Event, Item, Order, OrderLine
from thinslice.simulate.shoppers import Action, Buy, Cart, View, crowd, open_shop, visit

DAYS = 14
"""How far the past reaches back."""

THINK_S = 24.0
"""Mean seconds between two things that a visitor does."""

_CHUNK = 2048


def history(
    items: list[Item], sessions: int, rng: int, now: datetime, *, days: float = DAYS, source: str = "history"
) -> list[Event]:
    """Organic visits, one visitor each, in the days before `now`; no slate was shown in any of them.

    Args:
        items: The generated catalog.
        sessions: How many visits.
        rng: The seed of the shoppers and of the times; the same arguments give the same events.
        now: Aware UTC time; every event lies before it.
        days: How many days before `now` the first visit may begin.
        source: What the events say of where they came from.

    Returns:
        Events `view_item`, `add_to_cart` and `purchase` (one per item, with its order_id), oldest first.

    Raises:
        ValueError: `items` is empty or `sessions` is negative.
    """
    if sessions < 0:
        raise ValueError(f"sessions must not be negative, got {sessions}")
    shop = open_shop(items)
    draw = np.random.default_rng([rng, 1])
    ends = draw.uniform(0.0, days * 86400.0, size=sessions)
    events: list[Event] = []
    for start in range(0, sessions, _CHUNK):
        stop = min(start + _CHUNK, sessions)
        shoppers = crowd(np.arange(start, stop), rng)
        for number in range(start, stop):
            actions = list(visit(shop, shoppers.rows(number - start, number - start + 1)))
            pauses = draw.exponential(THINK_S, size=len(actions) + 1)
            at = now - timedelta(seconds=float(ends[number]) + float(pauses.sum()) + 1.0)
            events += _events(shop.items[0].tenant, f"h{rng}-{number}", actions, pauses.tolist(), at, source)
    events.sort(key=lambda event: (event.occurred_at, event.event_id))
    return events


def orders_of(events: Iterable[Event]) -> list[Order]:
    """The orders behind `purchase` events, as the shop's server would report them, oldest first."""
    lines: dict[str, list[Event]] = {}
    for event in events:
        if event.name == "purchase" and event.order_id is not None:
            lines.setdefault(event.order_id, []).append(event)
    return [
        Order(
            tenant=bought[0].tenant,
            order_id=order_id,
            occurred_at=bought[0].occurred_at,
            received_at=bought[0].received_at,
            currency=bought[0].currency or "EUR",
            total_minor=sum((event.price_minor or 0) * (event.quantity or 1) for event in bought),
            lines=[
                OrderLine(item_id=event.item_id or "", quantity=event.quantity or 1, price_minor=event.price_minor or 0)
                for event in bought
            ],
            visitor_id=bought[0].visitor_id,
            session_id=bought[0].session_id,
            source=bought[0].source,
        )
        for order_id, bought in lines.items()
    ]


def _events(
    tenant: str, name: str, actions: list[Action], pauses: list[float], at: datetime, source: str
) -> list[Event]:
    """The events of one visit."""
    events: list[Event] = []

    def note(what: str, item_id: str, item: Item | None = None, order_id: str | None = None) -> None:
        events.append(
            Event(
                event_id=f"{name}-{len(events)}",
                tenant=tenant,
                name=what,
                occurred_at=at,
                received_at=at,
                visitor_id=f"visitor-{name}",
                session_id=f"session-{name}",
                item_id=item_id,
                quantity=None if item is None else 1,
                price_minor=None if item is None else item.price_minor,
                currency=None if item is None else item.currency,
                order_id=order_id,
                source=source,
            )
        )

    for action, pause in zip(actions, pauses, strict=False):
        at += timedelta(seconds=pause)
        if isinstance(action, View):
            note("view_item", action.item_id)
        elif isinstance(action, Cart):
            note("add_to_cart", action.item.item_id, action.item)
        elif isinstance(action, Buy):
            for item in action.items:
                note("purchase", item.item_id, item, f"order-{name}")
    return events
