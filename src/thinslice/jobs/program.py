"""The ledger of a tenant read as a whole: every treatment that ended, its offline figures, and the holdout."""

import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from thinslice.errors import BadSettings, ThinsliceError, UnknownName
from thinslice.experiments.program import SHIPPED, Outcome, Program, as_change, log_effect, program, sentence
from thinslice.jobs.decisions import ledger
from thinslice.jobs.measure import read_experiment, report_file
from thinslice.metrics.statistics import rows_of
from thinslice.metrics.unit_table import text
from thinslice.records import Experiment, Report
from thinslice.serving.experiments import read_experiments
from thinslice.settings import Workspace
from thinslice.stats import Agreement, Estimate
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
    held = _newest_holdout(workspace, tenant)
    again = _backtests(workspace, tenant, chosen)
    outcomes = []
    known = [(each, _definition(workspace, each)) for each in ended]
    for each, experiment in sorted(known, key=lambda pair: _over_at(*pair)):
        seen = 1.0 if held is None else _share_after(_over_at(each, experiment), held)
        outcomes += [
            outcome._replace(in_holdout=seen, again=again.get((outcome.experiment, outcome.variant)))
            for outcome in _outcomes(lake, each, experiment, chosen)
        ]
    return program(chosen, outcomes, holdout=holdout_effect(workspace, tenant, chosen))


def most_common_goal(rows: Sequence[Decided]) -> str:
    """The goal of most experiments, of equally common ones the first; empty without any."""
    goals = [row["name"] for each in rows for row in each.effects.values() if row["role"] == "goal"]
    return Counter(goals).most_common(1)[0][0] if goals else ""


def holdout_effect(workspace: Workspace, tenant: str, metric: str) -> Estimate | None:
    """Shipped against held out, from the newest report of the newest holdout; None where there is none."""
    held = _newest_holdout(workspace, tenant)
    if held is None:
        return None
    rows = [row for row in held.report.metrics if row.name == metric]
    return log_effect(msgspec.to_builtins(rows[0]), alpha=held.experiment.alpha) if rows else None


class _Measured(NamedTuple):
    """An experiment with its newest report."""

    experiment: Experiment
    report: Report


def _newest_holdout(workspace: Workspace, tenant: str) -> _Measured | None:
    held = [each for each in _measured(workspace, tenant) if each.experiment.kind == "holdout"]
    return max(held, key=lambda each: _start(each.experiment), default=None)


def _measured(workspace: Workspace, tenant: str) -> list[_Measured]:
    """Experiments that are no tests and have a report, the oldest first."""
    found, _ = read_experiments(workspace.experiments, tenant)
    rows = []
    for experiment in sorted((each for each in found if each.kind != "test"), key=_start):
        path = report_file(workspace, tenant, experiment.name)
        if path.is_file():
            rows.append(_Measured(experiment, _report.decode(path.read_bytes())))
    return rows


def _backtests(workspace: Workspace, tenant: str, metric: str) -> dict[tuple[str, str], Estimate]:
    """(experiment, variant) → the effect of the newest backtest of it."""
    found = {}
    for experiment, report in _measured(workspace, tenant):
        rows = [row for row in report.metrics if row.name == metric] if experiment.kind == "backtest" else []
        effect = log_effect(msgspec.to_builtins(rows[0]), alpha=experiment.alpha) if rows else None
        if effect is not None:
            found[experiment.of, rows[0].variant] = effect
    return found


def _share_after(decided_at: datetime, held: _Measured) -> float:
    """The share of a holdout's time that lies after a decision; 0 when it was before it: then both sides have it."""
    start, end = held.experiment.started_at, held.report.as_of
    if start is not None and decided_at <= start:
        return 0.0
    if start is None or end is None or end <= start:
        return 1.0
    return max((end - decided_at) / (end - start), 0.0)


def program_file(workspace: Workspace, tenant: str) -> Path:
    """Where a tenant's program lies for the pages."""
    return workspace.reports / f"{tenant}.program.json"


def write_program(workspace: Workspace, tenant: str, of: Program) -> None:
    """Writes a program so that a reader sees the old one or the new one, never half of it."""
    path = program_file(workspace, tenant)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(f".{os.getpid()}.draft")
    draft.write_bytes(msgspec.json.encode(as_plain(of)))
    draft.replace(path)


def write_programs(workspace: Workspace) -> dict[str, str]:
    """Writes the program of every tenant that has experiments.

    Returns:
        Tenant → what went wrong, where something did.
    """
    wrong = {}
    for folder in sorted(path for path in workspace.experiments.glob("*") if path.is_dir()):
        try:
            write_program(workspace, folder.name, program_of(workspace, folder.name))
        except ThinsliceError as error:
            wrong[folder.name] = str(error)
    return wrong


def as_plain(of: Program) -> dict[str, Any]:
    """The program as `--json` prints it and pages show it: changes are relative, 0.02 for 2 % more."""
    found, told = of.cumulative, of.foretold
    return {
        "metric": of.metric,
        "sentence": sentence(of) if of.outcomes else "",
        "outcomes": [
            {"experiment": each.experiment, "variant": each.variant, "shipped": each.shipped, **change(each.effect),
             "offline_change": None if each.foretold is None else math.expm1(each.foretold),
             "backtest": None if each.again is None else change(each.again), "lasts": _agreed(each.lasts)}
            for each in of.outcomes
        ],
        "cumulative": None if found is None else {"shipped": found.shipped, **change(found.total)},
        "naive": None if found is None else change(found.naive),
        "holdout": None if of.holdout is None else change(of.holdout),
        "expected": None if of.expected is None else change(of.expected),
        "agreement": _agreed(of.agreement),
        "offline": {
            "n": told.n, "same_sign_share": told.same_sign,
            "slope": None if told.slope is None else told.slope.value,
            "slope_ci": None if told.slope is None else told.slope.ci,
        },
    }  # fmt: skip


def change(of: Estimate) -> dict[str, Any]:
    """A log effect as a relative change and its interval."""
    return {"change": math.expm1(of.value), "ci": as_change(of)}


def _agreed(of: Agreement | None) -> dict[str, Any] | None:
    return None if of is None else {"agrees": of.agrees, "statistic": of.statistic, "pvalue": of.pvalue}


def _start(experiment: Experiment) -> float:
    return -math.inf if experiment.started_at is None else experiment.started_at.timestamp()


def _definition(workspace: Workspace, decided: Decided) -> Experiment | None:
    """The experiment of a decision; None when its file is gone or broken: what was decided stays."""
    try:
        return read_experiment(workspace, decided.tenant, decided.experiment)
    except (UnknownName, BadSettings):
        return None


def _over_at(decided: Decided, experiment: Experiment | None) -> datetime:
    """When an experiment was over and what it said could be shipped: its end, which may be read some time later."""
    ends = [] if experiment is None else [experiment.ends_at, experiment.stopped_at]
    return min([decided.decided_at, *(at for at in ends if at is not None)])


def _outcomes(lake: Lake, decided: Decided, experiment: Experiment | None, metric: str) -> list[Outcome]:
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
