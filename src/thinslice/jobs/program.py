"""The ledger of a tenant read as a whole: every treatment that ended, its offline figures, and the holdout."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from thinslice.errors import BadSettings, UnknownName
from thinslice.experiments.program import SHIPPED, Outcome, Program, log_effect, program
from thinslice.jobs.decisions import ledger
from thinslice.jobs.measure import read_experiment, report_file
from thinslice.metrics.statistics import rows_of
from thinslice.metrics.unit_table import text
from thinslice.records import Experiment, Report
from thinslice.serving.experiments import read_experiments
from thinslice.settings import Workspace
from thinslice.stats import Estimate
from thinslice.store.lake import Lake
from thinslice.store.schemas import Decided

FIGURE = "mrr"
"""The offline figure that is held to what it foretold."""

_report = msgspec.json.Decoder(Report)


def program_of(workspace: Workspace, tenant: str, metric: str | None = None) -> Program:
    """What all experiments of a tenant brought together; experiments that were not valid count for nothing.

    Args:
        workspace: Whose lake holds the table `decisions`.
        tenant: Whose.
        metric: In which it is counted; None is the goal that most experiments had.

    Raises:
        UnknownName: No experiment that ended has such a metric.
    """
    lake = Lake(workspace.lake)
    ended = [row for row in ledger(lake, tenant) if row.kind == "test" and row.action != "invalid"]
    chosen = metric or most_common_goal(ended)
    known = sorted({row["name"] for each in ended for row in each.effects.values()})
    if metric is not None and metric not in known:
        raise UnknownName(f"no experiment that ended has a metric {metric!r} (there is: {', '.join(known) or 'none'}).")
    outcomes = [outcome for each in ended for outcome in _outcomes(workspace, lake, each, chosen)]
    return program(chosen, outcomes, holdout=holdout_effect(workspace, tenant, chosen))


def most_common_goal(rows: Sequence[Decided]) -> str:
    """The goal of most experiments, of equally common ones the first; empty without any."""
    goals = [row["name"] for each in rows for row in each.effects.values() if row["role"] == "goal"]
    return Counter(goals).most_common(1)[0][0] if goals else ""


def holdout_effect(workspace: Workspace, tenant: str, metric: str) -> Estimate | None:
    """Shipped against held out, from the newest report of the newest holdout; None where there is none."""
    found, _ = read_experiments(workspace.experiments, tenant)
    for experiment in sorted((each for each in found if each.kind == "holdout"), key=_start, reverse=True):
        path = report_file(workspace, tenant, experiment.name)
        if path.is_file():
            rows = [row for row in _report.decode(path.read_bytes()).metrics if row.name == metric]
            return log_effect(msgspec.to_builtins(rows[0]), alpha=experiment.alpha) if rows else None
    return None


def _start(experiment: Experiment) -> float:
    return -math.inf if experiment.started_at is None else experiment.started_at.timestamp()


def _outcomes(workspace: Workspace, lake: Lake, decided: Decided, metric: str) -> list[Outcome]:
    try:
        experiment = read_experiment(workspace, decided.tenant, decided.experiment)
    except (UnknownName, BadSettings):
        experiment = None  # the file is gone or broken; what was decided stays
    rows = [row for row in decided.effects.values() if row["name"] == metric]
    told = {} if experiment is None else offline_changes(lake, experiment)
    outcomes = []
    for row in rows:
        effect = log_effect(row, alpha=0.05 if experiment is None else experiment.alpha)
        if effect is not None:
            shipped = decided.action == SHIPPED and decided.variant == row["variant"]
            outcomes.append(Outcome(decided.experiment, row["variant"], shipped, effect, told.get(row["variant"])))
    return outcomes


def offline_changes(lake: Lake, experiment: Experiment) -> dict[str, float]:
    """Variant → log of its policy's offline figure over control's, as the last live models before the start had it."""
    if experiment.started_at is None or lake.version("models") < 0:
        return {}
    connection = lake.connect(tenant=experiment.tenant)
    try:
        rows = rows_of(
            connection,
            "SELECT manifest -> '$.offline' AS offline FROM models WHERE slot = 'live' "
            f"AND trained_at <= TIMESTAMPTZ {text(experiment.started_at.isoformat())} ORDER BY trained_at DESC LIMIT 1",
        )
    finally:
        connection.close()
    figures: Mapping[str, Any] = (msgspec.json.decode(rows[0]["offline"] or "{}") if rows else {}) or {}
    value = {each.name: (figures.get(each.policy) or {}).get(FIGURE) or 0.0 for each in experiment.variants}
    control = value[experiment.control_name]
    return {name: math.log(of / control) for name, of in value.items() if of > 0 and control > 0}
