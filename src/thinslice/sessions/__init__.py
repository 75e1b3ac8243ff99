"""Sessions: a visitor's events with gaps under 30 minutes, as they live now and as they are remembered."""

from thinslice.sessions.live import SESSION_EVENTS, apply, live_keys, page_item

__all__ = ["SESSION_EVENTS", "apply", "live_keys", "page_item"]
