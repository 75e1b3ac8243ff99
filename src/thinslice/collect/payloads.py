"""Payloads: a body that a shop sent becomes events, items or orders; what is wrong in it is named, one by one.

The whole batch is decoded and checked by type in one go. Only when that fails is each record looked at by itself, so
that the good ones are kept and each bad one gets its code, field and hint.
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Annotated, Any, NamedTuple, TypeVar

import msgspec
from msgspec import Meta

from thinslice.errors import BadInput, BadRecord, TooLarge
from thinslice.records import CONSENTS, EVENT_NAMES, STATUSES, Event, Item, Order, OrderLine, Quarantined

MAX_BODY_BYTES = 1_000_000
"""A longer body is refused whole."""

MAX_RECORDS = 1_000
"""More records in one body are refused whole."""

MAX_CONTEXT_BYTES = 16_384
"""What one record may carry in `context` or `attributes`."""

MAX_AHEAD = timedelta(minutes=10)
MAX_AGE = timedelta(days=30)

Id = Annotated[str, Meta(min_length=1, max_length=256)]
Word = Annotated[str, Meta(min_length=1, max_length=64)]
Text = Annotated[str, Meta(max_length=1024)]
LongText = Annotated[str, Meta(max_length=20_000)]
Count = Annotated[int, Meta(ge=1, le=1_000_000)]
Place = Annotated[int, Meta(ge=0, le=1_000_000)]
Minor = Annotated[int, Meta(ge=0, le=10**13)]
Currency = Annotated[str, Meta(pattern="^[A-Z]{3}$", max_length=3)]
Moment = datetime | int | float | None


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
    in_stock: bool = True
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


class Rejection(NamedTuple):
    """Why one record of a batch was refused: where, a code for programs, a sentence, the field, what to send."""

    index: int  # type: ignore[assignment] # the contract's word
    code: str
    message: str
    field: str
    hint: str


class Batch(NamedTuple):
    """What became of a body of events: the good, the bad, and how many were dropped for want of consent."""

    events: list[Event]
    rejected: list[Rejection]
    quarantined: list[Quarantined]
    not_stored_no_consent: int
    accepted: int


class ItemBatch(NamedTuple):
    """What became of a body of items."""

    items: list[Item]
    rejected: list[Rejection]
    quarantined: list[Quarantined]


class OrderBatch(NamedTuple):
    """What became of a body of orders."""

    orders: list[Order]
    rejected: list[Rejection]
    quarantined: list[Quarantined]


_NEEDS_ITEM = frozenset(
    {"view_item", "select_item", "add_to_cart", "remove_from_cart", "add_to_wishlist", "rate", "like", "hide",
     "apply", "watch"}
)  # fmt: skip
_NEEDS_TARGET = frozenset({"follow", "connect"})
_CONSENTS = frozenset(CONSENTS)
_STATUSES = frozenset(STATUSES)
_AT = re.compile(r"^(?P<what>.*?)(?: - at `\$(?P<path>[^`]*)`)?$", re.DOTALL)
_PACKER = msgspec.msgpack.Encoder()

Issued = Callable[[str, str], bool]
"""(tenant, recommendation_id) → whether the service issued it."""

W = TypeVar("W", bound=msgspec.Struct)


def parse_events(
    body: bytes,
    *,
    tenant: str,
    source: str,
    default_consent: str,
    now: datetime,
    currency: str | None = None,
    is_bot: bool = False,
    issued: Issued | None = None,
) -> Batch:
    """Events from one request body: a JSON array, one object, or `{"events": [...]}`.

    Args:
        body: At most 1 MB of JSON in UTF-8.
        tenant: Follows from the key.
        source: `browser` for publishable keys, `api` for secret ones.
        default_consent: For events that do not say.
        now: When the body arrived; aware, UTC.
        currency: For prices that do not say.
        is_bot: Tags all events of the body.
        issued: Tells recommendation ids that the service issued from invented ones; None trusts all.

    Returns:
        The batch; `accepted` counts events as sent, before one with several items becomes several.

    Raises:
        TooLarge: More than 1 MB or 1,000 events.
        BadInput: The body is no JSON, or neither an array nor an object, or empty.
    """
    maker = EventMaker(
        tenant=tenant, source=source, default_consent=default_consent, now=now, currency=currency, is_bot=is_bot,
        issued=issued,
    )  # fmt: skip
    events: list[Event] = []
    refusals = _Refusals(tenant, "event", now)
    no_consent = accepted = 0
    wires, raws = _read(body, WireEvent, "events")
    for index, wire in enumerate(wires):
        try:
            if isinstance(wire, BadRecord):
                raise wire
            made = maker.events(wire)
        except BadRecord as error:
            raws = raws or _split(body, "events")
            refusals.add(index, error, raws[index])
            continue
        if made:
            accepted += 1
            events += made
        else:
            no_consent += 1
    return Batch(events, refusals.rejected, refusals.quarantined, no_consent, accepted)


def parse_items(body: bytes, *, tenant: str, now: datetime, currency: str | None = None) -> ItemBatch:
    """Catalog items from one request body: an array, one object, or `{"items": [...]}`.

    Raises:
        TooLarge: More than 1 MB or 1,000 items.
        BadInput: The body is no JSON, or neither an array nor an object, or empty.
    """
    items: list[Item] = []
    refusals = _Refusals(tenant, "item", now)
    wires, raws = _read(body, WireCatalogItem, "items")
    for index, wire in enumerate(wires):
        try:
            if isinstance(wire, BadRecord):
                raise wire
            items.append(make_item(wire, tenant=tenant, now=now, currency=currency))
        except BadRecord as error:
            raws = raws or _split(body, "items")
            refusals.add(index, error, raws[index])
    return ItemBatch(items, refusals.rejected, refusals.quarantined)


def parse_orders(body: bytes, *, tenant: str, source: str, now: datetime, currency: str | None = None) -> OrderBatch:
    """Orders from one request body: an array, one object, or `{"orders": [...]}`; the same id twice is refused.

    Raises:
        TooLarge: More than 1 MB or 1,000 orders.
        BadInput: The body is no JSON, or neither an array nor an object, or empty.
    """
    orders: list[Order] = []
    seen: set[str] = set()
    refusals = _Refusals(tenant, "order", now)
    wires, raws = _read(body, WireOrder, "orders")
    for index, wire in enumerate(wires):
        try:
            if isinstance(wire, BadRecord):
                raise wire
            order = make_order(wire, tenant=tenant, source=source, now=now, currency=currency)
            if order.order_id in seen:
                raise _duplicate("order_id", order.order_id)
        except BadRecord as error:
            raws = raws or _split(body, "orders")
            refusals.add(index, error, raws[index])
            continue
        seen.add(order.order_id)
        orders.append(order)
    return OrderBatch(orders, refusals.rejected, refusals.quarantined)


class EventMaker:
    """Makes events from what was sent: checks what types cannot say, fills what was left out, splits several items.

    One maker serves one body or file: it remembers the ids it has seen, and counts equal rows, so that rows without an
    id get one from their content and their ordinal among equals.

    Args:
        tenant: Follows from the key.
        source: Where the events come from.
        default_consent: For events that do not say.
        now: When they arrived.
        currency: For prices that do not say.
        is_bot: Tags all of them.
        issued: Tells recommendation ids that the service issued from invented ones.
        earliest: Events before this moment are refused (default: 30 days before `now`).
        latest: Events after this moment are refused (default: 10 minutes after `now`).
    """

    def __init__(
        self,
        *,
        tenant: str,
        source: str,
        default_consent: str,
        now: datetime,
        currency: str | None = None,
        is_bot: bool = False,
        issued: Issued | None = None,
        earliest: datetime | None = None,
        latest: datetime | None = None,
    ) -> None:
        self._tenant = tenant
        self._source = source
        self._consent = default_consent
        self._now = now
        self._currency = currency
        self._is_bot = is_bot
        self._issued = issued
        self._earliest = earliest or now - MAX_AGE
        self._latest = latest or now + MAX_AHEAD
        self._seen: set[str] = set()
        self._equal: dict[bytes, int] = {}

    def events(self, wire: WireEvent) -> list[Event]:
        """The events of one sent event: one, one for each of its items, or none without consent.

        Raises:
            BadRecord: What is wrong with it.
        """
        consent = wire.consent or self._consent
        if consent not in _CONSENTS:
            raise BadRecord(
                "unknown_consent", f"consent is {_shown(consent)}", field="consent", hint=f"send {_one_of(CONSENTS)}."
            )
        if wire.tenant is not None and wire.tenant != self._tenant:
            raise BadRecord(
                "foreign_tenant", f"the key belongs to another tenant than {_shown(wire.tenant)}", field="tenant",
                hint="leave tenant out: it follows from the key.",
            )  # fmt: skip
        occurred_at = self._occurred_at(wire.occurred_at)
        name = wire.name
        context = wire.context or {}
        if name not in EVENT_NAMES:
            context = {**context, "name": name}
            name = "custom"
        if name in _NEEDS_ITEM and wire.item_id is None and wire.items is None:
            raise BadRecord("missing_field", f"{name} needs an item_id", field="item_id", hint="send item_id as text.")
        if name in _NEEDS_TARGET and wire.target_id is None:
            raise BadRecord("missing_field", f"{name} needs a target_id", field="target_id", hint="send whom, as text.")
        if name == "search" and not wire.query and wire.item_id is None:
            raise BadRecord("missing_field", "search needs a query", field="query", hint="send what was searched for.")
        if context:
            _check_bag(context, "context")
        recommendation_id = wire.recommendation_id
        if recommendation_id is not None and self._issued and not self._issued(self._tenant, recommendation_id):
            raise BadRecord(
                "unknown_recommendation", f"recommendation_id {_shown(recommendation_id)} was not issued here",
                field="recommendation_id", hint="send the recommendation_id of the slate that led here, unchanged.",
            )  # fmt: skip
        event_id = wire.event_id
        if event_id is None:
            event_id = self._content_id(wire, name, occurred_at)
        elif event_id in self._seen:
            raise _duplicate("event_id", event_id)
        else:
            self._seen.add(event_id)
        if consent == "none":
            return []
        first = Event(
            event_id=event_id,
            tenant=self._tenant,
            name=name,
            occurred_at=occurred_at,
            received_at=self._now,
            visitor_id=wire.visitor_id,
            session_id=wire.session_id,
            user_id=wire.user_id,
            item_id=wire.item_id,
            target_id=wire.target_id,
            quantity=wire.quantity,
            value=wire.value,
            price_minor=wire.price_minor,
            currency=wire.currency or (self._currency if wire.price_minor is not None else None),
            order_id=wire.order_id,
            query=wire.query,
            placement=wire.placement,
            position=wire.position,
            recommendation_id=recommendation_id,
            consent=consent,
            source=self._source,
            is_bot=wire.is_bot or self._is_bot,
            context=context,
        )
        if wire.items is None:
            return [first]
        replace = msgspec.structs.replace
        return [
            replace(
                first,
                event_id=f"{event_id}#{place}",
                item_id=line.item_id,
                quantity=line.quantity if line.quantity is not None else wire.quantity,
                price_minor=line.price_minor if line.price_minor is not None else wire.price_minor,
                currency=line.currency
                or wire.currency
                or (self._currency if line.price_minor is not None or wire.price_minor is not None else None),
                position=line.position if line.position is not None else wire.position,
            )
            for place, line in enumerate(wire.items)
        ]

    def _occurred_at(self, sent: Moment) -> datetime:
        """When it happened, in UTC; now when the sender does not say."""
        if sent is None:
            return self._now
        at = moment(sent, "occurred_at")
        if at > self._latest:
            raise BadRecord(
                "too_far_ahead", f"occurred_at {at.isoformat()} lies after {self._latest.isoformat()}",
                field="occurred_at", hint="check the sender's clock; times are UTC.",
            )  # fmt: skip
        if at < self._earliest:
            raise BadRecord(
                "too_old", f"occurred_at {at.isoformat()} lies before {self._earliest.isoformat()}",
                field="occurred_at", hint="bring older events in with `thinslice import events`.",
            )  # fmt: skip
        return at

    def _content_id(self, wire: WireEvent, name: str, at: datetime) -> str:
        """An id from the content, and from the ordinal among rows with the same content."""
        key = content_key(
            self._source, wire.visitor_id, wire.session_id, name, wire.item_id, wire.order_id, at.timestamp(),
            *([line.item_id for line in wire.items] if wire.items else ()),
        )  # fmt: skip
        ordinal = self._equal.get(key, 0)
        self._equal[key] = ordinal + 1
        return f"{key.hex()}-{ordinal}" if ordinal else key.hex()


def content_key(*parts: str | float | None) -> bytes:
    """16 bytes that stand for the content of a row: the same row has the same key, everywhere and always."""
    return hashlib.blake2b(_PACKER.encode(parts), digest_size=16).digest()


def make_item(wire: WireCatalogItem, *, tenant: str, now: datetime, currency: str | None = None) -> Item:
    """A catalog item from what was sent.

    Raises:
        BadRecord: What is wrong with it.
    """
    if wire.tenant is not None and wire.tenant != tenant:
        raise BadRecord(
            "foreign_tenant", f"the key belongs to another tenant than {_shown(wire.tenant)}", field="tenant",
            hint="leave tenant out: it follows from the key.",
        )  # fmt: skip
    if wire.status not in _STATUSES:
        raise BadRecord(
            "unknown_status", f"status is {_shown(wire.status)}", field="status", hint=f"send {_one_of(STATUSES)}."
        )
    if wire.attributes:
        _check_bag(wire.attributes, "attributes")
    return Item(
        tenant=tenant,
        item_id=wire.item_id,
        updated_at=now,
        group_id=wire.group_id,
        kind=wire.kind,
        title=wire.title,
        description=wire.description,
        url=wire.url,
        image_url=wire.image_url,
        categories=wire.categories,
        brand=wire.brand,
        price_minor=wire.price_minor,
        currency=wire.currency or (currency if wire.price_minor is not None else None),
        in_stock=wire.in_stock,
        status=wire.status,
        published_at=None if wire.published_at is None else moment(wire.published_at, "published_at"),
        expires_at=None if wire.expires_at is None else moment(wire.expires_at, "expires_at"),
        latitude=wire.latitude,
        longitude=wire.longitude,
        level=wire.level,
        creator_id=wire.creator_id,
        sponsored=wire.sponsored,
        attributes=wire.attributes,
        vectors=wire.vectors,
    )


def make_order(
    wire: WireOrder,
    *,
    tenant: str,
    source: str,
    now: datetime,
    currency: str | None = None,
    earliest: datetime | None = None,
    latest: datetime | None = None,
) -> Order:
    """An order from what was sent; the total is the sum of the lines when it is left out.

    Raises:
        BadRecord: What is wrong with it.
    """
    if wire.tenant is not None and wire.tenant != tenant:
        raise BadRecord(
            "foreign_tenant", f"the key belongs to another tenant than {_shown(wire.tenant)}", field="tenant",
            hint="leave tenant out: it follows from the key.",
        )  # fmt: skip
    if wire.total_minor is None and not wire.lines:
        raise BadRecord(
            "missing_field", "an order needs lines or total_minor", field="lines",
            hint='send lines: [{"item_id", "quantity", "price_minor"}].',
        )  # fmt: skip
    money = wire.currency or currency
    if money is None:
        raise BadRecord(
            "missing_field", "an order needs a currency", field="currency", hint='send "EUR", for instance.'
        )
    at = now if wire.occurred_at is None else moment(wire.occurred_at, "occurred_at")
    if at > (latest or now + MAX_AHEAD):
        raise BadRecord(
            "too_far_ahead", f"occurred_at {at.isoformat()} lies in the future", field="occurred_at",
            hint="check the sender's clock; times are UTC.",
        )  # fmt: skip
    if at < (earliest or now - MAX_AGE):
        raise BadRecord(
            "too_old", f"occurred_at {at.isoformat()} is too long ago", field="occurred_at",
            hint="bring older orders in with `thinslice import orders`.",
        )  # fmt: skip
    total = wire.total_minor
    return Order(
        tenant=tenant,
        order_id=wire.order_id,
        occurred_at=at,
        received_at=now,
        currency=money,
        total_minor=sum(line.quantity * line.price_minor for line in wire.lines) if total is None else total,
        lines=[OrderLine(item_id=x.item_id, quantity=x.quantity, price_minor=x.price_minor) for x in wire.lines],
        visitor_id=wire.visitor_id,
        session_id=wire.session_id,
        user_id=wire.user_id,
        source=source,
    )


def moment(sent: datetime | int | float, field: str) -> datetime:
    """A time in UTC from ISO 8601 text (read already) or from unix seconds or milliseconds.

    >>> moment(1_700_000_000, "occurred_at") == moment(1_700_000_000_000, "occurred_at")
    True

    Raises:
        BadRecord: The number is no time of this age of the world.
    """
    try:
        if isinstance(sent, datetime):
            return sent.replace(tzinfo=UTC) if sent.tzinfo is None else sent.astimezone(UTC)
        if not abs(sent) < 1e15:
            raise OverflowError
        return datetime.fromtimestamp(sent / 1000.0 if abs(sent) >= 1e11 else sent, UTC)
    except (OverflowError, ValueError, OSError):
        raise BadRecord(
            "bad_time", f"{field} {sent if isinstance(sent, datetime) else _shown(sent)} is no time", field=field,
            hint="send ISO 8601 with a time zone, 2026-01-31T12:00:00Z, or unix seconds.",
        ) from None  # fmt: skip


def quarantine_id(tenant: str, kind: str, raw: str, received_at: datetime, index: int) -> str:
    """A name for one refused record."""
    return content_key(tenant, kind, raw, received_at.timestamp(), index).hex()


class _Refusals:
    """Collects what was refused, and what of it goes to the quarantine."""

    def __init__(self, tenant: str, kind: str, now: datetime) -> None:
        self.rejected: list[Rejection] = []
        self.quarantined: list[Quarantined] = []
        self._tenant = tenant
        self._kind = kind
        self._now = now

    def add(self, index: int, error: BadRecord, raw: msgspec.Raw) -> None:
        """Notes one refusal; only what can be read as a JSON object is kept for a replay."""
        self.rejected.append(Rejection(index, error.code, error.message, error.field, error.hint))
        if error.code in ("bad_json", "bad_utf8", "not_an_object"):
            return
        text = bytes(raw).decode("utf-8")
        self.quarantined.append(
            Quarantined(
                quarantine_id=quarantine_id(self._tenant, self._kind, text, self._now, index),
                tenant=self._tenant,
                kind=self._kind,
                raw=text,
                code=error.code,
                reason=error.message,
                field=error.field,
                received_at=self._now,
            )
        )


def read_one(raw: bytes | msgspec.Raw, wire_type: type[W]) -> W:
    """One record by itself; fields that we do not know go to its `context` or `attributes`.

    Raises:
        BadRecord: What is wrong with it.
    """
    try:
        decoder: msgspec.json.Decoder[W] = _one_decoder(wire_type)
        return decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass  # not as it should be: look closer
    if raw is _BROKEN:
        raise BadRecord("bad_utf8", "the text is not UTF-8", hint="encode it as UTF-8.")
    try:
        value = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadRecord("bad_json", f"this is no JSON: {error}", hint="send JSON in UTF-8.") from None
    except RecursionError:
        raise BadRecord("bad_json", "this is nested too deeply", hint="nest at most 8 levels.") from None
    if not isinstance(value, dict):
        raise BadRecord(
            "not_an_object", f"a record is an object, got {_shown(value)}", hint='send {"name": "view_item", …}.'
        )
    return from_fields(value, wire_type)


def from_fields(value: dict[str, Any], wire_type: type[W]) -> W:
    """A record from its fields by name; fields that we do not know go to its `context` or `attributes`.

    Raises:
        BadRecord: What is wrong with it.
    """
    known = _field_names(wire_type)
    extra = {name: value[name] for name in value if name not in known}
    if extra:
        bag = "context" if "context" in known else "attributes" if "attributes" in known else ""
        value = {name: value[name] for name in value if name in known}
        held = value.get(bag) or {}
        if bag and isinstance(held, dict):
            value[bag] = {**extra, **held}
    try:
        return msgspec.convert(value, wire_type)
    except msgspec.ValidationError as error:
        raise read_problem(error, extra) from None
    except RecursionError:
        raise BadRecord("bad_json", "this is nested too deeply", hint="nest at most 8 levels.") from None


def _read(body: bytes, wire_type: type[W], plural: str) -> tuple[Sequence[W | BadRecord], list[msgspec.Raw] | None]:
    """The records of a body, decoded in one go when all are well formed, else one by one.

    Returns:
        The records, each decoded or what is wrong with it; and the text of each, when it was needed.
    """
    if len(body) > MAX_BODY_BYTES:
        raise TooLarge(
            f"the body has {len(body):,} bytes, over the limit of {MAX_BODY_BYTES:,}.", hint="Send smaller batches."
        )
    body = _unwrapped(body, plural)
    start = body.lstrip()[:1]
    raws: list[msgspec.Raw] | None = None
    wires: Sequence[W | BadRecord]
    if start == b"[":
        try:
            wires = _list_decoder(wire_type).decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raws = _split(body, plural)
    else:
        raws = _split(body, plural)
    if raws is not None:
        _check_count(len(raws), plural)
        read: list[W | BadRecord] = []
        for raw in raws:
            try:
                read.append(read_one(raw, wire_type))
            except BadRecord as error:
                read.append(error)
        wires = read
    else:
        _check_count(len(wires), plural)
    return wires, raws


def _unwrapped(body: bytes, plural: str) -> bytes:
    """The array inside `{"events": [...]}`; any other body as it is."""
    if body.lstrip()[:1] != b"{" or f'"{plural}"'.encode() not in body:
        return body
    try:
        fields = _RAW_OBJECT.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return body
    inner = bytes(fields.get(plural, b""))
    own = ("name", "item_id", "order_id")  # then it is one record that happens to have such a field
    return inner if inner[:1] == b"[" and not any(name in fields for name in own) else body


def _check_count(count: int, plural: str) -> None:
    if not count:
        raise BadInput(f"the body holds no {plural}.", hint=f"Send a JSON array of {plural}.")
    if count > MAX_RECORDS:
        raise TooLarge(
            f"the body holds {count:,} {plural}, over the limit of {MAX_RECORDS:,}.", hint="Send smaller batches."
        )


def _split(body: bytes, plural: str) -> list[msgspec.Raw]:
    """The text of each record of a body; broken UTF-8 spoils only the record it stands in."""
    body = _unwrapped(body, plural)
    try:
        body.decode("utf-8")
    except UnicodeDecodeError:
        body = body.decode("utf-8", errors="replace").encode("utf-8")
        return [_BROKEN if _REPLACEMENT in bytes(raw) else raw for raw in _split(body, plural)]
    if b"\\u" in body:
        body = _ESCAPE.sub(_mended, body)
    try:
        if body.lstrip()[:1] == b"[":
            return _RAW_LIST.decode(body)
        _RAW_OBJECT.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        mended = _without_nan(body)
        if mended is not None:
            return _split(mended, plural)
        raise BadInput(
            f"the body is no JSON array or object of {plural}: {error}.",
            hint=f"Send a JSON array of {plural}, in UTF-8.",
        ) from None
    return [msgspec.Raw(body)]


_ESCAPE = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\u[dD][89a-fA-F][0-9a-fA-F]{2}|\\.", re.DOTALL
)
_REPLACEMENT = "\ufffd".encode()
_BROKEN = msgspec.Raw(b'"\xff"')
_RAW_LIST: msgspec.json.Decoder[list[msgspec.Raw]] = msgspec.json.Decoder(list[msgspec.Raw])
_RAW_OBJECT: msgspec.json.Decoder[dict[str, msgspec.Raw]] = msgspec.json.Decoder(dict[str, msgspec.Raw])


def _without_nan(body: bytes) -> bytes | None:
    """The body with NaN and Infinity, which are no JSON, as text, so that only their own record is refused."""
    if b"NaN" not in body and b"Infinity" not in body:
        return None
    found: list[str] = []

    def noted(name: str) -> str:
        found.append(name)
        return name

    try:
        value = json.loads(body, parse_constant=noted)
        return json.dumps(value).encode() if found else None
    except (ValueError, RecursionError):
        return None


def _mended(escape: re.Match[bytes]) -> bytes:
    """Half a surrogate pair (an emoji cut in two by a text field's limit) becomes the replacement character."""
    text = escape[0]
    return rb"\ufffd" if len(text) == 6 else text


@cache
def _list_decoder(wire_type: type[W]) -> msgspec.json.Decoder[list[W]]:
    return msgspec.json.Decoder(list[wire_type])  # type: ignore[valid-type]


@cache
def _one_decoder(wire_type: type[W]) -> msgspec.json.Decoder[W]:
    return msgspec.json.Decoder(wire_type)


@cache
def _field_names(wire_type: type[msgspec.Struct]) -> frozenset[str]:
    return frozenset(wire_type.__struct_fields__)


def _check_bag(bag: dict[str, Any], field: str) -> None:
    """A bag of free fields must be storable: not too large, not too deep, no numbers beyond 64 bits."""
    try:
        size = len(_PACKER.encode(bag))
    except (OverflowError, RecursionError, ValueError) as error:
        raise BadRecord(
            "bad_value", f"{field} cannot be stored: {error}", field=field, hint="send plain JSON."
        ) from None
    if size > MAX_CONTEXT_BYTES:
        raise BadRecord(
            "too_large", f"{field} has {size:,} bytes, over the limit of {MAX_CONTEXT_BYTES:,}", field=field,
            hint="send only what you will ask about.",
        )  # fmt: skip
    if _depth(bag) > 8:
        raise BadRecord("too_deep", f"{field} is nested too deeply", field=field, hint="nest at most 8 levels.")


def _depth(value: object, so_far: int = 0) -> int:
    if so_far > 8 or not isinstance(value, dict | list):
        return so_far
    inner = value.values() if isinstance(value, dict) else value
    return max((_depth(x, so_far + 1) for x in inner), default=so_far + 1)


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
        return BadRecord("wrong_type", f"{field} is of the wrong type: {said}", field=field, hint=hint)
    if "RFC3339" in said:
        hint = "send ISO 8601 with a time zone, 2026-01-31T12:00:00Z, or unix seconds."
        return BadRecord("bad_time", f"{field} is no time", field=field, hint=hint)
    return BadRecord("out_of_range", f"{field} is out of range: {said}", field=field, hint=said + ".")


def _duplicate(field: str, value: str) -> BadRecord:
    return BadRecord(
        "duplicate_id", f"{field} {_shown(value)} stands twice in this batch", field=field,
        hint="give each record its own id; the first one was kept.",
    )  # fmt: skip


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "…"


def _one_of(words: Sequence[str]) -> str:
    return ", ".join(words[:-1]) + " or " + words[-1]
