"""Did enough units do anything? Where results steered the shares and few did, no interval is right: none is shown."""

from collections.abc import Iterator, Sequence

from thinslice.errors import StatisticsError
from thinslice.experiments.evidence import Evidence, column_of, treatments
from thinslice.records import Check, Experiment
from thinslice.stats import Cell, merge

FEWEST = 5.0
"""A metric needs to be known of each variant as well as five units that do something among many that do not tell it:
with fewer an A/A test of one buyer in a hundred under a bandit rejects in up to 15 %, from here on in at most 6 %."""


def worth(cells: Sequence[Cell], column: str, variants: Sequence[str]) -> dict[str, float]:
    """As how many independent units that do something, among many that do not, what is known of each variant counts.

    That is 1 / (relative standard error of the variant's weighted mean)^2 by the mean and the variance of all units
    together, so a variant is not held to know little because it is bad, but because few units were given to it.

    Args:
        cells: Units by time and logged probabilities.
        column: A column of which larger is more; nothing is said where its mean is not above zero.
        variants: Which are compared.

    Returns:
        Variant → count; empty where nothing can be said.

    Raises:
        StatisticsError: No unit at all.
    """
    usable = [cell for cell in cells if all(cell.propensities.get(name, 0.0) > 0 for name in variants)]
    parts = [part for cell in usable for part in cell.variants.values() if part.n]
    if not parts:
        raise StatisticsError(f"no unit was assigned while {', '.join(variants)} were all possible.")
    everybody = merge(parts)
    mean = everybody.mean_of(column)
    variance = everybody.var_of(column)
    if mean <= 0 or variance <= 0:
        return {}
    units = [sum(part.n for part in cell.variants.values()) for cell in usable]
    found = {}
    for name in variants:
        inverse = sum(n / cell.propensities[name] for n, cell in zip(units, usable, strict=True)) / everybody.n
        found[name] = mean**2 / variance * everybody.n / inverse
    return found


def rare_outcomes(evidence: Evidence, experiment: Experiment) -> Check | None:
    """Whether every variant's mean is known well enough for a normal interval; None where shares were constant.

    Under a bandit the variant with the small share may have seen a handful of buyers. Its mean and how much it varies
    then hang on a few units, and an interval by logged probabilities is too narrow as often as not: the effect on such
    a metric is not shown. Metrics that nobody moved in any variant are left out: nothing is said of them anyway.
    """
    found = sorted(_worths(evidence, experiment))
    if not found:
        return None
    least, metric, variant = found[0]
    known = f"is known to ±{least**-0.5:.0%}"
    if least >= FEWEST:
        detail = f"every mean {known} or better ({metric} of {variant})"
        return Check(name="rare_outcomes", passed=True, statistic=least, pvalue=None, detail=detail)
    return Check(
        name="rare_outcomes", passed=False, statistic=least, pvalue=None,
        detail=f"{metric} of {variant} {known} only, as {least:.1f} units that do it would tell: too few for an "
        "interval to be right, so the effect on it is not shown",
        advice="Wait for more units, raise allocation_floor, or let results of something more frequent (clicks) steer "
        "and judge by this later.",
    )  # fmt: skip


def _worths(evidence: Evidence, experiment: Experiment) -> Iterator[tuple[float, str, str]]:
    """What is known of each variant, with metric and variant."""
    for metric in experiment.metrics:
        if metric.quantile is not None or not evidence.cells:
            continue
        for each in treatments(experiment):
            try:
                found = worth(evidence.cells, column_of(metric), (experiment.control_name, each.name))
            except StatisticsError:
                continue
            yield from ((count, metric.name, name) for name, count in found.items())
