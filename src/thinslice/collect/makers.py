"""Makers: what was sent becomes an event, item, order, user or edge, checked for what types cannot say."""

import hashlib
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from thinslice.collect.payloads import (
    Moment,
    WireCatalogItem,
    WireEdge,
    WireEvent,
    WireItem,
    WireLine,
    WireOrder,
    WireUser,
)
from thinslice.errors import BadRecord
from thinslice.records import CONSENTS, EDGE_KINDS, EVENT_NAMES, STATUSES, Edge, Event, Item, Order, OrderLine, User

MAX_CONTEXT_BYTES = 16_384
"""What one record may carry in `context` or `attributes`."""

MAX_AHEAD = timedelta(minutes=10)
MAX_AGE = timedelta(days=30)
MAX_SKEW = timedelta(days=366)
"""A sender's clock that is further off is not believed to be a clock."""

MIN_SKEW = timedelta(minutes=1)
"""A smaller difference may be the way that a body took, and is left alone."""

_IN_STOCK = frozenset({"in stock", "in_stock", "instock", "true", "1", "yes", "y", "preorder", "pre-order", "backorder",
                       "limitedavailability", "onlineonly", "instoreonly", "available"})  # fmt: skip
_OUT_OF_STOCK = frozenset({"out of stock", "out_of_stock", "outofstock", "false", "0", "no", "n", "soldout", "sold out",
                           "sold_out", "discontinued", "unavailable", "not available"})  # fmt: skip
_EVENT_IDS = ("event_id", "visitor_id", "session_id", "user_id", "item_id", "target_id", "order_id")
_ODD = re.compile(r"[\x00-\x1f\x7f\ufffd]")
_NEEDS_ITEM = frozenset(
    {"view_item", "select_item", "add_to_cart", "remove_from_cart", "add_to_wishlist", "rate", "like", "hide",
     "apply", "watch"}
)  # fmt: skip
_NEEDS_TARGET = frozenset({"follow", "connect"})
_CONSENTS = frozenset(CONSENTS)
_STATUSES = frozenset(STATUSES)
_PACKER = msgspec.msgpack.Encoder()

Issued = Callable[[str, str], bool]
"""(tenant, recommendation_id) → whether the service issued it."""


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
        skew: How far the sender's clock is ahead: its times are set back by that, and the event says so.
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
        skew: timedelta = timedelta(),
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
        self._skew = skew
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
                "unknown_consent", f"consent is {shown(consent)}", field="consent", hint=f"send {_one_of(CONSENTS)}."
            )
        _check_tenant(wire.tenant, self._tenant)
        _check_ids(wire, _EVENT_IDS)
        if wire.items is not None:
            _check_lines(wire.items, "items")
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
        if self._skew and wire.occurred_at is not None:
            context = {**context, "clock_ahead_s": round(self._skew.total_seconds())}
        if context:
            _check_bag(context, "context")
        recommendation_id = wire.recommendation_id
        if recommendation_id is not None and self._issued and not self._issued(self._tenant, recommendation_id):
            raise BadRecord(
                "unknown_recommendation", f"recommendation_id {shown(recommendation_id)} was not issued here",
                field="recommendation_id", hint="send the recommendation_id of the slate that led here, unchanged.",
            )  # fmt: skip
        event_id = wire.event_id
        if event_id is None:
            event_id = self._content_id(wire, name, occurred_at)
        elif event_id in self._seen:
            raise duplicate("event_id", event_id)
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
        if self._skew:
            try:
                at -= self._skew
            except OverflowError:
                raise BadRecord("bad_time", f"occurred_at {at.isoformat()} is no time", field="occurred_at",
                                hint="send when it happened, by the clock of `sent_at`.") from None  # fmt: skip
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
    _check_tenant(wire.tenant, tenant)
    _check_ids(wire, ("item_id", "group_id", "creator_id"))
    if wire.status not in _STATUSES:
        raise BadRecord(
            "unknown_status", f"status is {shown(wire.status)}", field="status", hint=f"send {_one_of(STATUSES)}."
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
        in_stock=read_stock(wire.in_stock),
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


def read_stock(sent: bool | int | str) -> bool:
    """Whether an item is in stock, in the words of the catalog feeds of this world.

    >>> read_stock("in stock"), read_stock("https://schema.org/OutOfStock"), read_stock(1)
    (True, False, True)

    Raises:
        BadRecord: It is none of these words.
    """
    if isinstance(sent, bool):
        return sent
    word = str(sent).strip().lower().rsplit("/", 1)[-1]
    if word in _IN_STOCK or word in _OUT_OF_STOCK:
        return word in _IN_STOCK
    raise BadRecord(
        "bad_value", f"in_stock is {shown(sent)}", field="in_stock", hint='send true or false, or "in stock".'
    )


def clock_skew(sent_at: datetime | int | float | None, now: datetime) -> timedelta:
    """How far a sender's clock is ahead of ours, from the time that it had when it sent; nothing when it says none.

    >>> clock_skew(1_700_000_900, datetime.fromtimestamp(1_700_000_000, UTC))
    datetime.timedelta(seconds=900)
    """
    if sent_at is None:
        return timedelta()
    try:
        skew = moment(sent_at, "sent_at") - now
    except BadRecord:
        return timedelta()
    return skew if MIN_SKEW <= abs(skew) <= MAX_SKEW else timedelta()


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
    _check_tenant(wire.tenant, tenant)
    _check_ids(wire, ("order_id", "visitor_id", "session_id", "user_id"))
    _check_lines(wire.lines, "lines")
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


def make_user(wire: WireUser, *, tenant: str, now: datetime, default_consent: str) -> User:
    """A known person from what was sent; of one who consents to nothing only the id and that are kept.

    Raises:
        BadRecord: What is wrong with it.
    """
    _check_tenant(wire.tenant, tenant)
    _check_ids(wire, ("user_id",))
    consent = wire.consent or default_consent
    if consent not in _CONSENTS:
        raise BadRecord(
            "unknown_consent", f"consent is {shown(consent)}", field="consent", hint=f"send {_one_of(CONSENTS)}."
        )
    if wire.email_hash is not None and "@" in wire.email_hash:
        raise BadRecord(
            "not_hashed", "email_hash is an address, not its hash", field="email_hash",
            hint="hash it yourself (SHA-256 of the address in lower case) and send that.",
        )  # fmt: skip
    if consent == "none":
        return User(tenant=tenant, user_id=wire.user_id, updated_at=now, consent=consent)
    if wire.attributes:
        _check_bag(wire.attributes, "attributes")
    return User(
        tenant=tenant, user_id=wire.user_id, updated_at=now, email_hash=wire.email_hash,
        loyalty_tier=wire.loyalty_tier, latitude=wire.latitude, longitude=wire.longitude, entries=wire.entries,
        attributes=wire.attributes, consent=consent, purposes=wire.purposes,
    )  # fmt: skip


def make_edge(wire: WireEdge, *, tenant: str, now: datetime, earliest: datetime, latest: datetime) -> Edge:
    """A tie between two people from what was sent.

    Raises:
        BadRecord: What is wrong with it.
    """
    _check_tenant(wire.tenant, tenant)
    _check_ids(wire, ("from_id", "to_id"))
    if wire.kind not in EDGE_KINDS:
        raise BadRecord(
            "unknown_kind", f"kind is {shown(wire.kind)}", field="kind", hint=f"send {_one_of(EDGE_KINDS)}."
        )
    if wire.from_id == wire.to_id:
        raise BadRecord(
            "self_edge", f"from_id and to_id are both {shown(wire.to_id)}", field="to_id", hint="tie two people."
        )
    at = now if wire.occurred_at is None else moment(wire.occurred_at, "occurred_at")
    if not earliest <= at <= latest:
        early = at < earliest
        raise BadRecord(
            "too_old" if early else "too_far_ahead",
            f"occurred_at {at.isoformat()} lies "
            + (f"before {earliest.isoformat()}" if early else f"after {latest.isoformat()}"),
            field="occurred_at", hint="check the file's times; they are UTC.",
        )  # fmt: skip
    return Edge(
        tenant=tenant, from_id=wire.from_id, to_id=wire.to_id, kind=wire.kind, occurred_at=at, weight=wire.weight
    )


def _check_ids(wire: msgspec.Struct, names: Sequence[str], prefix: str = "") -> None:
    """An id is one line of text: no control characters, and no letter that was broken on its way."""
    for name in names:
        value = getattr(wire, name)
        if value is not None and not (value.isascii() and value.isprintable()) and _ODD.search(value):
            raise BadRecord(
                "bad_id", f"{prefix}{name} {shown(value)} holds a line break, a control character or a broken letter",
                field=f"{prefix}{name}", hint="send ids without them; an id is one line of text.",
            )  # fmt: skip


def _check_lines(lines: Sequence[WireItem | WireLine], field: str) -> None:
    for place, line in enumerate(lines):
        _check_ids(line, ("item_id",), f"{field}[{place}].")


def _check_tenant(sent: str | None, tenant: str) -> None:
    if sent is not None and sent != tenant:
        raise BadRecord(
            "foreign_tenant", f"the key belongs to another tenant than {shown(sent)}", field="tenant",
            hint="leave tenant out: it follows from the key.",
        )  # fmt: skip


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
            "bad_time", f"{field} {sent if isinstance(sent, datetime) else shown(sent)} is no time", field=field,
            hint="send ISO 8601 with a time zone, 2026-01-31T12:00:00Z, or unix seconds.",
        ) from None  # fmt: skip


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


def duplicate(field: str, value: str) -> BadRecord:
    """An id that stands twice where it may stand once."""
    return BadRecord(
        "duplicate_id", f"{field} {shown(value)} stands twice in this batch", field=field,
        hint="give each record its own id; the first one was kept.",
    )  # fmt: skip


def shown(value: object) -> str:
    """A value as a message shows it, cut when it is long."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "…"


def _one_of(words: Sequence[str]) -> str:
    return ", ".join(words[:-1]) + " or " + words[-1]
