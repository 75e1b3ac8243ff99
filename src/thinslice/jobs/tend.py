"""Looks after running experiments: results steer the weights where they are to, and late units keep their variant."""

from datetime import datetime, timedelta

import numpy as np

from thinslice.errors import ThinsliceError
from thinslice.experiments import is_running
from thinslice.experiments.steering import thompson_weights
from thinslice.experiments.unit_map import UnitMap
from thinslice.jobs.conduct import first_variants, ramp_experiment
from thinslice.jobs.measure import measure
from thinslice.records import Experiment
from thinslice.serving.experiments import read_experiments
from thinslice.serving.unit_maps import KEPT, read_unit_map, unit_map_file, write_unit_map
from thinslice.settings import Workspace

STEER_EVERY = timedelta(hours=1)
"""So often results steer the weights of an experiment with `allocation = "thompson"`."""

LEAST_CHANGE = 0.01
"""A smaller change of every weight is not worth a new allocation."""

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
    """New weights from the results so far, when they would change by more than a hundredth."""
    results = measure(workspace, experiment.tenant, experiment.name, now).metrics
    rng = np.random.default_rng([0, experiment.allocation_version])
    weights = thompson_weights(experiment, results, rng=rng)
    old = {variant.name: variant.weight for variant in experiment.variants}
    if weights is None or max(abs(weights[name] - old[name]) for name in old) <= LEAST_CHANGE:
        return ""
    ramped = ramp_experiment(workspace, experiment.tenant, experiment.name, now, weights=weights)
    shares = ", ".join(f"{name} {share:.1%}" for name, share in weights.items())
    return f"allocation {ramped.experiment.allocation_version}: {shares}"
