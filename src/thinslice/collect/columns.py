"""Columns: a shop's own file becomes records; which column is what is guessed, or told with `--map COL=FIELD`."""

import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any, TypeVar

import msgspec

from thinslice.collect.makers import EventMaker
from thinslice.collect.payloads import (
    Moment,
    WireCatalogItem,
    WireEdge,
    WireEvent,
    WireOrder,
    WireUser,
    read_problem,
)
from thinslice.errors import BadInput, BadRecord
from thinslice.records import Event

EARLIEST = datetime(1990, 1, 1, tzinfo=UTC)
"""Imported events before this moment are refused."""

ORDER_BASE = datetime(2000, 1, 1, tzinfo=UTC)
"""Where a file's times lie when they only tell the order: one second a step from here."""

_ALIASES: dict[str, dict[str, tuple[str, ...]]] = {
    "events": {
        "item_id": ("itemid", "item", "product_id", "productid", "product", "sku", "article_id"),
        "session_id": ("sessionid", "session", "visit_id"),
        "visitor_id": (
            "visitorid",
            "visitor",
            "anonymous_id",
            "anonymousid",
            "client_id",
            "user_pseudo_id",
            "cookie_id",
        ),
        "user_id": ("userid", "user", "customer_id", "customerid", "customer"),
        "occurred_at": ("ts", "timestamp", "time", "event_time", "datetime", "date", "created_at", "invoicedate"),
        "name": ("event", "event_name", "event_type", "type", "action", "feedbacktype"),
        "price": ("unit_price", "unitprice"),
        "quantity": ("qty",),
        "order_id": ("orderid", "transaction_id", "invoiceno", "invoice"),
        "query": ("search_term", "search_query"),
        "value": ("rating", "event_value"),
    },
    "items": {
        "item_id": ("id", "itemid", "item", "product_id", "productid", "sku", "article_id", "offer_id"),
        "title": ("name", "product_name", "item_name"),
        "url": ("link", "product_url"),
        "image_url": ("image_link", "image"),
        "categories": ("category", "product_type", "google_product_category", "item_category"),
        "brand": ("item_brand", "manufacturer"),
        "price": ("unit_price", "unitprice"),
        "in_stock": ("availability", "stock_status", "instock"),
        "group_id": ("item_group_id", "parent_id"),
        "published_at": ("created_at", "date_created", "availability_date"),
        "expires_at": ("expiration_date",),
        "creator_id": ("author", "author_id", "seller_id"),
    },
    "orders": {
        "order_id": ("orderid", "transaction_id", "invoiceno", "invoice", "id"),
        "item_id": ("itemid", "item", "product_id", "productid", "sku", "article_id"),
        "visitor_id": ("visitorid", "visitor", "anonymous_id", "client_id"),
        "session_id": ("sessionid", "session"),
        "user_id": ("userid", "user", "customer_id", "customerid", "customer"),
        "occurred_at": ("ts", "timestamp", "time", "datetime", "date", "created_at", "invoicedate"),
        "price": ("unit_price", "unitprice"),
        "total": ("revenue", "order_total", "amount"),
        "quantity": ("qty",),
    },
    "users": {
        "user_id": ("id", "userid", "user", "customer_id", "customerid", "customer", "member_id"),
        "email_hash": ("hashed_email", "email_sha256", "sha256_email_address"),
        "loyalty_tier": ("tier", "loyalty_level"),
        "latitude": ("lat",),
        "longitude": ("lon", "lng"),
        "entries": ("interests", "skills"),
    },
    "edges": {
        "from_id": ("from", "source", "source_id", "src", "follower", "follower_id", "user_id", "from_user_id"),
        "to_id": ("to", "target", "target_id", "dst", "followee", "followee_id", "friend_id", "to_user_id"),
        "kind": ("type", "relation", "edge_type"),
        "weight": ("strength",),
        "occurred_at": ("ts", "timestamp", "time", "datetime", "date", "created_at", "since"),
    },
}

_NEEDED = {"events": ("item_id", "occurred_at"), "items": ("item_id",), "orders": ("order_id", "occurred_at"),
           "users": ("user_id",), "edges": ("from_id", "to_id")}  # fmt: skip

_NAMES = {
    "view": "view_item", "product_view": "view_item", "click": "select_item", "cart": "add_to_cart",
    "addtocart": "add_to_cart", "add": "add_to_cart", "remove": "remove_from_cart", "buy": "purchase",
    "order": "purchase", "transaction": "purchase", "wishlist": "add_to_wishlist", "rating": "rate",
    "impression": "view_item_list", "list_view": "view_item_list",
}  # fmt: skip

_IDS = frozenset({"item_id", "session_id", "visitor_id", "user_id", "order_id", "event_id", "group_id", "creator_id",
                  "target_id", "recommendation_id", "from_id", "to_id"})  # fmt: skip
_NOTHING = frozenset({"nan", "null", "none", "<na>", "nat", "n/a", "#n/a", "undefined"})
_TIMES = frozenset({"occurred_at", "published_at", "expires_at"})
_NESTED = frozenset({"context", "items", "lines", "attributes", "vectors", "categories", "entries", "purposes"})
_MONEY = {"price": "price_minor", "total": "total_minor"}
_NO_CENTS = frozenset({"JPY", "KRW", "CLP", "VND", "ISK", "XAF", "XOF", "PYG", "UGX"})
_THREE_DIGITS = frozenset({"KWD", "BHD", "OMR", "JOD", "TND"})
W = TypeVar("W", bound=msgspec.Struct)


def guess(kind: str, columns: Sequence[str], told: Mapping[str, str]) -> dict[str, str]:
    """Which field each column is.

    Args:
        kind: `events`, `items`, `orders`, `users` or `edges`.
        columns: The file's column names.
        told: Column → field, from `--map`; stronger than any guess.

    Returns:
        Column → field; columns that are nothing are left out.

    Raises:
        BadInput: A told column or field does not exist, a field is told twice, or a needed field has no column.

    >>> guess("events", ["session_id", "ItemId", "when"], {"when": "ts"})
    {'session_id': 'session_id', 'ItemId': 'item_id', 'when': 'occurred_at'}
    >>> guess("events", ["session_id", "ItemId", "ts", "event", "split"], {})
    {'session_id': 'session_id', 'ItemId': 'item_id', 'ts': 'occurred_at', 'event': 'name'}
    """
    fields = fields_of(kind)
    told = {column: _field_called(field, kind, fields) for column, field in told.items()}
    for column, field in told.items():
        if column not in columns:
            raise BadInput(f"there is no column {column!r} (there is: {', '.join(columns)}).")
        rival = next(other for other in told if told[other] == field)
        if rival != column:
            raise BadInput(
                f"the columns {rival!r} and {column!r} are both said to be {field}.",
                hint="Give each field one --map.",
            )
        if field not in fields and not field.startswith(_bag(kind) + "."):
            raise BadInput(
                f"{field!r} is no field of {kind}.",
                hint=f"There is: {', '.join(sorted(fields))}" + (f", {_bag(kind)}.NAME." if _bag(kind) else "."),
            )
    found = dict(told)
    taken = set(told.values())
    plain = {column.strip().lower().removeprefix("g:").replace(" ", "_"): column for column in reversed(columns)}
    for field in sorted(fields, key=lambda name: name not in _ALIASES[kind]):
        for alias in (field, *_ALIASES[kind].get(field, ())):
            match = plain.get(alias)
            if match is not None and match not in found and field not in taken:
                found[match] = field
                taken.add(field)
                break
    missing = [field for field in _NEEDED[kind] if field not in taken]
    if missing:
        raise BadInput(
            f"no column is {' or '.join(missing)} (there is: {', '.join(columns)}).",
            hint=f"Say which with --map COLUMN={missing[0]} (the first line of a CSV file names its columns).",
        )
    return {column: found[column] for column in columns if column in found}


def _field_called(name: str, kind: str, fields: frozenset[str]) -> str:
    """The field that goes by a name; `ts` is `occurred_at`, to the hand that writes `--map` as to the guess."""
    if name in fields:
        return name
    return next((field for field, aliases in _ALIASES[kind].items() if name in aliases), name)


def fields_of(kind: str) -> frozenset[str]:
    """What a column of a file can be."""
    ours = {"tenant", "received_at", "updated_at", "source", "duplicate"}  # follow from the import itself
    if kind == "events":
        return (frozenset(WireEvent.__struct_fields__) | {"price"}) - ours
    if kind == "items":
        return (frozenset(WireCatalogItem.__struct_fields__) | {"price"}) - ours
    if kind == "users":
        return frozenset(WireUser.__struct_fields__) - ours
    if kind == "edges":
        return frozenset(WireEdge.__struct_fields__) - ours
    lines = {"price", "total", "item_id", "quantity", "price_minor"}
    return (frozenset(WireOrder.__struct_fields__) | lines) - ours


def is_order_index(times: Iterable[Any]) -> bool:
    """Whether a file's times are whole numbers before 1990, that is, only an order.

    >>> is_order_index(["0", "1", "17"]), is_order_index([1_400_000_000]), is_order_index([])
    (True, False, False)
    """
    seen = False
    for value in times:
        if value is None or value == "":
            continue
        number = _number(value)
        if number is None or not 0 <= number < EARLIEST.timestamp():
            return False
        seen = True
    return seen


def event_of(row: Mapping[str, Any], maker: EventMaker, *, currency: str | None, order_only: bool) -> list[Event]:
    """The event of one row, its fields by name.

    Raises:
        BadRecord: What is wrong with it.
    """
    fields = plain_fields(row, currency, bag="context")
    if order_only and "occurred_at" in fields:
        number = _number(fields["occurred_at"])
        if number is None or not 0 <= number < 1e10:
            raise BadRecord("bad_time", f"occurred_at {fields['occurred_at']!r} is no place in an order",
                            field="occurred_at", hint="send whole numbers.")  # fmt: skip
        fields["occurred_at"] = ORDER_BASE + timedelta(seconds=number)
    if "occurred_at" not in fields:
        raise BadRecord("missing_field", "occurred_at is missing", field="occurred_at", hint="say when it happened.")
    name = fields.get("name") or "view_item"
    fields["name"] = _NAMES.get(name.lower(), name) if isinstance(name, str) else name
    if "quantity" in fields and fields["quantity"] in ("0", 0):
        del fields["quantity"]
    return maker.events(to_wire(fields, WireEvent))


def item_of(row: Mapping[str, Any], currency: str | None) -> WireCatalogItem:
    """The catalog item of one row, its fields by name.

    Raises:
        BadRecord: What is wrong with it.
    """
    fields = plain_fields(row, currency, bag="attributes")
    categories = fields.get("categories")
    if isinstance(categories, str):
        parts = categories.replace("|", ">").replace(";", ">").split(">")
        fields["categories"] = [part.strip() for part in parts if part.strip()]
    return to_wire(fields, WireCatalogItem)


def order_of(rows: Sequence[Mapping[str, Any]], currency: str | None) -> WireOrder:
    """The order of its rows: each is a line when it names an item; the first row says who, when and the total.

    Raises:
        BadRecord: What is wrong with one of them.
    """
    fields: dict[str, Any] = {}
    lines = []
    for row in rows:
        plain = plain_fields(row, currency, bag="")
        line = {name: plain.pop(name) for name in ("item_id", "quantity", "price_minor") if name in plain}
        if "item_id" in line:
            lines.append(line)
        fields = {**plain, **fields}
    if "occurred_at" not in fields:
        raise BadRecord("missing_field", "occurred_at is missing", field="occurred_at", hint="say when it happened.")
    return to_wire({**fields, "lines": lines} if lines else fields, WireOrder)


def user_of(row: Mapping[str, Any]) -> WireUser:
    """The known person of one row, its fields by name.

    Raises:
        BadRecord: What is wrong with it.
    """
    fields = plain_fields(row, None, bag="attributes")
    for name in ("entries", "purposes"):
        if isinstance(fields.get(name), str):
            parts = fields[name].replace("|", ";").replace(",", ";").split(";")
            fields[name] = [part.strip() for part in parts if part.strip()]
    return to_wire(fields, WireUser)


def edge_of(row: Mapping[str, Any]) -> WireEdge:
    """The tie between two people of one row, its fields by name.

    Raises:
        BadRecord: What is wrong with it.
    """
    return to_wire(plain_fields(row, None, bag=""), WireEdge)


def stands_for_nothing(cell: Any) -> bool:
    """Whether a cell is what programs write where they know nothing: `NaN`, `null`, `None` and the like.

    >>> stands_for_nothing("NaN"), stands_for_nothing(None), stands_for_nothing(""), stands_for_nothing("nancy")
    (True, True, True, False)
    """
    if isinstance(cell, str):
        return not cell or (len(cell) <= 9 and cell.strip().lower() in _NOTHING)
    return cell is None or (isinstance(cell, float) and math.isnan(cell))


def plain_fields(row: Mapping[str, Any], currency: str | None, bag: str) -> dict[str, Any]:
    """A row's fields as the wire has them: ids as text, times read, prices in minor units, empty ones left out.

    Raises:
        BadRecord: A time or a price cannot be read.
    """
    fields: dict[str, Any] = {}
    free: dict[str, Any] = {}
    for name, value in row.items():
        if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
            continue
        if name in _IDS:
            if stands_for_nothing(value):
                continue
            fields[name] = value if isinstance(value, str) else _id_text(value)
        elif name in _TIMES:
            fields[name] = read_time(value, name)
        elif bag and name.startswith(bag + "."):
            free[name[len(bag) + 1 :]] = value
        else:
            fields[name] = value
    for name, minor in _MONEY.items():
        if name in fields:
            amount, own = read_money(fields.pop(name), fields.get("currency") or currency, name)
            fields.setdefault(minor, amount)
            if own is not None:
                fields.setdefault("currency", own)
    for name in _NESTED.intersection(fields):
        if isinstance(fields[name], str) and fields[name][:1] in "{[":
            with suppress(msgspec.DecodeError):  # then it is plain text, and the checks below say so
                fields[name] = msgspec.json.decode(fields[name])
    if free:
        held = fields.get(bag)
        fields[bag] = {**held, **free} if isinstance(held, dict) else free
    return fields


def read_time(value: Any, field: str) -> Moment:
    """A time from a cell: a datetime, a date, ISO 8601 text, or a number (unix seconds or milliseconds).

    Raises:
        BadRecord: It is none of these.
    """
    if isinstance(value, datetime) or (isinstance(value, int | float) and not isinstance(value, bool)):
        return value
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day, tzinfo=UTC)
    number = _number(value)
    if number is not None:
        return number
    try:
        return datetime.fromisoformat(str(value).strip())
    except ValueError:
        raise BadRecord(
            "bad_time", f"{field} {str(value)[:60]!r} is no time", field=field,
            hint="use ISO 8601, 2026-01-31T12:00:00Z, or unix seconds.",
        ) from None  # fmt: skip


def read_money(value: Any, currency: str | None, field: str) -> tuple[int, str | None]:
    """An amount in minor units, and its currency when the cell names it.

    >>> read_money("15.00 USD", None, "price"), read_money(9.99, "EUR", "price"), read_money("500", "JPY", "price")
    ((1500, 'USD'), (999, None), (500, None))

    Raises:
        BadRecord: It is no amount.
    """
    text = str(value).strip()
    own: str | None = None
    words = text.split()
    if len(words) == 2:
        own = next((word for word in words if len(word) == 3 and word.isalpha() and word.isupper()), None)
        text = next((word for word in words if word != own), "")
    try:
        amount = Decimal(text)
        digits = 0 if (own or currency) in _NO_CENTS else 3 if (own or currency) in _THREE_DIGITS else 2
        if not amount.is_finite() or amount.adjusted() > 15:
            raise InvalidOperation
        return int((amount.scaleb(digits)).to_integral_value()), own
    except InvalidOperation:
        raise BadRecord(
            "bad_price", f"{field} {str(value)[:40]!r} is no amount", field=field, hint='use 15.00 or "15.00 USD".'
        ) from None


def to_wire(fields: dict[str, Any], wire_type: type[W]) -> W:
    """A record from cells, which may all be text.

    Raises:
        BadRecord: What is wrong with it.
    """
    try:
        record: W = msgspec.convert(fields, wire_type, strict=False)
    except msgspec.ValidationError as error:
        raise read_problem(error) from None
    return record


def _bag(kind: str) -> str:
    return {"events": "context", "items": "attributes", "users": "attributes"}.get(kind, "")


def _id_text(value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def _number(value: Any) -> float | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return value
    if isinstance(value, str):
        try:
            return int(value)
        except ValueError:
            try:
                number = float(value)
            except ValueError:
                return None
            return number if math.isfinite(number) else None
    return None
