"""Batches: a body that a shop sent becomes records; what is wrong in it is named, one by one.

The whole batch is decoded and checked by type in one go. Only when that fails is each record looked at by itself, so
that the good ones are kept and each bad one gets its code, field and hint.
"""

import codecs
import json
import re
import zlib
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import cache
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec

from thinslice.collect.makers import (
    EventMaker,
    Issued,
    clock_skew,
    content_key,
    duplicate,
    make_item,
    make_order,
    shown,
)
from thinslice.collect.payloads import WireCatalogItem, WireEvent, WireOrder, read_problem
from thinslice.errors import BadInput, BadRecord, TooLarge
from thinslice.records import Event, Item, Order, Quarantined

MAX_BODY_BYTES = 1_000_000
"""A longer body is refused whole."""

MAX_RECORDS = 1_000
"""More records in one body are refused whole."""

W = TypeVar("W", bound=msgspec.Struct)
R = TypeVar("R")


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
    """Events from one request body: a JSON array, one object, or `{"events": [...], "sent_at": ...}`.

    `sent_at` is the sender's clock when it sent: where that is off by more than a minute, and by at most a year, the
    events' times are set right by the difference, which they carry in their context as `clock_ahead_s`.

    Args:
        body: At most 1 MB of JSON in UTF-8, which may be packed with gzip.
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
    body = plain_body(body)
    maker = EventMaker(
        tenant=tenant, source=source, default_consent=default_consent, now=now, currency=currency, is_bot=is_bot,
        issued=issued, skew=clock_skew(_sent_at(body), now),
    )  # fmt: skip
    taken = _take(body, WireEvent, "event", tenant, now, maker.events)
    accepted = sum(1 for made in taken.made if made)
    events = [event for made in taken.made for event in made]
    return Batch(events, taken.rejected, taken.quarantined, len(taken.made) - accepted, accepted)


def parse_items(body: bytes, *, tenant: str, now: datetime, currency: str | None = None) -> ItemBatch:
    """Catalog items from one request body: an array, one object, or `{"items": [...]}`.

    Raises:
        TooLarge: More than 1 MB or 1,000 items.
        BadInput: The body is no JSON, or neither an array nor an object, or empty.
    """

    def make(wire: WireCatalogItem) -> Item:
        return make_item(wire, tenant=tenant, now=now, currency=currency)

    return ItemBatch(*_take(body, WireCatalogItem, "item", tenant, now, make))


def parse_orders(body: bytes, *, tenant: str, source: str, now: datetime, currency: str | None = None) -> OrderBatch:
    """Orders from one request body: an array, one object, or `{"orders": [...]}`; the same id twice is refused.

    Raises:
        TooLarge: More than 1 MB or 1,000 orders.
        BadInput: The body is no JSON, or neither an array nor an object, or empty.
    """
    seen: set[str] = set()

    def make(wire: WireOrder) -> Order:
        order = make_order(wire, tenant=tenant, source=source, now=now, currency=currency)
        if order.order_id in seen:
            raise duplicate("order_id", order.order_id)
        seen.add(order.order_id)
        return order

    return OrderBatch(*_take(body, WireOrder, "order", tenant, now, make))


class _Taken(NamedTuple, Generic[R]):
    """What became of a body: what was made of each good record, the bad ones, and what of those is kept."""

    made: list[R]
    rejected: list[Rejection]
    quarantined: list[Quarantined]


def _take(body: bytes, wire_type: type[W], kind: str, tenant: str, now: datetime, make: Callable[[W], R]) -> _Taken[R]:
    """Makes something of every record of a body; one that is wrong is refused by itself.

    Args:
        body: The body, of an array, one object, or `{"events": [...]}`.
        wire_type: What a record of it is.
        kind: `event`, `item` or `order`.
        tenant: Whose.
        now: When the body arrived.
        make: Makes it, or raises `BadRecord`.
    """
    body = plain_body(body)
    made: list[R] = []
    refusals = _Refusals(tenant, kind, now)
    wires, raws = _read(body, wire_type, kind + "s")
    for index, wire in enumerate(wires):
        try:
            if isinstance(wire, BadRecord):
                raise wire
            made.append(make(wire))
        except BadRecord as error:
            raws = raws or _split(body, kind + "s")
            refusals.add(index, error, raws[index])
    return _Taken(made, refusals.rejected, refusals.quarantined)


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
            "not_an_object", f"a record is an object, got {shown(value)}", hint='send {"name": "view_item", …}.'
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


def plain_body(body: bytes) -> bytes:
    """The JSON of a body: unpacked when it is packed with gzip, without a byte order mark.

    Raises:
        TooLarge: It has more than 1 MB, packed or unpacked.
        BadInput: It is packed but broken, or text in UTF-16.
    """
    if body.startswith(_GZIP):
        body = _inflated(body)
    if len(body) > MAX_BODY_BYTES:
        raise TooLarge(
            f"the body has {len(body):,} bytes, over the limit of {MAX_BODY_BYTES:,}.", hint="Send smaller batches."
        )
    if body.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise BadInput("the body is text in UTF-16.", hint="Send JSON in UTF-8.")
    return body.removeprefix(codecs.BOM_UTF8)


def _inflated(body: bytes) -> bytes:
    """A body unpacked, at most one byte over the limit, so that a small body cannot become a large one here."""
    unpacker = zlib.decompressobj(wbits=31)
    try:
        plain = unpacker.decompress(body, MAX_BODY_BYTES + 1)
    except zlib.error as error:
        raise BadInput(f"the body is packed with gzip, but broken: {error}.", hint="Send it again.") from None
    if len(plain) > MAX_BODY_BYTES:
        raise TooLarge(
            f"the body unpacks to more than {MAX_BODY_BYTES:,} bytes, the limit.", hint="Send smaller batches."
        )
    if not unpacker.eof or unpacker.unused_data:
        raise BadInput("the body is packed with gzip, but breaks off or goes on after its end.", hint="Send it again.")
    return plain


def _sent_at(body: bytes) -> datetime | int | float | None:
    """The sender's clock in an envelope; None when there is none that can be read."""
    if b'"sent_at"' not in body or body.lstrip()[:1] != b"{":
        return None
    try:
        return _ENVELOPE.decode(body).sent_at
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


class _Envelope(msgspec.Struct):
    """What stands around the events of a batch."""

    events: list[msgspec.Raw]
    sent_at: datetime | int | float | None = None


_GZIP = b"\x1f\x8b"
_ENVELOPE = msgspec.json.Decoder(_Envelope)


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
