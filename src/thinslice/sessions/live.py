"""The session as it lives now: what a visitor did in this visit, kept current with every event."""

from collections.abc import Callable, Iterable, Sequence

from thinslice.records import LIVE_ITEMS, SESSION_GAP_S, Event, LiveSession

SESSION_EVENTS = frozenset(
    {"view_item", "select_item", "add_to_cart", "add_to_wishlist", "purchase", "like", "rate", "share", "apply",
     "watch"}
)  # fmt: skip
"""Events that say what a visitor is interested in: they make up the session that models learn from and answer."""

NEVER_AGAIN = frozenset({"purchase", "hide"})
"""After these no slate shows the item to this visitor again."""

BOUGHT_ITEMS = 200
"""How many bought or hidden items are remembered for one visitor."""

BOT_EVENTS = 120
"""So many events in one session are looked at for their rate."""

BOT_RATE_PER_S = 2.0
"""A session of at least `BOT_EVENTS` events that keeps this rate (events per second) is a program."""

_MADE = "~"
"""Session ids that we made ourselves begin so."""

Start = Callable[[LiveSession], dict[str, str]]
"""The experiment assignments of a session that begins."""


def live_keys(visitor_id: str | None, session_id: str | None, user_id: str | None = None) -> list[str]:
    """Under which keys a live session is found, the best first: the visitor, the session, the user.

    >>> live_keys("v1", None), len(live_keys("v1", "s1")), live_keys(None, None)
    (['v1'], 2, [])
    """
    keys = [visitor_id] if visitor_id else []
    if session_id:
        keys.append("\x1fsession:" + session_id)
    if not keys and user_id:
        keys.append("\x1fuser:" + user_id)
    return keys


def keys_of(session: LiveSession) -> list[str]:
    """Under which keys a live session is stored."""
    own = session.session_id if not session.session_id.startswith(_MADE) else None
    return live_keys(session.visitor_id or None, own, session.user_id)


def apply(session: LiveSession | None, events: Sequence[Event], *, start: Start | None = None) -> LiveSession | None:
    """A visitor's live session after some more events of theirs; the given session stays as it is.

    A silence of more than 30 minutes, or another session id, begins a new session; what was bought stays known.
    Events that are older than the session itself change nothing but that.

    Args:
        session: The live session so far, None for a new visitor.
        events: Events of one visitor, in any order.
        start: Gives the assignments of a session that begins.

    Returns:
        The session, None when there was none and no event made one.
    """
    for event in sorted(events, key=_when) if len(events) > 1 else events:
        session = _after(session, event, start)
    return session


def remember_bought(session: LiveSession, item_ids: Iterable[str]) -> LiveSession:
    """The session with some more items that no slate should show again; the given session stays as it is."""
    session = _copy(session)
    session.bought += [item_id for item_id in dict.fromkeys(item_ids) if item_id not in session.bought]
    del session.bought[:-BOUGHT_ITEMS]
    return session


def page_item(session_items: Sequence[str], item_id: str | None) -> str | None:
    """The item that the visitor looks at: the page's when it says, else the one seen last."""
    return item_id or (session_items[-1] if session_items else None)


def group(events: Iterable[Event]) -> dict[tuple[str | None, str | None, str | None], list[Event]]:
    """Events by who did them (visitor, session, user), in the order of their first event."""
    groups: dict[tuple[str | None, str | None, str | None], list[Event]] = {}
    for event in events:
        groups.setdefault((event.visitor_id, event.session_id, event.user_id), []).append(event)
    return groups


def made_id(who: str, started_at: float) -> str:
    """The id of a session that the shop gave none: whose it is and the second in which it began.

    >>> made_id("v1", 1_700_000_000.7)
    '~v1.1700000000'
    """
    return f"{_MADE}{who}.{int(started_at)}"


def is_bot_rate(event_count: int, duration_s: float) -> bool:
    """Whether a session is too fast for a person, for too long.

    Args:
        event_count: Events in the session.
        duration_s: Seconds between its first and its last event.

    >>> is_bot_rate(500, 60.0), is_bot_rate(500, 1800.0), is_bot_rate(20, 0.5)
    (True, False, False)
    """
    return event_count >= BOT_EVENTS and event_count > BOT_RATE_PER_S * duration_s


def _when(event: Event) -> float:
    return event.occurred_at.timestamp()


def _after(session: LiveSession | None, event: Event, start: Start | None) -> LiveSession:
    at = event.occurred_at.timestamp()
    if session is not None and at < session.started_at - SESSION_GAP_S:
        return _never_again(_copy(session), event)
    if session is None or at - session.last_at > SESSION_GAP_S or _other_session(session, event, at):
        session = _begin(session, event, at, start)
    else:
        session = _copy(session)
        session.last_at = max(session.last_at, at)
        session.user_id = event.user_id or session.user_id
        if event.visitor_id and not session.visitor_id:
            session.visitor_id = event.visitor_id
        if event.session_id and session.session_id.startswith(_MADE):
            session.session_id = event.session_id
    session.event_count += 1
    session.is_bot = (
        session.is_bot or event.is_bot or is_bot_rate(session.event_count, session.last_at - session.started_at)
    )
    if event.item_id is not None and event.name in SESSION_EVENTS:
        _visit(session, event.item_id, event.name, at)
    if event.name == "remove_from_cart":
        session.names = [
            "view_item" if item_id == event.item_id and name == "add_to_cart" else name
            for item_id, name in zip(session.items, session.names, strict=True)
        ]
    return _never_again(session, event)


def _other_session(session: LiveSession, event: Event, at: float) -> bool:
    return (
        event.session_id is not None
        and event.session_id != session.session_id
        and not session.session_id.startswith(_MADE)
        and at >= session.last_at
    )


def _begin(old: LiveSession | None, event: Event, at: float, start: Start | None) -> LiveSession:
    visitor = event.visitor_id or (old.visitor_id if old else "") or ""
    session = LiveSession(
        visitor_id=visitor,
        session_id=event.session_id or made_id(visitor or event.user_id or "", at),
        started_at=at,
        last_at=at,
        user_id=event.user_id or (old.user_id if old else None),
        bought=list(old.bought) if old else [],
    )
    if start is not None:
        session.assignments = start(session)
    return session


def _copy(session: LiveSession) -> LiveSession:
    return LiveSession(
        visitor_id=session.visitor_id,
        session_id=session.session_id,
        started_at=session.started_at,
        last_at=session.last_at,
        user_id=session.user_id,
        items=list(session.items),
        names=list(session.names),
        times=list(session.times),
        bought=list(session.bought),
        assignments=session.assignments,
        event_count=session.event_count,
        is_bot=session.is_bot,
    )


def _visit(session: LiveSession, item_id: str, name: str, at: float) -> None:
    """Adds one item at its place in time; the same item twice in a row is one visit with the newer name."""
    place = len(session.items)
    while place > 0 and session.times[place - 1] > at:
        place -= 1
    if place > 0 and session.items[place - 1] == item_id:
        session.names[place - 1] = name
        session.times[place - 1] = at
        return
    session.items.insert(place, item_id)
    session.names.insert(place, name)
    session.times.insert(place, at)
    if len(session.items) > LIVE_ITEMS:
        del session.items[0], session.names[0], session.times[0]


def _never_again(session: LiveSession, event: Event) -> LiveSession:
    if event.item_id is not None and event.name in NEVER_AGAIN and event.item_id not in session.bought:
        session.bought.append(event.item_id)
        del session.bought[:-BOUGHT_ITEMS]
    return session
