"""Refilling: the live store is a cache; after a power loss or an import the catalog and the visits of now come back."""

from collections.abc import Iterable
from datetime import datetime

from thinslice.records import SESSION_GAP_S, Event, Item, LiveSession, LiveStore
from thinslice.sessions import apply, group, keys_of
from thinslice.store.lake import Lake
from thinslice.store.schemas import to_records

BATCH = 1000
"""Sessions a write transaction, so that web workers never wait long."""


def refill_catalog(lake: Lake, live: LiveStore, tenants: Iterable[str]) -> int:
    """Puts the lake's items that the live store lacks, or has in an older state, into the live catalog.

    Returns:
        How many items were put.
    """
    put = 0
    for tenant in tenants:
        have = {item.item_id: item.updated_at for item in live.item_changes(tenant, 0)[1]}
        connection = lake.connect(tenant=tenant)
        try:
            items = to_records(
                Item, connection.execute("SELECT * FROM items ORDER BY updated_at, item_id").to_arrow_table()
            )
        finally:
            connection.close()
        news = [item for item in items if item.item_id not in have or have[item.item_id] < item.updated_at]
        if news:
            live.put_items(news)
            put += len(news)
    return put


def refill_sessions(lake: Lake, live: LiveStore, now: datetime) -> int:
    """Rebuilds the live sessions from the events of the last 30 minutes in the lake.

    Sessions that the live store holds already are left alone: they know at least as much.

    Returns:
        How many sessions were put.
    """
    since = now.timestamp() - SESSION_GAP_S
    connection = lake.connect()
    try:
        rows = connection.execute(
            """
            SELECT * FROM events
            WHERE consent = 'personalization' AND NOT duplicate AND epoch(occurred_at) >= ? AND epoch(occurred_at) <= ?
            ORDER BY tenant, occurred_at, event_id
            """,
            [since, now.timestamp()],
        ).to_arrow_table()
    finally:
        connection.close()
    by_tenant: dict[str, list[Event]] = {}
    for event in to_records(Event, rows):
        by_tenant.setdefault(event.tenant, []).append(event)
    put = 0
    for tenant, events in by_tenant.items():
        changes: dict[tuple[str, str], LiveSession] = {}
        for who, visits in group(events).items():
            session = apply(None, visits) if any(who) else None
            if session is not None:
                changes |= {(tenant, key): session for key in keys_of(session)}
        keys = list(changes)
        for start in range(0, len(keys), BATCH):
            some = keys[start : start + BATCH]
            missing = [key for key, held in zip(some, live.sessions(some), strict=True) if held is None]
            live.update({key: changes[key] for key in missing}, now=now.timestamp())
            put += len(missing)
    return put
