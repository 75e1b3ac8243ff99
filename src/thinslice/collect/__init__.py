"""Collect: what shops send becomes records; what is bad is named, with its reason."""

from thinslice.collect.bots import is_bot_agent
from thinslice.collect.payloads import (
    MAX_BODY_BYTES,
    MAX_RECORDS,
    Batch,
    ItemBatch,
    OrderBatch,
    Rejection,
    parse_events,
    parse_items,
    parse_orders,
)

__all__ = [
    "MAX_BODY_BYTES", "MAX_RECORDS", "Batch", "ItemBatch", "OrderBatch", "Rejection", "is_bot_agent",
    "parse_events", "parse_items", "parse_orders",
]  # fmt: skip
