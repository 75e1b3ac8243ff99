"""An experiment's TOML file: read, checked and written back."""

import difflib
import hashlib
import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec

from thinslice.errors import BadSettings
from thinslice.experiments.assign import leaves_in_force
from thinslice.experiments.validity import complaints
from thinslice.metrics import DEFAULT_METRICS, METRICS
from thinslice.records import Allocation, Experiment, Metric, Variant

ALWAYS_WRITTEN = ("name", "tenant", "unit", "placement", "training", "coverage", "alpha", "allocation_version")
"""Fields that stand in every written file; the others only where they differ from their defaults."""

MAY_CHANGE = ("hypothesis", "shadow_share", "shadow_at", "stopped_at", "history", "fingerprint")
"""Fields that may be edited while an experiment runs; a change of any other one makes it another experiment."""


class _VariantText(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    policy: str
    weight: float | None = None
    forced: list[str] = []


class _MetricText(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    numerator: str | None = None
    denominator: str | None = None
    role: str | None = None
    direction: str = "up"
    margin: float | None = None
    quantile: float | None = None
    cap: float | None = None
    cap_quantile: float | None = None
    mde: float | None = None


class _ExperimentText(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    variants: list[_VariantText]
    tenant: str | None = None
    metrics: list[_MetricText] = []
    hypothesis: str = ""
    kind: str = "test"
    of: str = ""
    control: str = ""
    unit: str = "visitor"
    cluster: str = ""
    block_minutes: float | None = None
    burn_in_minutes: float = 0.0
    rerandomize_days: float | None = None
    sticky: bool = True
    placement: str = "*"
    layer: str = ""
    layer_range: tuple[float, float] = (0.0, 1.0)
    training: str = "isolated"
    deal_items: str = "none"
    pooled_share: float = 0.0
    allocation: str = "fixed"
    allocation_floor: float = 0.1
    leaves: list[str] = []
    coverage: float = 1.0
    alpha: float = 0.05
    power: float = 0.8
    covariate_days: float | None = None
    segments: list[str] = []
    looks: int | list[datetime] | None = None
    allocation_version: int = 1
    days: float | None = None
    planned_units: int | None = None
    shadow_share: float = 0.1
    shadow_at: datetime | None = None
    started_at: datetime | None = None
    ends_at: datetime | None = None
    stopped_at: datetime | None = None
    history: list[Allocation] = []
    fingerprint: dict[str, str] = {}


TABLES = {"variants": _VariantText, "metrics": _MetricText, "history": Allocation}
"""The tables of a file, and what their rows hold."""

TYPES = {
    "str": "text in quotes", "float": "a number", "int": "a whole number", "bool": "true or false", "array": "a list",
    "object": "a table", "datetime": "a moment such as 2026-03-01T09:00:00Z", "date": "a day without a time of day",
}  # fmt: skip
"""What a value is, in words."""


def parse_experiment(
    text: str | bytes, tenant: str, where: str = "the experiment file", *, edited: bool = False
) -> Experiment:
    r"""An experiment from TOML text, checked as a whole.

    Weights may be left out (of all variants: equal shares). A metric's numerator may be left out when the name is one
    of the built-in metrics; without any metric the default ones hold. The first metric is the goal, those with a margin
    are guardrails, the others drivers, unless the file says otherwise.

    Args:
        text: The file's content; bytes are read as UTF-8.
        tenant: Whose experiment it is; a `tenant` in the file has to be the same.
        where: The file's name, for messages.
        edited: Take a started experiment also when its file was edited since.

    Raises:
        BadSettings: With the field, the value and what to write instead; or the file of a started experiment was
            edited in what matters.

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
        raise BadSettings(
            f"{where}: {_wrong(error)}.", hint="docs/reference/experiments.md lists every field."
        ) from None
    if read.tenant not in (None, tenant):
        raise BadSettings(f"{where}: tenant is {read.tenant!r}, but this is an experiment of {tenant!r}.")
    fields = {name: getattr(read, name) for name in _ExperimentText.__struct_fields__}
    fields |= {"tenant": tenant, "variants": _variants(read.variants, where), "metrics": _metrics(read.metrics, where)}
    experiment = Experiment(**fields)
    check_experiment(experiment, where)
    changed = [] if edited else edits(experiment)
    if changed:
        raise BadSettings(
            f"{where}: {' and '.join(changed)} of {experiment.name!r} changed after its start, so units before and "
            "after would not be compared alike.",
            hint="Put back what stood there; `thinslice experiment ramp` changes coverage and weights; for anything "
            "else stop it and start the changed one under a new name.",
        )
    return experiment


def check_experiment(experiment: Experiment, where: str = "the experiment") -> None:
    """Refuses an experiment that does not hold together, wherever it came from.

    Raises:
        BadSettings: With the field, the value and what to write instead.
    """
    complaint = next(complaints(experiment), None)
    if complaint:
        raise BadSettings(f"{where}: {complaint}")


def dump_experiment(experiment: Experiment) -> str:
    """The TOML text of an experiment; `parse_experiment` gives the same experiment back."""
    tables: dict[str, Sequence[msgspec.Struct]] = {
        "variants": experiment.variants,
        "metrics": experiment.metrics,
        "history": experiment.history,
    }
    defaults = {field.name: field.default for field in msgspec.structs.fields(Experiment)}
    lines = []
    for name in Experiment.__struct_fields__:
        value = getattr(experiment, name)
        if name in tables or name == "fingerprint" or value is None:
            continue
        if name in ALWAYS_WRITTEN or (value != defaults[name] and value not in ([], "")):
            lines.append(f"{name} = {_toml(value)}")
    for table, rows in tables.items():
        for row in rows:
            lines += ["", f"[[{table}]]"]
            fields = ((name, getattr(row, name)) for name in row.__struct_fields__)
            lines += [f"{name} = {_toml(value)}" for name, value in fields if value not in (None, [], {})]
    if experiment.fingerprint:
        lines += ["", "[fingerprint]", *(f"{name} = {_toml(value)}" for name, value in experiment.fingerprint.items())]
    return "\n".join(lines) + "\n"


def fingerprint_of(experiment: Experiment) -> dict[str, str]:
    """Field → a short hash of its value, for what may not change while the experiment runs.

    Who is forced into a variant may change: testers are not analyzed.
    """
    plain = msgspec.structs.replace(
        experiment, variants=[msgspec.structs.replace(each, forced=[]) for each in experiment.variants]
    )
    values = {name: getattr(plain, name) for name in Experiment.__struct_fields__ if name not in MAY_CHANGE}
    return {name: _digest(value) for name, value in values.items()}


def edits(experiment: Experiment) -> list[str]:
    """The fields that were edited since the experiment's fingerprint was taken; none without a fingerprint."""
    now = fingerprint_of(experiment)
    return [name for name, was in experiment.fingerprint.items() if name in now and now[name] != was]


def with_start(experiment: Experiment, now: datetime) -> Experiment:
    """The experiment as it is written when it starts: times, the first line of its history, its fingerprint.

    Args:
        experiment: As its author wrote it; `started_at` and `ends_at` stay where they stand.
        now: Aware; the start, unless the file names one.
    """
    start = experiment.started_at or now
    ends = experiment.ends_at or (None if experiment.days is None else start + timedelta(days=experiment.days))
    metrics = experiment.metrics or list(DEFAULT_METRICS)
    started = msgspec.structs.replace(
        experiment, started_at=start, ends_at=ends, stopped_at=None, history=[], metrics=metrics
    )
    return _signed(msgspec.structs.replace(started, history=[_in_force(started, start)]))


def with_shadow(experiment: Experiment, now: datetime, share: float | None = None) -> Experiment:
    """The experiment as it is written when it goes into shadow: its policies are made ready, and nobody sees them.

    Args:
        experiment: One that has not started.
        now: Aware.
        share: Of the slates, 0..1; None is as the file says.

    Raises:
        BadSettings: It has started, or the share is none.
    """
    if experiment.started_at is not None:
        raise BadSettings(f"{experiment.name!r} has started, so its policies are shown and not shadowed.")
    shadowed = msgspec.structs.replace(
        experiment, shadow_at=now, stopped_at=None, metrics=experiment.metrics or list(DEFAULT_METRICS),
        shadow_share=experiment.shadow_share if share is None else share,
    )  # fmt: skip
    check_experiment(shadowed)
    return shadowed


def with_allocation(
    experiment: Experiment, now: datetime, *, coverage: float | None = None,
    weights: Mapping[str, float] | None = None, leaves: Mapping[str, Mapping[str, float]] | None = None,
) -> Experiment:  # fmt: skip
    """The experiment with other probabilities from now on: a new allocation version, noted in its history.

    Args:
        experiment: A started one.
        now: Aware; from when on.
        coverage: A new share of units that take part; it only grows, so that nobody falls out.
        weights: Variant to new weight; those that are not named keep theirs.
        leaves: Leaf → variant → weight, of all variants; None leaves them as they are.

    Raises:
        BadSettings: Coverage would shrink, a variant is unknown, nothing changes, or the result does not hold together.
    """
    known = [variant.name for variant in experiment.variants]
    strange = sorted(set(weights or {}) - set(known))
    if strange:
        raise BadSettings(f"{experiment.name!r} has no variant {strange[0]!r} (there is: {', '.join(known)}).")
    if coverage is not None and coverage < experiment.coverage:
        raise BadSettings(
            f"coverage is {experiment.coverage:g} and only grows: at {coverage:g} units that take part would fall out.",
            hint="`thinslice experiment stop` ends it for everybody.",
        )
    changed = msgspec.structs.replace(
        experiment,
        coverage=experiment.coverage if coverage is None else coverage,
        variants=[
            msgspec.structs.replace(each, weight=(weights or {}).get(each.name, each.weight))
            for each in experiment.variants
        ],
        allocation_version=experiment.allocation_version + 1,
    )
    of_leaves = leaves_in_force(experiment) if leaves is None else {name: dict(of) for name, of in leaves.items()}
    if (changed.coverage, changed.variants) == (experiment.coverage, experiment.variants) and (
        of_leaves == leaves_in_force(experiment)
    ):
        raise BadSettings(f"nothing changes: {experiment.name!r} has this coverage and these weights already.")
    check_experiment(changed)
    return _signed(msgspec.structs.replace(changed, history=[*experiment.history, _in_force(changed, now, of_leaves)]))


def look_times(experiment: Experiment) -> list[datetime]:
    """When results are looked at by plan, oldest first; empty when one may look whenever one likes.

    A number of looks is spread evenly between the start and the planned end, the last one at the end.
    """
    looks, start, end = experiment.looks, experiment.started_at, experiment.ends_at
    if isinstance(looks, list):
        return list(looks)
    if looks is None or start is None or end is None:
        return []
    return [start + (end - start) * (place + 1) / looks for place in range(looks)]


def is_running(experiment: Experiment) -> bool:
    """Whether units are assigned: started and not stopped (a planned end that has passed does not stop it)."""
    return experiment.started_at is not None and experiment.stopped_at is None


def is_shadowed(experiment: Experiment) -> bool:
    """Whether its policies answer in shadow: before the start, and never shown."""
    return experiment.shadow_at is not None and experiment.started_at is None and experiment.stopped_at is None


def _wrong(error: msgspec.ValidationError) -> str:
    """What does not fit in a file, in words: the field, what stands there, what should; a near name is named."""
    what, _, at = str(error).partition(" - at `$")
    place = at.strip("`.")
    table = place.partition("[")[0]
    found = re.match(r"Object contains unknown field `(.*)`", what)
    if found:
        fields = TABLES.get(table, _ExperimentText).__struct_fields__
        near = difflib.get_close_matches(found[1], fields, 1)
        meant = f"; {near[0]!r} perhaps?" if near else ""
        return f"there is no field {found[1]!r}{f' in {table}' if table else ''}{meant}"
    found = re.match(r"Object missing required field `(.*)`", what)
    if found:
        return f"{f'each of {table} needs' if table else 'it needs'} a {found[1]!r}"
    found = re.match(r"Expected `(.*)`, got `(.*)`", what)
    if found:
        wanted, got = (" or ".join(TYPES.get(name, name) for name in each.split(" | ") if name != "null")
                       for each in found.groups())  # fmt: skip
        return f"{place.replace('[...]', '')} is {got}; it has to be {wanted}"
    return str(error)


def _variants(rows: list[_VariantText], where: str) -> list[Variant]:
    given = [row.weight for row in rows if row.weight is not None]
    if given and len(given) < len(rows):
        raise BadSettings(f"{where}: {len(given)} of {len(rows)} variants have a weight.", hint="Give all or none.")
    equal = 1 / max(len(rows), 1)
    weights = [equal if row.weight is None else row.weight for row in rows]
    return [
        Variant(name=row.name, policy=row.policy, weight=weight, forced=row.forced)
        for row, weight in zip(rows, weights, strict=True)
    ]


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
                margin=row.margin, quantile=row.quantile, cap=row.cap, cap_quantile=row.cap_quantile, mde=row.mde,
            )
        )  # fmt: skip
    return metrics


def role_of(place: int, margin: float | None) -> str:
    """The role of a metric that names none: the first is the goal, one with a margin a guardrail, others drivers."""
    if place == 0:
        return "goal"
    return "driver" if margin is None else "guardrail"


def _in_force(
    experiment: Experiment, since: datetime, leaves: Mapping[str, Mapping[str, float]] | None = None
) -> Allocation:
    return Allocation(
        version=experiment.allocation_version, since=since, coverage=experiment.coverage,
        weights={variant.name: variant.weight for variant in experiment.variants},
        leaves={name: dict(of) for name, of in (leaves or {}).items()},
    )  # fmt: skip


def _signed(experiment: Experiment) -> Experiment:
    return msgspec.structs.replace(experiment, fingerprint=fingerprint_of(experiment))


def _digest(value: Any) -> str:
    if isinstance(value, list):  # every field of a row, whether or not it has its default
        value = [msgspec.structs.asdict(row) if isinstance(row, msgspec.Struct) else row for row in value]
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:8]


def _toml(value: Any) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, list | tuple):
        return f"[{', '.join(_toml(each) for each in value)}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_toml(name)} = {_toml(each)}" for name, each in value.items()) + "}"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
