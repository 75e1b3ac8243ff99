"""An order: what was bought, from a source that can be trusted with money."""

from datetime import datetime

import msgspec


class OrderLine(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One item of an order; `price_minor` is the price of one piece in minor units."""

    item_id: str
    quantity: int = 1
    price_minor: int = 0


class Order(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One order, keyed by `order_id`: the same order sent twice is one order. `total_minor` is what was paid."""

    tenant: str
    order_id: str
    occurred_at: datetime
    received_at: datetime
    currency: str
    total_minor: int
    lines: list[OrderLine]
    visitor_id: str | None = None
    session_id: str | None = None
    user_id: str | None = None
    source: str = "api"
