"""Measures experiments: from the lake's exposures, events and orders to a report, on a schedule or on demand."""

import json
import os
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from thinslice.errors import BadInput, ThinsliceError, UnknownName
from thinslice.experiments.analyze import report, report_json
from thinslice.experiments.checks import check_all
from thinslice.experiments.evidence import WEIGHT, Evidence, metric_columns, planned_shares
from thinslice.metrics import DEFAULT_METRICS, UNIT_COLUMNS, acts_sql, units_sql
from thinslice.metrics.statistics import Database, cumulative_moments, moments_by_variant, rows_of
from thinslice.records import Experiment, Report
from thinslice.serving.experiments import read_experiment_file
from thinslice.settings import Workspace
from thinslice.store.lake import Lake

PERIODS = 30
"""At most so many points has the curve of the cumulative effect."""

SETTLED_AFTER = timedelta(days=1)
"""So long after its end an experiment is measured again, for events and orders that come late."""


def experiment_file(workspace: Workspace, tenant: str, name: str) -> Path:
    """Where an experiment's definition lies."""
    return workspace.experiments / tenant / f"{name}.toml"


def report_file(workspace: Workspace, tenant: str, name: str) -> Path:
    """Where an experiment's newest report lies, for the pages."""
    return workspace.reports / tenant / f"{name}.json"


def read_experiment(workspace: Workspace, tenant: str, name: str) -> Experiment:
    """One experiment's definition.

    Raises:
        UnknownName: There is none of that name; the message lists those that exist.
        BadSettings: The file does not hold together.
    """
    path = experiment_file(workspace, tenant, name)
    if not path.is_file():
        known = ", ".join(of.stem for of in sorted(path.parent.glob("*.toml"))) or "none"
        hint = "`thinslice experiment start FILE` starts one."
        raise UnknownName(f"tenant {tenant!r} has no experiment {name!r} (there is: {known}).", hint=hint)
    return read_experiment_file(path, tenant)


def measure(workspace: Workspace, tenant: str, name: str, now: datetime) -> Report:
    """The report of one experiment from everything that the lake holds of it.

    Raises:
        UnknownName: There is no such experiment.
        BadInput: Exposures name a variant that the file does not.
    """
    experiment = read_experiment(workspace, tenant, name)
    database = Lake(workspace.lake).connect(tenant=tenant)
    try:
        return measure_in(database, experiment, now)
    finally:
        database.close()


def measure_in(database: Database, experiment: Experiment, now: datetime) -> Report:
    """The report from a database with the views `exposure_variants`, `events` and `orders`."""
    if not experiment.metrics:
        experiment = msgspec.structs.replace(experiment, metrics=list(DEFAULT_METRICS))
    until = now if experiment.stopped_at is None else min(now, experiment.stopped_at)
    evidence = _evidence(database, experiment, until)
    return report(evidence, experiment, now, check_all(evidence, experiment))


def measure_all(workspace: Workspace, now: datetime) -> dict[str, str]:
    """Measures what runs or ended lately and writes the reports that the pages show.

    Returns:
        `tenant/name` → the decision's action, or what went wrong.
    """
    done = {}
    for path in sorted(workspace.experiments.glob("*/*.toml")):
        tenant, name = path.parent.name, path.stem
        try:
            if not _is_due(workspace, read_experiment(workspace, tenant, name), now):
                continue
            got = measure(workspace, tenant, name, now)
            write_report(report_file(workspace, tenant, name), got)
            done[f"{tenant}/{name}"] = got.decision.action
        except ThinsliceError as error:
            done[f"{tenant}/{name}"] = str(error)
    return done


def write_report(path: Path, of: Report) -> None:
    """Writes a report so that a reader sees the old one or the new one, never half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(f".{os.getpid()}.draft")
    draft.write_bytes(report_json(of))
    draft.replace(path)


def _is_due(workspace: Workspace, experiment: Experiment, now: datetime) -> bool:
    if experiment.started_at is None:
        return False
    path = report_file(workspace, experiment.tenant, experiment.name)
    return experiment.stopped_at is None or now - experiment.stopped_at < SETTLED_AFTER or not path.is_file()


def _evidence(database: Database, experiment: Experiment, until: datetime) -> Evidence:
    names = [variant.name for variant in experiment.variants]
    database.execute(f"CREATE OR REPLACE TEMP TABLE experiment_units AS {units_sql(experiment, until)}")
    groups = rows_of(
        database, "SELECT propensities, variant, count(*) AS n FROM experiment_units WHERE NOT mixed GROUP BY ALL"
    )
    mixed = rows_of(database, "SELECT count(*) AS n FROM experiment_units WHERE mixed")[0]["n"]
    counts, propensities = _allocation(groups, names, experiment)
    units = dict(zip(names, counts.sum(axis=0).astype(int).tolist(), strict=True))
    weighted = len(propensities) > 1
    columns = metric_columns(experiment)
    if not sum(units.values()):
        return Evidence({}, counts, propensities, units, mixed_units=mixed)
    ends = _periods(database, experiment, until, weighted)
    columns += [WEIGHT] if weighted else []
    sums = ", ".join(f"sum({name}) AS {name}" for name in columns)
    whole = f"(SELECT unit_id, variant, {sums} FROM unit_periods GROUP BY unit_id, variant)"
    return Evidence(
        variants=moments_by_variant(database, whole, columns),
        counts=counts,
        propensities=propensities,
        units=units,
        mixed_units=mixed,
        weighted=weighted,
        cumulative=[(ends[at], of) for at, of in cumulative_moments(database, "unit_periods", columns)],
    )


def _allocation(groups: Sequence[dict[str, Any]], names: Sequence[str], experiment: Experiment) -> tuple[Any, Any]:
    """Units (groups, variants) and the logged probabilities of each group, in the experiment's order."""
    if not groups:
        return np.zeros((1, len(names))), planned_shares(experiment)
    vectors: dict[tuple[float, ...], list[float]] = {}
    for row in groups:
        logged = json.loads(row["propensities"])
        strange = sorted({row["variant"], *logged} - set(names))
        if strange:
            known = ", ".join(names)
            raise BadInput(
                f"exposures of experiment {experiment.name!r} name a variant {strange[0]!r} (there is: {known}).",
                hint="Start the changed experiment under a new name.",
            )
        key = tuple(float(logged.get(name, 0.0)) for name in names)
        vectors.setdefault(key, [0.0] * len(names))[names.index(row["variant"])] += row["n"]
    return np.array(list(vectors.values())), np.array(list(vectors))


def _periods(database: Database, experiment: Experiment, until: datetime, weighted: bool) -> list[datetime]:
    """Makes the table `unit_periods` (one row per unit and period) and returns the ends of the periods.

    Where probabilities changed while the experiment ran, every column is divided by the probability that the unit had
    of its variant (inverse propensity weighting).
    """
    first = "SELECT epoch(min(first_exposure)) AS at FROM experiment_units"
    start = rows_of(database, first)[0]["at"] if experiment.started_at is None else experiment.started_at.timestamp()
    width = max((until.timestamp() - start) / PERIODS, 1e-3)
    deeds = acts_sql(experiment, until, units="experiment_units")
    sums = ", ".join(f"sum({name}) AS {name}" for name in UNIT_COLUMNS)
    period = f"least(CAST(floor((epoch(done_at) - {start!r}) / {width!r}) AS INTEGER), {PERIODS - 1})"
    rows = f"SELECT unit_id, variant, {period} AS period, {sums} FROM ({deeds}) GROUP BY ALL"
    if weighted:
        scaled = ", ".join(f"{name} * weight AS {name}" for name in UNIT_COLUMNS)
        weights = "SELECT unit_id, CASE WHEN propensity > 0 THEN 1 / propensity ELSE 0 END AS weight"
        is_first = "row_number() OVER (PARTITION BY unit_id ORDER BY period) = 1"
        rows = (
            f"SELECT r.unit_id, r.variant, period, {scaled}, CASE WHEN {is_first} THEN weight ELSE 0 END AS {WEIGHT} "
            f"FROM ({rows}) AS r JOIN ({weights} FROM experiment_units) USING (unit_id)"
        )
    database.execute(f"CREATE OR REPLACE TEMP TABLE unit_periods AS {rows}")
    moment = until.tzinfo
    return [datetime.fromtimestamp(start + (at + 1) * width, moment) for at in range(PERIODS)]
