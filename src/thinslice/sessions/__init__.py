"""Sessions: a visitor's events with gaps under 30 minutes, as they live now and as they are remembered."""

from thinslice.sessions.live import SESSION_EVENTS, apply, group, keys_of, live_keys, page_item, remember_bought

__all__ = ["SESSION_EVENTS", "apply", "group", "keys_of", "live_keys", "page_item", "remember_bought"]
