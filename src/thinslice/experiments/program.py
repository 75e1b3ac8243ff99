"""All experiments together: what was shipped brought in all, whether a holdout agrees, whether offline foretold it."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from thinslice.errors import TooFewUnits
from thinslice.experiments.wording import interval_in_words, percent
from thinslice.stats import Agreement, Cumulative, Estimate, agreement, cumulative, estimate, partial_sum

SHIPPED = "ship"
"""The action of a decision after which everybody got the treatment."""


class Outcome(NamedTuple):
    """One treatment of one experiment that has ended, in one metric.

    Attributes:
        experiment: Its name.
        variant: The treatment.
        shipped: Whether it went to everybody.
        effect: log(1 + relative change): such effects add up.
        foretold: log of the offline figure of the treatment's policy over that of control's, before the start; None
            where nobody measured it.
        in_holdout: The share of the holdout's time, 0..1, in which it was shipped: 0 when that was before the holdout.
        again: The same effect in a backtest, after the decision; None without one.
        lasts: Whether both agree.
    """

    experiment: str
    variant: str
    shipped: bool
    effect: Estimate
    foretold: float | None = None
    in_holdout: float = 1.0
    again: Estimate | None = None
    lasts: Agreement | None = None


class Foretold(NamedTuple):
    """Offline predictions beside online effects.

    Attributes:
        n: How many treatments have both, and an offline change.
        same_sign: The share of them whose signs agree; None without any.
        slope: Online effect per offline change, through zero, weighted by how well each is known; None when offline
            figures did not differ.
    """

    n: int
    same_sign: float | None
    slope: Estimate | None


class Program(NamedTuple):
    """What a team's experiments brought, all of them.

    Attributes:
        metric: In which it is counted.
        outcomes: Every treatment that ended, oldest first.
        cumulative: The hierarchical model of them all; None while nothing was shipped.
        holdout: The same in one number: shipped against a holdout that got nothing, as log(1 + change).
        expected: What the holdout should show: each shipped effect for the share of its time that it saw it.
        agreement: Whether that and the holdout agree.
        foretold: Offline beside online.
    """

    metric: str
    outcomes: list[Outcome]
    cumulative: Cumulative | None
    holdout: Estimate | None
    expected: Estimate | None
    agreement: Agreement | None
    foretold: Foretold


def log_effect(row: Mapping[str, Any], *, alpha: float = 0.05) -> Estimate | None:
    """A metric of a report as log(1 + change) with its standard error; None where the interval has an open end.

    The relative interval of two positive means is symmetric on this scale, so nothing is lost.

    Args:
        row: With `rel_effect_size` and `rel_effect_size_ci`; `direction` down turns the sign, so that up is good.
        alpha: One minus the confidence of that interval.

    >>> round(log_effect({"rel_effect_size": 0.0, "rel_effect_size_ci": [-0.1, 1 / 9]}).value, 9)
    0.0
    """
    change, bounds = row.get("rel_effect_size"), row.get("rel_effect_size_ci")
    if change is None or bounds is None or None in bounds or min(change, *bounds) <= -1:
        return None
    sign = -1.0 if row.get("direction") == "down" else 1.0
    low, high = (math.log1p(end) for end in bounds)
    wide = estimate(0.0, 1.0, alpha=alpha).ci
    half = 1.0 if wide is None or wide[1] is None else wide[1]
    se = (high - low) / (2 * half)
    return estimate(sign * math.log1p(change), se, alpha=alpha) if se > 0 else None


def program(metric: str, outcomes: Sequence[Outcome], *, holdout: Estimate | None = None) -> Program:
    """What all experiments brought together in one metric.

    Of one experiment at most one treatment is shipped; the others are among the outcomes all the same, since the model
    has to see what luck looks like.

    Source: `thinslice.stats.cumulative`; the holdout: GrowthBook and Eppo measure a control of equal size, too.
    """
    found, expected, same = None, None, None
    values, ses = [each.effect.value for each in outcomes], [each.effect.se for each in outcomes]
    if any(outcome.shipped for outcome in outcomes):
        found = cumulative(
            values, ses, [each.shipped for each in outcomes]
        )  # fmt: skip
    seen = [each.in_holdout * each.shipped for each in outcomes]
    if holdout is not None and holdout.se > 0 and any(seen):
        expected = partial_sum(values, ses, seen)
        same = agreement(expected, holdout)
    checked = [_checked(each) for each in outcomes]
    return Program(metric, checked, found, holdout, expected, same, foretold(outcomes))


def _checked(outcome: Outcome) -> Outcome:
    """The outcome with the question answered whether a backtest agrees."""
    if outcome.again is None or outcome.again.se <= 0:
        return outcome
    return outcome._replace(lasts=agreement(outcome.effect, outcome.again))


def foretold(outcomes: Sequence[Outcome]) -> Foretold:
    """How well offline figures foretold the online effects."""
    both = [each for each in outcomes if each.foretold is not None]
    if not both:
        return Foretold(0, None, None)
    x = np.array([each.foretold for each in both], dtype=np.float64)
    y = np.array([each.effect.value for each in both])
    weight = np.array([each.effect.se for each in both]) ** -2.0
    information = float(weight @ x**2)
    slope = None
    if information > 0:
        slope = estimate(float(weight @ (x * y)) / information, information**-0.5)
    told = x != 0  # no offline change foretells no sign
    same = float((np.sign(x[told]) == np.sign(y[told])).mean()) if told.any() else None
    return Foretold(int(told.sum()), same, slope)


def sentence(of: Program) -> str:
    """The program in one sentence, for people.

    Raises:
        TooFewUnits: No experiment has ended with an effect in this metric.
    """
    if not of.outcomes:
        raise TooFewUnits(needed=1, got=0, what=f"experiments that ended with an effect in {of.metric}")
    if of.cumulative is None:
        return f"{len(of.outcomes)} treatments ended and none was shipped: nothing changed in {of.metric}."
    total, naive = of.cumulative.total, of.cumulative.naive
    said = (
        f"{of.cumulative.shipped} of {len(of.outcomes)} treatments were shipped; together they changed {of.metric} by "
        f"{percent(math.expm1(total.value))} ({interval_in_words(as_change(total))}). Their reports add up to "
        f"{percent(math.expm1(naive.value))}, which counts luck too."
    )
    if of.holdout is None or of.agreement is None or of.expected is None:
        return said
    word = "agrees" if of.agreement.agrees else "does not agree"
    change, wanted = (percent(math.expm1(each.value)) for each in (of.holdout, of.expected))
    return (
        f"{said} The holdout {word}: it shows {change} ({interval_in_words(as_change(of.holdout))}) where {wanted} is "
        "expected of what was shipped while it ran."
    )


def as_change(of: Estimate) -> tuple[float | None, float | None] | None:
    """The interval of a log effect as relative changes."""
    if of.ci is None:
        return None
    low, high = (None if end is None else math.expm1(end) for end in of.ci)
    return low, high
