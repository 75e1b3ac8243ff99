"""Records to bytes and back: the payload of a log frame is one byte of kind and msgpack."""

from collections.abc import Sequence
from typing import Any

import msgspec

from thinslice.errors import Corrupt
from thinslice.records import Event, Exposure, Item, Order, Quarantined, ShadowSlate
from thinslice.store.log import LogKind

RECORDS: dict[int, type[msgspec.Struct]] = {
    LogKind.EVENTS: Event,
    LogKind.EXPOSURES: Exposure,
    LogKind.ITEMS: Item,
    LogKind.ORDERS: Order,
    LogKind.QUARANTINE: Quarantined,
    LogKind.SHADOWS: ShadowSlate,
}
"""What a frame of each kind is a list of; FORGET is a number kept for later."""

_encoder = msgspec.msgpack.Encoder()
_decoders: dict[int, msgspec.msgpack.Decoder[Any]] = {
    kind: msgspec.msgpack.Decoder(list[record])  # type: ignore[valid-type]
    for kind, record in RECORDS.items()
}


def encode(kind: int, records: Sequence[msgspec.Struct]) -> bytes:
    """A frame's payload: the kind as one byte, then the records as msgpack.

    Whole numbers beyond 64 bits, which JSON allows and msgpack does not, become floats in free-form fields.
    """
    buffer = bytearray((kind,))
    try:
        _encoder.encode_into(records, buffer, 1)
    except OverflowError:
        plain = [_fitting(msgspec.structs.asdict(record)) for record in records]
        _encoder.encode_into(plain, buffer, 1)
    return bytes(buffer)


def decode(payload: bytes) -> tuple[LogKind, list[Any]]:
    """The kind and the records of a frame's payload.

    Raises:
        Corrupt: The kind is unknown, or the bytes are not such records.
    """
    if not payload or payload[0] not in _decoders:
        raise Corrupt(f"a frame of kind {payload[0] if payload else 'none'} is not known to this version.")
    kind = LogKind(payload[0])
    try:
        return kind, _decoders[kind].decode(memoryview(payload)[1:])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Corrupt(f"a frame of {kind.name.lower()} cannot be read: {error}.") from error


def _fitting(value: Any) -> Any:
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if -(2**63) <= value < 2**64 else float(value) if abs(value) < 2**1023 else str(value)
    if isinstance(value, dict):
        return {key: _fitting(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_fitting(entry) for entry in value]
    if isinstance(value, msgspec.Struct):
        return _fitting(msgspec.structs.asdict(value))
    return value
