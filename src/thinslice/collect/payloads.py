"""Payloads: what shops send, as types; and our words for what does not fit them."""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from thinslice.errors import BadRecord

Id = Annotated[str, Meta(min_length=1, max_length=256)]
Word = Annotated[str, Meta(min_length=1, max_length=64)]
Text = Annotated[str, Meta(max_length=1024)]
LongText = Annotated[str, Meta(max_length=20_000)]
Count = Annotated[int, Meta(ge=1, le=1_000_000)]
Place = Annotated[int, Meta(ge=0, le=1_000_000)]
Minor = Annotated[int, Meta(ge=0, le=10**13)]
Currency = Annotated[str, Meta(pattern="^[A-Z]{3}$", max_length=3)]
Moment = datetime | int | float | None

_AT = re.compile(r"^(?P<what>.*?)(?: - at `\$(?P<path>[^`]*)`)?$", re.DOTALL)


class WireItem(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """One of several items of one event."""

    item_id: Id
    quantity: Count | None = None
    price_minor: Minor | None = None
    position: Place | None = None
    currency: Currency | None = None


class WireEvent(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """An event as a shop sends it: the fields of `Event`, or `items` for several items at once."""

    name: Word
    event_id: Id | None = None
    tenant: str | None = None
    occurred_at: Moment = None
    received_at: Moment = None
    visitor_id: Id | None = None
    session_id: Id | None = None
    user_id: Id | None = None
    item_id: Id | None = None
    target_id: Id | None = None
    quantity: Count | None = None
    value: float | None = None
    price_minor: Minor | None = None
    currency: Currency | None = None
    order_id: Id | None = None
    query: Text | None = None
    placement: Word | None = None
    position: Place | None = None
    recommendation_id: Word | None = None
    consent: str | None = None
    source: str | None = None
    is_bot: bool = False
    duplicate: bool = False
    context: dict[str, Any] | None = None
    items: Annotated[list[WireItem], Meta(min_length=1, max_length=200)] | None = None


class WireCatalogItem(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """An item as a shop sends it."""

    item_id: Id
    tenant: str | None = None
    updated_at: Moment = None
    group_id: Id | None = None
    kind: Word | None = None
    title: Text | None = None
    description: LongText | None = None
    url: Annotated[str, Meta(max_length=4096)] | None = None
    image_url: Annotated[str, Meta(max_length=65_536)] | None = None
    categories: Annotated[list[Text], Meta(max_length=100)] = []
    brand: Text | None = None
    price_minor: Minor | None = None
    currency: Currency | None = None
    in_stock: bool | int | str = True
    status: str = "live"
    published_at: Moment = None
    expires_at: Moment = None
    latitude: Annotated[float, Meta(ge=-90, le=90)] | None = None
    longitude: Annotated[float, Meta(ge=-180, le=180)] | None = None
    level: Word | None = None
    creator_id: Id | None = None
    sponsored: bool = False
    attributes: dict[str, Any] = {}
    vectors: dict[str, Annotated[list[float], Meta(max_length=4096)]] = {}


class WireLine(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """One line of an order as a shop sends it."""

    item_id: Id
    quantity: Count = 1
    price_minor: Minor = 0


class WireOrder(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """An order as a shop's server sends it; without `total_minor` it is the sum of the lines."""

    order_id: Id
    tenant: str | None = None
    occurred_at: Moment = None
    received_at: Moment = None
    currency: Currency | None = None
    total_minor: Minor | None = None
    lines: Annotated[list[WireLine], Meta(max_length=1000)] = []
    visitor_id: Id | None = None
    session_id: Id | None = None
    user_id: Id | None = None
    source: str | None = None


class WireUser(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A known person as a shop sends them."""

    user_id: Id
    tenant: str | None = None
    updated_at: Moment = None
    email_hash: Annotated[str, Meta(min_length=16, max_length=256)] | None = None
    loyalty_tier: Word | None = None
    latitude: Annotated[float, Meta(ge=-90, le=90)] | None = None
    longitude: Annotated[float, Meta(ge=-180, le=180)] | None = None
    entries: Annotated[list[Text], Meta(max_length=1000)] = []
    attributes: dict[str, Any] = {}
    consent: str | None = None
    purposes: Annotated[list[Word], Meta(max_length=100)] = []


class WireEdge(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A tie between two people as a shop sends it."""

    from_id: Id
    to_id: Id
    tenant: str | None = None
    kind: str = "connection"
    occurred_at: Moment = None
    weight: Annotated[float, Meta(ge=0, le=1e9)] = 1.0


def read_problem(error: msgspec.ValidationError, extra: Mapping[str, Any] | None = None) -> BadRecord:
    """Our words for what the decoder found: `Expected `int`, got `str` - at `$.price_minor``."""
    text = str(error)
    match = _AT.match(text)
    what, field = (match["what"], (match["path"] or "").lstrip(".")) if match else (text, "")
    missing = re.match(r"Object missing required field `([^`]+)`", what)
    if missing:
        field = f"{field}.{missing[1]}" if field else missing[1]
        seen = f" (we do not know {', '.join(sorted(extra)[:5])})" if extra else ""
        return BadRecord("missing_field", f"{field} is missing{seen}", field=field, hint=f"send {field}.")
    if "unknown field" in what:
        return BadRecord("unknown_field", what, field=field, hint="leave it out, or put it into `context`.")
    said = what.replace("`", "")
    wrong_type = re.fullmatch(r"Expected (.+), got (.+)", said)
    if wrong_type:
        hint = f"send {wrong_type[1].replace(' | null', '')}."
        if wrong_type[2] in ("int", "float") and "str" in wrong_type[1]:
            hint = 'send text: "42", not 42.'
        if wrong_type[1] in ("int", "int | null"):
            cents = "; money in cents, 1290 for 12.90" if field.endswith("_minor") else ""
            return BadRecord("wrong_type", f"{field} is no whole number{cents}", field=field, hint=hint)
        return BadRecord("wrong_type", f"{field} is of the wrong type: {said}", field=field, hint=hint)
    if "RFC3339" in said:
        hint = "send ISO 8601 with a time zone, 2026-01-31T12:00:00Z, or unix seconds."
        return BadRecord("bad_time", f"{field} is no time", field=field, hint=hint)
    return BadRecord("out_of_range", f"{field} is out of range: {said}", field=field, hint=said + ".")
