"""Patience: training fills idle time, but where there has been none for too long the next one gets a share of its own.

So a model is late by one starved training and no more, however busy the workers are. Going back costs nothing: a
training that ends in time leaves the next one to idle time again. (A process in the idle class cannot be lifted out of
it without privileges, therefore the next one and not the one that starves.)
"""

from collections.abc import Iterable

PATIENCE_S = 300.0
"""A training that took longer (seconds) has starved, when for most of that time it was not computing."""

STARVED_SHARE = 0.5
"""Most of the time: it computed for less than this share of it."""


class Patience:
    """Who starved, by lane and tenant.

    Args:
        starved: Who did before this process began.

    >>> patience = Patience()
    >>> patience.ended("training", "shop", took_s=900.0, computed_s=40.0)
    >>> patience.starves("training", "shop"), patience.starves("tuning", "shop")
    (True, False)
    """

    def __init__(self, starved: Iterable[tuple[str, str]] = ()) -> None:
        self._starved = set(starved)

    @property
    def starved(self) -> list[tuple[str, str]]:
        """Lane and tenant of each that starved and has not ended in time since."""
        return sorted(self._starved)

    def ended(self, lane: str, tenant: str, *, took_s: float, computed_s: float) -> None:
        """A training ended, by itself or not.

        Args:
            lane: `training` or `tuning`.
            tenant: Whose.
            took_s: By the clock.
            computed_s: On a processor.
        """
        if took_s > PATIENCE_S and computed_s < STARVED_SHARE * took_s:
            self._starved.add((lane, tenant))
        else:
            self._starved.discard((lane, tenant))

    def starves(self, lane: str, tenant: str) -> bool:
        """Whether the next training of a tenant gets a share of its own."""
        return (lane, tenant) in self._starved
