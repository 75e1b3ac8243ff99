"""The report of an experiment: checks, effects with intervals, readings, and what to do."""

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from thinslice.errors import StatisticsError
from thinslice.experiments.checks import check_all
from thinslice.experiments.decide import decide
from thinslice.experiments.evidence import WEIGHT, Evidence, Units, gather, treatments
from thinslice.experiments.readings import read
from thinslice.records import Check, Experiment, Metric, MetricResult, Report
from thinslice.stats import Interval, Moments, Quotient, always_valid_half_width, effect, holm, merge, sample


def analyze(units: Units, experiment: Experiment, now: datetime) -> Report:
    """The report from unit rows in memory.

    Args:
        units: One row a unit.
        experiment: Whose metrics say which columns are compared.
        now: The moment of the report, aware.
    """
    evidence = gather(units, experiment)
    return report(evidence, experiment, now, check_all(evidence, experiment))


def report(evidence: Evidence, experiment: Experiment, now: datetime, checks: Sequence[Check]) -> Report:
    """The report from sufficient statistics: every number that is shown anywhere is made here, once."""
    control = experiment.control_name
    # Rows of the statistics may be clusters; what is counted here is units.
    results = [
        msgspec.structs.replace(
            row, n_control=evidence.units.get(control, 0), n_treatment=evidence.units.get(row.variant, 0)
        )
        for row in compare(evidence.variants, experiment, evidence)
    ]
    return Report(
        experiment=experiment.name,
        control=control,
        decision=decide(experiment, checks, results, now),
        checks=list(checks),
        metrics=results,
        segments=_segments(evidence, experiment),
        cumulative=_cumulative(evidence, experiment),
        as_of=now,
        started_at=experiment.started_at,
        ends_at=experiment.ends_at,
        units=dict(evidence.units),
    )


def compare(variants: Mapping[str, Moments], experiment: Experiment, evidence: Evidence) -> list[MetricResult]:
    """Every metric of every treatment against control; what cannot be computed is None, never guessed."""
    rows = []
    for metric in experiment.metrics:
        group = [_result(metric, variant.name, variants, experiment, evidence) for variant in treatments(experiment)]
        adjusted = holm([row.pvalue for row in group])
        rows += [
            msgspec.structs.replace(row, pvalue_adjusted=pvalue) for row, pvalue in zip(group, adjusted, strict=True)
        ]
    return rows


def _result(
    metric: Metric, variant: str, variants: Mapping[str, Moments], experiment: Experiment, evidence: Evidence
) -> MetricResult:
    control, treatment = variants.get(experiment.control_name), variants.get(variant)
    n_control, n_treatment = (0 if of is None else of.n for of in (control, treatment))
    empty = MetricResult(
        name=metric.name, role=metric.role, variant=variant, n_control=n_control, n_treatment=n_treatment,
        mean_control=None, mean_treatment=None, effect_size=None, effect_size_ci=None, rel_effect_size=None,
        rel_effect_size_ci=None, pvalue=None, margin=metric.margin, direction=metric.direction,
    )  # fmt: skip
    if control is None or treatment is None or not (n_control and n_treatment):
        missing = variant if n_control else experiment.control_name
        return msgspec.structs.replace(empty, why=f"{missing} has no unit yet")
    unit = WEIGHT if evidence.weighted or evidence.clusters else None
    quotient = Quotient(metric.numerator, metric.denominator or unit)
    covariate = Quotient(evidence.covariate, unit) if evidence.covariate else None
    pooled = merge([of for of in variants.values() if of.n]) if covariate else None
    df = float(control.n + treatment.n - 2) if evidence.clusters else None
    arms = []
    for name, of in ((experiment.control_name, control), (variant, treatment)):
        try:
            arms.append(sample(of, quotient, covariate=covariate, pooled=pooled))
        except StatisticsError as error:
            return msgspec.structs.replace(empty, why=f"{name}: {error}".removesuffix("."))
    got = effect(arms[0], arms[1], alpha=experiment.alpha, df=df)
    always = None
    if got.effect_size_ci is not None:
        half = always_valid_half_width(got.se, n_control + n_treatment, alpha=experiment.alpha)
        always = (got.effect_size - half, got.effect_size + half)
    return msgspec.structs.replace(
        empty,
        mean_control=got.mean_control, mean_treatment=got.mean_treatment, effect_size=got.effect_size,
        effect_size_ci=got.effect_size_ci, rel_effect_size=got.rel_effect_size,
        rel_effect_size_ci=got.rel_effect_size_ci, pvalue=got.pvalue, always_valid_ci=always,
        reading=_reading(got.effect_size_ci, got.rel_effect_size_ci, metric),
        why="" if got.effect_size_ci is not None else f"all units have the same {metric.name} within their variant",
    )  # fmt: skip


def _reading(absolute: Interval | None, relative: Interval | None, metric: Metric) -> str:
    """By the relative interval; where there is none (a control mean of zero), by the absolute one and no margin."""
    if relative is not None:
        return read(relative, margin=metric.margin, direction=metric.direction)
    return read(absolute, direction=metric.direction)


def _segments(evidence: Evidence, experiment: Experiment) -> list[dict[str, Any]]:
    """Effects within segments; p-values corrected by Holm over all segments of a metric."""
    rows = []
    for segment, values in evidence.segments.items():
        for value, variants in values.items():
            where = {"segment": segment, "value": value}
            rows += [where | msgspec.to_builtins(row) for row in compare(variants, experiment, evidence)]
    for name in dict.fromkeys(row["name"] for row in rows):
        group = [row for row in rows if row["name"] == name]
        for row, pvalue in zip(group, holm([row["pvalue"] for row in group]), strict=True):
            row["pvalue_adjusted"] = pvalue
    return rows


def _cumulative(evidence: Evidence, experiment: Experiment) -> list[dict[str, Any]]:
    """Every metric's effect with all that was known up to a time, for a growing period."""
    fields = (
        "name", "variant", "n_control", "n_treatment", "effect_size", "effect_size_ci", "rel_effect_size",
        "rel_effect_size_ci", "always_valid_ci",
    )  # fmt: skip
    rows = []
    for until, variants in evidence.cumulative:
        moment = until.isoformat() if isinstance(until, datetime) else until
        for result in compare(variants, experiment, evidence):
            built = msgspec.to_builtins(result)
            rows.append({"until": moment, **{field: built[field] for field in fields}})
    return rows


def report_json(of: Report) -> bytes:
    """The JSON of a report, as others read it.

    Raises:
        StatisticsError: A number is NaN or infinite; a report never prints one.
    """
    built = msgspec.to_builtins(of)
    bad = _not_finite(built, "report")
    if bad:
        raise StatisticsError(f"{bad} is no finite number.")
    return msgspec.json.encode(built)


def _not_finite(value: Any, where: str) -> str | None:
    if isinstance(value, float):
        return None if math.isfinite(value) else where
    if isinstance(value, dict):
        return next((bad for key, part in value.items() if (bad := _not_finite(part, f"{where}.{key}"))), None)
    if isinstance(value, list | tuple):
        return next((bad for at, part in enumerate(value) if (bad := _not_finite(part, f"{where}[{at}]"))), None)
    return None
