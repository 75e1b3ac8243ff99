"""What to do: ship, keep control, stop, extend, or nothing at all because the test is not valid; one sentence."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from thinslice.experiments.checks import BIASING_CHECKS, HARD_CHECKS
from thinslice.experiments.evidence import treatments
from thinslice.experiments.readings import read
from thinslice.experiments.segments import Harmed
from thinslice.experiments.wording import change_in_words, interval_in_words, percent, times_in_words
from thinslice.records import Check, Decision, Experiment, MetricResult

_GATES = ("goal", "driver", "guardrail")


class _Verdict(NamedTuple):
    action: str
    variant: str
    sentence: str
    reasons: list[str]


class Doubts(NamedTuple):
    """What speaks against taking effects at their word, besides the checks.

    Attributes:
        alpha: The alpha of this look.
        harmed: Large segments that a treatment harms, the worst first.
        novelty: How the goal's effect goes with time, as in the report.
        foreign_lessons: The largest share of a model's training rows that another variant caused.
        explorers: Variants that try what they do not know yet.
        look: Which of how many planned looks this is; None without a plan.
    """

    alpha: float
    harmed: Sequence[Harmed] = ()
    novelty: Mapping[str, Any] = {}
    foreign_lessons: float = 0.0
    explorers: frozenset[str] = frozenset()
    look: tuple[int, int] | None = None


def has_ended(experiment: Experiment, now: datetime) -> bool:
    """Whether the planned end has passed; data without a plan is complete, a started test without an end is not."""
    if experiment.ends_at is not None:
        return now >= experiment.ends_at
    if experiment.started_at is not None:
        return experiment.stopped_at is not None and now >= experiment.stopped_at
    return True


def decide(
    experiment: Experiment, checks: Sequence[Check], results: Sequence[MetricResult], now: datetime,
    doubts: Doubts | None = None,
) -> Decision:  # fmt: skip
    """The decision of a report.

    A failed check that matters is `invalid`, and so is an experiment in which a variant explores and another learned
    from what it found: then even the sign can be wrong. Before the planned end, or the last planned look, everything
    else is `extend`. After it, a treatment ships when the goal is better (Holm-corrected over treatments), every
    guardrail is better or not worse, nothing reads worse, no large segment is harmed, and an effect that changes with
    time is still better once it is steady. A goal that is worse stops the treatment, one that is not worse keeps
    control, and one of which nothing can be said asks for more units. What was stopped before its planned end decides
    nothing, and where a check of `BIASING_CHECKS` failed the sentence names it.

    Source: Schultzberg, Ankargren and Frånberg, Risk-aware product decisions in A/B tests (arXiv 2402.11609).
    """
    doubts = doubts or Doubts(experiment.alpha)
    harvested = doubts.foreign_lessons > 0 and bool(doubts.explorers)
    hard = HARD_CHECKS | {"contamination"} if harvested else HARD_CHECKS
    broken = [check for check in checks if not check.passed and check.name in hard]
    warnings = [f"{check.name}: {check.detail}" for check in checks if not check.passed and check not in broken]
    if broken:
        sentence = f"Invalid, do not read the effects: {broken[0].name} failed ({_failed(broken[0])})."
        return Decision(
            action="invalid",
            variant=None,
            sentence=sentence,
            reasons=[f"{check.name}: {check.detail}" for check in broken] + warnings,
        )
    verdicts = [_lasting(_judge(variant.name, experiment, results, doubts), experiment, doubts)
                for variant in treatments(experiment)]  # fmt: skip
    is_last = doubts.look is None or doubts.look[0] == doubts.look[1]
    if not (has_ended(experiment, now) and is_last):
        return Decision(
            action="extend", variant=None, sentence=_waiting(experiment, results, now, doubts),
            reasons=[reason for verdict in verdicts for reason in verdict.reasons] + warnings,
        )  # fmt: skip
    order = ("ship", "extend", "keep", "stop")
    best = min(verdicts, key=lambda verdict: (order.index(verdict.action), -_goal_change(verdict.variant, results)))
    chosen = {"ship": best.variant, "extend": None}.get(best.action, experiment.control_name)
    reasons = [reason for verdict in verdicts for reason in verdict.reasons] + warnings
    moved = [check.name for check in checks if not check.passed and check.name in BIASING_CHECKS]
    but = f" Read first why {' and '.join(moved)} failed: the effect may be another one." if moved else ""
    return Decision(action=best.action, variant=chosen, sentence=best.sentence + but, reasons=reasons)


def _lasting(verdict: _Verdict, experiment: Experiment, doubts: Doubts) -> _Verdict:
    """The same verdict when the effect is stable; else it says so, and what is left decides."""
    found = next((row for row in doubts.novelty.get("variants", []) if row["variant"] == verdict.variant), None)
    if found is None or found["stable"] or "steady" not in found:
        return verdict
    goal = next(metric for metric in experiment.metrics if metric.role == "goal")
    steady, early = found["steady"], found["early"]
    ci = steady["rel_effect_size_ci"] or steady["effect_size_ci"]
    if ci is None:
        late = f"no unit did anything from day {doubts.novelty['late_from']} on"
        return verdict._replace(
            reasons=[*verdict.reasons, f"{verdict.variant}: one cannot say whether it lasts, {late}"]
        )
    if found["stable"] is None:
        return verdict
    words = (
        f"{goal.name} changed by {_size(early)} in the first {doubts.novelty['early_days']} days of a unit and by "
        f"{_size(steady)} from day {doubts.novelty['late_from']} on ({interval_in_words(steady['rel_effect_size_ci'])})"
    )
    if found["same_share"]:
        why = f"{words}: less is done later, the effect on it is not shown to be another one"
        return verdict._replace(reasons=[*verdict.reasons, f"{verdict.variant}: {why}"])
    left = read(ci, margin=goal.margin, direction=goal.direction)
    reasons = [*verdict.reasons, f"{verdict.variant}: the effect is not stable, {words}"]
    if verdict.action == "ship" and left != "better":
        sentence = f"Extend, do not ship yet: the effect is not stable, {words}."
        return _Verdict("extend", verdict.variant, sentence, reasons)
    if verdict.action == "stop" and left != "worse":
        sentence = f"Extend, do not stop yet: the effect is not stable, {words}."
        return _Verdict("extend", verdict.variant, sentence, reasons)
    return verdict._replace(sentence=f"{verdict.sentence} The effect is not stable: {words}.", reasons=reasons)


def _size(of: Mapping[str, Any]) -> str:
    return f"{of['effect_size']:+.4g}" if of["rel_effect_size"] is None else percent(of["rel_effect_size"])


def _judge(variant: str, experiment: Experiment, results: Sequence[MetricResult], doubts: Doubts) -> _Verdict:
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
    if (goal.pvalue_adjusted or 0.0) > doubts.alpha:
        sentence = f"Extend, do not ship yet: {what}, not enough for one winner among several variants."
        return _Verdict("extend", variant, sentence, reasons)
    worse = [row for row in rows if row.reading == "worse"]
    if worse:
        sentence = f"Keep {control}: {what}, but {change_in_words(worse[0])}."
        return _Verdict("keep", variant, sentence, reasons)
    harmed = [of for of in doubts.harmed if of.variant == variant]
    reasons += [f"{variant}: {of.words}" for of in harmed]
    if harmed:
        return _Verdict("keep", variant, f"Keep {control}: {what}, but {harmed[0].words}.", reasons)
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


def _waiting(experiment: Experiment, results: Sequence[MetricResult], now: datetime, doubts: Doubts) -> str:
    goals = [row for row in results if row.role == "goal" and row.effect_size is not None]
    so_far = "; ".join(f"{row.variant}: {change_in_words(row)}" for row in goals) or "too few units to compare yet"
    if has_ended(experiment, now) and doubts.look is not None:
        return f"Extend: this is look {doubts.look[0]} of {doubts.look[1]} that were planned; so far {so_far}."
    if experiment.ends_at is None:
        return f"Extend: no end is planned; so far {so_far}."
    if experiment.stopped_at is not None and now >= experiment.stopped_at:
        left = times_in_words(max(experiment.ends_at - experiment.stopped_at, timedelta(0)))
        return f"Nothing is decided: it was stopped {left} before its planned end; by then {so_far}."
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
