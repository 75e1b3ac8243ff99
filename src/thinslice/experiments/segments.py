"""Effects within segments: pulled together as far as noise explains, tested for being different, the worst named."""

import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import Any, NamedTuple

import msgspec

from thinslice.experiments.block_effects import UNITS_OF, moves_segment
from thinslice.experiments.compare import compare, look_alpha
from thinslice.experiments.evidence import Evidence
from thinslice.experiments.health import odd_segments
from thinslice.experiments.wording import percent
from thinslice.records import Experiment
from thinslice.stats import Blocks, Estimate, benjamini_hochberg, heterogeneity, holm, shrink

LARGE = 0.1
"""A segment value with this share of the units counts in the decision."""


MOVED_ALPHA = 0.001
"""A segment of a switchback is left out when the treatment changes its size with a smaller p-value."""


class Harmed(NamedTuple):
    """A large segment that a treatment harms.

    Attributes:
        variant: Whose treatment.
        words: Which metric, where, and by how much.
    """

    variant: str
    words: str


def segment_rows(evidence: Evidence, experiment: Experiment) -> list[dict[str, Any]]:
    """Effects within every value of every segment that was known before the exposure.

    A segment that depends on the variant is left out: it is a result, not a cause. P-values are corrected by Holm over
    all segments of a metric (`pvalue_adjusted`) and by Benjamini and Hochberg over everything (`pvalue_bh`);
    `shrunken_rel_effect_size` is what to believe of each, given the others.
    """
    odd = odd_segments(evidence, experiment)
    rows = _block_rows(evidence, experiment)
    for segment, values in evidence.segments.items():
        if segment in odd:
            continue
        for value, variants in values.items():
            share = sum(of.n for of in variants.values()) / max(sum(of.n for of in evidence.variants.values()), 1)
            where = {"segment": segment, "value": value, "share": share}
            rows += [where | msgspec.to_builtins(row) for row in compare(variants, experiment, evidence)]
    for name in dict.fromkeys(row["name"] for row in rows):
        group = [row for row in rows if row["name"] == name]
        for row, pvalue in zip(group, holm([row["pvalue"] for row in group]), strict=True):
            row["pvalue_adjusted"] = pvalue
    for row, pvalue in zip(rows, benjamini_hochberg([row["pvalue"] for row in rows]), strict=True):
        row["pvalue_bh"] = pvalue
        row |= {"shrunken_rel_effect_size": None, "shrunken_rel_effect_size_ci": None}
    alpha = look_alpha(experiment, evidence)
    for group in _groups(rows):
        for row, of in zip(group, shrink(*_measured(group, alpha), alpha=experiment.alpha), strict=True):
            row["shrunken_rel_effect_size"] = math.expm1(of.value)
            row["shrunken_rel_effect_size_ci"] = _turned(of)
    return rows


def heterogeneity_rows(rows: Sequence[dict[str, Any]], alpha: float) -> list[dict[str, Any]]:
    """Per metric, treatment and segment: do the values differ more than noise explains? Cochran's Q on the log scale.

    Args:
        rows: From `segment_rows`.
        alpha: One minus the confidence of their intervals.
    """
    found = []
    for group in _groups(rows):
        got = heterogeneity(*_measured(group, alpha))
        found.append(
            {
                "name": group[0]["name"],
                "variant": group[0]["variant"],
                "segment": group[0]["segment"],
                "statistic": got.statistic,
                "df": got.df,
                "pvalue": got.pvalue,
                "i_squared": got.i_squared,
                "tau": got.tau,
            }
        )
    for row, pvalue in zip(found, benjamini_hochberg([row["pvalue"] for row in found]), strict=True):
        row["pvalue_bh"] = pvalue
    return found


def harmed_segments(rows: Sequence[dict[str, Any]], experiment: Experiment) -> list[Harmed]:
    """Large segments in which a guardrail falls beyond its margin, or a goal or driver falls, after shrinking.

    The whole shrunken interval has to lie on the wrong side of zero, and a guardrail's estimate beyond its margin.
    """
    found: list[tuple[float, Harmed]] = []
    for row in rows:
        ci, change = row["shrunken_rel_effect_size_ci"], row["shrunken_rel_effect_size"]
        if ci is None or row["role"] == "diagnostic" or row["share"] < LARGE:
            continue
        sign = 1 if row["direction"] == "up" else -1
        worst_end = ci[1] if sign > 0 else ci[0]
        margin = row["margin"] or 0.0
        if sign * worst_end < 0 and sign * change < -margin and (row["pvalue_adjusted"] or 0.0) < experiment.alpha:
            words = (
                f"{row['name']} changed by {percent(change)} where {row['segment']} is {row['value']} "
                f"({percent(row['share'], signed=False)} of the units)"
            )
            found.append((sign * change, Harmed(row["variant"], words)))
    return [harmed for _, harmed in sorted(found, key=lambda pair: pair[0])]


def _block_rows(evidence: Evidence, experiment: Experiment) -> list[dict[str, Any]]:
    """A switchback's effects within segments; a quantile is of all of them together."""
    rows = []
    averages = msgspec.structs.replace(
        experiment, metrics=[metric for metric in experiment.metrics if metric.quantile is None]
    )
    for segment, values in evidence.block_segments.items():
        if moves_segment(evidence, segment, MOVED_ALPHA / len(evidence.block_segments)):
            continue
        units = {value: _units_of(of) for value, of in values.items()}
        for value, of in values.items():
            where = {"segment": segment, "value": value, "share": units[value] / max(sum(units.values()), 1.0)}
            part = evidence._replace(blocks=of)
            rows += [where | msgspec.to_builtins(row) for row in compare({}, averages, part, whole=True)]
    return rows


def _units_of(by_metric: Mapping[str, Mapping[str, Blocks]]) -> float:
    """Units of a segment's value: those of control count once for each treatment, and so do all values' alike."""
    return sum(float(of.numerator.sum()) for of in by_metric[UNITS_OF].values())


def _groups(rows: Sequence[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Rows of one metric, treatment and segment that have a relative interval with two ends."""
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for row in rows:
        ci = row["rel_effect_size_ci"]
        if ci is not None and None not in ci and ci[0] > -1 and ci[1] > ci[0]:
            groups.setdefault((row["name"], row["variant"], row["segment"]), []).append(row)
    return list(groups.values())


def _measured(group: Sequence[dict[str, Any]], alpha: float) -> tuple[list[float], list[float]]:
    """Effects and standard errors on the log scale, from the relative intervals."""
    changes = [math.log1p(row["rel_effect_size"]) for row in group]
    widths = [math.log1p(row["rel_effect_size_ci"][1]) - math.log1p(row["rel_effect_size_ci"][0]) for row in group]
    quantile = NormalDist().inv_cdf(1 - alpha / 2)
    return changes, [width / (2 * quantile) for width in widths]


def _turned(of: Estimate) -> list[float | None] | None:
    if of.ci is None:
        return None
    return [None if end is None else math.expm1(end) for end in of.ci]
