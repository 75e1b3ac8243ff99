"""Does the effect last? Days since the first exposure, late against early, and what is left once it is steady."""

import contextlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

from thinslice.errors import StatisticsError
from thinslice.experiments.evidence import Ages, Evidence, column_of, treatments
from thinslice.experiments.program import log_effect
from thinslice.records import Experiment, Metric
from thinslice.stats import (
    EARLY_DAYS,
    LATE_FROM,
    Cohort,
    Effect,
    Estimate,
    Moments,
    Quotient,
    effect,
    estimate,
    late_minus_early,
    sample,
    shared_variance,
    smaller_of_two,
)


def novelty(evidence: Evidence, experiment: Experiment, alpha: float) -> dict[str, Any]:
    """How the goal's effect goes with the days since a unit's first exposure; empty where days are unknown.

    Two tests are made per treatment, late minus early (difference in differences, entry day by entry day) and, for
    means, the slope by log(1 + days) within units; when the smaller p-value of both, whose correlation is known, is
    below alpha, the effect is not stable. The steady effect is that of day 7 and later, of the units that could be seen
    then. Visitors who come less often lose some of any effect: where late and early still agree as shares, `same_share`
    says so.

    Args:
        evidence: With `ages`.
        experiment: Whose goal; units that did nothing on a day count with zero.
        alpha: One minus the confidence of the intervals.
    """
    ages = evidence.ages
    goal = next((metric for metric in experiment.metrics if metric.role == "goal"), None)
    if ages is None or goal is None or goal.quantile is not None:
        return {}
    found = [
        _of_variant(ages, goal, variant.name, experiment.control_name, alpha) for variant in treatments(experiment)
    ]
    if not any("steady" in row for row in found):
        return {"metric": goal.name, "variants": found, "stable": None, "why": found[0]["why"] if found else ""}
    known = [row["stable"] for row in found if row.get("stable") is not None]
    return {
        "metric": goal.name, "early_days": EARLY_DAYS, "late_from": LATE_FROM, "variants": found,
        "stable": all(known) if known else None, "why": "",
    }  # fmt: skip


def _of_variant(ages: Ages, goal: Metric, variant: str, control: str, alpha: float) -> dict[str, Any]:
    by_day = []
    for age, variants in ages.by_age:
        got = _compared(variants, Quotient(column_of(goal), goal.denominator), control, variant, alpha)
        if got is not None:
            n_control, n_treatment = variants[control].n, variants[variant].n
            by_day.append({"day": age, "n_control": n_control, "n_treatment": n_treatment, **_numbers(got)})
    row: dict[str, Any] = {"variant": variant, "by_day": by_day, "stable": None, "same_share": False, "why": ""}
    early, late = (
        Quotient(f"{word} {column_of(goal)}", None if goal.denominator is None else f"{word} {goal.denominator}")
        for word in ("early", "late")
    )
    first, steady = (_compared(ages.change, of, control, variant, alpha) for of in (early, late))
    if first is None or steady is None:
        return row | {"why": f"no unit could be seen for more than {LATE_FROM} days yet"}
    n = sum(ages.change[name].n for name in (control, variant))
    row |= {"n": n, "early": _numbers(first), "steady": _numbers(steady)}
    row["cohorts"] = _cohorts(ages, early, late, control, variant, alpha)
    if steady.effect_size_ci is None:
        row |= {"late_minus_early": None, "trend": None}
        return row | {"why": f"no unit did anything from day {LATE_FROM} on"}
    cohorts = [Cohort(of[control], of[variant]) for _, of in ages.cohorts if control in of and variant in of]
    change = slope = None
    with contextlib.suppress(StatisticsError):
        change = late_minus_early(cohorts, early, late, alpha=alpha)
    tilt = Quotient(f"tilt {column_of(goal)}", "tilt scale")
    got = _compared(ages.change, tilt, control, variant, alpha) if goal.denominator is None else None
    if got is not None:
        slope = estimate(got.effect_size, got.se, df=got.df, alpha=alpha)
    row["late_minus_early"], row["trend"] = (None if of is None else of._asdict() for of in (change, slope))
    whole = Cohort(ages.change[control], ages.change[variant])
    row["stable"] = _stable(change, slope, cohorts, whole, (early, late, tilt), alpha)
    row["same_share"] = row["stable"] is False and _same_share(row["early"], row["steady"], alpha)
    return _finite(row)


def _stable(
    change: Estimate | None, slope: Estimate | None, cohorts: Sequence[Cohort], whole: Cohort,
    columns: tuple[Quotient, Quotient, Quotient], alpha: float,
) -> bool | None:  # fmt: skip
    """Whether neither test finds a change; both look at the same units, so they are judged together."""
    pvalues = [of.pvalue for of in (change, slope) if of is not None and of.pvalue is not None]
    if not pvalues or change is None or slope is None or len(pvalues) < 2:
        return pvalues[0] >= alpha if pvalues else None
    alike = shared_variance(cohorts, whole, *columns) / (change.se * slope.se)
    return smaller_of_two((pvalues[0], pvalues[1]), min(max(alike, -1.0), 1.0)) >= alpha


def _same_share(early: Mapping[str, Any], late: Mapping[str, Any], alpha: float) -> bool:
    """Whether the relative effects agree: visitors who come less often lose some of any effect, but not its share.

    The two are of the same units, so that taking them as independent is on the safe side of saying that they differ.
    """
    both = [log_effect(of, alpha=alpha) for of in (early, late)]
    if both[0] is None or both[1] is None:
        return False
    gap = estimate(both[1].value - both[0].value, math.hypot(both[0].se, both[1].se), alpha=alpha)
    return gap.pvalue is not None and gap.pvalue >= alpha


def _cohorts(
    ages: Ages, early: Quotient, late: Quotient, control: str, variant: str, alpha: float
) -> list[dict[str, Any]]:
    rows = []
    for entered, of in ages.cohorts:
        both = [_compared(of, quotient, control, variant, alpha) for quotient in (early, late)]
        if both[0] is not None and both[1] is not None:
            n = of[control].n + of[variant].n
            rows.append({"entered": entered, "n": n, "early": _numbers(both[0]), "late": _numbers(both[1])})
    return rows


def _compared(
    variants: Mapping[str, Moments], quotient: Quotient, control: str, variant: str, alpha: float
) -> Effect | None:
    if control not in variants or variant not in variants:
        return None
    try:
        return effect(*(sample(variants[name], quotient) for name in (control, variant)), alpha=alpha)
    except StatisticsError:
        return None


def _numbers(of: Effect) -> dict[str, Any]:
    return {
        "effect_size": of.effect_size, "effect_size_ci": of.effect_size_ci, "rel_effect_size": of.rel_effect_size,
        "rel_effect_size_ci": of.rel_effect_size_ci, "pvalue": of.pvalue,
    }  # fmt: skip


def _finite(row: dict[str, Any]) -> dict[str, Any]:
    """Without degrees of freedom, which are infinite where a normal interval was taken."""
    for name in ("late_minus_early", "trend"):
        if row[name] is not None:
            row[name].pop("df")
    return row
