"""Looks after running experiments: results steer the weights where they are to, and late units keep their variant."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec
import numpy as np

from thinslice.errors import ThinsliceError
from thinslice.experiments import is_running
from thinslice.experiments.assign import leaves_in_force
from thinslice.experiments.steering import thompson_weights
from thinslice.experiments.unit_map import UnitMap
from thinslice.jobs.conduct import first_variants, ramp_experiment
from thinslice.jobs.measure import MEMORY_MB, measure_in
from thinslice.jobs.visitors import note_visitors, wanted_of
from thinslice.records import Experiment, MetricResult, Report
from thinslice.serving.experiments import LEAF, read_experiments
from thinslice.serving.unit_maps import KEPT, VISITORS, read_unit_map, unit_map_file, write_unit_map
from thinslice.settings import Workspace
from thinslice.store.lake import Lake

STEER_EVERY = timedelta(hours=1)
"""So often results steer the weights of an experiment with `allocation = "thompson"`."""

LEAST_CHANGE = 0.01
"""A smaller change of every weight is not worth a new allocation."""

MOST_LEAVES = 64
"""So many leaves have weights of their own; smaller ones follow all units."""

LATE = timedelta(minutes=10)
"""So long after a change of weights the lake may still bring slates from before it."""


def tend(workspace: Workspace, now: datetime) -> dict[str, str]:
    """Looks after what runs: results steer weights, and units whose first slate came late to the lake are kept too.

    An experiment that cannot be read or measured is passed over and named; the others are looked after.

    Returns:
        `tenant/name` → what was done, or what went wrong.
    """
    done = {}
    found, _ = read_experiments(workspace.experiments)
    for tenant in sorted({each.tenant for each in found}):
        try:
            note_visitors(workspace, tenant, wanted_of(each for each in found if each.tenant == tenant), now)
        except ThinsliceError as error:
            done[f"{tenant}/{VISITORS}"] = str(error)
    for experiment in (each for each in found if is_running(each) and each.history):
        try:
            said = _tend(workspace, experiment, now)
        except ThinsliceError as error:
            said = str(error)
        if said:
            done[f"{experiment.tenant}/{experiment.name}"] = said
    return done


def _tend(workspace: Workspace, experiment: Experiment, now: datetime) -> str:
    since = now - experiment.history[-1].since
    if experiment.sticky and experiment.allocation_version > 1 and since < LATE:
        path = unit_map_file(workspace.experiments / experiment.tenant, experiment.name, KEPT)
        if path.is_file():
            labels = first_variants(workspace, experiment, now)
            if len(labels) != len(read_unit_map(path)):
                write_unit_map(path, UnitMap(labels))
                return f"{len(labels):,} units keep their first variant"
    if experiment.allocation == "thompson" and since >= STEER_EVERY:
        return _steer(workspace, experiment, now)
    return ""


def _steer(workspace: Workspace, experiment: Experiment, now: datetime) -> str:
    """New weights from the results so far, of all units and of each leaf, when one would change by over a hundredth."""
    report = _report(workspace, experiment, now)
    rng = np.random.default_rng([0, experiment.allocation_version])
    weights = thompson_weights(experiment, report.metrics, rng=rng)
    leaves = leaf_weights(experiment, report.segments, rng=rng)
    if weights is None:
        return ""
    base = {variant.name: variant.weight for variant in experiment.variants}
    in_force = leaves_in_force(experiment)
    changes = [_change(weights, base), *(_change(of, in_force.get(leaf, base)) for leaf, of in leaves.items())]
    if max(changes) <= LEAST_CHANGE:
        return ""
    ramped = ramp_experiment(
        workspace,
        experiment.tenant,
        experiment.name,
        now,
        weights=weights,
        leaves=leaves if experiment.leaves else None,
    )
    shares = ", ".join(f"{name} {share:.1%}" for name, share in weights.items())
    apart = f" ({len(leaves)} leaves apart)" if leaves else ""
    return f"allocation {ramped.experiment.allocation_version}: {shares}{apart}"


def leaf_weights(
    experiment: Experiment, rows: Sequence[Mapping[str, Any]], *, rng: np.random.Generator
) -> dict[str, dict[str, float]]:
    """Leaf → weights by its own results, of the largest leaves that have units enough; the others follow all units.

    Args:
        experiment: Its leaves.
        rows: A report's segments, the leaf among them.
        rng: Draws.
    """
    by_leaf: dict[str, list[MetricResult]] = {}
    for row in rows:
        if row["segment"] == LEAF and row["value"] != "unknown":
            result = msgspec.convert({name: row.get(name) for name in MetricResult.__struct_fields__}, MetricResult)
            by_leaf.setdefault(str(row["value"]), []).append(result)
    found: dict[str, dict[str, float]] = {}
    for leaf in sorted(
        by_leaf, key=lambda each: (-max(row.n_control + row.n_treatment for row in by_leaf[each]), each)
    ):
        weights = thompson_weights(experiment, by_leaf[leaf], rng=rng) if len(found) < MOST_LEAVES else None
        if weights is not None:
            found[leaf] = weights
    return found


def _report(workspace: Workspace, experiment: Experiment, now: datetime) -> Report:
    """The results so far, of all units and of each leaf."""
    if experiment.leaves:
        experiment = msgspec.structs.replace(experiment, segments=[*experiment.segments, LEAF])
    database = Lake(workspace.lake).connect(tenant=experiment.tenant, memory_mb=MEMORY_MB)
    try:
        return measure_in(database, experiment, now)
    finally:
        database.close()


def _change(new: Mapping[str, float], old: Mapping[str, float]) -> float:
    return max(abs(new[name] - old[name]) for name in old)
