"""The report of an experiment: checks, effects with intervals, readings, and what to do."""

import math
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec

from thinslice.errors import StatisticsError
from thinslice.experiments.checks import check_all
from thinslice.experiments.compare import compare, look_alpha, method_of
from thinslice.experiments.decide import Doubts, decide
from thinslice.experiments.evidence import Evidence, Units, gather
from thinslice.experiments.novelty import novelty
from thinslice.experiments.placements import placement_rows
from thinslice.experiments.segments import harmed_segments, heterogeneity_rows, segment_rows
from thinslice.records import Check, Experiment, Report


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
    alpha = look_alpha(experiment, evidence)
    # Rows of the statistics may be clusters or blocks; what is counted here is units.
    results = [
        msgspec.structs.replace(
            row, n_control=evidence.units.get(control, 0), n_treatment=evidence.units.get(row.variant, 0)
        )
        for row in compare(evidence.variants, experiment, evidence, whole=True)
    ]
    segments = segment_rows(evidence, experiment)
    lasting = novelty(evidence, experiment, alpha)
    doubts = Doubts(
        alpha=alpha,
        harmed=harmed_segments(segments, experiment),
        novelty=lasting,
        foreign_lessons=max(evidence.contamination.values(), default=0.0),
        explorers=evidence.explorers,
        look=evidence.look,
    )
    looks = {}
    if evidence.look is not None:
        looks = {"look": evidence.look.number, "of": evidence.look.of, "alpha": alpha}
    return Report(
        experiment=experiment.name,
        control=control,
        decision=decide(experiment, checks, results, now, doubts),
        checks=list(checks),
        metrics=results,
        segments=segments,
        novelty=lasting,
        cumulative=_cumulative(evidence, experiment),
        as_of=now,
        started_at=experiment.started_at,
        ends_at=experiment.ends_at,
        units=dict(evidence.units),
        heterogeneity=heterogeneity_rows(segments, alpha),
        looks=looks,
        method=method_of(experiment, evidence),
        placements=placement_rows(evidence, experiment),
    )


def _cumulative(evidence: Evidence, experiment: Experiment) -> list[dict[str, Any]]:
    """Every metric's effect with all that was known up to a time, for a growing period."""
    fields = (
        "name", "variant", "n_control", "n_treatment", "effect_size", "effect_size_ci", "rel_effect_size",
        "rel_effect_size_ci", "always_valid_ci", "always_valid_rel_ci",
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
