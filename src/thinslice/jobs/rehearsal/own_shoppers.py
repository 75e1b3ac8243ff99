"""The shoppers of an experiment's own rehearsal: every column of the unit table, and what they did before."""

import msgspec
import numpy as np
from numpy.typing import NDArray

from thinslice.records import Experiment, Metric
from thinslice.stats import pooled_cap

Floats = NDArray[np.float64]

LIFTED = frozenset({"clicks", "views", "carts", "orders", "converted", "revenue_minor"})
"""Columns of the unit table that a treatment lifts; slates and visits stay as many as they are."""

BASE_UNITS = 400_000
"""So many shoppers with and without the treatment tell what is true of a metric."""

PLACEMENTS = 3
"""Placements of a simulated page; slates are as many at each."""

PAST = "past "
"""Before the name of a column: the same, counted in the days before the unit came."""

SEGMENT_VALUES, SEGMENT_SHARES = ("most", "some", "few"), (0.6, 0.3, 0.1)
"""The values of every declared segment, and how many of the shoppers have each."""


def columns(
    draw: np.random.Generator, lift: Floats, mood: Floats | float = 1.0, *, steals: bool = False
) -> dict[str, Floats]:
    """The unit table of simulated shoppers: with a lift they click, view and buy that much more often.

    What decides who buys for how much is drawn first, so that the same shoppers with another lift have the same luck.
    Beside the experiment's placement a page has two others, whose clicks no treatment lifts.

    Args:
        draw: Randomness.
        lift: Shape (units,), relative.
        mood: Shape (units,), how much of everything is done in a shopper's hour or city, 1 on average.
        steals: The lift only moves clicks from the page's other placements to the experiment's; nothing else changes.
    """
    n, more = len(lift), (mood if steals else 1.0 + lift) * np.ones(len(lift))
    if not steals:
        more = more * mood
    loyalty, luck = draw.uniform(0.0, 2.0, size=n), draw.random(n)
    paid = 4_000.0 * np.exp(0.8 * draw.standard_normal(n))
    exposures = 1 + draw.poisson(3.0 * loyalty)
    sessions = 1 + draw.poisson(loyalty)
    before = {"clicks": 0.45, "views": 5.0, "carts": 0.3, "orders": 0.1, "sessions": 1.0}
    past = {f"{PAST}{name}": draw.poisson(usual * loyalty).astype(np.float64) for name, usual in before.items()}
    past[f"{PAST}converted"] = np.minimum(past[f"{PAST}orders"], 1.0)
    past[f"{PAST}revenue_minor"] = past[f"{PAST}orders"] * 5_500.0
    converted = (luck < np.minimum(0.1 * loyalty * more, 1.0)).astype(np.float64)
    rate = 0.05 * (1.0 + loyalty)
    clicks = draw.binomial(exposures, np.minimum(rate * more, 1.0))
    elsewhere = draw.binomial((PLACEMENTS - 1) * exposures, np.minimum(rate * mood, 1.0))
    if steals:
        gain = np.where(lift >= 0, elsewhere, clicks)
        share = np.minimum(np.abs(lift) / np.where(lift >= 0, PLACEMENTS - 1, 1), 1.0)
        moved = draw.binomial(gain, share) * np.where(lift >= 0, 1, -1)
        clicks, elsewhere = clicks + moved, elsewhere - moved
    views, carts = draw.poisson(5.0 * loyalty * more), draw.poisson(0.3 * loyalty * more)
    return past | {
        "exposures": exposures.astype(np.float64), "impressions": exposures.astype(np.float64),
        "clicks": clicks.astype(np.float64), "views": views.astype(np.float64), "carts": carts.astype(np.float64),
        "orders": converted, "converted": converted, "revenue_minor": converted * paid,
        "sessions": sessions.astype(np.float64), "page_exposures": PLACEMENTS * exposures.astype(np.float64),
        "page_impressions": PLACEMENTS * exposures.astype(np.float64),
        "page_clicks": (clicks + elsewhere).astype(np.float64),
    }  # fmt: skip


def segments(draw: np.random.Generator, experiment: Experiment, n: int) -> dict[str, NDArray[np.str_]]:
    """A value of each declared segment for each shopper; treatments act on all values alike."""
    return {name: draw.choice(SEGMENT_VALUES, size=n, p=SEGMENT_SHARES) for name in experiment.segments}


def with_caps(experiment: Experiment, table: dict[str, Floats]) -> Experiment:
    """The experiment with caps that are numbers: a quantile is that of all these shoppers together."""
    metrics = [
        metric
        if metric.cap_quantile is None
        else msgspec.structs.replace(metric, cap=max(pooled_cap(table[metric.numerator], metric.cap_quantile), 1e-9))
        for metric in experiment.metrics
    ]
    return msgspec.structs.replace(experiment, metrics=metrics)


def level_of(metric: Metric, table: dict[str, Floats]) -> float:
    """A metric of a whole crowd, as a report would compute it of one variant."""
    values = table[metric.numerator]
    if metric.quantile is not None:
        return float(np.quantile(values, metric.quantile))
    if metric.cap is not None:
        values = np.minimum(values, metric.cap)
    return float(values.mean()) / (1.0 if metric.denominator is None else float(table[metric.denominator].mean()))
