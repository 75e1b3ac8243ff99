"""Is the experiment healthy? When a check that matters fails, no effect is believed."""

from thinslice.experiments.evidence import Evidence
from thinslice.experiments.health import (
    bots_by_variant,
    contamination,
    covariate_balance,
    missing_exposures,
    sample_ratio_by_day,
    sample_ratio_by_segment,
    sample_ratio_over_time,
    segments_before_exposure,
)
from thinslice.experiments.over_time import effect_over_time
from thinslice.experiments.placements import cannibalization
from thinslice.experiments.sharing import control_over_ramp, own_against_pooled, spillover_check
from thinslice.records import Check, Experiment
from thinslice.stats import logged_ratio

SAMPLE_RATIO_ALPHA = 0.001
"""The split passes from this p-value on; small, since the check is looked at again and again."""

HARD_CHECKS = frozenset({"sample_ratio", "mixed_assignment", "sample_ratio_over_time", "sample_ratio_by_segment"})
"""Checks without which the decision is `invalid`; the others warn."""


def check_all(evidence: Evidence, experiment: Experiment) -> list[Check]:
    """Every check of an experiment that is measured from the lake; one without data to test is left out."""
    found = [
        sample_ratio(evidence, experiment),
        mixed_assignment(evidence),
        isolated_training(experiment),
        contamination(evidence),
        own_against_pooled(evidence, experiment),
        control_over_ramp(evidence, experiment),
        spillover_check(evidence, experiment),
        effect_over_time(evidence, experiment),
        sample_ratio_over_time(evidence, experiment),
        sample_ratio_by_day(evidence, experiment),
        sample_ratio_by_segment(evidence, experiment),
        covariate_balance(evidence, experiment),
        missing_exposures(evidence, experiment),
        bots_by_variant(evidence, experiment),
        cannibalization(evidence, experiment),
        *evidence.findings,
    ]
    return [check for check in found if check is not None]


def check_file(evidence: Evidence, experiment: Experiment) -> list[Check]:
    """Every check of an experiment that ran elsewhere: nobody knows how it trained or what was not logged."""
    found = [
        sample_ratio(evidence, experiment),
        mixed_assignment(evidence),
        control_over_ramp(evidence, experiment),
        effect_over_time(evidence, experiment),
        sample_ratio_over_time(evidence, experiment),
        sample_ratio_by_day(evidence, experiment),
        segments_before_exposure(evidence, experiment),
        covariate_balance(evidence, experiment),
        *evidence.findings,
    ]
    return [check for check in found if check is not None]


def sample_ratio(evidence: Evidence, experiment: Experiment) -> Check:
    """Units per variant against the probabilities in force when they were assigned; Pearson, no correction."""
    names = [variant.name for variant in experiment.variants]
    seen = evidence.counts.sum(axis=0)
    if seen.sum() == 0:
        return Check(name="sample_ratio", passed=True, statistic=None, pvalue=None, detail="no unit so far")
    expected = (evidence.counts.sum(axis=1) @ evidence.propensities) / seen.sum()
    got = logged_ratio(evidence.counts, evidence.propensities)
    passed = got.pvalue >= SAMPLE_RATIO_ALPHA
    parts = [
        f"{name} {int(count):,} ({count / seen.sum():.1%}, planned {share:.1%})"
        for name, count, share in zip(names, seen, expected, strict=True)
    ]
    return Check(
        name="sample_ratio", passed=passed, statistic=got.statistic, pvalue=got.pvalue, detail=", ".join(parts)
    )


def mixed_assignment(evidence: Evidence) -> Check:
    """No unit may be seen in two variants."""
    mixed, total = evidence.mixed_units, evidence.mixed_units + sum(evidence.units.values())
    detail = f"{mixed:,} of {total:,} units were seen in more than one variant" if mixed else "no unit in two variants"
    return Check(name="mixed_assignment", passed=mixed == 0, statistic=float(mixed), pvalue=None, detail=detail)


def isolated_training(experiment: Experiment) -> Check:
    """Each variant should learn from its own sessions only; when it does not, the effect can have the wrong sign."""
    isolated = experiment.training == "isolated"
    detail = (
        "each variant learns from its own sessions"
        if isolated
        else "variants learn from each other's sessions: the effect may be too small or have the wrong sign"
    )
    return Check(name="isolated_training", passed=isolated, statistic=None, pvalue=None, detail=detail)
