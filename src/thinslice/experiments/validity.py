"""What is wrong with an experiment as it is written: one sentence for each thing that does not hold together."""

import math
import re
from collections.abc import Iterator, Sequence
from datetime import datetime

from thinslice.experiments.assign import GRAPHS
from thinslice.metrics import UNIT_COLUMNS
from thinslice.records import EVENT_NAMES, Experiment, Metric
from thinslice.settings import NAME_PATTERN

UNITS = ("visitor", "user", "session", "cluster", "block")
"""What an experiment can randomize."""

KINDS = ("test", "holdout", "backtest")
"""A test compares policies; a holdout spares some units what was shipped; a backtest takes a shipped policy back."""

ALLOCATIONS = ("fixed", "thompson")
"""Who sets the weights: the author, or the results so far."""

DEALS = ("none", "new", "all")
"""Which items are dealt out to the variants: none, those that come after the start, or all."""

TRAININGS = ("isolated", "shared")
"""Whether each variant learns from its own sessions only."""

ROLES = ("goal", "driver", "guardrail", "diagnostic")
"""What a metric is for: to be won, to explain, not to be harmed, to be looked at."""

DIRECTIONS = ("up", "down")
"""Whether more of a metric is good or bad."""

MAX_LOOKS = 1_000
"""More planned looks than that are "look whenever": leave `looks` out."""

CHANGES_BY_VISIT = frozenset({"returning", "entry_page"})
"""Segments that are another thing at a unit's next visit."""

AFTER_EXPOSURE = frozenset({*UNIT_COLUMNS, *EVENT_NAMES, "variant", "policy", "model_version", "items", "position"})
"""Names that are known only after a unit was served, or because of it: never a segment."""


def complaints(experiment: Experiment) -> Iterator[str]:
    """Everything that is wrong, the simplest first."""
    names = [variant.name for variant in experiment.variants]
    metrics = [metric.name for metric in experiment.metrics]
    policies = [variant.policy for variant in experiment.variants]
    for kind, name in [("name", experiment.name), ("tenant", experiment.tenant)]:
        yield from _bad_name(kind, name)
    groups: list[tuple[str, Sequence[str]]] = [
        ("variant", names), ("policy", policies), ("metric", metrics), ("segment", experiment.segments),
    ]  # fmt: skip
    for kind, group in groups:
        for name in group:
            yield from _bad_name(kind, name)
    if len(names) < 2:
        yield f"an experiment needs at least 2 variants, got {len(names)}."
    for kind, group in [("variant", names), ("metric", metrics), ("segment", experiment.segments)]:
        twice = sorted({name for name in group if group.count(name) > 1})
        if twice:
            yield f"{kind} {twice[0]!r} occurs twice."
    yield from _weight_complaints(experiment)
    if experiment.control_name not in names:
        yield f"control {experiment.control!r} is no variant (there is: {', '.join(names)})."
    for field, value, allowed in [
        ("unit", experiment.unit, UNITS),
        ("training", experiment.training, TRAININGS),
        ("kind", experiment.kind, KINDS),
        ("deal_items", experiment.deal_items, DEALS),
        ("allocation", experiment.allocation, ALLOCATIONS),
    ]:
        if value not in allowed:
            yield f"{field} is {value!r}; it can be {', '.join(allowed)}."
    yield from _number_complaints(experiment)
    yield from _unit_complaints(experiment)
    yield from _layer_complaints(experiment)
    yield from _time_complaints(experiment)
    yield from _look_complaints(experiment)
    yield from _adaptive_complaints(experiment)
    yield from _leaf_complaints(experiment)
    for segment in experiment.segments:
        if segment in AFTER_EXPOSURE:
            yield (
                f"segment {segment!r} is known only after the exposure, so variants can move units between its values; "
                "a segment is what was known before, such as device, returning, country or entry_page."
            )
    for metric in experiment.metrics:
        yield from _metric_complaints(metric)
    goals = sum(metric.role == "goal" for metric in experiment.metrics)
    if experiment.metrics and goals != 1:
        yield f"there are {goals} goals; an experiment has exactly one, the others are drivers or guardrails."


def _bad_name(kind: str, name: str) -> Iterator[str]:
    if not re.fullmatch(NAME_PATTERN[1:-1], name):
        yield f"{kind} {name!r} is no name: 1 to 64 of a-z, 0-9, _ and -."


def _weight_complaints(experiment: Experiment) -> Iterator[str]:
    weights = [variant.weight for variant in experiment.variants]
    for variant in experiment.variants:
        if not 0 <= variant.weight <= 1:
            yield f"the weight of {variant.name!r} is {variant.weight:g}; it is a share from 0 to 1."
    if not abs(math.fsum(weights) - 1) <= 1e-6:
        yield f"the weights sum to {math.fsum(weights):.6g}; they have to sum to 1."
    if sum(weight > 0 for weight in weights) < 2:
        yield "fewer than 2 variants have a weight above 0, so there is nothing to compare."
    forced = [unit for variant in experiment.variants for unit in variant.forced]
    twice = sorted({unit for unit in forced if forced.count(unit) > 1})
    if twice:
        yield f"unit {twice[0]!r} is forced twice; a unit sees one variant."


def _number_complaints(experiment: Experiment) -> Iterator[str]:
    if not 0 < experiment.coverage <= 1:
        yield f"coverage is {experiment.coverage:g}; it is a share above 0 and up to 1."
    if not 0 < experiment.alpha < 0.5:
        yield f"alpha is {experiment.alpha:g}; it lies between 0 and 0.5, usually 0.05."
    if not 0.5 <= experiment.power < 1:
        yield f"power is {experiment.power:g}; it lies from 0.5 to below 1, usually 0.8."
    if not 0 < experiment.shadow_share <= 1:
        yield f"shadow_share is {experiment.shadow_share:g}; it is a share of the slates, above 0 and up to 1."
    if not 0 <= experiment.pooled_share <= 0.5:
        yield f"pooled_share is {experiment.pooled_share:g}; it is a share from 0 to 0.5, since own models decide."
    compares = experiment.unit not in ("cluster", "block") and experiment.allocation == "fixed"
    if experiment.pooled_share and not (
        compares and experiment.training == "isolated" and experiment.rerandomize_days is None
    ):
        yield (
            f"pooled_share is {experiment.pooled_share:g}, but it compares models that learned apart with models that "
            'did not, unit by unit: it needs training = "isolated", fixed weights, no rerandomize_days, and a unit '
            "that is no cluster and no block."
        )
    if experiment.deal_items != "none" and experiment.training != "isolated":
        yield (
            f"deal_items is {experiment.deal_items!r}, but training is {experiment.training!r}: what one variant finds "
            'out about its items the other learns; set training = "isolated".'
        )
    if experiment.allocation_version < 1:
        yield f"allocation_version is {experiment.allocation_version}; it counts from 1."
    for field, value in [
        ("days", experiment.days),
        ("rerandomize_days", experiment.rerandomize_days),
        ("covariate_days", experiment.covariate_days),
        ("block_minutes", experiment.block_minutes),
        ("planned_units", experiment.planned_units),
    ]:
        if value is not None and not 0 < value < math.inf:
            what = "how long the experiment runs, above 0" if field == "days" else "a length above 0"
            yield f"{field} is {value:g}; it is {what}."


def _unit_complaints(experiment: Experiment) -> Iterator[str]:
    unit = experiment.unit
    if unit == "cluster" and not experiment.cluster:
        yield (
            "unit is 'cluster' but cluster is missing: the key of the request's context that names it, "
            f"or {' or '.join(GRAPHS)}."
        )
    if unit != "cluster" and experiment.cluster:
        yield f'cluster is {experiment.cluster!r}, but unit is {unit!r}; clusters need unit = "cluster".'
    if unit == "block" and experiment.block_minutes is None:
        yield "unit is 'block' but block_minutes is missing: how long one variant is on for everybody."
    if unit != "block" and experiment.block_minutes is not None:
        yield f'block_minutes is {experiment.block_minutes:g}, but unit is {unit!r}; blocks need unit = "block".'
    if unit == "block" and not 0 <= experiment.burn_in_minutes < (experiment.block_minutes or math.inf):
        yield (
            f"burn_in_minutes is {experiment.burn_in_minutes:g}; it lies from 0 to below block_minutes, "
            "and is dropped after each switch."
        )
    if unit != "block" and experiment.burn_in_minutes:
        yield f"burn_in_minutes is {experiment.burn_in_minutes:g}, but unit is {unit!r}; only blocks have a burn-in."
    if unit == "block" and experiment.coverage != 1:
        yield f"coverage is {experiment.coverage:g}, but blocks take everybody; write 1 or leave it out."
    if unit in ("session", "block") and experiment.rerandomize_days is not None:
        yield f"rerandomize_days is {experiment.rerandomize_days:g}, but each {unit} is drawn anew anyway."
    if experiment.rerandomize_days is not None and experiment.covariate_days is not None:
        yield (
            f"covariate_days is {experiment.covariate_days:g}, but units are drawn anew every "
            f"{experiment.rerandomize_days:g} days: their past is another variant's doing."
        )
    if unit in ("session", "block") and experiment.covariate_days is not None:
        yield f"covariate_days is {experiment.covariate_days:g}, but a {unit} has no past of its own."
    if experiment.kind == "backtest" and not experiment.of:
        yield "a backtest names in `of` the experiment that was decided."
    if experiment.kind != "backtest" and experiment.of:
        yield f"of is {experiment.of!r}, but only a backtest comes after another experiment."


def _layer_complaints(experiment: Experiment) -> Iterator[str]:
    low, high = experiment.layer_range
    if experiment.layer:
        yield from _bad_name("layer", experiment.layer)
    if not 0 <= low < high <= 1:
        yield f"layer_range is [{low:g}, {high:g}]; it is two shares, [0.0, 0.5] for the first half of the layer."
    if not experiment.layer and (low, high) != (0.0, 1.0):
        yield f"layer_range is [{low:g}, {high:g}], but there is no layer: name it, so that others can share it."
    if experiment.layer and experiment.unit == "block":
        yield f"layer is {experiment.layer!r}, but blocks take everybody, so they share no layer."


def _time_complaints(experiment: Experiment) -> Iterator[str]:
    times = {name: getattr(experiment, name) for name in ("shadow_at", "started_at", "ends_at", "stopped_at")}
    for name, value in times.items():
        yield from _without_zone(name, value)
    start = experiment.started_at
    if start is not None and start.tzinfo is None:
        return
    for name in ("ends_at", "stopped_at"):
        value = times[name]
        if start is not None and value is not None and value.tzinfo is not None and value < start:
            yield f"{name} ({value.isoformat()}) lies before started_at ({start.isoformat()})."


def _look_complaints(experiment: Experiment) -> Iterator[str]:
    looks = experiment.looks
    if looks is None:
        return
    if isinstance(looks, int):
        if not 1 <= looks <= MAX_LOOKS:
            yield f"looks is {looks}; it is 1 to {MAX_LOOKS:,} looks, or left out for looking whenever one likes."
        if experiment.days is None and experiment.ends_at is None:
            yield f"{looks} looks are planned, but no end: give days or ends_at."
        return
    for at in looks:
        yield from _without_zone("looks", at)
    if not looks:
        yield "looks is empty; give a number or times, or leave it out for looking whenever one likes."
    if any(at.tzinfo is None for at in looks):
        return
    if sorted(set(looks)) != looks:
        yield "the times in looks have to follow one another."
    for name, later in (("started_at", False), ("ends_at", True)):
        bound = getattr(experiment, name)
        outside = [at for at in looks if bound is not None and (at > bound if later else at <= bound)]
        if outside:
            side = "after" if later else "before"
            yield f"a look at {outside[0].isoformat()} lies {side} {name} ({bound.isoformat()})."


def _without_zone(name: str, value: datetime | None) -> Iterator[str]:
    if value is not None and value.tzinfo is None:
        yield f"{name} is {value.isoformat()} without a time zone; write {value.isoformat()}Z for UTC."


def _adaptive_complaints(experiment: Experiment) -> Iterator[str]:
    if experiment.allocation != "thompson":
        return
    most = 1 / max(len(experiment.variants), 1)
    if not 0 < experiment.allocation_floor <= most:
        yield (
            f"allocation_floor is {experiment.allocation_floor:g}; with {len(experiment.variants)} variants it lies "
            f"above 0 and up to {most:.3g}, so that no variant dies out."
        )
    if experiment.unit == "block":
        yield "allocation is 'thompson', but blocks are balanced over hours and days; take \"fixed\"."
    goal = next((metric for metric in experiment.metrics if metric.role == "goal"), None)
    if goal is not None and goal.kind == "quantile":
        yield f"allocation is 'thompson', but goal {goal.name!r} is a quantile; results steer by a mean or a ratio."


def _leaf_complaints(experiment: Experiment) -> Iterator[str]:
    if not experiment.leaves:
        return
    if experiment.allocation != "thompson":
        yield f'leaves are steered by results, but allocation is {experiment.allocation!r}; it would be "thompson".'
    if experiment.unit in ("cluster", "block"):
        yield f"leaves are {', '.join(experiment.leaves)}, but a {experiment.unit} holds units of many."
    if experiment.rerandomize_days is not None:
        yield "leaves and rerandomize_days cannot go together: a unit has one leaf for as long as it takes part."
    for name in experiment.leaves:
        yield from _bad_name("leaf", name)
        if name in AFTER_EXPOSURE or name == "placement":
            yield f"leaf {name!r} is not known of a unit before the exposure, as device or country are."
        if name in CHANGES_BY_VISIT and experiment.unit != "session":
            yield (
                f"leaf {name!r} changes from visit to visit, so a {experiment.unit} would change sides; "
                'it needs unit = "session".'
            )
        if name == "device" and experiment.unit == "user":
            yield 'a user has several devices, so the leaf \'device\' needs unit = "visitor" or "session".'
    if len(set(experiment.leaves)) < len(experiment.leaves):
        yield "a leaf occurs twice."


def _metric_complaints(metric: Metric) -> Iterator[str]:
    for field, column in [("numerator", metric.numerator), ("denominator", metric.denominator)]:
        if column is not None and column not in UNIT_COLUMNS:
            yield f"{field} {column!r} of metric {metric.name!r} is unknown (there is: {', '.join(UNIT_COLUMNS)})."
    for field, value, allowed in [("role", metric.role, ROLES), ("direction", metric.direction, DIRECTIONS)]:
        if value not in allowed:
            yield f"{field} of metric {metric.name!r} is {value!r}; it can be {', '.join(allowed)}."
    if metric.margin is not None and not 0 < metric.margin < 1:
        yield f"the margin of metric {metric.name!r} is {metric.margin:g}; it is relative, 0.02 for 2 % worse."
    if metric.role == "guardrail" and metric.margin is None:
        yield f"guardrail {metric.name!r} has no margin: how much worse would still be accepted? (0.02 for 2 %)"
    for name, share in [("quantile", metric.quantile), ("cap_quantile", metric.cap_quantile)]:
        if share is not None and not 0 < share < 1:
            yield f"the {name} of metric {metric.name!r} is {share:g}; it lies between 0 and 1, 0.99 for the 99th."
    for name, number in [("cap", metric.cap), ("mde", metric.mde)]:
        if number is not None and not 0 < number < math.inf:
            yield f"the {name} of metric {metric.name!r} is {number:g}; it is above 0."
    if metric.quantile is not None and metric.denominator is not None:
        yield f"metric {metric.name!r} has a quantile and a denominator; a quantile is of one column."
    caps = [name for name in ("cap", "cap_quantile") if getattr(metric, name) is not None]
    if len(caps) == 2:
        yield f"metric {metric.name!r} has a cap and a cap_quantile; one of them says where values are cut."
    if caps and metric.quantile is not None:
        yield f"metric {metric.name!r} has a quantile and a {caps[0]}; a quantile needs no cut."
