"""Before an experiment runs: what its traffic can show in how many days, learned from the tenant's own past."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from thinslice.errors import StatisticsError
from thinslice.experiments.evidence import WEIGHT
from thinslice.experiments.wording import percent
from thinslice.records import Experiment, Metric
from thinslice.stats import (
    Quotient,
    Sample,
    days_needed,
    moments,
    obrien_fleming_looks,
    pooled_cap,
    quantile_sample,
    sample,
    smallest_effect,
    smallest_margin,
    units_needed,
    winsorize,
)

LONGEST_DAYS = 365
"""What takes longer cannot be shown with this traffic: shops change within a year."""

PAST = "past_"
"""Before the name of a column: the same, counted in the days before the unit came."""


class History(NamedTuple):
    """What would have been counted, had an experiment of one variant run over the last days.

    Attributes:
        columns: Metric columns, shape (units,) each; `past_…` likewise where a covariate was asked for; `unit_weight`
            (visitors of each) where rows are clusters or blocks.
        new_units: Shape (days,), how many units came for the first time on each day, oldest first.
    """

    columns: Mapping[str, NDArray[np.float64]]
    new_units: Sequence[float]


class DesignRow(msgspec.Struct, frozen=True, kw_only=True):
    """What one metric of one treatment can show; shares are relative to the mean, None where there is none.

    `mde` is the smallest change that `days` show with the wanted power; `wanted` is the one that the file asks for, and
    `days_for_wanted` how long that takes (None: over a year). `provable_margin` is the smallest "not worse by more
    than" that `days` prove when nothing changes; `days_for_margin` how long the file's `margin` takes. `variance_left`
    is the share of the variance that CUPED leaves.
    """

    metric: str
    role: str
    variant: str
    mean: float | None
    mde: float | None
    wanted: float | None
    days_for_wanted: int | None
    margin: float | None
    provable_margin: float | None
    days_for_margin: int | None
    variance_left: float
    sentence: str


class Design(msgspec.Struct, frozen=True, kw_only=True):
    """What an experiment can show before it has begun; `planned_units` are those of all variants at its planned end."""

    experiment: str
    unit: str
    days: float
    history_days: int
    units: int
    units_a_day: float
    planned_units: int
    rows: list[DesignRow]
    enough: bool
    sentence: str


def design(experiment: Experiment, history: History, *, days: float | None = None) -> Design:
    """What the tenant's own traffic can show.

    The goal is planned two-sided at `alpha`, shared over the treatments (Holm's first step) and, with planned looks, as
    strict as O'Brien and Fleming's last one. Every guardrail has to be proven not worse, so the chance of each is
    1 - (1 - power) / guardrails. Values of units are those of the whole history: over much fewer days they are smaller.

    Args:
        experiment: Its metrics, variants, coverage, looks, alpha and power.
        history: Rows as the experiment's unit.
        days: How long it is to run; None is as the file says, else 14.

    Raises:
        StatisticsError: Fewer than two units came.

    Source: Schultzberg, Ankargren and Frånberg, Risk-aware product decisions in A/B tests (arXiv 2402.11609).
    """
    planned = days or experiment.days or 14.0
    sizes = {len(values) for values in history.columns.values()}
    units = max(sizes, default=0)
    if units < 2:
        raise StatisticsError(f"needs at least 2 {experiment.unit}s in the history, got {units}.")
    control = next(each for each in experiment.variants if each.name == experiment.control_name)
    treatments = [each for each in experiment.variants if each is not control and each.weight > 0]
    width = experiment.layer_range[1] - experiment.layer_range[0]
    alpha = experiment.alpha / max(len(treatments), 1)
    if experiment.looks is not None:
        looks = experiment.looks if isinstance(experiment.looks, int) else len(experiment.looks)
        alpha = obrien_fleming_looks(looks, alpha=alpha).nominal[-1]
    guardrails = sum(metric.margin is not None for metric in experiment.metrics)
    power = {True: 1 - (1 - experiment.power) / max(guardrails, 1), False: experiment.power}
    rows = []
    for metric in experiment.metrics:
        for treatment in treatments:
            both = control.weight + treatment.weight
            part = _Part(
                taken=experiment.coverage * width * both, share=treatment.weight / both, alpha=alpha,
                power=power[metric.role == "guardrail"], days=planned, new_units=list(history.new_units),
            )  # fmt: skip
            rows.append(_row(metric, treatment.name, experiment, history, part))
    enough = all(_shows(row, planned) for row in rows)
    return Design(
        experiment=experiment.name, unit=experiment.unit, days=planned, history_days=len(history.new_units),
        units=units, units_a_day=float(sum(history.new_units)) / max(len(history.new_units), 1),
        planned_units=planned_units(experiment, history.new_units, planned), rows=rows,
        enough=enough, sentence=_summary(rows, planned),
    )  # fmt: skip


def planned_units(experiment: Experiment, new_units: Sequence[float], days: float | None = None) -> int:
    r"""How many units, of all variants together, will have come at the planned end: what sequences are tuned to.

    Args:
        experiment: Its coverage, layer and days.
        new_units: Units that came for the first time on each day of the past, oldest first; its last week goes on.
        days: How long it runs; None is as the file says, else 14.

    >>> from thinslice.experiments import parse_experiment
    >>> text = 'name = "a"\ncoverage = 0.5\nvariants = [{name = "x", policy = "p"}, {name = "y", policy = "q"}]'
    >>> planned_units(parse_experiment(text, "shop"), [100.0] * 7, 10)
    500
    """
    planned = days or experiment.days or 14.0
    width = experiment.layer_range[1] - experiment.layer_range[0]
    weight = sum(variant.weight for variant in experiment.variants)
    return round(arrivals(new_units, planned) * experiment.coverage * width * weight)


def arrivals(new_units: Sequence[float], days: float) -> float:
    """Units that come in so many days: as in the past, and beyond it as in its last week."""
    whole = int(days)
    known = list(new_units[:whole])
    pace = sum(new_units[-7:]) / max(len(new_units[-7:]), 1)
    return sum(known) + pace * max(0.0, days - len(known))


class _Part(NamedTuple):
    """Of all units, those of control and one treatment: how many, dealt out how, judged how strictly."""

    taken: float
    share: float
    alpha: float
    power: float
    days: float
    new_units: list[float]

    def units(self) -> float:
        """Units of both after the planned days; beyond the history its last week goes on."""
        return self.taken * arrivals(self.new_units, self.days)

    def until(self, needed: float) -> int | None:
        """Days until so many units of both are there; None beyond a year."""
        day = days_needed(needed / self.taken, self.new_units)
        return day if day is not None and day <= LONGEST_DAYS else None


def _row(metric: Metric, variant: str, experiment: Experiment, history: History, part: _Part) -> DesignRow:
    empty = DesignRow(
        metric=metric.name, role=metric.role, variant=variant, mean=None, mde=None, wanted=metric.mde,
        days_for_wanted=None, margin=metric.margin, provable_margin=None, days_for_margin=None, variance_left=1.0,
        sentence="",
    )  # fmt: skip
    try:
        plain, adjusted = _baselines(metric, experiment, history)
    except StatisticsError as error:
        return msgspec.structs.replace(empty, sentence=f"{metric.name}: {error}")
    if plain.var <= 0 or plain.mean == 0:
        words = "is zero for every unit" if plain.mean == 0 else "does not vary"
        return msgspec.structs.replace(
            empty, mean=plain.mean, sentence=f"{metric.name} {words} in the history, so nothing can be planned by it."
        )
    scale, total = abs(plain.mean), part.units()
    how = {"alpha": part.alpha, "power": part.power, "share": part.share}
    mde = margin = wanted_days = margin_days = None
    if total >= 4:
        mde = smallest_effect(adjusted, total, **how) / scale
        margin = smallest_margin(adjusted, total, **how)
    if metric.mde is not None:
        wanted_days = part.until(units_needed(adjusted, metric.mde * scale, **how))
    if metric.margin is not None:
        margin_days = part.until(units_needed(adjusted, 0.0, margin=metric.margin, **how))
    row = msgspec.structs.replace(
        empty, mean=plain.mean, mde=mde, days_for_wanted=wanted_days, provable_margin=margin,
        days_for_margin=margin_days, variance_left=adjusted.var / plain.var,
    )  # fmt: skip
    return msgspec.structs.replace(row, sentence=_sentence(row, part.days))


def _baselines(metric: Metric, experiment: Experiment, history: History) -> tuple[Sample, Sample]:
    """The metric as it is now, and with its own past taken off (CUPED) where the file asks for that."""
    columns = dict(history.columns)
    if metric.quantile is not None:
        of = quantile_sample(columns[metric.numerator], metric.quantile)
        return of, of
    cap = metric.cap
    if metric.cap_quantile is not None:
        cap = pooled_cap(columns[metric.numerator], metric.cap_quantile)
    if cap is not None:
        columns[metric.numerator] = winsorize(columns[metric.numerator], cap)
    per = metric.denominator or (WEIGHT if WEIGHT in columns else None)
    names = [name for name in (metric.numerator, metric.denominator, WEIGHT) if name in columns]
    past = [f"{PAST}{name}" for name in (metric.numerator, metric.denominator) if f"{PAST}{name}" in columns]
    of_all = moments({name: columns[name] for name in dict.fromkeys([*names, *past])})
    quotient = Quotient(metric.numerator, per)
    plain = sample(of_all, quotient)
    if experiment.covariate_days is None or not past:
        return plain, plain
    before = Quotient(past[0], past[1] if metric.denominator and len(past) > 1 else None)
    try:
        return plain, sample(of_all, quotient, covariate=before, pooled=of_all)
    except StatisticsError:
        return plain, plain  # nobody has a past: nothing is taken off


def _shows(row: DesignRow, days: float) -> bool:
    """Whether a row's questions are answered in time."""
    if row.mean is None or row.mde is None:
        return False
    asked = [
        (row.wanted is not None, row.days_for_wanted),
        (row.margin is not None, row.days_for_margin),
    ]
    return all(day is not None and day <= days for has, day in asked if has)


def _sentence(row: DesignRow, days: float) -> str:
    parts = []
    if row.wanted is not None:
        takes = f"takes {row.days_for_wanted} days" if row.days_for_wanted else "would take more than a year"
        parts.append(f"a change of {percent(row.wanted, signed=False)} {takes}")
    if row.margin is not None:
        takes = f"takes {row.days_for_margin} days" if row.days_for_margin else "would take more than a year"
        parts.append(f"to prove it not worse by {percent(row.margin, signed=False)} {takes}")
    if row.mde is None:
        parts.append(f"{days:g} days bring too few units to compare")
    elif not parts:
        parts.append(f"{days:g} days show changes from {percent(row.mde, signed=False)} on")
    return f"{row.metric}: {'; '.join(parts)}."


def _summary(rows: Sequence[DesignRow], days: float) -> str:
    goal = next((row for row in rows if row.role == "goal"), None)
    if goal is None or goal.mde is None:
        return "Nothing can be planned: " + (goal.sentence if goal is not None else "there is no goal.")
    asked = [
        day
        for row in rows
        for has, day in ((row.wanted, row.days_for_wanted), (row.margin, row.days_for_margin))
        if has
    ]
    if any(day is None for day in asked):
        short = next(
            row for row in rows
            if (row.wanted and row.days_for_wanted is None) or (row.margin and row.days_for_margin is None)
        )  # fmt: skip
        return (
            f"This traffic cannot show it: {short.sentence.removesuffix('.')}. Take more traffic, a larger change, a "
            "wider margin, a metric that varies less, or its own past as a covariate (covariate_days)."
        )
    longest = max((day for day in asked if day is not None), default=0)
    if longest > days:
        return f"Too short: it takes {longest} days, {days:g} are planned."
    seen = percent(goal.mde, signed=False)
    return f"{days:g} days are enough: {goal.metric} shows changes from {seen} on with the wanted power."
