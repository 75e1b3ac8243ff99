"""What to do: ship, keep control, stop, extend, or nothing at all because the test is not valid; one sentence."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from thinslice.experiments.checks import HARD_CHECKS
from thinslice.experiments.evidence import treatments
from thinslice.experiments.wording import change_in_words, percent, times_in_words
from thinslice.records import Check, Decision, Experiment, MetricResult

_GATES = ("goal", "driver", "guardrail")


class _Verdict(NamedTuple):
    action: str
    variant: str
    sentence: str
    reasons: list[str]


def has_ended(experiment: Experiment, now: datetime) -> bool:
    """Whether the planned end has passed; data without a plan is complete, a started test without an end is not."""
    if experiment.ends_at is not None:
        return now >= experiment.ends_at
    if experiment.started_at is not None:
        return experiment.stopped_at is not None and now >= experiment.stopped_at
    return True


def decide(experiment: Experiment, checks: Sequence[Check], results: Sequence[MetricResult], now: datetime) -> Decision:
    """The decision of a report.

    A failed check that matters is `invalid`; before the planned end everything else is `extend`. After it, a treatment
    ships when the goal is better (Holm-corrected over treatments), every guardrail is better or not worse, and nothing
    reads worse. A goal that is worse stops the treatment, one that is not worse keeps control, and one of which nothing
    can be said asks for more units.

    Source: Schultzberg, Ankargren and Frånberg, Risk-aware product decisions in A/B tests (arXiv 2402.11609).
    """
    broken = [check for check in checks if not check.passed and check.name in HARD_CHECKS]
    warnings = [f"{check.name}: {check.detail}" for check in checks if not check.passed and check not in broken]
    if broken:
        sentence = f"Invalid, do not read the effects: {broken[0].name} failed ({_failed(broken[0])})."
        return Decision(
            action="invalid",
            variant=None,
            sentence=sentence,
            reasons=[f"{check.name}: {check.detail}" for check in broken] + warnings,
        )
    verdicts = [_judge(variant.name, experiment, results) for variant in treatments(experiment)]
    if not has_ended(experiment, now):
        return Decision(
            action="extend", variant=None, sentence=_waiting(experiment, results, now),
            reasons=[reason for verdict in verdicts for reason in verdict.reasons] + warnings,
        )  # fmt: skip
    order = ("ship", "extend", "keep", "stop")
    best = min(verdicts, key=lambda verdict: (order.index(verdict.action), -_goal_change(verdict.variant, results)))
    chosen = {"ship": best.variant, "extend": None}.get(best.action, experiment.control_name)
    reasons = [reason for verdict in verdicts for reason in verdict.reasons] + warnings
    return Decision(action=best.action, variant=chosen, sentence=best.sentence, reasons=reasons)


def _judge(variant: str, experiment: Experiment, results: Sequence[MetricResult]) -> _Verdict:
    rows = [row for row in results if row.variant == variant and row.role in _GATES]
    goal = next((row for row in rows if row.role == "goal"), None)
    reasons = [f"{variant}: {change_in_words(row)}, {_reading(row)}" for row in rows]
    control = experiment.control_name
    if goal is None or goal.effect_size is None:
        why = f"{goal.name} cannot be compared: {goal.why}" if goal and goal.why else f"too few units in {variant}"
        return _Verdict("extend", variant, f"Extend, nothing to tell {variant} from {control} by: {why}.", reasons)
    what = change_in_words(goal)
    if goal.reading == "worse":
        return _Verdict("stop", variant, f"Stop {variant} and keep {control}: {what}.", reasons)
    if goal.reading == "not_worse":
        sentence = f"Keep {control}: {variant} is not worse but not shown to be better; {what}."
        return _Verdict("keep", variant, sentence, reasons)
    if goal.reading == "cannot_say":
        sentence = f"Extend, do not ship yet: one cannot say whether {variant} helps; {what}."
        return _Verdict("extend", variant, sentence, reasons)
    if (goal.pvalue_adjusted or 0.0) > experiment.alpha:
        sentence = f"Extend, do not ship yet: {what}, not enough for one winner among several variants."
        return _Verdict("extend", variant, sentence, reasons)
    worse = [row for row in rows if row.reading == "worse"]
    if worse:
        sentence = f"Keep {control}: {what}, but {change_in_words(worse[0])}."
        return _Verdict("keep", variant, sentence, reasons)
    open_guards = [row for row in rows if row.role == "guardrail" and row.reading == "cannot_say"]
    if open_guards:
        sentence = (
            f"Extend, do not ship yet: {what}, but whether {open_guards[0].name} stays within its margin of "
            f"{percent(open_guards[0].margin or 0.0, signed=False)} is open."
        )
        return _Verdict("extend", variant, sentence, reasons)
    guards = sum(row.role == "guardrail" for row in rows)
    kept = {0: "", 1: ", and its guardrail held"}.get(guards, f", and all {guards} guardrails held")
    return _Verdict("ship", variant, f"Ship {variant}: {what}{kept}.", reasons)


def _waiting(experiment: Experiment, results: Sequence[MetricResult], now: datetime) -> str:
    goals = [row for row in results if row.role == "goal" and row.effect_size is not None]
    so_far = "; ".join(f"{row.variant}: {change_in_words(row)}" for row in goals) or "too few units to compare yet"
    if experiment.ends_at is None:
        return f"Extend: no end is planned; so far {so_far}."
    left = times_in_words(max(experiment.ends_at - now, timedelta(0)))
    return f"Extend: {left} to go until the planned end; so far {so_far}."


def _failed(check: Check) -> str:
    chance = "" if check.pvalue is None else f"; p = {check.pvalue:.2g}"
    return f"{check.detail}{chance}"


def _reading(row: MetricResult) -> str:
    margin = "" if row.margin is None else f" (margin {percent(row.margin, signed=False)})"
    return row.reading.replace("_", " ") + margin


def _goal_change(variant: str, results: Sequence[MetricResult]) -> float:
    goal = next((row for row in results if row.variant == variant and row.role == "goal"), None)
    if goal is None or goal.effect_size is None:
        return 0.0
    return goal.effect_size if goal.direction == "up" else -goal.effect_size
