"""Whose discoveries a variant learned from: every training session knows the variant that was shown in it.

A ranker that never explores looks as good as one that does when it may learn from what the other found. So each model
names where its lessons came from, and a report that finds foreign ones does not say "no difference".
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from thinslice.errors import BadInput, StatisticsError
from thinslice.records import Experiment

BEFORE = "before"
"""Sessions that began before the experiment; they teach everyone."""

OUTSIDE = "outside"
"""Sessions that began later and belong to no variant: outside of the coverage, or without an identity."""

POOLED_LEAF = "pooled"
"""The context leaf of a unit that models serve which learned from everybody; its sessions teach no variant."""


class Lineage(NamedTuple):
    """Where the lessons of one model came from.

    Attributes:
        variant: Whom the model serves.
        clicks: Origin → training clicks: `before`, `outside`, and each variant by name.
        contamination: Share of the clicks, 0..1, that sessions of other variants brought.
    """

    variant: str
    clicks: dict[str, int]
    contamination: float


def lineage(
    experiment: Experiment, variant: str, assignments: ArrayLike, started: ArrayLike, clicks: ArrayLike, used: ArrayLike
) -> Lineage:
    """Where the lessons of one variant's model came from.

    Args:
        experiment: Whose variants.
        variant: Whom the model serves.
        assignments: Shape (sessions,), the variant as of the session's start, or "".
        started: Shape (sessions,), unix seconds.
        clicks: Shape (sessions,), how many training rows the session has.
        used: Shape (sessions,), whether the model learned from it.

    Raises:
        BadInput: The experiment has no such variant.
        StatisticsError: Columns of different lengths.

    Source: the contamination of symbiosis bias, Brennan et al. (arXiv 2309.07107).
    """
    names = [each.name for each in experiment.variants]
    if variant not in names:
        raise BadInput(f"experiment {experiment.name!r} has no variant {variant!r} (there is: {', '.join(names)}).")
    labels, starts = np.asarray(assignments, dtype=str), np.asarray(started, dtype=np.float64)
    rows, mask = np.asarray(clicks, dtype=np.int64), np.asarray(used, dtype=np.bool_)
    sizes = sorted({labels.size, starts.size, rows.size, mask.size})
    if len(sizes) > 1:
        raise StatisticsError(f"columns have different lengths: {sizes[0]} and {sizes[-1]} sessions.")
    begun = np.inf if experiment.started_at is None else experiment.started_at.timestamp()
    early = starts < begun
    origin = {BEFORE: early, OUTSIDE: ~early & ~np.isin(labels, names)}
    origin |= {name: ~early & (labels == name) for name in names}
    found = {name: int(rows[mask & which].sum()) for name, which in origin.items()}
    foreign = sum(found[name] for name in names if name != variant)
    total = sum(found.values())
    return Lineage(variant, found, foreign / total if total else 0.0)
