"""Do two experiments that share units disturb each other? Then neither's effect is what it would be alone."""

from collections.abc import Mapping

from thinslice.errors import StatisticsError
from thinslice.experiments.evidence import treatments
from thinslice.experiments.health import ALARM
from thinslice.records import Check, Experiment, Metric
from thinslice.stats import Moments, Quotient, Sample, interaction, sample

FEWEST = 100
"""A cell (a variant of one within a variant of the other) needs so many units before anything is said."""


def goal_of(experiment: Experiment) -> Metric | None:
    """The metric that the experiment is about."""
    return next((metric for metric in experiment.metrics if metric.role == "goal"), None)


def interaction_check(
    experiment: Experiment, other: Experiment, cells: Mapping[str, Mapping[str, Moments]]
) -> Check | None:
    """Whether the effect on the goal depends on where a unit is in another experiment; None with too few units.

    Args:
        experiment: Whose effect.
        other: Another experiment that ran at the same time on the same kind of unit.
        cells: Variant of the other → variant of this one → moments of the units that are in both.

    Source: `thinslice.stats.interaction`, Welch's difference of differences.
    """
    metric = goal_of(experiment)
    kept = [name for name in _control_first(other) if name in cells and _large(cells[name], experiment)]
    if metric is None or len(kept) < 2:
        return None
    worst: tuple[float, float, str] | None = None
    for variant in treatments(experiment):
        pairs = []
        for name in kept:
            control, treatment = (
                _sample(cells[name][side], metric) for side in (experiment.control_name, variant.name)
            )
            if control is None or treatment is None:
                break
            pairs.append((control, treatment))
        if len(pairs) < len(kept):
            continue
        found = interaction(pairs)
        if found.pvalue is None:
            continue
        pvalue = min(1.0, found.pvalue * len(treatments(experiment)))
        if worst is None or pvalue < worst[0]:
            effects = ", ".join(
                f"{treatment.mean - control.mean:+.4g} in {name}"
                for name, (control, treatment) in zip(kept, pairs, strict=True)
            )
            worst = pvalue, found.statistic, f"the effect of {variant.name} on {metric.name} is {effects}"
    if worst is None:
        return None
    pvalue, statistic, words = worst
    passed = pvalue >= ALARM
    detail = f"beside {other.name}: {words}"
    advice = ""
    if not passed:
        detail += ". They disturb each other"
        advice = "Put both into one layer, so that no unit is in both."
    return Check(
        name=f"interaction_{other.name}", passed=passed, statistic=statistic, pvalue=pvalue, detail=detail,
        advice=advice,
    )  # fmt: skip


def _control_first(other: Experiment) -> list[str]:
    names = [each.name for each in other.variants if each.weight > 0]
    return sorted(names, key=lambda name: name != other.control_name)


def _large(cell: Mapping[str, Moments], experiment: Experiment) -> bool:
    names = [experiment.control_name, *(each.name for each in treatments(experiment))]
    return all(name in cell and cell[name].n >= FEWEST for name in names)


def _sample(of: Moments, metric: Metric) -> Sample | None:
    try:
        return sample(of, Quotient(metric.numerator, metric.denominator))
    except StatisticsError:
        return None
