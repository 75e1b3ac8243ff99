"""Recommend: candidates are filtered and become a slate; each place says its source and its reason."""

from thinslice.recommend.availability import Availability
from thinslice.recommend.ladder import Rung, Slate, climb

__all__ = ["Availability", "Rung", "Slate", "climb"]
