"""A quarantined record: what was sent, why it was refused, and where it came from, so that it can be replayed."""

from datetime import datetime

import msgspec


class Quarantined(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One refused record. `raw` is its JSON text; `kind` is `event`, `item` or `order`; `line` counts from 1."""

    quarantine_id: str
    tenant: str
    kind: str
    raw: str
    code: str
    reason: str
    field: str
    received_at: datetime
    file: str | None = None
    line: int | None = None
    replayed: bool = False
