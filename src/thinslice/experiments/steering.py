"""Results steer the weights: a variant gets as much traffic as the chance that it is the best one, and never nothing.

The probabilities that this gives are logged with every exposure, so that the effect is still estimated without bias.
"""

from collections.abc import Sequence

import numpy as np
from scipy.special import ndtri

from thinslice.records import Experiment, MetricResult

LEAST_UNITS = 100
"""Before each variant has so many units its results steer nothing."""

DRAWS = 20_000


def thompson_weights(
    experiment: Experiment, results: Sequence[MetricResult], *, rng: np.random.Generator
) -> dict[str, float] | None:
    """New weights from the goal's effects so far; None while there is too little to steer by.

    Each treatment's effect is drawn from a normal around its estimate, control's is zero; how often a variant comes out
    best is its share of what the floors leave: floor + (1 - variants * floor) * chance. Weights are rounded to 0.0001.

    Args:
        experiment: Its goal, `allocation_floor` and variants; those with a weight of zero stay out.
        results: Of a report, in which effects are weighted by the logged probabilities.
        rng: Draws.

    Source: Thompson (1933); the floor as in Liang and Bojinov, An experimental design for anytime-valid causal
    inference on multi-armed bandits (arXiv 2311.05794).
    """
    names = [variant.name for variant in experiment.variants if variant.weight > 0]
    goals = {row.variant: row for row in results if row.role == "goal"}
    columns = []
    for name in names:
        if name == experiment.control_name:
            columns.append(np.zeros(DRAWS))
            continue
        row = goals.get(name)
        if row is None or row.effect_size is None or row.effect_size_ci is None or None in row.effect_size_ci:
            return None
        if min(row.n_control, row.n_treatment) < LEAST_UNITS:
            return None
        low, high = row.effect_size_ci
        se = (float(high or 0.0) - float(low or 0.0)) / 2 / float(ndtri(1 - experiment.alpha / 2))
        sign = 1.0 if row.direction == "up" else -1.0
        columns.append(sign * rng.normal(row.effect_size, se, DRAWS))
    best = np.argmax(np.stack(columns, axis=1), axis=1)
    chance = np.bincount(best, minlength=len(names)) / DRAWS
    floor = min(experiment.allocation_floor, 1 / len(names))
    shares = [round(float(share), 4) for share in floor + (1 - len(names) * floor) * chance]
    largest = int(np.argmax(shares))
    shares[largest] = round(shares[largest] + 1 - sum(shares), 4)
    return {variant.name: 0.0 for variant in experiment.variants} | dict(zip(names, shares, strict=True))
