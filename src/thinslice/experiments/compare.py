"""Every metric of every treatment against control, by the method that the design asks for."""

from collections.abc import Callable, Mapping

import msgspec

from thinslice.errors import StatisticsError
from thinslice.experiments.block_effects import block_result
from thinslice.experiments.evidence import WEIGHT, Evidence, column_of, treatments
from thinslice.experiments.rare import FEWEST, worth
from thinslice.experiments.readings import read
from thinslice.records import Experiment, Metric, MetricResult
from thinslice.stats import (
    Effect,
    Interval,
    Moments,
    Quotient,
    Sample,
    adaptive_scores,
    always_valid_alpha,
    always_valid_half_width,
    benjamini_hochberg,
    effect,
    holm,
    merge,
    obrien_fleming_looks,
    paired_effect,
    sample,
    score_column,
)

TUNED_FOR = 5_000
"""The always-valid interval is narrowest at so many units, where no number of units was planned."""

Effects = Callable[[float], Effect]
"""The effect with intervals of one minus alpha."""


def look_alpha(experiment: Experiment, evidence: Evidence) -> float:
    """The alpha of this look's own interval: the experiment's, or less when several looks were planned."""
    if evidence.look is None:
        return experiment.alpha
    return obrien_fleming_looks(evidence.look.of, alpha=experiment.alpha).nominal[evidence.look.number - 1]


def method_of(experiment: Experiment, evidence: Evidence) -> str:
    """How effects are estimated, in words."""
    if evidence.blocks:
        return "switchback: blocks of time, re-randomization"
    parts = ["clusters: t, clusters - 2 degrees of freedom"] if evidence.clusters else []
    if evidence.cells:
        parts.append("AIPW by logged probabilities")
    elif evidence.weighted:
        parts.append("IPW by logged probabilities")
    if evidence.covariate or evidence.pasts:
        parts.append("CUPED")
    if any(metric.cap is not None for metric in experiment.metrics):
        parts.append("capped sums")
    return ", ".join(parts) or "Welch"


def compare(
    variants: Mapping[str, Moments], experiment: Experiment, evidence: Evidence, *, whole: bool = False
) -> list[MetricResult]:
    """Every metric of every treatment against control; what cannot be computed is None, never guessed.

    Args:
        variants: Variant → moments, of all units or of some.
        experiment: Whose metrics.
        evidence: How units were assigned.
        whole: These are all units, so what is known of them alone (scores, quantiles, blocks) counts.
    """
    alpha = look_alpha(experiment, evidence)
    rows = []
    for metric in experiment.metrics:
        if metric.quantile is not None and not whole:
            continue
        group = [
            _result(metric, variant.name, variants, experiment, evidence, alpha, whole)
            for variant in treatments(experiment)
        ]
        adjusted = holm([row.pvalue for row in group])
        rows += [
            msgspec.structs.replace(row, pvalue_adjusted=pvalue) for row, pvalue in zip(group, adjusted, strict=True)
        ]
    discovered = benjamini_hochberg([row.pvalue for row in rows])
    return [msgspec.structs.replace(row, pvalue_bh=pvalue) for row, pvalue in zip(rows, discovered, strict=True)]


def _result(
    metric: Metric, variant: str, variants: Mapping[str, Moments], experiment: Experiment, evidence: Evidence,
    alpha: float, whole: bool,
) -> MetricResult:  # fmt: skip
    empty = _empty(metric, variant, variants, experiment)
    if whole and evidence.blocks:
        return block_result(empty, evidence, metric.quantile, alpha)
    if not (empty.n_control and empty.n_treatment):
        missing = variant if empty.n_control else experiment.control_name
        return msgspec.structs.replace(empty, why=f"{missing} has no unit yet")
    try:
        effects = _effects(metric, variant, variants, experiment, evidence, whole)
        got = effects(alpha)
    except StatisticsError as error:
        return msgspec.structs.replace(empty, why=str(error).removesuffix("."))
    n = empty.n_control + empty.n_treatment
    sides = sum(each.weight for each in experiment.variants if each.name in (experiment.control_name, variant))
    tuned_for = round(evidence.planned_units * sides) or TUNED_FOR
    always, always_relative = None, None
    if got.effect_size_ci is not None:
        half = always_valid_half_width(got.se, n, alpha=experiment.alpha, tuned_for=tuned_for)
        always = (got.effect_size - half, got.effect_size + half)
        always_relative = effects(always_valid_alpha(n, alpha=experiment.alpha, tuned_for=tuned_for)).rel_effect_size_ci
    return msgspec.structs.replace(
        empty,
        mean_control=got.mean_control, mean_treatment=got.mean_treatment, effect_size=got.effect_size,
        effect_size_ci=got.effect_size_ci, rel_effect_size=got.rel_effect_size,
        rel_effect_size_ci=got.rel_effect_size_ci, pvalue=got.pvalue, always_valid_ci=always,
        always_valid_rel_ci=always_relative, reading=reading_of(got.effect_size_ci, got.rel_effect_size_ci, metric),
        why="" if got.effect_size_ci is not None else f"all units have the same {metric.name} within their variant",
    )  # fmt: skip


def _empty(metric: Metric, variant: str, variants: Mapping[str, Moments], experiment: Experiment) -> MetricResult:
    control, treatment = variants.get(experiment.control_name), variants.get(variant)
    n_control, n_treatment = (0 if of is None else of.n for of in (control, treatment))
    return MetricResult(
        name=metric.name, role=metric.role, variant=variant, n_control=n_control, n_treatment=n_treatment,
        mean_control=None, mean_treatment=None, effect_size=None, effect_size_ci=None, rel_effect_size=None,
        rel_effect_size_ci=None, pvalue=None, margin=metric.margin, direction=metric.direction,
    )  # fmt: skip


def _effects(
    metric: Metric,
    variant: str,
    variants: Mapping[str, Moments],
    experiment: Experiment,
    evidence: Evidence,
    whole: bool,
) -> Effects:
    """The effect as a function of alpha: quantiles, scores under logged probabilities, or two samples.

    Raises:
        StatisticsError: It cannot be computed; the message says why.
    """
    control = experiment.control_name
    if metric.quantile is not None:
        return _of_samples(
            [evidence.quantiles[metric.name][name] for name in (control, variant)], (control, variant), None
        )
    if whole and evidence.cells:
        return _of_scores(metric, variant, experiment, evidence)
    unit = WEIGHT if evidence.weighted or evidence.clusters else None
    quotient = Quotient(column_of(metric), metric.denominator or unit)
    before = evidence.pasts.get(metric.numerator, evidence.covariate)
    covariate = Quotient(before, unit) if before else None
    pooled = merge([of for of in variants.values() if of.n]) if covariate else None
    samples: list[Sample | str] = []
    for name in (control, variant):
        try:
            samples.append(sample(variants[name], quotient, covariate=covariate, pooled=pooled))
        except StatisticsError as error:
            samples.append(str(error))
    df = float(variants[control].n + variants[variant].n - 2) if evidence.clusters else None
    return _of_samples(samples, (control, variant), df)


def _of_samples(samples: list[Sample | str], names: tuple[str, str], df: float | None) -> Effects:
    found = []
    for name, of in zip(names, samples, strict=True):
        if isinstance(of, str):
            raise StatisticsError(f"{name}: {of}")
        found.append(of)
    return lambda alpha: effect(found[0], found[1], alpha=alpha, df=df)


def _of_scores(metric: Metric, variant: str, experiment: Experiment, evidence: Evidence) -> Effects:
    """Augmented inverse propensity weighting: what earlier batches expect of a unit, corrected by what it did."""
    column, names = column_of(metric), (experiment.control_name, variant)
    columns = [column] if metric.denominator is None else list(dict.fromkeys([column, metric.denominator]))
    least = min(worth(evidence.cells, column, names).values(), default=FEWEST)
    if least < FEWEST:
        raise StatisticsError(
            f"{metric.name} is known as well as {least:.1f} units that do it would tell it; where weights changed an "
            f"interval needs {FEWEST:g} of them in each variant"
        )
    before = evidence.pasts.get(metric.numerator, evidence.covariate)
    scores = adaptive_scores(evidence.cells, columns, names, covariate=before)
    sides = [
        Quotient(
            score_column(column, name), None if metric.denominator is None else score_column(metric.denominator, name)
        )
        for name in names
    ]
    return lambda alpha: paired_effect(scores, sides[0], sides[1], alpha=alpha)


def reading_of(absolute: Interval | None, relative: Interval | None, metric: Metric) -> str:
    """By the relative interval; where there is none (a control mean of zero), by the absolute one and no margin."""
    if relative is not None:
        return read(relative, margin=metric.margin, direction=metric.direction)
    return read(absolute, direction=metric.direction)
