"""The home-goods shop of the demo: about 600 products that are told apart by kind, shape, pattern and color."""

from datetime import UTC, datetime, timedelta

import numpy as np

from thinslice.records import Item

KINDS = ("vase", "lamp", "mug", "chair", "planter", "cushion", "clock", "bowl", "candle", "print")
"""What a product is; its category is the plural."""

SHAPES = ("angular", "rounded", "tall")
"""How a product is built."""

PATTERNS = ("plain", "dotted", "striped", "terrazzo")
"""What a product is decorated with; `plain` is left out of titles."""

COLORS = ("cobalt", "cream", "terracotta", "sage", "plum", "ochre", "charcoal", "blush")
"""The color that strikes the eye, and what shoppers care about most."""

OPENED_AT = datetime(2024, 1, 8, 8, 0, tzinfo=UTC)
"""When the shop put its first product up."""

_BASE_PRICE = {
    "vase": 38, "lamp": 89, "mug": 16, "chair": 149, "planter": 24,
    "cushion": 29, "clock": 54, "bowl": 27, "candle": 13, "print": 42,
}  # fmt: skip
_SHAPE_PRICE = {"angular": 1.0, "rounded": 0.94, "tall": 1.16}
_PATTERN_PRICE = {"plain": 0.9, "dotted": 1.0, "striped": 1.02, "terrazzo": 1.18}


def home_goods(tenant: str, rng: int = 0, *, size: int = 600) -> list[Item]:
    """A generated shop: `size` products drawn without replacement from the 960 that can be, in catalog order.

    Args:
        tenant: Whose catalog it is.
        rng: The seed that thins the shop out and draws its prices; the same seed gives the same shop.
        size: How many products, 1 to 960.

    Returns:
        Items with `kind`, `categories`, `price_minor` in euro cents, and `attributes` kind, shape, pattern and color.

    Raises:
        ValueError: `size` is not in 1..960.

    >>> shop = home_goods("shop")
    >>> len(shop), shop[0].title, shop[0].image_url
    (600, 'Angular vase, cobalt', '/shop/picture/angular-vase-cobalt.svg')
    """
    looks = [
        (kind, shape, pattern, color) for kind in KINDS for shape in SHAPES for pattern in PATTERNS for color in COLORS
    ]
    if not 1 <= size <= len(looks):
        raise ValueError(f"size must be in 1..{len(looks)}, got {size}")
    draw = np.random.default_rng(rng)
    kept = np.sort(draw.choice(len(looks), size=size, replace=False))
    noise = draw.normal(0.0, 0.12, size=size)
    age_days = draw.permutation(size) * (240.0 / size)
    return [
        _item(tenant, *looks[look], noise=float(noise[place]), published=OPENED_AT + timedelta(days=age_days[place]))
        for place, look in enumerate(kept)
    ]


def title_of(kind: str, shape: str, pattern: str, color: str) -> str:
    """The name on the price tag.

    >>> title_of("cushion", "angular", "terrazzo", "cobalt"), title_of("mug", "tall", "plain", "cream")
    ('Angular terrazzo cushion, cobalt', 'Tall mug, cream')
    """
    words = [shape.capitalize(), *([] if pattern == "plain" else [pattern]), kind]
    return f"{' '.join(words)}, {color}"


def category_of(kind: str) -> str:
    """The shelf a kind stands on: its plural.

    >>> category_of("vase")
    'vases'
    """
    return f"{kind}s"


def _item(tenant: str, kind: str, shape: str, pattern: str, color: str, *, noise: float, published: datetime) -> Item:
    title = title_of(kind, shape, pattern, color)
    item_id = title.lower().replace(",", "").replace(" ", "-")
    euros = round(_BASE_PRICE[kind] * _SHAPE_PRICE[shape] * _PATTERN_PRICE[pattern] * float(np.exp(noise)))
    published = published.replace(microsecond=0)
    return Item(
        tenant=tenant,
        item_id=item_id,
        kind="product",
        title=title,
        description=f"A {shape} {kind} for the home, {pattern}, in {color}.",
        url=f"/shop/item/{item_id}",
        image_url=f"/shop/picture/{item_id}.svg",
        categories=[category_of(kind)],
        brand="Nordic Home",
        price_minor=max(euros, 5) * 100 - 5,
        currency="EUR",
        published_at=published,
        updated_at=published,
        attributes={"kind": kind, "shape": shape, "pattern": pattern, "color": color},
    )
