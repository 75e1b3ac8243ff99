"""Collect: what shops send becomes records; what is bad is named, with its reason."""

from thinslice.collect.batches import (
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
from thinslice.collect.bots import is_bot_agent

__all__ = [
    "MAX_BODY_BYTES", "MAX_RECORDS", "Batch", "ItemBatch", "OrderBatch", "Rejection", "is_bot_agent",
    "parse_events", "parse_items", "parse_orders",
]  # fmt: skip
