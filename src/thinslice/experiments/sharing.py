"""Do variants share something: what models learn from, a stock, or each other? Then an ordinary test misleads."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from thinslice.errors import StatisticsError
from thinslice.experiments.evidence import Daily, Evidence, Spillover, column_of, treatments
from thinslice.experiments.health import ALARM
from thinslice.experiments.interactions import goal_of
from thinslice.experiments.wording import interval_in_words, percent
from thinslice.records import Check, Experiment, Metric
from thinslice.stats import (
    Estimate,
    Interval,
    Moments,
    Quotient,
    Sample,
    Stage,
    day_mean,
    holm,
    interaction,
    merge,
    ramp,
    sample,
    share_step,
    spillover,
)

FEWEST = 100
"""So many control units with neighbors are needed before anything is said."""

FEWEST_A_DAY = 10
"""A day counts from so many units of each side on."""

FEWEST_DAYS = 3
"""Each treatment share of a ramp needs so many days."""

FEWEST_CELL_DAYS = 6
"""So many days with own and pooled cells are needed."""

DAY_ALARM = 0.01
"""What compares days alarms falsely with this chance at most: how alike days are is itself estimated from few days."""

SHARED_TRAINING = (
    "Keep training isolated and decide by the units that own models served. Read no test of these policies that shared "
    "its training data, and none that would."
)
SHARED_SOMETHING = (
    "Control is no fixed measure while treatment grows: what treatment does reaches it, through shared training data, "
    "a shared stock or neighbors (or something else changed on the day of the ramp). Isolate training; where units "
    'meet, take unit = "cluster" or "block", and trust days with one and the same share only.'
)
ISOLATED_RAMP = (
    "Training is isolated, and fewer sessions to learn from would move control the other way: so it is a shared stock, "
    "neighbors, a model that learned from another variant after all, or something else that changed on the day of the "
    "ramp. Read the days after the last ramp."
)
NEIGHBORS = (
    "Units change each other's outcomes, so this difference is not what everybody in treatment would bring. Randomize "
    'who meets as a whole: unit = "cluster" (a city, a school, item-graph, people-graph), or unit = "block" where all '
    "share one stock."
)


def own_against_pooled(evidence: Evidence, experiment: Experiment) -> Check | None:
    """Whether shared training would move the effect: own-trained against pooled-trained cells of every variant.

    Each variant is served in part by models that learned from its own sessions and in part by models that learned from
    everybody's; the difference of the two effects, day by day, is what shared training does. What a ranker happened to
    find moves days together, so days are what is tested. None without such cells.

    Source: `thinslice.stats.interaction`, Welch's difference of differences; errors: `thinslice.stats.day_levels`.
    """
    metric, control = goal_of(experiment), experiment.control_name
    if metric is None or metric.quantile is not None:
        return None
    found: list[tuple[Estimate, float, str]] = []
    for variant in treatments(experiment):
        rows = [(day.day, _cells(day, control, variant.name, metric)) for day in evidence.daily]
        days = [(day, cells) for day, cells in rows if cells is not None]
        if len(days) < FEWEST_CELL_DAYS:
            continue
        moved = [interaction(cells).differences[0] for _, cells in days]
        try:
            whole = day_mean([day for day, _ in days], [of.value for of in moved], [of.se**2 for of in moved])
        except StatisticsError:
            continue
        if whole.pvalue is None:
            continue
        means = np.array([[[of.mean for of in pair] for pair in cells] for _, cells in days]).mean(axis=0)
        level = float(means[0, 0])
        own, pooled = (_size(float(pair[1] - pair[0]), level) for pair in means)
        words = (
            f"the effect of {variant.name} on {metric.name} is {own} where models learned from the variant's own "
            f"sessions and {pooled} where they learned from everybody's: sharing moves it by "
            f"{_with_interval(whole.value, whole.ci, level)}"
        )
        found.append((whole, level, words))
    if not found:
        return None
    adjusted = [1.0 if p is None else p for p in holm([of.pvalue for of, _, _ in found])]
    worst = int(np.argmin(adjusted))
    whole, _, words = found[worst]
    passed = adjusted[worst] >= DAY_ALARM
    return Check(
        name="own_against_pooled", passed=passed, statistic=whole.value / whole.se, pvalue=adjusted[worst],
        detail=f"{words}, which is no more than chance" if passed else words,
        advice="" if passed else SHARED_TRAINING, estimate=whole.value, interval=whole.ci,
    )  # fmt: skip


def control_over_ramp(evidence: Evidence, experiment: Experiment) -> Check | None:
    """Whether control's level follows the treatments' share of the traffic, the days before the start included.

    Days are compared. Where training is shared, an effect that is sure of its sign at one share and of the other sign
    at another fails, too; isolated rankers turn an effect around by learning (`effect_over_time` tells that). And they
    do worse while they learn from fewer sessions, so there only what goes the other way counts: control above the days
    before the start, when it learned from all, or below the first stages, when it learned from the fewest. None where
    the share was always the same, and for clusters.
    """
    metric, control = goal_of(experiment), experiment.control_name
    if metric is None or metric.quantile is not None or evidence.clusters:
        return None
    days = [day for day in evidence.daily if day.share is not None and _large(day.variants.get(control))]
    quotient = daily_quotient(metric)
    found = _step(days, control, quotient)
    if found is None:
        return None
    step, level, shares = found
    days = [day for day in days if day.share in shares]
    odd = step.pvalue is not None and step.pvalue < DAY_ALARM
    if experiment.training == "isolated":
        better = 1.0 if metric.direction == "up" else -1.0
        odd = odd and (shares[0] == 0) == (step.value * better > 0)
        later = _step([day for day in days if day.share], control, quotient) if shares[0] == 0 and not odd else None
        if later is not None and (later[0].pvalue or 0.0) < DAY_ALARM and later[0].value * better < 0:
            odd, (step, level, shares) = True, later
    turned = "" if experiment.training == "isolated" else _turned(days, shares, experiment, quotient)
    few, many = (percent(share, signed=False) if share else "none" for share in (shares[0], shares[-1]))
    passed = not odd and not turned
    detail = (
        f"control's {metric.name} while treatments had {many} of the traffic, against the days when they had {few}: "
        f"{_with_interval(step.value, step.ci, level)}"
    )
    if passed and step.pvalue is not None and step.pvalue < DAY_ALARM:
        detail += ", as models do that learn from fewer sessions"
    elif passed:
        detail += ", which is no more than days differ anyway"
    advice = ISOLATED_RAMP if experiment.training == "isolated" else SHARED_SOMETHING
    return Check(
        name="control_over_ramp", passed=passed, statistic=step.value / step.se, pvalue=step.pvalue,
        detail=f"{detail}{turned}", advice="" if passed else advice, estimate=step.value, interval=step.ci,
    )  # fmt: skip


def _step(days: Sequence[Daily], control: str, quotient: Quotient) -> tuple[Estimate, float, list[float]] | None:
    """Control at the largest treatment share against the smallest, its level at the smallest, and those shares."""
    shares = sorted({day.share for day in days if day.share is not None})
    shares = [share for share in shares if sum(day.share == share for day in days) >= FEWEST_DAYS]
    days = [day for day in days if day.share in shares]
    if len(shares) < 2:
        return None
    try:
        levels = [sample(day.variants[control], quotient) for day in days]
        step = share_step(
            [day.day for day in days], [of.mean for of in levels], [of.var / of.n for of in levels],
            [day.share or 0.0 for day in days],
        )  # fmt: skip
    except StatisticsError:
        return None
    if step.pvalue is None:
        return None
    level = float(np.mean([of.mean for day, of in zip(days, levels, strict=True) if day.share == shares[0]]))
    return step, level, shares


def spillover_check(evidence: Evidence, experiment: Experiment) -> Check | None:
    """Whether control's units do something else where more of their neighbors got a treatment; None without neighbors.

    Corrected by Holm over the kinds of neighbors.
    """
    metric = goal_of(experiment)
    found = [of for of in evidence.spillovers if of.slope.pvalue is not None and of.units >= FEWEST]
    if metric is None or not found:
        return None
    adjusted = [1.0 if p is None else p for p in holm([of.slope.pvalue for of in found])]
    worst = int(np.argmin(adjusted))
    of, pvalue = found[worst], adjusted[worst]
    passed = pvalue >= ALARM
    detail = (
        f"{of.units:,} units of control have neighbors ({of.neighbors}); where all of them and not none got a "
        f"treatment, control's {metric.name} differs by {_with_interval(of.slope.value, of.slope.ci, of.level)}"
    )
    if passed:
        detail += ", which is no more than chance"
    return Check(
        name="spillover", passed=passed, statistic=of.slope.value / of.slope.se, pvalue=pvalue, detail=detail,
        advice="" if passed else NEIGHBORS, estimate=of.slope.value, interval=of.slope.ci,
    )  # fmt: skip


def spillover_of(
    neighbors: str, outcome: ArrayLike, share: ArrayLike, cluster: ArrayLike, *, below: ArrayLike | None = None
) -> Spillover | None:
    """How control's units answer to treated neighbors, with errors that hold for units that belong together.

    Args:
        neighbors: Who is a neighbor, as it stands in a sentence.
        outcome: Shape (units,), the goal's column of control units with a neighbor.
        share: Shape (units,), the share of each unit's neighbors that got a treatment.
        cluster: Shape (units,), which units belong together.
        below: Shape (units,), the denominator's column, where the goal is a ratio.

    Returns:
        None where nothing can be compared.
    """
    y = np.asarray(outcome, dtype=np.float64)
    if not y.size:
        return None
    level = float(y.mean())
    if below is not None:
        bottom = np.asarray(below, dtype=np.float64)
        if bottom.mean() == 0:
            return None
        level /= float(bottom.mean())
        y = level + (y - level * bottom) / bottom.mean()  # the ratio's linear form: what each unit adds to it
    try:
        slope = spillover(y, share, cluster=cluster)
    except StatisticsError:
        return None
    return Spillover(neighbors, y.size, level, slope)


def daily_quotient(metric: Metric) -> Quotient:
    """The goal of one day: a ratio as it is, a mean over the units that did something on that day."""
    return Quotient(column_of(metric), metric.denominator)


def _turned(days: Sequence[Daily], shares: Sequence[float], experiment: Experiment, quotient: Quotient) -> str:
    """Words about an effect that changes its sign over a ramp; empty when none does."""
    for variant in treatments(experiment):
        stages = []
        for share in shares:
            at = [day.variants for day in days if day.share == share]
            sides = [
                _whole([of[name] for of in at if name in of and of[name].n], quotient)
                for name in (experiment.control_name, variant.name)
            ]
            if sides[0] is not None and sides[1] is not None:
                stages.append(Stage(share, sides[0], sides[1]))
        if len(stages) < 2:
            continue
        got = ramp(stages, alpha=ALARM)
        if got.turned:
            said = ", ".join(
                f"{_size(of.value, stage.control.mean)} at {percent(stage.share, signed=False)}"
                for stage, of in zip(stages, got.effects, strict=True)
            )
            return f"; the effect of {variant.name} turned around on the way ({said})"
    return ""


def _whole(of: Sequence[Moments], quotient: Quotient) -> Sample | None:
    try:
        return sample(merge(of), quotient) if of else None
    except StatisticsError:
        return None


def _cells(day: Daily, control: str, variant: str, metric: Metric) -> list[tuple[Sample, Sample]] | None:
    """(control, treatment) of own and of pooled models on one day; None where one is too small to say."""
    pairs = []
    for cells in (day.variants, day.pooled):
        if not (_large(cells.get(control)) and _large(cells.get(variant))):
            return None
        try:
            pairs.append(
                (sample(cells[control], daily_quotient(metric)), sample(cells[variant], daily_quotient(metric)))
            )
        except StatisticsError:
            return None
    return pairs if all(of.var > 0 for pair in pairs for of in pair) else None


def _large(of: Moments | None) -> bool:
    return of is not None and of.n >= FEWEST_A_DAY


def _size(value: float, level: float) -> str:
    return percent(value / level) if level > 0 else f"{value:+.4g}"


def _with_interval(value: float, ci: Interval | None, level: float) -> str:
    """A difference with its interval, relative to a level where there is one."""
    if level > 0 and math.isfinite(level):
        low, high = (None, None) if ci is None else ci
        relative = (None if low is None else low / level, None if high is None else high / level)
        return f"{percent(value / level)} ({interval_in_words(relative)})"
    ends = "no interval" if ci is None else " to ".join("without bound" if e is None else f"{e:+.4g}" for e in ci)
    return f"{value:+.4g} (95 % interval {ends})"
