"""Conducts experiments: start, stop, ramp, a global holdout, a backtest; each writes one file."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import msgspec

from thinslice.errors import BadInput, NotReady, UnknownName
from thinslice.experiments import (
    assign,
    dump_experiment,
    is_running,
    is_shadowed,
    parse_experiment,
    with_allocation,
    with_shadow,
    with_start,
)
from thinslice.experiments.assign import GRAPHS, UNCHANGED, unit_key
from thinslice.experiments.communities import labels_of
from thinslice.experiments.decide import has_ended
from thinslice.experiments.item_deal import KnownItems
from thinslice.experiments.support import Support
from thinslice.experiments.unit_map import UnitMap
from thinslice.jobs.decisions import recorded
from thinslice.jobs.design import planned_units_of
from thinslice.jobs.graphs import graph_communities
from thinslice.jobs.measure import experiment_file, read_experiment
from thinslice.jobs.support import support_of
from thinslice.jobs.visitors import note_visitors, wanted_of
from thinslice.records import Experiment, Variant
from thinslice.serving.experiments import read_experiments
from thinslice.serving.unit_maps import GRAPH, ITEMS, KEPT, unit_map_file, write_unit_map
from thinslice.settings import AUTO, BUILT_IN_POLICIES, Workspace, read_settings
from thinslice.store.artifacts import FileArtifacts
from thinslice.store.lake import Lake

HOLDOUT = "holdout"
"""The name of a tenant's global holdout."""

HELD, MEASURED = "held", "measured"
"""Its variants: who is spared what is shipped and tested, and as many who live like everybody."""


class Ramped(NamedTuple):
    """What a ramp brought.

    Attributes:
        experiment: As it runs now.
        kept: Units that keep their first variant although the new weights would move them.
    """

    experiment: Experiment
    kept: int


def start_experiment(
    workspace: Workspace, tenant: str, text: str | bytes, where: str, now: datetime, *,
    supports: Sequence[Support] | None = None, cold: bool = False,
) -> Experiment:  # fmt: skip
    """Writes a checked experiment with its start, and its planned end when it has `days`, into the workspace.

    Args:
        workspace: Whose.
        tenant: Whose.
        text: The experiment's file.
        where: Its name, for messages.
        now: Aware.
        supports: What `jobs.support.support_of` says of its policies; None asks it.
        cold: Start it although hardly anybody has seen what a variant would show.

    Raises:
        BadInput: It runs already, ran under this name before, isolates training where another one does, takes a range
            of its layer that another one has, or names a policy that the tenant has not.
        NotReady: Its clusters are communities of a graph, and the lake holds no ties; or a variant would start cold.
    """
    experiment = parse_experiment(text, tenant, where)
    if experiment.kind == "holdout":
        raise BadInput(f"{where}: a holdout is started by `thinslice experiment holdout start`.")
    for support in () if cold else supports if supports is not None else support_of(workspace, experiment, now):
        if support.verdict == "cold":
            raise NotReady(
                support.sentence,
                hint="`experiment start FILE --shadow` lets it learn before anybody sees it; --cold starts it now.",
            )
    return _start(workspace, experiment, where, now)


def start_shadow(
    workspace: Workspace, tenant: str, text: str | bytes, where: str, now: datetime, share: float | None = None
) -> Experiment:
    """Puts an experiment that has not started into shadow: its policies are trained and answer, shown to nobody.

    `start_experiment` launches it later, and the models that learn from clicks begin with what the shadow told.

    Args:
        workspace: Whose.
        tenant: Whose.
        text: The experiment's file.
        where: Its name, for messages.
        now: Aware.
        share: Of the slates that are answered in shadow too, 0..1; None is as the file says.

    Raises:
        BadInput: It has started, there is no such policy, or no variant has a policy that could be shadowed.
    """
    experiment = parse_experiment(text, tenant, where)
    check_policies(workspace, experiment, where)
    path = experiment_file(workspace, tenant, experiment.name)
    if _stored(path, tenant).started_at is not None:
        raise BadInput(f"experiment {experiment.name!r} was started before.", hint="Give the new one another name.")
    if all(each.policy in (UNCHANGED, "none") for each in experiment.variants):
        raise BadInput(f"{where}: no variant has a policy that would show anything else, so there is no shadow.")
    shadowed = with_shadow(experiment, now, share)
    note_visitors(workspace, tenant, wanted_of([shadowed]), now)
    _write(path, dump_experiment(shadowed))
    return shadowed


def stop_experiment(workspace: Workspace, tenant: str, name: str, now: datetime) -> Experiment:
    """Writes the stop into an experiment's file, also when the file was edited after the start, or ends its shadow.

    Raises:
        BadInput: It is not running.
    """
    path = experiment_file(workspace, tenant, name)
    if path.is_file():
        experiment = parse_experiment(path.read_bytes(), tenant, str(path), edited=True)
    else:
        experiment = read_experiment(workspace, tenant, name)
    if not is_running(experiment) and not is_shadowed(experiment):
        raise BadInput(f"experiment {name!r} is not running.", hint="`thinslice experiment list` shows which are.")
    stopped = msgspec.structs.replace(experiment, stopped_at=now)
    _write(path, dump_experiment(stopped))
    return stopped


def ramp_experiment(
    workspace: Workspace,
    tenant: str,
    name: str,
    now: datetime,
    *,
    coverage: float | None = None,
    weights: Mapping[str, float] | None = None,
    leaves: Mapping[str, Mapping[str, float]] | None = None,
) -> Ramped:
    """Changes an experiment's coverage or weights from now on: a new allocation version, noted in its history.

    A larger coverage moves nobody. Other weights would: with `sticky`, units that were served before keep their first
    variant, and go on to be logged with the probabilities under which they were drawn.

    Args:
        workspace: Whose.
        tenant: Whose.
        name: The experiment's.
        now: Aware.
        coverage: The new share of units that take part.
        weights: Variant → new weight.
        leaves: Leaf → variant → new weight, where results steer leaves apart.

    Raises:
        BadInput: It does not run, is a switchback, or the change does not hold together.
    """
    experiment = read_experiment(workspace, tenant, name)
    if not is_running(experiment):
        raise BadInput(f"experiment {name!r} is not running.", hint="`thinslice experiment list` shows which are.")
    if experiment.unit == "block":
        raise BadInput(f"experiment {name!r} is a switchback: its blocks are dealt out until its end.")
    ramped = with_allocation(experiment, now, coverage=coverage, weights=weights, leaves=leaves)
    kept = 0
    if experiment.sticky and (weights or leaves):
        labels = first_variants(workspace, ramped, now)
        kept = len(labels)
        write_unit_map(unit_map_file(workspace.experiments / tenant, name, KEPT), UnitMap(labels))
    _write(experiment_file(workspace, tenant, name), dump_experiment(ramped))
    return Ramped(ramped, kept)


def first_variants(workspace: Workspace, experiment: Experiment, now: datetime) -> dict[str, str]:
    """Key of a unit → `version:variant` (`:leaf`) of its first exposure, of those that would see another one now."""
    since = experiment.started_at or datetime.fromtimestamp(0, UTC)
    connection = Lake(workspace.lake).connect(tenant=experiment.tenant)
    try:
        rows = connection.execute(
            """
            SELECT unit_id, epoch(occurred_at), variant, allocation_version, context_leaf FROM exposure_variants
            WHERE experiment = ? AND unit_id IS NOT NULL AND NOT shadow AND occurred_at >= ? AND occurred_at <= ?
            ORDER BY occurred_at, recommendation_id
            """,
            [experiment.name, since, now],
        ).fetchall()
    finally:
        connection.close()
    first: dict[str, tuple[str, int, str, float, str]] = {}
    for unit_id, at, variant, version, leaf in rows:
        own = leaf if experiment.leaves else ""
        first.setdefault(unit_key(experiment, unit_id, at), (unit_id, version, variant, at, own or ""))
    return {
        key: f"{version}:{variant}{':' + leaf if leaf else ''}"
        for key, (unit_id, version, variant, at, leaf) in first.items()
        if assign(experiment, unit_id, at, leaf=leaf).variant != variant
    }


def start_holdout(
    workspace: Workspace,
    tenant: str,
    share: float,
    now: datetime,
    *,
    policy: str | None = None,
    days: float | None = None,
) -> Experiment:
    """Spares a share of visitors all that is tested and shipped from now on, and measures them against as many others.

    Args:
        workspace: Whose.
        tenant: Whose.
        share: Of the visitors, 0..0.5; as many more are the measured control.
        now: Aware.
        policy: What those held out see; None is what is the tenant's default policy now.
        days: How long.

    Raises:
        BadInput: A holdout runs already, or the share is none.
        NotReady: The default policy is `auto`, and nothing was trained that it could stand for.
    """
    if not 0 < share <= 0.5:
        raise BadInput(f"a holdout of {share:g} cannot be: it and its measured control of the same size share 1.")
    others, _ = read_experiments(workspace.experiments, tenant)
    running = [each.name for each in others if each.kind == "holdout" and is_running(each)]
    if running:
        raise BadInput(f"tenant {tenant!r} has a holdout already ({running[0]}).", hint="Stop it first.")
    names = {each.name for each in others}
    name = next(each for each in (HOLDOUT, *(f"{HOLDOUT}-{n}" for n in range(2, 10_000))) if each not in names)
    experiment = Experiment(
        name=name, tenant=tenant, kind="holdout", control=HELD, coverage=2 * share, training="shared", days=days,
        hypothesis="All that was tested and shipped since, taken together, helps.",
        variants=[
            Variant(name=HELD, policy=policy or _default_policy(workspace, tenant), weight=0.5),
            Variant(name=MEASURED, policy=UNCHANGED, weight=0.5),
        ],
    )  # fmt: skip
    return _start(workspace, experiment, "the holdout", now)


def _default_policy(workspace: Workspace, tenant: str) -> str:
    """The tenant's default policy by its own name: what `auto` stands for now, since that may change later."""
    name = read_settings(workspace).tenant(tenant).default_policy
    if name != AUTO:
        return name
    artifacts = FileArtifacts(workspace.models)
    live = [row["version"] for row in artifacts.versions(tenant) if row["name"] == "live" and row["live"]]
    stands_for = artifacts.manifest(tenant, live[0]).get("aliases", {}).get(AUTO) if live else None
    if stands_for is None:
        raise NotReady(
            f"the default policy of {tenant!r} is {AUTO!r}, and no training has chosen for it yet.",
            hint="`thinslice train` first, or name one: --policy popular.",
        )
    return str(stands_for)


def stop_holdout(workspace: Workspace, tenant: str, now: datetime) -> Experiment:
    """Ends the running holdout.

    Raises:
        UnknownName: None runs.
    """
    return stop_experiment(workspace, tenant, running_holdout(workspace, tenant).name, now)


def running_holdout(workspace: Workspace, tenant: str) -> Experiment:
    """The tenant's running holdout.

    Raises:
        UnknownName: None runs.
    """
    others, _ = read_experiments(workspace.experiments, tenant)
    found = [each for each in others if each.kind == "holdout" and is_running(each)]
    if not found:
        raise UnknownName(
            f"tenant {tenant!r} has no holdout.", hint="`thinslice experiment holdout start --share 0.05` starts one."
        )
    return found[0]


def start_backtest(
    workspace: Workspace,
    tenant: str,
    name: str,
    share: float,
    now: datetime,
    *,
    variant: str | None = None,
    days: float | None = None,
) -> Experiment:
    """After a decision to ship: gives a share of units the old policy back, and compares them with as many others.

    The old policy is the control, so that its effects read like those of the experiment that was decided.

    Args:
        workspace: Whose.
        tenant: Whose.
        name: The experiment that was decided.
        share: Of the units, 0..0.5, that get the old policy back.
        now: Aware.
        variant: Which one was shipped; may be left out when that was the decision.
        days: How long; None is as long as the experiment was planned.

    Raises:
        BadInput: The experiment still runs or never ran, the share is none, or no treatment was decided to be shipped
            and none is named.
    """
    before = read_experiment(workspace, tenant, name)
    if before.stopped_at is None:
        state = "still runs" if before.started_at else "never ran"
        raise BadInput(f"experiment {name!r} {state}; a backtest comes after a decision.", hint="Stop it first.")
    if not 0 < share <= 0.5:
        raise BadInput(f"a backtest of {share:g} cannot be: the old policy and as many others share 1.")
    if before.kind == "holdout" or before.unit == "block":
        raise BadInput(f"experiment {name!r} is a {'holdout' if before.kind == 'holdout' else 'switchback'}.")
    treatments = {each.name: each for each in before.variants if each.name != before.control_name}
    shipped = treatments.get(variant or _decided(workspace, before, now))
    if shipped is None:
        raise UnknownName(f"{name!r} has no treatment {variant!r} (there is: {', '.join(treatments)}).")
    old = next(each for each in before.variants if each.name == before.control_name)
    others, _ = read_experiments(workspace.experiments, tenant)
    names = {each.name for each in others}
    stem = f"{name[:54]}-backtest"
    free = next(each for each in (stem, *(f"{stem[:60]}-{n}" for n in range(2, 1_000))) if each not in names)
    experiment = msgspec.structs.replace(
        before,
        name=free, kind="backtest", of=name, control=old.name, coverage=2 * share, training="shared", layer="",
        layer_range=(0.0, 1.0), hypothesis=f"{shipped.name} still helps.", days=days or before.days, looks=None,
        allocation="fixed", allocation_version=1, started_at=None, ends_at=None, stopped_at=None, history=[],
        fingerprint={},
        variants=[msgspec.structs.replace(each, weight=0.5, forced=[]) for each in (old, shipped)],
    )  # fmt: skip
    return _start(workspace, experiment, "the backtest", now)


def _decided(workspace: Workspace, experiment: Experiment, now: datetime) -> str:
    """The treatment that was decided to be shipped.

    Raises:
        BadInput: Nothing was decided yet, or something else; the message says what to do.
    """
    found = recorded(Lake(workspace.lake), experiment.tenant, experiment.name)
    if found is not None and found.action == "ship" and found.variant is not None:
        return found.variant
    shipped = "`--variant NAME` says which one was shipped all the same."
    if found is not None:
        raise BadInput(
            f"nothing of {experiment.name!r} was decided to be shipped, so there is nothing to take back: "
            f"{found.sentence}",
            hint=shipped,
        )
    first = f"`thinslice experiment report {experiment.name}` decides and records it"
    if not has_ended(experiment, now) and experiment.ends_at is not None:
        first += f" after its planned end, {experiment.ends_at:%Y-%m-%d %H:%M} UTC"
    raise BadInput(
        f"nothing was decided of {experiment.name!r} yet; a backtest comes after a decision to ship.",
        hint=f"{first}. {shipped}",
    )


def _start(workspace: Workspace, experiment: Experiment, where: str, now: datetime) -> Experiment:
    tenant = experiment.tenant
    check_policies(workspace, experiment, where)
    path = experiment_file(workspace, tenant, experiment.name)
    others, broken = read_experiments(workspace.experiments, tenant)
    before = _stored(path, tenant)
    if before.started_at is not None:
        raise BadInput(f"experiment {experiment.name!r} was started before.", hint="Give the new one another name.")
    if broken and experiment.training == "isolated":
        raise BadInput(
            f"{broken[0].reason} So it cannot be told whether it isolates training on placement "
            f"{experiment.placement!r} too.",
            hint='Repair that file or move it away, or set training = "shared".',
        )
    running = [each for each in others if is_running(each) and each.name != experiment.name]
    for other in running:
        same_place = "*" in (other.placement, experiment.placement) or other.placement == experiment.placement
        if same_place and "isolated" == other.training == experiment.training:
            raise BadInput(
                f"experiment {other.name!r} isolates training on placement {other.placement!r} already.",
                hint='Stop it, choose another placement, or set training = "shared".',
            )
    _check_layer(experiment, [each for each in running if experiment.layer and each.layer == experiment.layer])
    planned = experiment.planned_units or planned_units_of(workspace, experiment, now)
    started = with_start(msgspec.structs.replace(experiment, shadow_at=before.shadow_at, planned_units=planned), now)
    if experiment.deal_items == "new":
        known = KnownItems(items_there(workspace, tenant, now))
        write_unit_map(unit_map_file(path.parent, experiment.name, ITEMS), known)
    if experiment.cluster in GRAPHS:
        ids, found = graph_communities(workspace, started, now)
        write_unit_map(unit_map_file(path.parent, experiment.name, GRAPH), UnitMap(labels_of(ids, found)))
    note_visitors(workspace, tenant, wanted_of([started]), now)
    _write(path, dump_experiment(started))
    return started


def served_first(workspace: Workspace, experiment: Experiment) -> list[str]:
    """Running experiments that may take units from this one: one slate is of one experiment, beside a holdout.

    Experiments of one layer exclude each other by their ranges, so they are not meant.
    """
    others, _ = read_experiments(workspace.experiments, experiment.tenant)
    return [
        other.name for other in others
        if is_running(other) and other.name != experiment.name and "holdout" not in (other.kind, experiment.kind)
        and ("*" in (other.placement, experiment.placement) or other.placement == experiment.placement)
        and not (experiment.layer and other.layer == experiment.layer)
    ]  # fmt: skip


def items_there(workspace: Workspace, tenant: str, now: datetime) -> list[str]:
    """The ids of all items that the lake knows: of the catalog, and those that anybody did anything with."""
    lake = Lake(workspace.lake)
    tables = [name for name in ("items", "events") if lake.version(name) >= 0]
    if not tables:
        return []
    when = {"items": "true", "events": f"occurred_at <= TIMESTAMPTZ '{now.isoformat()}'"}
    connection = lake.connect(tenant=tenant)
    try:
        parts = (f"SELECT item_id FROM {name} WHERE item_id IS NOT NULL AND {when[name]}" for name in tables)
        return [str(row[0]) for row in connection.execute(" UNION ".join(parts)).fetchall()]
    finally:
        connection.close()


class _Stage(NamedTuple):
    """How far an experiment of a name came before: into shadow, to its start."""

    shadow_at: datetime | None = None
    started_at: datetime | None = None


def _stored(path: Path, tenant: str) -> _Stage:
    if not path.is_file():
        return _Stage()
    stored = parse_experiment(path.read_bytes(), tenant, str(path), edited=True)
    return _Stage(stored.shadow_at, stored.started_at)


def check_policies(workspace: Workspace, experiment: Experiment, where: str) -> None:
    """Refuses a variant whose policy there is not, or that cannot learn apart."""
    known = {**BUILT_IN_POLICIES, **read_settings(workspace).tenant(experiment.tenant).policies}
    for variant in experiment.variants:
        if variant.policy == UNCHANGED and experiment.training == "isolated":
            raise BadInput(
                f"{where}: {variant.name!r} leaves the placement unchanged, so it has no model to learn apart.",
                hint='Name its policy, or set training = "shared".',
            )
        if variant.policy not in known and variant.policy != UNCHANGED:
            there = ", ".join(sorted([*known, UNCHANGED]))
            raise BadInput(f"{where}: there is no policy {variant.policy!r} (there is: {there}).")


def _check_layer(experiment: Experiment, beside: Sequence[Experiment]) -> None:
    """Refuses a range that another experiment of the layer has, or a unit that cannot exclude the others'."""
    low, high = experiment.layer_range
    for other in beside:
        if other.unit != experiment.unit:
            raise BadInput(
                f"layer {experiment.layer!r} deals out {other.unit}s (experiment {other.name!r}), "
                f"not {experiment.unit}s."
            )
        if low < other.layer_range[1] and other.layer_range[0] < high:
            taken = sorted(each.layer_range for each in beside)
            ends = [0.0, *(edge for each in taken for edge in each), 1.0]
            free = [f"[{a:g}, {b:g}]" for a, b in zip(ends[::2], ends[1::2], strict=True) if a < b]
            raise BadInput(
                f"experiment {other.name!r} has [{other.layer_range[0]:g}, {other.layer_range[1]:g}] of layer "
                f"{experiment.layer!r}.",
                hint=f"layer_range can lie in {' or '.join(free)}." if free else "The layer is full.",
            )


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".draft")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)
