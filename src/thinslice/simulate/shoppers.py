"""Shoppers with a hidden taste: what they look at, what they click in a slate, what they put in the cart and buy.

One shopper is a number and a seed; every chance in a visit is a function of (seed, number, round, question). The same
shopper therefore meets the same luck under every policy (common random numbers), in memory and over HTTP alike.
"""

from collections.abc import Generator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from thinslice.records import Item
from thinslice.simulate.catalog import COLORS, KINDS, PATTERNS, SHAPES

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]

MAX_ROUNDS = 16
"""A visit ends after so many viewed items, however patient the shopper is."""

LOOKED_AT = 24
"""Nobody looks at more places of a slate."""

COLOR_SHARE = (0.19, 0.16, 0.14, 0.13, 0.11, 0.1, 0.09, 0.08)
"""How many shoppers like each color best, in the order of `COLORS`."""

PATTERN_SHARE = (0.34, 0.24, 0.22, 0.2)
"""How many shoppers like each pattern best, in the order of `PATTERNS`."""

FAVORITE_COLOR, SECOND_COLOR, FAVORITE_PATTERN, FAVORITE_SHAPE, WANTED_KIND = 3.6, 0.8, 1.1, 0.5, 0.9
"""What a match adds to an item's utility (log odds)."""

CLICK_AT, CART_AT, BUY_SHARE, STAY_IN_KIND = 7.0, 7.3, 0.6, 0.35
"""Utility at which half of those who look click, or half of those who view fill the cart; carts paid; shelf walks."""


class Answers:
    """The questions that luck answers, each a number of its own, so that no two answers of a visit hang together."""

    per_round = 64

    def organic(self, round_: int) -> int:
        """Which item is found without help."""
        return round_ * self.per_round

    def shelf(self, round_: int) -> int:
        """Whether the next walk stays along the shelf."""
        return round_ * self.per_round + 1

    def cart(self, round_: int) -> int:
        """Whether the item goes into the cart."""
        return round_ * self.per_round + 2

    def leave(self, round_: int) -> int:
        """Whether patience lasts."""
        return round_ * self.per_round + 3

    def look(self, round_: int, place: int) -> int:
        """Whether a place of the slate is looked at; the number after it: whether it is clicked then."""
        return round_ * self.per_round + 4 + 2 * place

    def buy(self) -> int:
        """Whether the cart is paid."""
        return MAX_ROUNDS * self.per_round

    def taste(self, which: int) -> int:
        """What kind of person this is."""
        return (MAX_ROUNDS + 1) * self.per_round + which


ANSWERS = Answers()


class Shop(NamedTuple):
    """A catalog as shoppers see it: codes of its looks, prices and appeal, sorted by kind.

    Attributes:
        items: The catalog in shelf order; a code is a place in this list.
        looks: Shape (items, 4), int64: kind, shape, pattern, color.
        price: Shape (items,), float64, minor units.
        dearness: Shape (items,), float64, log of price over the mean price of its kind.
        appeal: Shape (items,), float64, what everybody likes about an item, hidden from the catalog.
        shelves: Shape (kinds + 1,), int64: kind k stands at codes shelves[k]:shelves[k + 1].
        codes: Item id to code.
    """

    items: list[Item]
    looks: Codes
    price: Floats
    dearness: Floats
    appeal: Floats
    shelves: Codes
    codes: dict[str, int]


class Crowd(NamedTuple):
    """Many shoppers as arrays, one row a shopper; all of it hidden from the service.

    Attributes:
        key: Shape (n,), uint64: the source of all their luck.
        color: Shape (n, 8), pattern (n, 4), shape (n, 3), kind (n, 10): float64, what each look adds to the utility.
        price_sensitivity: Shape (n,): utility lost per unit of log price.
        patience: Shape (n,), 0..1: chance to go on after an item that led nowhere.
        position_bias: Shape (n,): place r of a slate is looked at with chance (1 / log2(r + 2)) ** bias.
    """

    key: NDArray[np.uint64]
    color: Floats
    pattern: Floats
    shape: Floats
    kind: Floats
    price_sensitivity: Floats
    patience: Floats
    position_bias: Floats

    def rows(self, start: int, stop: int) -> "Crowd":
        """The shoppers from `start` to before `stop`."""
        taste = (column[start:stop] for column in self[1:])
        return Crowd(self.key[start:stop], *taste)


class Slate(NamedTuple):
    """What a shopper was shown: the answer to an `Ask`."""

    recommendation_id: str
    item_ids: Sequence[str]


class View(NamedTuple):
    """The shopper opens an item's page, by own choice or from a slate."""

    item_id: str


class Ask(NamedTuple):
    """The page needs a slate; the driver sends a `Slate` or None back into the visit."""

    item_id: str


class See(NamedTuple):
    """The slate is on the screen and the shopper looks at some of its places, in order, until one is clicked."""

    slate: Slate
    positions: tuple[int, ...]


class Click(NamedTuple):
    """The shopper clicks one place of a slate (position counts from 0)."""

    slate: Slate
    position: int
    item_id: str


class Cart(NamedTuple):
    """An item goes into the cart."""

    item: Item


class Buy(NamedTuple):
    """The cart is paid: one of each."""

    items: tuple[Item, ...]


Action = View | Ask | See | Click | Cart | Buy


def open_shop(items: Sequence[Item]) -> Shop:
    """The generated catalog as shoppers see it.

    Raises:
        ValueError: There is no item.
        KeyError: An item lacks kind, shape, pattern or color among its attributes.
    """
    if not items:
        raise ValueError("a shop needs at least 1 item, got 0")
    scales = (("kind", KINDS), ("shape", SHAPES), ("pattern", PATTERNS), ("color", COLORS))
    rows = sorted(
        (tuple(scale.index(item.attributes[name]) for name, scale in scales), item.item_id, place)
        for place, item in enumerate(items)
    )
    ordered = [items[place] for _, _, place in rows]
    looks = np.array([look for look, _, _ in rows], dtype=np.int64)
    price = np.array([item.price_minor or 0 for item in ordered], dtype=np.float64)
    shelves = np.searchsorted(looks[:, 0], np.arange(len(KINDS) + 1)).astype(np.int64)
    sums = np.bincount(looks[:, 0], weights=price, minlength=len(KINDS))
    counts = np.bincount(looks[:, 0], minlength=len(KINDS))
    usual = sums / np.maximum(counts, 1)
    dearness = np.log(np.maximum(price, 1.0) / np.maximum(usual[looks[:, 0]], 1.0))
    luck = luck_of(keys_of(looks @ np.array([960, 96, 24, 1]), 77), 0)
    appeal = np.sqrt(0.5) * (2.0 * luck - 1.0)
    codes = {item.item_id: code for code, item in enumerate(ordered)}
    return Shop(ordered, looks, price, dearness, appeal, shelves, codes)


def crowd(numbers: NDArray[np.int64], seed: int) -> Crowd:
    """Shoppers by their numbers; the same number and seed is the same person, alone or among others."""
    key = keys_of(numbers, seed)
    everyone = np.arange(len(key))
    color = np.zeros((len(key), len(COLORS)))
    favorite = _pick(COLOR_SHARE, luck_of(key, ANSWERS.taste(0)))
    step = 1 + (luck_of(key, ANSWERS.taste(1)) * (len(COLORS) - 1)).astype(np.int64)
    color[everyone, (favorite + step) % len(COLORS)] = SECOND_COLOR
    color[everyone, favorite] = FAVORITE_COLOR
    pattern = np.zeros((len(key), len(PATTERNS)))
    pattern[everyone, _pick(PATTERN_SHARE, luck_of(key, ANSWERS.taste(2)))] = FAVORITE_PATTERN
    shape = np.zeros((len(key), len(SHAPES)))
    shape[everyone, (luck_of(key, ANSWERS.taste(3)) * len(SHAPES)).astype(np.int64)] = FAVORITE_SHAPE
    kind = np.zeros((len(key), len(KINDS)))
    for wanted in range(3):
        kind[everyone, (luck_of(key, ANSWERS.taste(4 + wanted)) * len(KINDS)).astype(np.int64)] = WANTED_KIND
    return Crowd(
        key=key,
        color=color,
        pattern=pattern,
        shape=shape,
        kind=kind,
        price_sensitivity=0.4 + 1.2 * luck_of(key, ANSWERS.taste(7)),
        patience=0.55 + 0.35 * luck_of(key, ANSWERS.taste(8)),
        position_bias=0.6 + 0.8 * luck_of(key, ANSWERS.taste(9)),
    )


def utility(shop: Shop, shoppers: Crowd) -> Floats:
    """How much each shopper likes each item, in log odds, shape (n, items)."""
    kind, shape, pattern, color = shop.looks.T
    liked = shoppers.color[:, color] + shoppers.pattern[:, pattern] + shoppers.shape[:, shape] + shoppers.kind[:, kind]
    liked += shop.appeal - shoppers.price_sensitivity[:, None] * shop.dearness
    return np.asarray(liked, dtype=np.float64)


def chances(liking: Floats, at: float) -> Floats:
    """The chance of a yes when half of the shoppers say yes at utility `at`."""
    return np.asarray(1.0 / (1.0 + np.exp(at - liking)), dtype=np.float64)


def visit(shop: Shop, shopper: Crowd) -> Generator[Action, Slate | None, None]:
    """One visit of one shopper (a crowd of one): yields what the shopper does, takes a slate after each `Ask`.

    Items of a slate that the shop does not have, or that were viewed before, are passed over.
    """
    key = shopper.key
    liking = utility(shop, shopper)
    pull = np.cumsum(np.exp(liking), axis=1)[0]
    clicks, carts = chances(liking, CLICK_AT)[0], chances(liking, CART_AT)[0]
    looking = looks_at(shopper.position_bias)[0]
    patience = float(shopper.patience[0])
    luck = luck_of(key, np.arange(ANSWERS.buy() + 1)).tolist()
    cart: list[Item] = []
    seen: set[str] = set()
    here = stroll(pull, luck[ANSWERS.organic(0)], None)
    for round_ in range(MAX_ROUNDS):
        item = shop.items[here]
        seen.add(item.item_id)
        yield View(item.item_id)
        if luck[ANSWERS.cart(round_)] < carts[here] and item.item_id not in {kept.item_id for kept in cart}:
            cart.append(item)
            yield Cart(item)
        slate = yield Ask(item.item_id)
        chosen = None
        if slate is not None and slate.item_ids:
            looked: list[int] = []
            for place, item_id in enumerate(slate.item_ids[:LOOKED_AT]):
                draw = ANSWERS.look(round_, place)
                if luck[draw] >= looking[place]:
                    continue
                looked.append(place)
                code = shop.codes.get(item_id)
                if code is not None and item_id not in seen and luck[draw + 1] < clicks[code]:
                    chosen = code
                    break
            yield See(slate, tuple(looked))
            if chosen is not None:
                yield Click(slate, looked[-1], shop.items[chosen].item_id)
        if round_ == MAX_ROUNDS - 1:
            break
        if chosen is not None:
            here = chosen
        elif luck[ANSWERS.leave(round_)] < patience:
            shelf = None
            if luck[ANSWERS.shelf(round_)] < STAY_IN_KIND:
                kind = shop.looks[here, 0]
                shelf = (int(shop.shelves[kind]), int(shop.shelves[kind + 1]))
            here = stroll(pull, luck[ANSWERS.organic(round_ + 1)], shelf)
        else:
            break
    if cart and luck[ANSWERS.buy()] < BUY_SHARE:
        yield Buy(tuple(cart))


def stroll(pull: Floats, luck: float, shelf: tuple[int, int] | None) -> int:
    """The item that a shopper finds without help: by pull over the whole shop, or along one shelf.

    Args:
        pull: Shape (items,), running sums of exp(utility).
        luck: 0..1.
        shelf: First and last-but-one code to choose from; None for the whole shop.
    """
    start, stop = shelf or (0, len(pull))
    low = float(pull[start - 1]) if start else 0.0
    found = int(np.searchsorted(pull, low + luck * (float(pull[stop - 1]) - low), side="right"))
    return min(max(found, start), stop - 1)


def looks_at(position_bias: Floats) -> Floats:
    """The chance that each place of a slate is looked at, shape (n, LOOKED_AT)."""
    usual = 1.0 / np.log2(np.arange(LOOKED_AT) + 2.0)
    return np.asarray(usual ** position_bias[:, None], dtype=np.float64)


def keys_of(numbers: NDArray[np.int64], seed: int) -> NDArray[np.uint64]:
    """One source of luck per number and seed, shape (n,)."""
    start = _mix(np.asarray([seed], dtype=np.int64).astype(np.uint64) ^ np.uint64(0x7468696E736C6963))
    return _mix(start + np.asarray(numbers, dtype=np.int64).astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15))


def luck_of(key: NDArray[np.uint64], draw: Any) -> Floats:
    """Uniform numbers in 0..1 by key and question; splitmix64 (Steele, Lea, Flood 2014)."""
    at = np.asarray(draw, dtype=np.int64).astype(np.uint64) + np.uint64(1)
    mixed = _mix(np.asarray(key + np.atleast_1d(at) * np.uint64(0x9E3779B97F4A7C15), dtype=np.uint64))
    return np.asarray((mixed >> np.uint64(11)).astype(np.float64) * 2.0**-53, dtype=np.float64)


def _mix(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(z ^ (z >> np.uint64(31)), dtype=np.uint64)


def _pick(shares: Sequence[float], luck: Floats) -> Codes:
    edges = np.cumsum(shares)
    found = np.searchsorted(edges, luck * edges[-1], side="right")
    return np.asarray(np.minimum(found, len(shares) - 1), dtype=np.int64)
