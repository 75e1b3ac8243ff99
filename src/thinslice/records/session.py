"""A session: a visitor's events with gaps under 30 minutes; as it lives now, and as it is remembered."""

from datetime import datetime

import msgspec

SESSION_GAP_S = 30 * 60
"""A longer silence (seconds) ends a session."""


class LiveSession(msgspec.Struct, omit_defaults=True, kw_only=True):
    """What the service knows of one visitor right now; a cache, rebuilt from the log.

    `items` and `names` run side by side, oldest first, at most `LIVE_ITEMS` long; `bought` are items that no slate
    should show again; `assignments` maps experiment to variant as of the session's start; `recent_slates` are the
    recommendation ids that we issued. Times are unix seconds.
    """

    visitor_id: str
    session_id: str
    started_at: float
    last_at: float
    user_id: str | None = None
    items: list[str] = []
    names: list[str] = []
    times: list[float] = []
    bought: list[str] = []
    assignments: dict[str, str] = {}
    event_count: int = 0
    is_bot: bool = False


LIVE_ITEMS = 50
"""How many of a session's newest items the live store keeps."""


class Session(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One ended (or aged) session: a row of the table `sessions`."""

    tenant: str
    session_id: str
    started_at: datetime
    ended_at: datetime
    visitor_id: str | None = None
    user_id: str | None = None
    event_count: int = 0
    view_count: int = 0
    cart_count: int = 0
    purchase_count: int = 0
    is_bot: bool = False
    assignments: dict[str, str] = {}
