"""Exploration: slates that leave something to chance on purpose, know how likely they were, and learn from clicks."""

from thinslice.recommend.explore.clicks import ClickCounts, Shown, add, attention, cascaded, no_clicks
from thinslice.recommend.explore.learn import Prior, hashed, learn, similar_prior
from thinslice.recommend.explore.slots import Explored, epsilon_slots, seed_of
from thinslice.recommend.explore.thompson import (
    BANDIT,
    EXPLORERS,
    RANKINGS,
    BetaThompson,
    Explorer,
    LinearThompson,
    explorer_from_arrays,
)

__all__ = [
    "BANDIT", "EXPLORERS", "RANKINGS", "BetaThompson", "ClickCounts", "Explored", "Explorer", "LinearThompson", "Prior",
    "Shown", "add", "attention", "cascaded", "epsilon_slots", "explorer_from_arrays", "hashed", "learn", "no_clicks",
    "seed_of", "similar_prior",
]  # fmt: skip
