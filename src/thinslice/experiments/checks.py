"""Is the experiment healthy? When a check that matters fails, no effect is believed."""

from collections.abc import Sequence

import msgspec

from thinslice.experiments.evidence import Evidence
from thinslice.experiments.health import (
    bots_by_variant,
    causes,
    contamination,
    covariate_balance,
    duplicate_exposures,
    log_loss_by_segment,
    missing_exposures,
    sample_ratio_by_day,
    sample_ratio_by_segment,
    sample_ratio_over_time,
    segments_before_exposure,
    unknown_segments,
)
from thinslice.experiments.over_time import effect_over_time
from thinslice.experiments.placements import cannibalization
from thinslice.experiments.rare import rare_outcomes
from thinslice.experiments.sharing import control_over_ramp, own_against_pooled, spillover_check
from thinslice.records import Check, Experiment
from thinslice.stats import logged_ratio

SAMPLE_RATIO_ALPHA = 0.001
"""The split passes from this p-value on; small, since the check is looked at again and again."""

HARD_CHECKS = frozenset({"sample_ratio", "mixed_assignment", "sample_ratio_over_time", "sample_ratio_by_segment"})
"""Checks without which the decision is `invalid`; the others warn."""

BIASING_CHECKS = frozenset({"spillover", "own_against_pooled", "control_over_ramp", "effect_over_time"})
"""Where these fail the effect may be another one than the figures say: the decision names them."""


def check_all(evidence: Evidence, experiment: Experiment) -> list[Check]:
    """Every check of an experiment that is measured from the lake; one without data to test is left out."""
    found = [
        sample_ratio(evidence, experiment),
        mixed_assignment(evidence, experiment),
        duplicate_exposures(evidence),
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
        log_loss_by_segment(evidence, experiment),
        bots_by_variant(evidence, experiment),
        unknown_segments(evidence, experiment),
        rare_outcomes(evidence, experiment),
        cannibalization(evidence, experiment),
        *evidence.findings,
    ]
    return _advised(found, evidence, experiment)


def check_file(evidence: Evidence, experiment: Experiment) -> list[Check]:
    """Every check of an experiment that ran elsewhere: nobody knows how it trained or what was not logged."""
    found = [
        sample_ratio(evidence, experiment),
        mixed_assignment(evidence, experiment),
        control_over_ramp(evidence, experiment),
        effect_over_time(evidence, experiment),
        sample_ratio_over_time(evidence, experiment),
        sample_ratio_by_day(evidence, experiment),
        segments_before_exposure(evidence, experiment),
        covariate_balance(evidence, experiment),
        *evidence.findings,
    ]
    return _advised(found, evidence, experiment)


ADVICE = {
    "sample_ratio": "Units of one variant are lost or counted twice; no effect can be read until that is mended. "
    "Look in this order: the assignment (a cache, a redirect), what is logged (a slower page, an error, an empty "
    "slate), what is filtered (a bot rule that sees the variant), new weights without a new version.",
    "sample_ratio_over_time": "See what was released or changed on that day, mend it, and start anew: what was lost "
    "before cannot be won back.",
    "sample_ratio_by_day": "Compare releases and outages of that day, and start anew where it is not the only one.",
    "sample_ratio_by_segment": "Find why that browser, device or place loses units of one variant, mend it, and start "
    "anew.",
    "mixed_assignment": "A unit has to see one variant: make ids last (a login, cookies), keep weights sticky, and ask "
    "every page for the same unit. Units in two variants are left out of the effects.",
    "duplicate_exposures": "Slates are sent or stored twice: one recommendation_id for each request, sent once.",
    "isolated_training": 'Set training = "isolated" and start anew: one variant lives on what the other finds.',
    "contamination": 'Train each variant on its own sessions (training = "isolated") and start anew.',
    "covariate_balance": "Look at the sample ratio and at what is left out first; adjusting by the past (CUPED) does "
    "not mend an assignment that is not random.",
    "missing_exposures": "Open that variant's page in the browsers that visitors have: is it slower, does the tag "
    "report view_item_list there too?",
    "log_loss_by_segment": "Open that variant's page there: is it slower, does the tag report view_item_list too? What "
    "is reported (clicks) is lost with it, so read no effect of that segment.",
    "bots_by_variant": "Tell bots by what is known before the slate (the user agent), not by what they did with it.",
    "segments_before_exposure": "Take a segment that was known before the assignment.",
    "missing_days": "Bring the rows of those days, or end the report before them.",
    "outcomes_before_exposure": "Join what units did to their exposures by time, the exposure first.",
    "cannibalization": "The goal counts the whole page already: ship for what the page gains, not the shelf.",
}
"""What to do where a check failed that does not say so itself."""

MIXED_BLOCKS = (
    "All slates of a block of time have to come from one variant: look for a cache that outlives the switch, clocks "
    "that differ, or a switch that came late. Blocks with two variants are left out of the effects."
)
"""The same for a switchback, where a block was in two variants."""


def _advised(found: Sequence[Check | None], evidence: Evidence, experiment: Experiment) -> list[Check]:
    """The checks that there are; those that failed say what to do, and a broken split where most of it lies."""
    checks = []
    for check in found:
        if check is None:
            continue
        advice = check.advice
        if not check.passed and not advice:
            advice = ADVICE.get(check.name, "")
            lies = causes(evidence, experiment) if check.name == "sample_ratio" else ""
            advice = f"Most of it lies in {lies}. {advice}" if lies else advice
        checks.append(check if advice == check.advice else msgspec.structs.replace(check, advice=advice))
    return checks


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


def mixed_assignment(evidence: Evidence, experiment: Experiment) -> Check:
    """No unit may be seen in two variants; in a switchback, no block of time."""
    mixed, total = evidence.mixed_units, evidence.mixed_units + sum(evidence.units.values())
    what, did = ("block", "held") if experiment.unit == "block" else ("unit", "were seen in")
    detail = f"{mixed:,} of {total:,} {what}s {did} more than one variant" if mixed else f"no {what} in two variants"
    return Check(
        name="mixed_assignment", passed=mixed == 0, statistic=float(mixed), pvalue=None, detail=detail,
        advice=MIXED_BLOCKS if mixed and what == "block" else "",
    )  # fmt: skip


def isolated_training(experiment: Experiment) -> Check:
    """Each variant should learn from its own sessions only; when it does not, the effect can have the wrong sign."""
    isolated = experiment.training == "isolated"
    learns = experiment.coverage * min(variant.weight for variant in experiment.variants if variant.weight > 0)
    detail = (
        f"each variant learns from its own sessions, {learns:.0%} of all: the effect is that of models that learn from "
        "so much, and with all of it a model that explores gains more"
        if isolated
        else "variants learn from each other's sessions: the effect may be too small or have the wrong sign"
    )
    return Check(name="isolated_training", passed=isolated, statistic=None, pvalue=None, detail=detail)
