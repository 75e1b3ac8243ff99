"""`thinslice experiment`: start, stop, report and list experiments; analyze one that ran elsewhere."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from thinslice.cli.workspace import json_option, print_json, workspace_option
from thinslice.errors import BadInput
from thinslice.records import Experiment, Report
from thinslice.settings import Workspace, read_settings

if TYPE_CHECKING:
    from thinslice.serving.experiments import BrokenExperiment


@click.group("experiment", short_help="Start, stop, report and list experiments; analyze a file.")
def command() -> None:
    """Start, stop, report and list experiments; analyze one that ran elsewhere."""


def _tenant_option(function: Any) -> Any:
    return click.option("--tenant", default=None, help="Whose; may be left out when the workspace has one tenant.")(
        function
    )


@command.command("start")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@_tenant_option
@workspace_option
@json_option
def start(file: Path, tenant: str | None, workspace: Workspace, as_json: bool) -> None:
    """Check the experiment in FILE (TOML) and start it; a running service follows within a second."""
    settings = read_settings(workspace)
    name = _tenant(workspace, tenant)
    experiment = start_experiment(workspace, name, file.read_bytes(), str(file), datetime.now(UTC))
    if as_json:
        print_json(_row(experiment))
        return
    until = "until it is stopped" if experiment.ends_at is None else f"until {experiment.ends_at:%Y-%m-%d %H:%M} UTC"
    title = settings.tenant(name).title or name
    click.echo(f"{experiment.name} runs for {title} {until}.")
    for variant in experiment.variants:
        role = "control" if variant.name == experiment.control_name else "treatment"
        share = variant.weight * experiment.coverage
        click.echo(f"  {variant.name:<20} {share:6.1%} of {experiment.unit}s  policy {variant.policy} ({role})")


@command.command("stop")
@click.argument("name")
@_tenant_option
@workspace_option
@json_option
def stop(name: str, tenant: str | None, workspace: Workspace, as_json: bool) -> None:
    """Stop the experiment NAME: everybody gets the default policy again; what was learned stays."""
    experiment = stop_experiment(workspace, _tenant(workspace, tenant), name, datetime.now(UTC))
    if as_json:
        print_json(_row(experiment))
    else:
        click.echo(f"{experiment.name} is stopped. `thinslice experiment report {experiment.name}` says what it told.")


@command.command("report")
@click.argument("name")
@_tenant_option
@workspace_option
@json_option
def report(name: str, tenant: str | None, workspace: Workspace, as_json: bool) -> None:
    """Measure the experiment NAME now: decision, checks, effects with intervals."""
    from thinslice.jobs.measure import measure, read_experiment

    of = _tenant(workspace, tenant)
    experiment = read_experiment(workspace, of, name)
    result = measure(workspace, of, name, datetime.now(UTC))
    _show(result, as_json, experiment=experiment, currency=read_settings(workspace).tenant(of).currency)


@command.command("list")
@_tenant_option
@workspace_option
@json_option
def list_(tenant: str | None, workspace: Workspace, as_json: bool) -> None:
    """List the experiments of a tenant, or of all; a file that cannot be read is named and hides no other."""
    from thinslice.serving.experiments import read_experiments

    settings = read_settings(workspace)
    if tenant is not None:
        settings.tenant(tenant)
    found, broken = read_experiments(workspace.experiments, tenant)
    rows = [_row(experiment) for experiment in found] + [_broken_row(each) for each in broken]
    rows.sort(key=lambda row: (row["tenant"], row["name"]))
    for each in broken:
        click.echo(f"Warning: {each.reason}", err=True)
    if as_json:
        print_json(rows)
        return
    if not rows:
        click.echo("No experiment yet; `thinslice experiment start FILE` starts one.")
    for row in rows:
        click.echo(f"{row['tenant']:<16} {row['name']:<32} {row['status']:<8} {', '.join(row['variants'])}")


@command.command("analyze")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--unit", required=True, metavar="COL", help="Column of the unit's id.")
@click.option("--variant", required=True, metavar="COL", help="Column of the variant.")
@click.option("--control", required=True, metavar="NAME", help="The control's name in that column.")
@click.option("--metric", "metrics", multiple=True, metavar="NAME=COL[/COL]",
              help="A mean, or a ratio of two sums; the first is the goal.")  # fmt: skip
@click.option("--quantile", "quantiles", multiple=True, metavar="NAME=COL@0.9",
              help="A quantile over units; quantiles stand after the metrics.")  # fmt: skip
@click.option("--cap", "caps", multiple=True, metavar="NAME=VALUE|q0.99",
              help="A unit's sum counts at most so much, or that quantile of all units.")  # fmt: skip
@click.option("--margin", "margins", multiple=True, metavar="NAME=0.02",
              help="How much worse (relative) would still be accepted; makes a guardrail.")  # fmt: skip
@click.option("--expected", default="", metavar="0.5,0.5",
              help="Planned shares: control first, then by name, or NAME=SHARE,...; default equal.")  # fmt: skip
@click.option("--propensity", default="", metavar="COL,COL",
              help="Columns of each variant's logged probability, same order: results are IPW/AIPW.")  # fmt: skip
@click.option("--covariate", metavar="COL", help="A column known before the assignment: results are CUPED.")
@click.option("--segment", "segments", multiple=True, metavar="COL",
              help="A column known before the assignment, to look at its values apart.")  # fmt: skip
@click.option("--day", metavar="COL", help="A column of days or times: the curve, novelty, the split over time.")
@click.option("--exposure", metavar="COL", help="Day of the first exposure; rows of an earlier --day are left out.")
@click.option("--cluster", metavar="COL", help="The column that was randomized as a whole.")
@click.option("--block", metavar="COL", help="The column of the time block: a switchback, in the order of --day.")
@click.option("--burn-in", type=int, default=0, metavar="N", help="Its first N times (--day) are left out.")
@click.option("--looks", type=int, default=0, metavar="N", help="Planned looks: intervals are O'Brien and Fleming's.")
@click.option("--planned-days", type=float, metavar="D",
              help="Of how many days: tells by --day which look this is; default one look a day.")  # fmt: skip
@json_option
def analyze(
    file: Path, unit: str, variant: str, control: str, metrics: tuple[str, ...], quantiles: tuple[str, ...],
    caps: tuple[str, ...], margins: tuple[str, ...], expected: str, propensity: str, covariate: str | None,
    segments: tuple[str, ...], day: str | None, exposure: str | None, cluster: str | None, block: str | None,
    burn_in: int, looks: int, planned_days: float | None, as_json: bool,
) -> None:  # fmt: skip
    """Analyze an experiment that ran elsewhere: FILE is Parquet or CSV, one row per unit or per exposure."""
    from thinslice.jobs.analyze_file import Question, analyze_file

    ask = Question(
        unit=unit, variant=variant, control=control, metrics=metrics, quantiles=quantiles, caps=caps, margins=margins,
        expected=expected, propensity=propensity, covariate=covariate, segments=segments, day=day, exposure=exposure,
        cluster=cluster, block=block, burn_in=burn_in, looks=looks, planned_days=planned_days,
    )  # fmt: skip
    _show(analyze_file(file, ask, datetime.now(UTC)), as_json)


def start_experiment(workspace: Workspace, tenant: str, text: str | bytes, where: str, now: datetime) -> Experiment:
    """Writes a checked experiment with its start, and its planned end when it has `days`, into the workspace.

    Raises:
        BadInput: It runs already, ran under this name before, isolates training where another one does, or names a
            policy that the tenant has not.
    """
    import msgspec

    from thinslice.experiments import dump_experiment, is_running, parse_experiment
    from thinslice.jobs.measure import experiment_file
    from thinslice.serving.experiments import read_experiments
    from thinslice.settings import BUILT_IN_POLICIES

    known = {**BUILT_IN_POLICIES, **read_settings(workspace).tenant(tenant).policies}
    experiment = parse_experiment(text, tenant, where)
    for variant in experiment.variants:
        if variant.policy not in known:
            raise BadInput(f"{where}: there is no policy {variant.policy!r} (there is: {', '.join(sorted(known))}).")
    path = experiment_file(workspace, tenant, experiment.name)
    others, broken = read_experiments(workspace.experiments, tenant)
    if path.is_file() and parse_experiment(path.read_bytes(), tenant, str(path)).started_at is not None:
        raise BadInput(f"experiment {experiment.name!r} was started before.", hint="Give the new one another name.")
    if broken and experiment.training == "isolated":
        raise BadInput(
            f"{broken[0].reason} So it cannot be told whether it isolates training on placement "
            f"{experiment.placement!r} too.",
            hint='Repair that file or move it away, or set training = "shared".',
        )
    for other in others:
        if other.name == experiment.name:
            continue
        same_place = "*" in (other.placement, experiment.placement) or other.placement == experiment.placement
        if is_running(other) and same_place and "isolated" == other.training == experiment.training:
            raise BadInput(
                f"experiment {other.name!r} isolates training on placement {other.placement!r} already.",
                hint='Stop it, choose another placement, or set training = "shared".',
            )
    start = experiment.started_at or now
    ends = experiment.ends_at or (None if experiment.days is None else start + timedelta(days=experiment.days))
    started = msgspec.structs.replace(experiment, started_at=start, ends_at=ends, stopped_at=None)
    _write(path, dump_experiment(started))
    return started


def stop_experiment(workspace: Workspace, tenant: str, name: str, now: datetime) -> Experiment:
    """Writes the stop into an experiment's file.

    Raises:
        BadInput: It is not running.
    """
    import msgspec

    from thinslice.experiments import dump_experiment, is_running
    from thinslice.jobs.measure import experiment_file, read_experiment

    experiment = read_experiment(workspace, tenant, name)
    if not is_running(experiment):
        raise BadInput(f"experiment {name!r} is not running.", hint="`thinslice experiment list` shows which are.")
    stopped = msgspec.structs.replace(experiment, stopped_at=now)
    _write(experiment_file(workspace, tenant, name), dump_experiment(stopped))
    return stopped


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".draft")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)


def _tenant(workspace: Workspace, tenant: str | None) -> str:
    settings = read_settings(workspace)
    if tenant is None:
        if len(settings.tenants) != 1:
            known = ", ".join(sorted(settings.tenants)) or "none"
            raise BadInput(f"--tenant is needed: the workspace has {len(settings.tenants)} tenants ({known}).")
        return next(iter(settings.tenants))
    settings.tenant(tenant)
    return tenant


def _row(experiment: Experiment) -> dict[str, Any]:
    status = "running"
    if experiment.started_at is None:
        status = "draft"
    elif experiment.stopped_at is not None:
        status = "stopped"
    times = {name: getattr(experiment, name) for name in ("started_at", "ends_at", "stopped_at")}
    return {
        "name": experiment.name, "tenant": experiment.tenant, "status": status, "control": experiment.control_name,
        "variants": [variant.name for variant in experiment.variants],
        **{name: None if at is None else at.isoformat() for name, at in times.items()},
    }  # fmt: skip


def _broken_row(broken: "BrokenExperiment") -> dict[str, Any]:
    nothing = dict.fromkeys(("control", "started_at", "ends_at", "stopped_at"))
    return {
        "name": broken.name, "tenant": broken.tenant, "status": "broken", **nothing, "variants": [],
        "file": broken.file, "error": broken.reason,
    }  # fmt: skip


def _show(result: Report, as_json: bool, *, experiment: Experiment | None = None, currency: str = "") -> None:
    from thinslice.experiments.analyze import report_json

    if as_json:
        click.echo(report_json(result).decode())
        return
    from rich.console import Console

    from thinslice.cli.experiment_report import print_report

    print_report(Console(highlight=False), result, experiment=experiment, currency=currency)
