"""A placement's experiment is judged by its page: a shelf does not win by taking clicks from its neighbors."""

from typing import Any, NamedTuple

import msgspec
import numpy as np

from thinslice.experiments.evidence import WEIGHT, Evidence, treatments
from thinslice.experiments.wording import percent
from thinslice.metrics.columns import PAGE_COLUMNS
from thinslice.records import Check, Experiment, Metric
from thinslice.stats import Estimate, Moments, estimate, fieller
from thinslice.stats.estimates import t_quantile

EVERYWHERE = "*"
"""The placement of an experiment that is on all placements, and so is judged by all of them anyway."""

OWN, PAGE = "own_placement_clicks", "page_clicks"
"""Names of the two metrics that stand beside the goal: clicks at the placement, and on all that the unit was shown."""

_TO_PAGE = {column.removeprefix("page_"): column for column in PAGE_COLUMNS}


class Cannibalized(NamedTuple):
    """What a placement gained, and what its neighbors lost.

    Attributes:
        variant: The treatment.
        own: Change of clicks a unit at the experiment's placement.
        others: Change of clicks a unit at all other placements.
        share: -others / own: 1 is a shelf that only takes from its neighbors; None unless it gained clicks.
        share_ci: Its interval (Fieller); a bound is None where there is none.
    """

    variant: str
    own: Estimate
    others: Estimate
    share: float | None
    share_ci: tuple[float | None, float | None] | None


def judged_by_page(experiment: Experiment) -> Experiment:
    """The experiment with clicks, impressions and slates counted on all placements that a unit was shown.

    Two metrics that gate nothing stand beside them: clicks at the placement itself and on all placements, a unit each.
    An experiment on all placements stays as it is.
    """
    if experiment.placement == EVERYWHERE:
        return experiment
    metrics = [
        metric
        if metric.name == OWN
        else msgspec.structs.replace(
            metric,
            numerator=_TO_PAGE.get(metric.numerator, metric.numerator),
            denominator=None if metric.denominator is None else _TO_PAGE.get(metric.denominator, metric.denominator),
        )
        for metric in experiment.metrics
    ]
    known = {metric.name for metric in metrics}
    pairs = ((OWN, "clicks"), (PAGE, PAGE))
    beside = [Metric(name=name, numerator=column, role="diagnostic") for name, column in pairs]
    return msgspec.structs.replace(experiment, metrics=metrics + [each for each in beside if each.name not in known])


def cannibalized(evidence: Evidence, experiment: Experiment) -> list[Cannibalized]:
    """For each treatment, what its placement gained and what the others lost; empty where clicks are not known."""
    control = evidence.variants.get(experiment.control_name)
    found = []
    for variant in treatments(experiment):
        treated = evidence.variants.get(variant.name)
        if control is None or treated is None or min(control.n, treated.n) < 2:
            continue
        if not {"clicks", PAGE} <= set(control.names):
            return []
        (mean_a, cov_a), (mean_b, cov_b) = (_both(of) for of in (control, treated))
        change, cov = mean_b - mean_a, cov_a + cov_b
        df = float(control.n + treated.n - 2)
        own, others = (
            estimate(float(change[at]), float(np.sqrt(max(cov[at, at], 0.0))), df=df, alpha=experiment.alpha)
            for at in (0, 1)
        )
        share, ci = None, None
        if _is_above_zero(own):
            ratio = fieller(
                own.value, float(cov[0, 0]), -others.value, float(cov[1, 1]), covariance=-float(cov[0, 1]),
                quantile=t_quantile(1 - experiment.alpha / 2, df),
            )  # fmt: skip
            share = -others.value / own.value
            ci = None if ratio.ci is None else tuple(None if end is None else end + 1 for end in ratio.ci)
        found.append(Cannibalized(variant.name, own, others, share, None if ci is None else (ci[0], ci[1])))
    return found


def cannibalization(evidence: Evidence, experiment: Experiment) -> Check | None:
    """Does the placement take its clicks from its neighbors? None where the experiment is on all placements."""
    if experiment.placement == EVERYWHERE:
        return None
    rows = cannibalized(evidence, experiment)
    if not rows:
        return None
    taken = [row for row in rows if row.share is not None and _is_above_zero(row.own) and _is_below_zero(row.others)]
    worst = max(taken or rows, key=lambda row: row.share or 0.0)
    return Check(
        name="cannibalization", passed=not taken, statistic=worst.share,
        pvalue=worst.others.pvalue, detail=_in_words(worst, experiment.placement, bool(taken)),
    )  # fmt: skip


def placement_rows(evidence: Evidence, experiment: Experiment) -> list[dict[str, Any]]:
    """The same for a report: changes a unit with their intervals, and the cannibalized share."""
    if experiment.placement == EVERYWHERE:
        return []
    return [
        {
            "placement": experiment.placement, "variant": row.variant,
            "own_effect_size": row.own.value, "own_effect_size_ci": row.own.ci,
            "others_effect_size": row.others.value, "others_effect_size_ci": row.others.ci,
            "cannibalized_share": row.share, "cannibalized_share_ci": row.share_ci,
        }
        for row in cannibalized(evidence, experiment)
    ]  # fmt: skip


def _both(of: Moments) -> tuple[Any, Any]:
    """Clicks at the placement and elsewhere, a unit each: their means and the covariance of the means."""
    names = list(of.names)
    own, page = names.index("clicks"), names.index(PAGE)
    weight = names.index(WEIGHT) if WEIGHT in names else None
    per = 1.0 if weight is None else float(of.mean[weight])
    value = np.array([of.mean[own], of.mean[page] - of.mean[own]]) / per
    slope = np.zeros((2, len(names)))
    slope[0, own], slope[1, page], slope[1, own] = 1 / per, 1 / per, -1 / per
    if weight is not None:
        slope[:, weight] = -value / per
    return value, slope @ of.cov @ slope.T / of.n


def _is_above_zero(of: Estimate) -> bool:
    return of.ci is not None and of.ci[0] is not None and of.ci[0] > 0


def _is_below_zero(of: Estimate) -> bool:
    return of.ci is not None and of.ci[1] is not None and of.ci[1] < 0


def _in_words(row: Cannibalized, placement: str, taken: bool) -> str:
    changes = f"{placement} {_gained(row.own.value)} a unit, all other placements {_gained(row.others.value)}"
    if not taken or row.share is None:
        return f"{changes}: no clicks shown to be taken from its neighbors"
    bounds = ""
    if row.share_ci is not None and None not in row.share_ci:
        low, high = (percent(end or 0.0, signed=False) for end in row.share_ci)
        bounds = f" (95 % interval {low} to {high})"
    return f"{changes}: {percent(row.share, signed=False)} of what it gained it took from its neighbors{bounds}"


def _gained(change: float) -> str:
    return f"{'gained' if change >= 0 else 'lost'} {abs(change):.3g} clicks"
