"""Rules: what a shop forbids, prefers and pins, as tests of one item that are also masks over a whole catalog.

A rule about items alone (`include`, `exclude`, an absolute `price`) is one bit of each item, set when the catalog
changes; a rule that needs the request (`age`, `distance`, a price relative to the page's item) keeps a column. So a
request costs a look into a cached mask, however many items there are.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from thinslice.records import Item
from thinslice.settings import (
    AgeRule,
    AnyRule,
    BoostRule,
    DistanceRule,
    ExcludeRule,
    IncludeRule,
    PinRule,
    PriceRule,
    QuotaRule,
    SeenRule,
    Selection,
)

EARTH_KM = 6371.0088
"""Mean radius of the earth."""


class Asked(NamedTuple):
    """What a request says that rules want to know.

    Attributes:
        price: Of the page's item, in minor units of the shop's currency; None when unknown.
        age: Of the visitor, years.
        place: Where the visitor is: latitude and longitude in degrees.
    """

    price: float | None = None
    age: float | None = None
    place: tuple[float, float] | None = None


NOTHING_ASKED = Asked()
"""A request that says nothing of this, or none of whose rules want to know."""


def asked_of(context: Mapping[str, Any], page: Item | None, currency: str) -> Asked:
    """What a request's context (`age`, `latitude`, `longitude`) and the page's item say.

    >>> asked_of({"age": 17, "latitude": 52.5, "longitude": 13.4}, None, "EUR")
    Asked(price=None, age=17.0, place=(52.5, 13.4))
    """
    latitude, longitude = number(context.get("latitude")), number(context.get("longitude"))
    return Asked(
        None if page is None else price_of(page, currency),
        number(context.get("age")),
        None if latitude is None or longitude is None else (latitude, longitude),
    )


def number(value: Any) -> float | None:
    """A finite number, or None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def price_of(item: Item, currency: str) -> float | None:
    """An item's price in minor units of a currency; None when it is unknown or in another one."""
    return None if item.price_minor is None or (item.currency or currency) != currency else float(item.price_minor)


def matches(rule: Selection, item: Item | None) -> bool:
    """Whether a rule chooses an item; one that the catalog does not know is never chosen."""
    if item is None:
        return False
    if rule.items and item.item_id not in rule.items:
        return False
    if rule.categories and not any(each in rule.categories for each in item.categories):
        return False
    if rule.brands and item.brand not in rule.brands:
        return False
    if rule.creators and item.creator_id not in rule.creators:
        return False
    if rule.kinds and item.kind not in rule.kinds:
        return False
    if rule.sponsored is not None and item.sponsored != rule.sponsored:
        return False
    return all(item.attributes.get(name) == value for name, value in rule.attributes.items())


def passes(rule: AnyRule, item: Item | None, currency: str) -> bool:
    """Whether a rule about items alone lets one through; boosts say whether they hold for it. Other rules: True."""
    if isinstance(rule, ExcludeRule):
        return not matches(rule, item)
    if isinstance(rule, Selection):
        return matches(rule, item)
    if isinstance(rule, PriceRule) and not rule.relative:
        price = None if item is None else price_of(item, currency)
        return price is not None and _inside(price, rule.min_minor, rule.max_minor)
    return True


def needs(rule: AnyRule) -> int:
    """How many numbers of an item a rule keeps to judge it at a request; 0 for rules that do not judge so."""
    if isinstance(rule, DistanceRule):
        return 3
    return 1 if isinstance(rule, AgeRule) or (isinstance(rule, PriceRule) and rule.relative) else 0


def column(rule: AnyRule, item: Item | None, currency: str) -> tuple[float, ...]:
    """Those numbers; NaN where unknown. Of a place: its point on the unit sphere."""
    if isinstance(rule, DistanceRule):
        if item is None or item.latitude is None or item.longitude is None:
            return (math.nan, math.nan, math.nan)
        return point(item.latitude, item.longitude)
    if isinstance(rule, AgeRule):
        value = None if item is None else number(item.attributes.get(rule.attribute))
    else:
        value = None if item is None else price_of(item, currency)
    return (math.nan if value is None else value,)


def point(latitude: float, longitude: float) -> tuple[float, float, float]:
    """A place on the unit sphere."""
    north, east = math.radians(latitude), math.radians(longitude)
    return (math.cos(north) * math.cos(east), math.cos(north) * math.sin(east), math.sin(north))


Key = tuple[float, ...]
"""What of a request decides a rule: requests with the same key share a mask."""


def key_of(rule: AnyRule, asked: Asked) -> Key | None:
    """What of a request decides this rule; None: it does not hold for this request."""
    if isinstance(rule, AgeRule):
        return (-math.inf if asked.age is None else asked.age,)
    if isinstance(rule, DistanceRule):
        if asked.place is None:
            return None
        return (*point(*asked.place), 2.0 * math.sin(min(rule.max_km / (2.0 * EARTH_KM), math.pi / 2)))
    if isinstance(rule, PriceRule) and rule.relative and asked.price is not None:
        low, high = (None if share is None else share * asked.price for share in (rule.min_share, rule.max_share))
        return (0.0 if low is None else low, math.inf if high is None else high)
    return None


def judged(rule: AnyRule, columns: NDArray[np.float64], key: Key) -> NDArray[np.bool_]:
    """Which items a rule lets through at a request.

    Args:
        rule: Of a kind that `needs` columns.
        columns: Shape (needs, items).
        key: From `key_of`.

    Returns:
        Shape (items,). An item without a place is everywhere, one without a least age is for all, and one without a
        price is in no range.
    """
    inside: NDArray[np.bool_]
    if isinstance(rule, AgeRule):
        inside = ~(columns[0] > key[0])
    elif isinstance(rule, DistanceRule):
        away = (columns[0] - key[0]) ** 2
        away += (columns[1] - key[1]) ** 2
        away += (columns[2] - key[2]) ** 2
        inside = ~(away > key[3] ** 2)
    else:
        inside = columns[0] >= key[0]
        if key[1] < math.inf:
            inside &= columns[0] <= key[1]
    return inside


def lets(rule: AnyRule, values: Sequence[float], key: Key) -> bool:
    """`judged` for one item."""
    if isinstance(rule, AgeRule):
        return not values[0] > key[0]
    if isinstance(rule, DistanceRule):
        return not sum((a - b) ** 2 for a, b in zip(values, key[:3], strict=True)) > key[3] ** 2
    return key[0] <= values[0] <= key[1]


def is_filter(rule: AnyRule) -> bool:
    """Whether a rule takes items out before anything is ranked."""
    return isinstance(rule, IncludeRule | ExcludeRule | PriceRule | DistanceRule | AgeRule)


def is_hard(rule: AnyRule) -> bool:
    """Whether a filter holds even when nothing else is left to show."""
    return isinstance(rule, ExcludeRule | AgeRule | DistanceRule) or (
        isinstance(rule, IncludeRule | PriceRule) and rule.hard
    )


class RuleBook:
    """The rules of one tenant that hold at one placement.

    Args:
        rules: All rules of the tenant, in the order of the file.
        placement: `*` for placements that no rule names.

    Attributes:
        names: Name of each rule of the tenant, by its number.
        filters: Numbers of the rules that take items out before the ranking.
        boosts: Number and factor.
        pins: Position → item; the first rule that names a position has it.
        quotas: Number and rule.
        seen: Which of a visitor's own items are left out; the last such rule counts.
    """

    def __init__(self, rules: Sequence[AnyRule], placement: str = "*") -> None:
        self.rules = list(rules)
        self.names = [name_of(rule, place) for place, rule in enumerate(rules)]
        here = [place for place, rule in enumerate(rules) if rule.placement in ("*", placement)]
        self.here = here
        self.filters = [place for place in here if is_filter(rules[place])]
        self.boosts = [(place, each.factor) for place in here if isinstance(each := rules[place], BoostRule)]
        self.quotas = [(place, each) for place in here if isinstance(each := rules[place], QuotaRule)]
        self.pins: dict[int, str] = {}
        for place in here:
            if isinstance(each := rules[place], PinRule):
                self.pins.setdefault(each.position, each.item_id)
        seen = [each for place in here if isinstance(each := rules[place], SeenRule)]
        self.seen = seen[-1] if seen else SeenRule()

    @property
    def deep(self) -> bool:
        """Whether a slate needs more candidates than places."""
        return bool(self.boosts or self.quotas)


def name_of(rule: AnyRule, place: int) -> str:
    """A rule's name in reports: its own, else its kind and number in the file, counted from 1.

    >>> name_of(AgeRule(), 0), name_of(AgeRule(name="wine"), 1)
    ('age-1', 'wine')
    """
    return rule.name or f"{type(rule).__struct_config__.tag}-{place + 1}"


class Quotas:
    """Counts a slate as it grows and says what it still may hold.

    Args:
        quotas: Number and rule of each.
        items: The catalog.
    """

    def __init__(self, quotas: Sequence[tuple[int, QuotaRule]], items: Mapping[str, Item]) -> None:
        self._quotas = [(place, rule, dict[str, int]()) for place, rule in quotas]
        self._items = items
        self.removed: dict[int, int] = {}

    def admit(self, item_id: str) -> bool:
        """Whether the slate may hold an item beside those admitted before; if so it is counted."""
        item = self._items.get(item_id)
        if item is None:
            return True
        groups = [(place, rule, counts, groups_of(item, rule.by)) for place, rule, counts in self._quotas]
        for place, rule, counts, names in groups:
            if any(counts.get(name, 0) >= rule.most for name in names):
                self.removed[place] = self.removed.get(place, 0) + 1
                return False
        for _, _, counts, names in groups:
            for name in names:
                counts[name] = counts.get(name, 0) + 1
        return True


FIELDS = {"brand": "brand", "creator": "creator_id", "kind": "kind", "group": "group_id"}
"""What a quota counts by → the item's field; other names are attributes."""


def groups_of(item: Item, by: str) -> Sequence[str]:
    """The groups of an item that a quota counts; none when it has no such value: then no quota holds it back."""
    if by == "category":
        return list(dict.fromkeys(item.categories))
    field = FIELDS.get(by)
    value = item.attributes.get(by) if field is None else getattr(item, field)
    return [] if value is None else [str(value)]


def _inside(value: float, low: float | None, high: float | None) -> bool:
    return (low is None or value >= low) and (high is None or value <= high)
