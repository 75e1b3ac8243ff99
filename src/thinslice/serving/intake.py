"""The intake: what a shop sends is durable, and part of the visitor's session, before the 202 goes out."""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple, Protocol

from thinslice.collect import Rejection, is_bot_agent, parse_events, parse_items, parse_orders
from thinslice.errors import NotAllowed
from thinslice.records import Event, Exposure, LiveSession, LiveStore, Order, Quarantined
from thinslice.serving.experiments import ExperimentFiles
from thinslice.serving.issued import RecommendationIds
from thinslice.sessions import apply, group, keys_of, live_keys, remember_bought
from thinslice.settings import Settings
from thinslice.store.codec import encode
from thinslice.store.log import LogKind

NOTE_S = 0.25
"""So often (seconds) the newest events are noted for the Live page."""


class Key(Protocol):
    """Who sends: a tenant and the kind of key."""

    @property
    def tenant(self) -> str:
        """Whose key it is."""
        ...

    @property
    def kind(self) -> str:
        """publishable, secret or admin."""
        ...


class Commit(Protocol):
    """The worker's log with one fdatasync for many requests."""

    async def append(self, kind: int, payload: bytes) -> None:
        """Returns when the frame is durable."""
        ...

    def write(self, kind: int, payload: bytes) -> Any:
        """Writes now; durable soon."""
        ...


class EditableLive(LiveStore, Protocol):
    """A live store whose sessions can be read and changed with no other writer in between."""

    def edit(
        self,
        keys: Sequence[tuple[str, str]],
        change: Callable[[list[LiveSession | None]], Mapping[tuple[str, str], LiveSession]],
        *,
        now: float,
    ) -> Mapping[tuple[str, str], LiveSession]:
        """Reads, changes and stores sessions as one step."""
        ...


class IntakeResult(NamedTuple):
    """What became of a batch."""

    accepted: int
    rejected: list[Rejection]
    not_stored_no_consent: int = 0


class Intake:
    """Takes events, items and orders; one in each worker.

    Args:
        settings: All tenants' settings.
        live: Live sessions and catalogs.
        commit: The worker's log.
        experiments: The running experiments: a session that begins notes its variants.
        ids: Tells our recommendation ids from invented ones.
    """

    def __init__(
        self,
        settings: Settings,
        live: EditableLive,
        commit: Commit,
        experiments: ExperimentFiles,
        ids: RecommendationIds,
    ) -> None:
        self._settings = settings
        self._live = live
        self._commit = commit
        self._experiments = experiments
        self._ids = ids
        self._note: Callable[[str, list[dict[str, Any]]], object] | None = getattr(live, "note_recent", None)
        self._noted_at: dict[str, float] = {}
        self._newest: dict[str, deque[dict[str, Any]]] = {}

    async def events(
        self, body: bytes, key: Key, now: datetime, headers: Mapping[bytes, bytes] | None = None
    ) -> IntakeResult:
        """Takes a batch of events; returns when they are durable and the live sessions know them.

        Args:
            body: JSON, at most 1 MB and 1,000 events.
            key: Publishable or secret.
            now: When the body arrived; aware, UTC.
            headers: The request's headers; a browser's User-Agent may name a bot.

        Raises:
            TooLarge: Over 1 MB or 1,000 events.
            BadInput: Not a JSON array or object.
            LogFull: Nothing was acknowledged.
        """
        shop = self._settings.tenant(key.tenant)
        browser = key.kind == "publishable"
        agent = (headers or {}).get(b"user-agent", b"").decode("latin-1") if browser else ""
        batch = parse_events(
            body,
            tenant=key.tenant,
            source="browser" if browser else "api",
            default_consent=shop.consent_publishable if browser else shop.consent_secret,
            now=now,
            currency=shop.currency,
            is_bot=is_bot_agent(agent),
            issued=self._ids.issued,
        )
        await self._store(LogKind.EVENTS, batch.events, batch.quarantined)
        self._enliven(key.tenant, batch.events, now.timestamp())
        return IntakeResult(batch.accepted, batch.rejected, batch.not_stored_no_consent)

    async def items(self, body: bytes, key: Key, now: datetime) -> IntakeResult:
        """Takes catalog items; every slate knows them within a second of the answer.

        Raises:
            NotAllowed: The key is publishable.
            TooLarge: Over 1 MB or 1,000 items.
            BadInput: Not a JSON array or object.
        """
        _no_browser(key, "items")
        shop = self._settings.tenant(key.tenant)
        batch = parse_items(body, tenant=key.tenant, now=now, currency=shop.currency)
        await self._store(LogKind.ITEMS, batch.items, batch.quarantined)
        if batch.items:
            self._live.put_items(batch.items)
        return IntakeResult(len(batch.items), batch.rejected)

    async def orders(self, body: bytes, key: Key, now: datetime) -> IntakeResult:
        """Takes orders, the only thing that counts as revenue; the visitor is not shown again what they bought.

        Raises:
            NotAllowed: The key is publishable.
            TooLarge: Over 1 MB or 1,000 orders.
            BadInput: Not a JSON array or object.
        """
        _no_browser(key, "orders")
        shop = self._settings.tenant(key.tenant)
        batch = parse_orders(body, tenant=key.tenant, source="api", now=now, currency=shop.currency)
        await self._store(LogKind.ORDERS, batch.orders, batch.quarantined)
        self._bought(key.tenant, batch.orders, now.timestamp())
        return IntakeResult(len(batch.orders), batch.rejected)

    async def _store(self, kind: int, records: Sequence[Any], quarantined: list[Quarantined]) -> None:
        if quarantined:
            payload = encode(LogKind.QUARANTINE, quarantined)
            if records:
                self._commit.write(LogKind.QUARANTINE, payload)
            else:
                await self._commit.append(LogKind.QUARANTINE, payload)
        if records:
            await self._commit.append(kind, encode(kind, records))

    def _enliven(self, tenant: str, events: Sequence[Event], at: float) -> None:
        """Brings the live sessions up to date, in one transaction of all workers."""
        personal = [event for event in events if event.consent == "personalization"]
        groups = [(who, each) for who, each in group(personal).items() if any(who)]
        wanted = [(tenant, key) for who, _ in groups for key in live_keys(*who)]
        if wanted:

            def change(found: list[LiveSession | None]) -> dict[tuple[str, str], LiveSession]:
                known = dict(zip(wanted, found, strict=True))
                changes: dict[tuple[str, str], LiveSession] = {}
                for who, each in groups:
                    keys = [(tenant, key) for key in live_keys(*who)]
                    before = next((session for key in keys if (session := known[key]) is not None), None)
                    session = apply(before, each, start=lambda begun: self._assignments(tenant, begun, at))
                    if session is not None:
                        for key in (*keys, *((tenant, name) for name in keys_of(session))):
                            changes[key] = known[key] = session
                return changes

            self._live.edit(wanted, change, now=at)
        self._note_newest(tenant, events, at)

    def _assignments(self, tenant: str, session: LiveSession, at: float) -> dict[str, str]:
        return self._experiments.assignments(
            tenant,
            at,
            visitor_id=session.visitor_id or None,
            session_id=session.session_id,
            user_id=session.user_id,
        )

    def _bought(self, tenant: str, orders: Sequence[Order], at: float) -> None:
        bought: dict[tuple[str, str], list[str]] = {}
        for order in orders:
            for key in live_keys(order.visitor_id, order.session_id, order.user_id):
                bought.setdefault((tenant, key), []).extend(line.item_id for line in order.lines)
        if not bought:
            return

        def change(found: list[LiveSession | None]) -> dict[tuple[str, str], LiveSession]:
            pairs = zip(bought.items(), found, strict=True)
            return {key: remember_bought(session, items) for (key, items), session in pairs if session is not None}

        self._live.edit(list(bought), change, now=at)

    def _note_newest(self, tenant: str, events: Sequence[Event], at: float) -> None:
        if self._note is None or not events:
            return
        newest = self._newest.setdefault(tenant, deque(maxlen=20))
        newest.extend(_row(event) for event in events[-20:])
        if not 0 <= at - self._noted_at.get(tenant, float("-inf")) < NOTE_S:
            self._noted_at[tenant] = at
            self.note_waiting()

    def note_waiting(self) -> None:
        """Notes the newest events that still wait for it; called about once a second, so that the last show too."""
        if self._note is None:
            return
        for tenant, newest in self._newest.items():
            if newest:
                self._note(tenant, list(newest))
                newest.clear()


class LogExposures:
    """Writes exposures into the worker's log.

    Args:
        commit: The worker's log.
    """

    def __init__(self, commit: Commit) -> None:
        self._commit = commit

    def exposure(self, exposure: Exposure) -> None:
        """Writes one exposure: it survives the end of this process, and within 50 ms a power loss."""
        self._commit.write(LogKind.EXPOSURES, encode(LogKind.EXPOSURES, [exposure]))


def _row(event: Event) -> dict[str, Any]:
    return {
        "occurred_at": event.occurred_at.isoformat(),
        "name": event.name,
        "visitor_id": event.visitor_id,
        "session_id": event.session_id,
        "item_id": event.item_id,
        "placement": event.placement,
        "source": event.source,
        "is_bot": event.is_bot,
    }


def _no_browser(key: Key, what: str) -> None:
    if key.kind == "publishable":
        raise NotAllowed(
            "weak_key", f"a publishable key may not send {what}.", hint="Send them from your server, with a secret key."
        )
