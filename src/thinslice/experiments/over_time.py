"""Does the effect change as the experiment goes on? A ranker that starts cold loses first and wins later."""

import math

from thinslice.errors import StatisticsError
from thinslice.experiments.evidence import Daily, Evidence, treatments
from thinslice.experiments.health import ALARM
from thinslice.experiments.interactions import goal_of
from thinslice.experiments.sharing import daily_quotient
from thinslice.experiments.wording import interval_in_words, percent
from thinslice.records import Check, Experiment, Metric
from thinslice.stats import DayTrend, Estimate, Interval, day_trend, holm, sample

FEWEST_DAYS = 6
"""So many days with results in both variants are needed: fewer hold no early and late."""

SURE = 0.5
"""A day counts from this relative standard error of a variant's mean on: where it is larger, the day says nothing."""

CHANGES = (
    "The effect over all days is neither that of the first nor that of the last ones. If a model started cold, warm it "
    "up before the test by shadow serving, or start a new test now that it has learned; if it is a novelty, decide by "
    "the effect from day 7 on."
)


def effect_over_time(evidence: Evidence, experiment: Experiment) -> Check | None:
    """Whether the goal's effect goes up or down with the days of the calendar (Holm over treatments).

    The effect is that of the models which were live: if one of two equal rankers found something good in the second
    week, its effect did change. None with fewer than six days, where probabilities changed while it ran, and for
    quantiles.
    """
    metric = goal_of(experiment)
    if metric is None or metric.quantile is not None or evidence.weighted:
        return None
    found: list[tuple[str, DayTrend]] = []
    pvalues: list[float | None] = []
    for variant in treatments(experiment):
        trend = _trend(evidence, metric, experiment.control_name, variant.name)
        if trend is not None and trend.slope.pvalue is not None:
            found.append((variant.name, trend))
            pvalues.append(trend.slope.pvalue)
    if not found:
        return None
    adjusted = [1.0 if p is None else p for p in holm(pvalues)]
    worst = min(range(len(found)), key=lambda at: adjusted[at])
    name, trend = found[worst]
    passed = adjusted[worst] >= ALARM
    early, late = _size(trend.early), _size(trend.late)
    detail = f"{name} on {metric.name}: {early} over its first {trend.days} days, {late} over its last {trend.days}"
    if passed:
        detail += "; they differ by no more than chance"
    elif (trend.slope.value > 0) == (metric.direction == "up"):
        detail += ": it started worse than it is now, as a model does that starts cold"
    else:
        detail += ": it started better than it is now, as something does that is only new"
    return Check(
        name="effect_over_time", passed=passed, statistic=trend.slope.value / trend.slope.se, pvalue=adjusted[worst],
        detail=detail, advice="" if passed else CHANGES,
    )  # fmt: skip


def _trend(evidence: Evidence, metric: Metric, control: str, variant: str) -> DayTrend | None:
    rows = [row for row in (_of_day(day, metric, control, variant) for day in evidence.daily) if row is not None]
    if len(rows) < FEWEST_DAYS:
        return None
    try:
        return day_trend([row[0] for row in rows], [row[1] for row in rows], [row[2] for row in rows])
    except StatisticsError:
        return None


def _of_day(day: Daily, metric: Metric, control: str, variant: str) -> tuple[int, float, float] | None:
    """Day, the logarithm of treatment over control, and its variance; None where a side is too small to say."""
    if not {control, variant} <= set(day.variants):
        return None
    try:
        sides = [sample(day.variants[name], daily_quotient(metric)) for name in (control, variant)]
    except StatisticsError:
        return None
    if min(side.mean for side in sides) <= 0:
        return None
    variances = [side.var / side.n / side.mean**2 for side in sides]
    if not sum(variances) > 0 or max(variances) > SURE**2:
        return None
    return day.day, math.log(sides[1].mean / sides[0].mean), sum(variances)


def _size(of: Estimate) -> str:
    ends: Interval | None = None
    if of.ci is not None:
        low, high = of.ci
        ends = (None if low is None else math.expm1(low), None if high is None else math.expm1(high))
    return f"{percent(math.expm1(of.value))} ({interval_in_words(ends)})"
