"""An event: one thing that one visitor did."""

from datetime import datetime
from typing import Any

import msgspec

EVENT_NAMES = frozenset(
    {
        "view_item", "view_item_list", "select_item", "add_to_cart", "remove_from_cart", "purchase", "refund", "search",
        "add_to_wishlist", "share", "rate", "like", "hide", "follow", "apply", "report", "connect", "watch", "custom",
    }
)  # fmt: skip
"""The names that Thinslice understands; every other name is kept as `custom`, with the name in `context["name"]`."""

CONSENTS = ("none", "measurement", "personalization")
"""What a visitor allowed: store nothing; store to measure; store, learn and personalize."""


class Event(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One thing that one visitor did with at most one item.

    Times are aware and in UTC; money is in integer minor units (cents) plus an ISO 4217 currency. `target_id` is the
    other end of a `follow` or `connect`; `recommendation_id` names the slate that led here; `position` counts from 0.
    """

    event_id: str
    tenant: str
    name: str
    occurred_at: datetime
    received_at: datetime
    visitor_id: str | None = None
    session_id: str | None = None
    user_id: str | None = None
    item_id: str | None = None
    target_id: str | None = None
    quantity: int | None = None
    value: float | None = None
    price_minor: int | None = None
    currency: str | None = None
    order_id: str | None = None
    query: str | None = None
    placement: str | None = None
    position: int | None = None
    recommendation_id: str | None = None
    consent: str = "personalization"
    source: str = "api"
    is_bot: bool = False
    duplicate: bool = False
    context: dict[str, Any] = {}
