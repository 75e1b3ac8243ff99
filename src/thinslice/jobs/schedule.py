"""Which job is due when, and whose models are trained first: pure decisions that are tested without a clock."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

OVERDUE_FACTOR = 3.0
"""A tenant that waits longer than so many training intervals is said to lag."""


class News(NamedTuple):
    """What happened at one tenant since its models were trained.

    Attributes:
        tenant: Whose.
        rows: Events and items that its models have not seen.
        trained_at: Unix seconds of the last training or attempt, None when there was none.
        feed: Whether its catalog has changed since.
        tuning: Whether a model waits for being tuned.
    """

    tenant: str
    rows: int
    trained_at: float | None
    feed: bool = False
    tuning: bool = False


class Attempt(NamedTuple):
    """A training that was started.

    Attributes:
        at: Unix seconds.
        rows: Events and items that the lake had for the tenant.
        feed: Fingerprint of its catalog then.
    """

    at: float
    rows: int
    feed: str


def next_training(news: Iterable[News], now: float, every_s: float) -> str | None:
    """The tenant to train now: the one with the largest staleness × traffic among those that are due.

    A tenant is due when it has news and its last training is `every_s` seconds ago; one that was never trained is due
    at once and goes before all others.

    Args:
        news: Of every tenant.
        now: Unix seconds.
        every_s: The shortest time between two trainings of one tenant.

    >>> next_training([News("a", 10, 0.0), News("b", 500, 30.0), News("c", 0, None)], now=100.0, every_s=60.0)
    'b'
    """
    due = [each for each in news if each.rows > 0 and (each.trained_at is None or now - each.trained_at >= every_s)]
    if not due:
        return None
    best = max(due, key=lambda each: (each.trained_at is None, each.rows * (now - (each.trained_at or 0.0))))
    return best.tenant


def next_feed(news: Iterable[News], now: float, every_s: float) -> str | None:
    """The tenant whose new items are learned now: one whose catalog has changed, the longest untrained first.

    Args:
        news: Of every tenant.
        now: Unix seconds.
        every_s: The shortest time between two trainings of one tenant for this reason.

    >>> next_feed([News("a", 0, 0.0), News("b", 1, 80.0, feed=True)], now=100.0, every_s=15.0)
    'b'
    """
    due = [each for each in news if each.feed and each.trained_at is not None and now - each.trained_at >= every_s]
    return min(due, key=lambda each: each.trained_at or 0.0).tenant if due else None


def next_tuning(news: Iterable[News], now: float, every_s: float, tuned_at: Mapping[str, float]) -> str | None:
    """The tenant whose models tune themselves now: one that waits for it, the longest untried first.

    Args:
        news: Of every tenant.
        now: Unix seconds.
        every_s: The shortest time between two tunings of one tenant.
        tuned_at: Tenant → unix seconds of the last tuning started.

    >>> next_tuning([News("a", 0, 0.0, tuning=True), News("b", 0, 0.0)], 100.0, 600.0, {"a": 50.0}) is None
    True
    """
    due = [each.tenant for each in news if each.tuning and now - tuned_at.get(each.tenant, -math.inf) >= every_s]
    return min(due, key=lambda tenant: tuned_at.get(tenant, -math.inf)) if due else None


def lag_s(news: Iterable[News], now: float, every_s: float) -> dict[str, float]:
    """How many seconds each tenant with news has been waiting beyond its turn; 0 when it is on time."""
    return {
        each.tenant: max(0.0, now - each.trained_at - every_s)
        for each in news
        if each.rows > 0 and each.trained_at is not None
    }


@dataclass
class Timer:
    """When a repeated job is due; a failing one waits twice as long each time, at most `longest_s`.

    Attributes:
        every_s: Seconds between two runs, start to start.
        longest_s: The longest pause after failures.
        share: How much of a core it may take on the long run; what computes longer comes more seldom.
        due_at: When it runs next, in seconds of a clock that only goes forward.
        failures: Failures in a row.
    """

    every_s: float
    longest_s: float = 300.0
    share: float = 1.0
    due_at: float = 0.0
    failures: int = field(default=0)

    def due(self, now: float) -> bool:
        """Whether it is time."""
        return now >= self.due_at

    def done(self, now: float, computed_s: float = 0.0) -> None:
        """It ran from now on; the next run is `every_s` later, or when `computed_s` is no more than its share."""
        self.failures = 0
        self.due_at = now + max(self.every_s, computed_s / self.share)

    def failed(self, now: float) -> None:
        """It failed; the pause doubles."""
        self.failures += 1
        self.due_at = now + min(self.longest_s, self.every_s * 2 ** min(self.failures, 10))
