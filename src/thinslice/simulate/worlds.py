"""Small worlds for rehearsals, as plain arrays: shelves whose items come and go, visits, and shoppers who spend.

Nothing here knows an experiment: who sees what is decided elsewhere. The luck of a visit and the taste of a shopper
belong to them and not to what they are shown, so the same world can be lived through under every policy.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]
Flags = NDArray[np.bool_]

FOREVER = 1 << 30
"""The day on which an item goes that never goes."""


class Shelf(NamedTuple):
    """Items with true click rates; the item number is its code.

    Attributes:
        born: Shape (items,), int64: the day on which an item comes.
        gone: Shape (items,), int64: the day on which it is there no more.
        rate: Shape (items,), float64: how likely a visitor who looks at it clicks it.
    """

    born: Codes
    gone: Codes
    rate: Floats

    def live(self, day: int) -> Codes:
        """Codes of the items that are there on one day."""
        return np.flatnonzero((self.born <= day) & (day < self.gone))


def fill_shelf(
    draw: np.random.Generator, *, days: int, at_start: int, new_per_day: int, life_days: int, click_rate: float,
    evenness: float,
) -> Shelf:  # fmt: skip
    """A shelf that is in its steady state on day 0.

    Args:
        draw: Randomness.
        days: How long the world lasts.
        at_start: Items on day 0; where items have a life, each is left a random part of it.
        new_per_day: Items that come every day, the first on day 0.
        life_days: How long an item stays; 0: forever.
        click_rate: The mean of the true click rates.
        evenness: Click rates are drawn from a Beta whose two shapes sum to this: the larger, the more alike.

    >>> shelf = fill_shelf(np.random.default_rng(0), days=9, at_start=4, new_per_day=2, life_days=3, click_rate=0.1,
    ...                    evenness=20.0)
    >>> len(shelf.live(8))
    6
    """
    born = np.concatenate([np.zeros(at_start, dtype=np.int64), np.repeat(np.arange(days), new_per_day)])
    left = draw.integers(1, max(life_days, 1) + 1, size=at_start)
    gone = born + life_days
    gone[:at_start] = left
    if life_days == 0:
        gone[:] = FOREVER
    rate = draw.beta(click_rate * evenness, (1.0 - click_rate) * evenness, size=len(born))
    return Shelf(born, gone.astype(np.int64), rate)


class Visits(NamedTuple):
    """Visits in the order of time; each is shown one slate.

    Attributes:
        visitor: Shape (visits,), int64: who.
        day: Shape (visits,), int64, rising.
        time_s: Shape (visits,), float64: seconds since the start of day 0, rising.
        luck: Shape (visits, places), float64, 0..1: small is clicked.
    """

    visitor: Codes
    day: Codes
    time_s: Floats
    luck: Floats


def make_visits(draw: np.random.Generator, *, days: int, per_day: int, visitors: int, places: int) -> Visits:
    """`per_day` visits a day, each of one of the visitors."""
    size = days * per_day
    time_s = np.sort(draw.uniform(0.0, 86_400.0, size=(days, per_day)), axis=1) + 86_400.0 * np.arange(days)[:, None]
    visitor = draw.integers(0, visitors, size=size)
    return Visits(visitor, np.repeat(np.arange(days), per_day), time_s.ravel(), draw.random((size, places)))


def attention(places: int) -> Floats:
    """How likely each place of a slate is looked at: 1 / log2(place + 1), places from 1."""
    return np.asarray(1.0 / np.log2(np.arange(places) + 2.0))


def clicked(rate: Floats, luck: Floats) -> Flags:
    """Which places of slates are clicked, shape (visits, places), from the rates of the items shown there."""
    return np.asarray(luck < rate * attention(rate.shape[1]))


class Shoppers(NamedTuple):
    """What shoppers did before and during an experiment, one row a shopper.

    Attributes:
        loyalty: Shape (n,), uniform in 0..2, mean 1: how much of everything this shopper does.
        before: Shape (n,), pages viewed before the experiment.
        exposures: Shape (n,), slates seen.
        clicks: Shape (n,), of them clicked.
        converted: Shape (n,), 0 or 1.
        revenue_minor: Shape (n,): zero for most, else lognormal.
    """

    loyalty: Floats
    before: Floats
    exposures: Floats
    clicks: Floats
    converted: Floats
    revenue_minor: Floats


CONVERSION, ORDER_MINOR, SPREAD = 0.1, 4_000.0, 0.8
"""Share of shoppers who buy, the median order in minor units, and the standard deviation of its logarithm."""

MEAN_REVENUE = CONVERSION * ORDER_MINOR * float(np.exp(SPREAD**2 / 2))
"""The expected revenue of a shopper without any treatment."""

MEAN_CLICKS, MEAN_EXPOSURES = 0.45, 4.0
"""The expected clicks and slates of a shopper without any treatment."""


def shop(draw: np.random.Generator, n: int, lift: Floats | float = 0.0) -> Shoppers:
    """Shoppers of whom most buy nothing and some buy much: zero-inflated lognormal revenue.

    Args:
        draw: Randomness.
        n: How many.
        lift: Shape (n,) or one number: by which share a shopper clicks more and pays more.
    """
    loyalty = draw.uniform(0.0, 2.0, size=n)
    exposures: Codes = 1 + draw.poisson(3.0 * loyalty)
    converted = (draw.random(n) < CONVERSION * loyalty).astype(np.float64)
    paid = ORDER_MINOR * np.exp(SPREAD * draw.standard_normal(n)) * (1.0 + np.asarray(lift))
    return Shoppers(
        loyalty=loyalty,
        before=draw.poisson(5.0 * loyalty).astype(np.float64),
        exposures=exposures.astype(np.float64),
        clicks=draw.binomial(exposures, 0.05 * (1.0 + loyalty) * (1.0 + np.asarray(lift))).astype(np.float64),
        converted=converted,
        revenue_minor=converted * paid,
    )
