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

__all__ = [
    "COLORS", "KINDS", "PATTERNS", "SHAPES", "Action", "Ask", "Buy", "Cart", "Click", "Crowd", "See", "Shop", "Slate",
    "View", "crowd", "history", "home_goods", "open_shop", "orders_of", "picture", "visit",
]  # fmt: skip
