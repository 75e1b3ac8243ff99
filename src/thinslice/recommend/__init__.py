"""Recommend: candidates are filtered, arranged and become a slate; each place says its source and its reason."""

from thinslice.recommend.availability import Availability
from thinslice.recommend.ladder import Arrange, Arrangement, Candidates, Rung, Slate, climb

__all__ = ["Arrange", "Arrangement", "Availability", "Candidates", "Rung", "Slate", "climb"]
