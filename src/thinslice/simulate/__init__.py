"""A shop, its pictures and its shoppers, all generated, whose truth is known."""

from thinslice.simulate.catalog import COLORS, KINDS, PATTERNS, SHAPES, home_goods
from thinslice.simulate.history import history, orders_of
from thinslice.simulate.pictures import picture
from thinslice.simulate.shoppers import (
    Action,
    Ask,
    Buy,
    Cart,
    Click,
    Crowd,
    See,
    Shop,
    Slate,
    View,
    crowd,
    open_shop,
    visit,
)
from thinslice.simulate.truth import Outcomes, Policy, Truth, by_session, same_for_all, truth, visits

__all__ = [
    "COLORS", "KINDS", "PATTERNS", "SHAPES", "Action", "Ask", "Buy", "Cart", "Click", "Crowd", "Outcomes", "Policy",
    "See", "Shop", "Slate", "Truth", "View", "by_session", "crowd", "history", "home_goods", "open_shop", "orders_of",
    "picture", "same_for_all", "truth", "visit", "visits",
]  # fmt: skip
