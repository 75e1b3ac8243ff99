"""Measures experiments: from the lake's exposures, events and orders to a report, on a schedule or on demand."""

import math
import os
from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from pathlib import Path

import msgspec
import numpy as np

from thinslice.errors import ThinsliceError, UnknownName
from thinslice.experiments.analyze import report, report_json
from thinslice.experiments.checks import check_all
from thinslice.experiments.counting import count
from thinslice.experiments.evidence import Evidence, Look, planned_shares
from thinslice.experiments.gathering import bots_of, gather_tally
from thinslice.experiments.placements import judged_by_page
from thinslice.jobs.decisions import settle
from thinslice.jobs.interactions import interaction_checks, meeting
from thinslice.jobs.measure_blocks import block_evidence_of
from thinslice.jobs.measure_journal import drop_idle, keeps_journal, parts_of
from thinslice.jobs.measure_parts import PERIODS, TILT, Parts, count_parts, goal_columns
from thinslice.jobs.measure_tables import make_tables
from thinslice.jobs.provenance import contamination_of, explorers_of
from thinslice.jobs.watch import NOTHING, Watched, watch, watch_rows
from thinslice.metrics import DEFAULT_METRICS
from thinslice.metrics.statistics import Database
from thinslice.records import Check, Experiment, Report
from thinslice.serving.experiments import read_experiment_file, read_experiments
from thinslice.settings import Workspace, read_settings
from thinslice.store.lake import Lake

SETTLED_AFTER = timedelta(days=1)
"""So long after its end an experiment is measured again, for events and orders that come late."""

MEMORY_MB = 4_096
"""What a report may use; what does not fit goes to a temporary folder of the lake."""

WHOLE = Parts()
"""Everything in one part."""


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


def measure(workspace: Workspace, tenant: str, name: str, now: datetime, *, threads: int = 1) -> Report:
    """The report of one experiment from everything that the lake holds of it.

    Where units are visitors, users or sessions the effects read only what is new of the lake, and the journal of the
    experiment (`thinslice.jobs.measure_journal`) for the rest; they are the same, to the last digit, on any number of
    threads. So are the checks of what variants share (`thinslice.jobs.watch`); neighbors are looked up in the lake.

    The first report after the end records its decision in the table `decisions`; later ones show that decision.

    Raises:
        UnknownName: There is no such experiment.
        BadInput: Exposures name a variant that the file does not.
    """
    experiment = read_experiment(workspace, tenant, name)
    lake = Lake(workspace.lake)
    lessons = contamination_of(lake, experiment, now)
    others, _ = read_experiments(workspace.experiments, tenant)
    explorers = explorers_of(read_settings(workspace).tenant(tenant), experiment)
    experiment = declared(experiment)
    meet = [declared(other) for other in meeting(experiment, others)]
    journaled = all(keeps_journal(each) for each in (experiment, *meet))
    database = lake.connect(tenant=tenant, memory_mb=MEMORY_MB, threads=threads if journaled else 1)
    try:
        parts = parts_of(lake, experiment, meet, database) if journaled else WHOLE
        until = now if experiment.stopped_at is None else min(now, experiment.stopped_at)
        if parts.some is None:
            watched = watch_rows(lake, experiment, until)
        else:
            watched = watch(database, experiment, until, parts.some)
        found = measure_in(
            database, experiment, now, contamination=lessons, explorers=explorers, others=meet, parts=parts,
            watched=watched,
        )  # fmt: skip
    finally:
        database.close()
    return settle(lake, experiment, found, now)


def declared(experiment: Experiment) -> Experiment:
    """The experiment with the metrics it is judged by: without any the default ones, at one placement the page's."""
    if not experiment.metrics:
        experiment = msgspec.structs.replace(experiment, metrics=list(DEFAULT_METRICS))
    return judged_by_page(experiment)


def measure_in(
    database: Database, experiment: Experiment, now: datetime, *, contamination: Mapping[str, float] | None = None,
    explorers: Collection[str] = (), others: Collection[Experiment] = (), parts: Parts = WHOLE,
    watched: Watched = NOTHING,
) -> Report:  # fmt: skip
    """The report from a database with the views `exposure_variants`, `events` and `orders`.

    Args:
        database: With those views.
        experiment: What ran; without metrics the default ones hold.
        now: The moment of the report; what happened later does not count.
        contamination: Variant → share of its model's training rows that another variant caused.
        explorers: Variants that try what they do not know yet.
        others: The tenant's other experiments: those that share units are tested for interaction.
        parts: How the views are looked at when they do not hold everything at once.
        watched: What the checks of what variants share look at.
    """
    experiment = declared(experiment)
    until = now if experiment.stopped_at is None else min(now, experiment.stopped_at)
    evidence, experiment, found = _evidence(database, experiment, until, parts, meeting(experiment, others))
    evidence = evidence._replace(
        look=look_of(experiment, until), contamination=contamination or {}, explorers=frozenset(explorers),
        planned_units=experiment.planned_units or 0, **watched._asdict(),
    )  # fmt: skip
    checks = check_all(evidence, experiment)
    if sum(evidence.units.values()) and not evidence.weighted:
        checks += found
    return report(evidence, experiment, now, checks)


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
    drop_idle(Lake(workspace.lake), now)
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


def _evidence(
    database: Database, experiment: Experiment, until: datetime, parts: Parts, others: Collection[Experiment]
) -> tuple[Evidence, Experiment, list[Check]]:
    """What the lake holds of an experiment, the experiment with caps that are numbers, and what others do to it."""
    if experiment.unit == "block":
        return block_evidence_of(database, experiment, until), experiment, []
    names = [variant.name for variant in experiment.variants]
    nobody = Evidence({}, np.zeros((1, len(names))), planned_shares(experiment), dict.fromkeys(names, 0))
    if experiment.unit == "cluster":
        tables = make_tables(database, experiment, until)
        if tables.shape is None:
            return nobody._replace(bots=tables.bots), experiment, []
        evidence = count(database, tables.experiment, tables.shape)
        return evidence._replace(bots=tables.bots, served=tables.served), tables.experiment, []
    counted = count_parts(database, experiment, until, parts, others)
    experiment, tally = counted.experiment, counted.tally
    if counted.start is None or not tally.of("mixed"):
        return nobody._replace(bots=bots_of(tally, names)), experiment, []
    ends = [datetime.fromtimestamp(counted.start + (at + 1) * counted.width, until.tzinfo) for at in range(PERIODS)]
    evidence = gather_tally(
        tally, experiment, counted.columns, counted.pasts, goal_columns(experiment), counted.start, ends, TILT
    )
    return evidence, experiment, interaction_checks(tally, experiment, others)


def look_of(experiment: Experiment, now: datetime) -> Look | None:
    """Which of the planned looks a report at this moment is: the last one that was due, or the first one to come."""
    looks, start, end = experiment.looks, experiment.started_at, experiment.ends_at
    if looks is None or start is None or end is None:
        return None
    if isinstance(looks, int):
        share = min(max((now - start) / (end - start), 0.0), 1.0)
        return Look(max(1, math.floor(looks * share + 1e-9)), looks)
    due = sum(at <= now for at in looks)
    return Look(max(1, due), len(looks))
