"""What really happens under a policy: every shopper of a crowd visits once, all at the same time, in memory.

A visit here is move for move the visit of `shoppers.visit` (a test holds them equal), for hundreds of thousands of
shoppers in arrays. As luck belongs to the shopper and not to the policy, the same shoppers can be sent under each of
two frozen policies; the difference of the means is the truth that an experiment on some of them has to find.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from thinslice.simulate.shoppers import (
    ANSWERS,
    BUY_SHARE,
    CART_AT,
    CLICK_AT,
    LOOKED_AT,
    MAX_ROUNDS,
    STAY_IN_KIND,
    Codes,
    Crowd,
    Floats,
    Shop,
    chances,
    looks_at,
    luck_of,
    utility,
)

Policy = Callable[[Codes], Codes]
"""A frozen policy: item codes of m sessions, shape (m, viewed), oldest first → slates, shape (m, k), -1 for no item."""

_CHUNK = 4096


class Outcomes(NamedTuple):
    """What each shopper of a crowd did, shape (n,) float64 each: one row is one unit.

    Attributes:
        views: Items viewed.
        exposures: Slates seen, one for each item page whose slate was not empty.
        clicks: Clicks in slates.
        carts: Items put into the cart.
        orders: 1 when the cart was paid, else 0.
        revenue_minor: What was paid, minor units.
    """

    views: Floats
    exposures: Floats
    clicks: Floats
    carts: Floats
    orders: Floats
    revenue_minor: Floats


class Truth(NamedTuple):
    """The same shoppers under control alone and under treatment alone; row i is the same person in both."""

    control: Outcomes
    treatment: Outcomes

    def effect(self, column: str) -> float:
        """All-treatment minus all-control of one column's mean over the whole crowd."""
        return float(np.mean(getattr(self.treatment, column)) - np.mean(getattr(self.control, column)))

    def ratio_effect(self, numerator: str, denominator: str) -> float:
        """All-treatment minus all-control of a ratio of two columns' sums."""
        ratios = [float(np.sum(getattr(side, numerator)) / np.sum(getattr(side, denominator))) for side in self]
        return ratios[1] - ratios[0]


def truth(shop: Shop, shoppers: Crowd, control: Policy, treatment: Policy) -> Truth:
    """Sends the same shoppers through the shop twice, once under each frozen policy."""
    return Truth(visits(shop, shoppers, control), visits(shop, shoppers, treatment))


def visits(shop: Shop, shoppers: Crowd, policy: Policy) -> Outcomes:
    """One visit of every shopper under one policy; memory is bounded by chunks of shoppers.

    Args:
        shop: Where they shop.
        shoppers: Who shops, n rows.
        policy: Asked once per round for all shoppers who are still there, all with equally long sessions.
    """
    parts = [
        _visits(shop, shoppers.rows(start, start + _CHUNK), policy) for start in range(0, len(shoppers.key), _CHUNK)
    ]
    if not parts:
        return Outcomes(*(np.zeros(0) for _ in Outcomes._fields))
    return Outcomes(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def same_for_all(slate: Sequence[int]) -> Policy:
    """The policy that shows everybody one slate of item codes."""
    codes = np.asarray(slate, dtype=np.int64)

    def policy(sessions: Codes) -> Codes:
        return np.broadcast_to(codes, (len(sessions), len(codes)))

    return policy


def by_session(recommend: Callable[[tuple[int, ...]], Sequence[int]], k: int) -> Policy:
    """The policy of a frozen model: asked once for each different session, shorter answers filled up with -1.

    Args:
        recommend: Item codes of one session, oldest first → item codes of its slate.
        k: The length of the slates.
    """

    def policy(sessions: Codes) -> Codes:
        distinct, place = np.unique(sessions, axis=0, return_inverse=True)
        slates = np.full((len(distinct), k), -1, dtype=np.int64)
        for row, session in enumerate(distinct.tolist()):
            slate = recommend(tuple(session))[:k]
            slates[row, : len(slate)] = slate
        return np.asarray(slates[place.reshape(-1)], dtype=np.int64)

    return policy


def _visits(shop: Shop, shoppers: Crowd, policy: Policy) -> Outcomes:
    n = len(shoppers.key)
    liking = utility(shop, shoppers)
    pull = np.cumsum(np.exp(liking), axis=1)
    clicks_if, carts_if = chances(liking, CLICK_AT), chances(liking, CART_AT)
    looking = looks_at(shoppers.position_bias)
    sums = Outcomes(*(np.zeros(n) for _ in Outcomes._fields))
    seen = np.zeros((n, len(shop.items)), dtype=np.bool_)
    in_cart = np.zeros_like(seen)
    there = np.arange(n)
    trail = np.zeros((n, MAX_ROUNDS), dtype=np.int64)
    trail[:, 0] = _stroll(pull, luck_of(shoppers.key, ANSWERS.organic(0)), np.zeros(n, dtype=np.int64), None)
    for round_ in range(MAX_ROUNDS):
        key, here = shoppers.key[there], trail[there, round_]
        seen[there, here] = True
        sums.views[there] += 1
        wants = (luck_of(key, ANSWERS.cart(round_)) < carts_if[there, here]) & ~in_cart[there, here]
        in_cart[there[wants], here[wants]] = True
        slates = policy(trail[there, : round_ + 1])[:, :LOOKED_AT]
        shown = slates >= 0
        sums.exposures[there] += shown.any(axis=1)
        rows, codes, width = there[:, None], np.maximum(slates, 0), slates.shape[1]
        draws = np.array([ANSWERS.look(round_, place) for place in range(width)], dtype=np.int64)
        looks = luck_of(key[:, None], draws[None, :]) < looking[there, :width]
        clicks = luck_of(key[:, None], draws[None, :] + 1) < clicks_if[rows, codes]
        clicked = shown & ~seen[rows, codes] & looks & clicks
        has_clicked = clicked.any(axis=1)
        sums.clicks[there] += has_clicked
        if round_ == MAX_ROUNDS - 1:
            break
        goes_on = has_clicked | (luck_of(key, ANSWERS.leave(round_)) < shoppers.patience[there])
        on_shelf = luck_of(key, ANSWERS.shelf(round_)) < STAY_IN_KIND
        kind = shop.looks[here, 0]
        first = np.where(on_shelf, shop.shelves[kind], 0)
        stop = np.where(on_shelf, shop.shelves[kind + 1], len(shop.items))
        found = _stroll(pull[there], luck_of(key, ANSWERS.organic(round_ + 1)), first, stop)
        if width:
            found = np.where(has_clicked, codes[np.arange(len(there)), clicked.argmax(axis=1)], found)
        there = there[goes_on]
        if not len(there):
            break
        trail[there, round_ + 1] = found[goes_on]
    sums.carts[:] = in_cart.sum(axis=1)
    pays = (sums.carts > 0) & (luck_of(shoppers.key, ANSWERS.buy()) < BUY_SHARE)
    sums.orders[:] = pays
    sums.revenue_minor[:] = np.where(pays, in_cart @ shop.price, 0.0)
    return sums


def _stroll(pull: Floats, luck: Floats, first: Codes, stop: Codes | None) -> Codes:
    """`shoppers.stroll` for many: shapes (m, items), (m,), (m,), (m,) or None for the whole shop."""
    last = np.full(len(pull), pull.shape[1] - 1, dtype=np.int64) if stop is None else stop - 1
    rows = np.arange(len(pull))
    low = np.where(first > 0, pull[rows, np.maximum(first - 1, 0)], 0.0)
    target: NDArray[np.float64] = low + luck * (pull[rows, last] - low)
    found = (pull <= target[:, None]).sum(axis=1)
    return np.asarray(np.clip(found, first, last), dtype=np.int64)
