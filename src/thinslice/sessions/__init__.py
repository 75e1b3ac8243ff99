"""Sessions: a visitor's events with gaps under 30 minutes, as they live now and as they are remembered."""

from thinslice.sessions.identity import VISITOR, Identities, identify, known_at_start, people, person_id
from thinslice.sessions.live import SESSION_EVENTS, apply, group, keys_of, live_keys, page_item, remember_bought
from thinslice.sessions.sessionize import Sessions, assigned_at_start, sessionize, visits

__all__ = [
    "SESSION_EVENTS", "VISITOR", "Identities", "Sessions", "apply", "assigned_at_start", "group", "identify", "keys_of",
    "known_at_start", "live_keys", "page_item", "people", "person_id", "remember_bought", "sessionize", "visits",
]  # fmt: skip
