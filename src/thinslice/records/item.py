"""An item: what can be recommended; with the users and edges that stand beside it."""

from datetime import datetime
from typing import Any

import msgspec

STATUSES = ("live", "held", "rejected", "retired")
"""Only `live` items stand in slates."""


EDGE_KINDS = ("follow", "connection", "contact", "block")
"""What ties two people."""


class Item(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One thing that can be recommended. `group_id` joins variants of one product; `level` is for jobs and courses."""

    tenant: str
    item_id: str
    updated_at: datetime
    group_id: str | None = None
    kind: str | None = None
    title: str | None = None
    description: str | None = None
    url: str | None = None
    image_url: str | None = None
    categories: list[str] = []
    brand: str | None = None
    price_minor: int | None = None
    currency: str | None = None
    in_stock: bool = True
    status: str = "live"
    published_at: datetime | None = None
    expires_at: datetime | None = None
    latitude: float | None = None
    longitude: float | None = None
    level: str | None = None
    creator_id: str | None = None
    sponsored: bool = False
    attributes: dict[str, Any] = {}
    vectors: dict[str, list[float]] = {}


class User(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A person whom the shop knows; `email_hash` is hashed by the shop, never by us."""

    tenant: str
    user_id: str
    updated_at: datetime
    email_hash: str | None = None
    loyalty_tier: str | None = None
    latitude: float | None = None
    longitude: float | None = None
    entries: list[str] = []
    attributes: dict[str, Any] = {}
    consent: str = "personalization"
    purposes: list[str] = []


class Edge(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A tie between two people: `follow`, `connection`, `contact` or `block`."""

    tenant: str
    from_id: str
    to_id: str
    kind: str
    occurred_at: datetime
    weight: float = 1.0
