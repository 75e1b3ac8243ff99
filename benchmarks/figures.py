"""A figure with what it has to be, and rehearsals that figures come from, for the sections of `benchmarks.trust`."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import msgspec

from thinslice.jobs.rehearse import Design, Rehearsal, rehearse
from thinslice.simulate.scenarios import find_scenario

SHARE = 100.0
"""Figures are printed in percent."""


class Figure(NamedTuple):
    """One figure: what it is of, its value, and between which values it has to lie (None: no bound)."""

    name: str
    value: float
    low: float | None = None
    high: float | None = None

    @property
    def passed(self) -> bool:
        """Whether it lies there."""
        return (self.low is None or self.value >= self.low) and (self.high is None or self.value <= self.high)

    @property
    def bounds(self) -> str:
        """What it has to be, in words; empty without bounds."""
        if self.low is not None and self.high is not None:
            return f"{self.low:g} to {self.high:g}"
        return (
            f"at least {self.low:g}" if self.low is not None else "" if self.high is None else f"at most {self.high:g}"
        )


Part = Callable[[], Iterator[Figure]]
"""What makes some figures of a section; parts run beside each other."""


def played(name: str, runs: int, **numbers: object) -> Rehearsal:
    """A shipped scenario with other numbers, rng 0."""
    return rehearse(name, msgspec.structs.replace(find_scenario(name), **numbers), runs=runs, rng=0)


def design(found: Rehearsal, name: str) -> Design:
    """What one design said."""
    return next(each for each in found.designs if each.name == name)
