"""Did enough units do anything? Where a variant's mean is hardly known, intervals by logged probabilities are rough."""

import math
from collections.abc import Iterator

from thinslice.errors import StatisticsError
from thinslice.experiments.evidence import Evidence, column_of, treatments
from thinslice.records import Check, Experiment
from thinslice.stats import adaptive_scores, score_column

ROUGH = 0.6
"""A standard error that is more than this share of its mean: at 0.4 an A/A test of revenue or of rare buyers under a
bandit rejects in 5 %, at 0.7 in 13 %."""


def rare_outcomes(evidence: Evidence, experiment: Experiment) -> Check | None:
    """Whether every variant's mean is known well enough for a normal interval; None where shares were constant.

    Under a bandit the variant with the small share may have seen a handful of buyers. Its mean and how much it varies
    then hang on a few units, and an interval by logged probabilities is too narrow as often as not. Metrics that nobody
    moved in any variant are left out: nothing is said of them anyway.
    """
    found = sorted(_errors(evidence, experiment), reverse=True)
    if not found:
        return None
    worst, metric, variant = found[0]
    if worst <= ROUGH:
        detail = f"every mean is known to ±{worst:.0%} or better ({metric} of {variant})"
        return Check(name="rare_outcomes", passed=True, statistic=worst, pvalue=None, detail=detail)
    known = f"is known to ±{worst:.0%} only" if math.isfinite(worst) else "is nothing so far"
    return Check(
        name="rare_outcomes", passed=False, statistic=worst if math.isfinite(worst) else None, pvalue=None,
        detail=f"{metric} of {variant} {known}: too few of its units did anything for an interval to be right",
        advice="Wait for more units, raise allocation_floor, or let results of something more frequent (clicks) steer "
        "and judge by this later.",
    )  # fmt: skip


def _errors(evidence: Evidence, experiment: Experiment) -> Iterator[tuple[float, str, str]]:
    """The standard error of a variant's mean as a share of it, with metric and variant."""
    for metric in experiment.metrics:
        if metric.quantile is not None or not evidence.cells:
            continue
        column = column_of(metric)
        for each in treatments(experiment):
            names = (experiment.control_name, each.name)
            try:
                scores = adaptive_scores(evidence.cells, [column], names)
            except StatisticsError:
                continue
            means = [scores.mean_of(score_column(column, name)) for name in names]
            if max(means) <= 0:
                continue
            for name, mean in zip(names, means, strict=True):
                error = math.sqrt(scores.var_of(score_column(column, name)) / max(scores.n, 1))
                yield error / mean if mean > 0 else math.inf, metric.name, name
