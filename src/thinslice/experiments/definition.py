"""An experiment's TOML file: read, checked and written back."""

import json
import math
import re
import tomllib
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import msgspec

from thinslice.errors import BadSettings
from thinslice.metrics import DEFAULT_METRICS, METRICS, UNIT_COLUMNS
from thinslice.records import Experiment, Metric, Variant
from thinslice.settings import NAME_PATTERN

UNITS = ("visitor", "session", "user")
"""What an experiment can randomize."""

TRAININGS = ("isolated", "shared")
"""Whether each variant learns from its own sessions only."""

ROLES = ("goal", "driver", "guardrail", "diagnostic")
"""What a metric is for: to be won, to explain, not to be harmed, to be looked at."""

DIRECTIONS = ("up", "down")
"""Whether more of a metric is good or bad."""


class _VariantText(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    policy: str
    weight: float | None = None


class _MetricText(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    numerator: str | None = None
    denominator: str | None = None
    role: str | None = None
    direction: str = "up"
    margin: float | None = None


class _ExperimentText(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    variants: list[_VariantText]
    tenant: str | None = None
    metrics: list[_MetricText] = []
    hypothesis: str = ""
    control: str = ""
    unit: str = "visitor"
    placement: str = "*"
    training: str = "isolated"
    coverage: float = 1.0
    alpha: float = 0.05
    allocation_version: int = 1
    days: float | None = None
    started_at: datetime | None = None
    ends_at: datetime | None = None
    stopped_at: datetime | None = None


def parse_experiment(text: str | bytes, tenant: str, where: str = "the experiment file") -> Experiment:
    r"""An experiment from TOML text, checked as a whole.

    Weights may be left out (of all variants: equal shares). A metric's numerator may be left out when the name is one
    of the built-in metrics; without any metric the default ones hold. The first metric is the goal, those with a margin
    are guardrails, the others drivers, unless the file says otherwise.

    Args:
        text: The file's content; bytes are read as UTF-8.
        tenant: Whose experiment it is; a `tenant` in the file has to be the same.
        where: The file's name, for messages.

    Raises:
        BadSettings: With the field, the value and what to write instead.

    >>> text = 'name = "a"\nvariants = [{name = "old", policy = "popular"}, {name = "new", policy = "session-knn"}]'
    >>> [variant.weight for variant in parse_experiment(text, "shop").variants]
    [0.5, 0.5]
    """
    try:
        plain = text if isinstance(text, str) else text.decode("utf-8")
        read = msgspec.convert(tomllib.loads(plain), _ExperimentText)
    except UnicodeDecodeError as error:
        raise BadSettings(f"{where} is no text in UTF-8: {error.reason} at byte {error.start}.") from None
    except tomllib.TOMLDecodeError as error:
        raise BadSettings(f"{where} is not valid TOML: {error}.") from None
    except msgspec.ValidationError as error:
        raise BadSettings(f"{where}: {error}.", hint="docs/reference/experiments.md lists every field.") from None
    if read.tenant not in (None, tenant):
        raise BadSettings(f"{where}: tenant is {read.tenant!r}, but this is an experiment of {tenant!r}.")
    fields = {name: getattr(read, name) for name in _ExperimentText.__struct_fields__}
    fields |= {"tenant": tenant, "variants": _variants(read.variants, where), "metrics": _metrics(read.metrics, where)}
    experiment = Experiment(**fields)
    check_experiment(experiment, where)
    return experiment


def check_experiment(experiment: Experiment, where: str = "the experiment") -> None:
    """Refuses an experiment that does not hold together, wherever it came from.

    Raises:
        BadSettings: With the field, the value and what to write instead.
    """
    complaint = next(_complaints(experiment), None)
    if complaint:
        raise BadSettings(f"{where}: {complaint}")


def dump_experiment(experiment: Experiment) -> str:
    """The TOML text of an experiment; `parse_experiment` gives the same experiment back."""
    lines = []
    for name in Experiment.__struct_fields__:
        value = getattr(experiment, name)
        if name not in ("variants", "metrics") and value is not None and value != "":
            lines.append(f"{name} = {_toml(value)}")
    for table, rows in (("variants", experiment.variants), ("metrics", experiment.metrics)):
        for row in rows:
            lines += ["", f"[[{table}]]"]
            fields = ((name, getattr(row, name)) for name in row.__struct_fields__)
            lines += [f"{name} = {_toml(value)}" for name, value in fields if value is not None]
    return "\n".join(lines) + "\n"


def is_running(experiment: Experiment) -> bool:
    """Whether units are assigned: started and not stopped (a planned end that has passed does not stop it)."""
    return experiment.started_at is not None and experiment.stopped_at is None


def _variants(rows: list[_VariantText], where: str) -> list[Variant]:
    given = [row.weight for row in rows if row.weight is not None]
    if given and len(given) < len(rows):
        raise BadSettings(f"{where}: {len(given)} of {len(rows)} variants have a weight.", hint="Give all or none.")
    equal = 1 / max(len(rows), 1)
    weights = [equal if row.weight is None else row.weight for row in rows]
    return [Variant(name=row.name, policy=row.policy, weight=weight) for row, weight in zip(rows, weights, strict=True)]


def _metrics(rows: list[_MetricText], where: str) -> list[Metric]:
    if not rows:
        return list(DEFAULT_METRICS)
    metrics = []
    for place, row in enumerate(rows):
        numerator, denominator = row.numerator, row.denominator
        if numerator is None:
            if row.name not in METRICS:
                known = ", ".join(sorted(METRICS))
                hint = f"Give it a numerator, or take a built-in one: {known}."
                raise BadSettings(f"{where}: metric {row.name!r} is not built in and has no numerator.", hint=hint)
            numerator, denominator = METRICS[row.name].numerator, METRICS[row.name].denominator
        role = row.role or role_of(place, row.margin)
        metrics.append(
            Metric(
                name=row.name, numerator=numerator, denominator=denominator, role=role, direction=row.direction,
                margin=row.margin,
            )
        )  # fmt: skip
    return metrics


def role_of(place: int, margin: float | None) -> str:
    """The role of a metric that names none: the first is the goal, one with a margin a guardrail, others drivers."""
    if place == 0:
        return "goal"
    return "driver" if margin is None else "guardrail"


def _complaints(experiment: Experiment) -> Iterator[str]:
    names = [variant.name for variant in experiment.variants]
    metrics = [metric.name for metric in experiment.metrics]
    policies = [variant.policy for variant in experiment.variants]
    for kind, name in [("name", experiment.name), ("tenant", experiment.tenant)]:
        yield from _bad_name(kind, name)
    for kind, group in [("variant", names), ("policy", policies), ("metric", metrics)]:
        for name in group:
            yield from _bad_name(kind, name)
    if len(names) < 2:
        yield f"an experiment needs at least 2 variants, got {len(names)}."
    for kind, group in [("variant", names), ("metric", metrics)]:
        twice = sorted({name for name in group if group.count(name) > 1})
        if twice:
            yield f"{kind} {twice[0]!r} occurs twice."
    yield from _weight_complaints(experiment)
    if experiment.control_name not in names:
        yield f"control {experiment.control!r} is no variant (there is: {', '.join(names)})."
    for field, value, allowed in [
        ("unit", experiment.unit, UNITS),
        ("training", experiment.training, TRAININGS),
    ]:
        if value not in allowed:
            yield f"{field} is {value!r}; it can be {', '.join(allowed)}."
    if not 0 < experiment.coverage <= 1:
        yield f"coverage is {experiment.coverage:g}; it is a share above 0 and up to 1."
    if not 0 < experiment.alpha < 0.5:
        yield f"alpha is {experiment.alpha:g}; it lies between 0 and 0.5, usually 0.05."
    if experiment.allocation_version < 1:
        yield f"allocation_version is {experiment.allocation_version}; it counts from 1."
    if experiment.days is not None and not 0 < experiment.days < math.inf:
        yield f"days is {experiment.days:g}; it is how long the experiment runs, above 0."
    yield from _time_complaints(experiment)
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
    if abs(math.fsum(weights) - 1) > 1e-6:
        yield f"the weights sum to {math.fsum(weights):.6g}; they have to sum to 1."
    if sum(weight > 0 for weight in weights) < 2:
        yield "fewer than 2 variants have a weight above 0, so there is nothing to compare."


def _time_complaints(experiment: Experiment) -> Iterator[str]:
    times = {name: getattr(experiment, name) for name in ("started_at", "ends_at", "stopped_at")}
    for name, value in times.items():
        if value is not None and value.tzinfo is None:
            yield f"{name} is {value.isoformat()} without a time zone; write {value.isoformat()}Z for UTC."
    start = experiment.started_at
    for name in ("ends_at", "stopped_at"):
        value = times[name]
        if start is not None and value is not None and value < start:
            yield f"{name} ({value.isoformat()}) lies before started_at ({start.isoformat()})."


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


def _toml(value: Any) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
