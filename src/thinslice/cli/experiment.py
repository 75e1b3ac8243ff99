"""`thinslice experiment`: design, start, stop, report and list experiments; analyze one that ran elsewhere."""

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from thinslice.cli.experiment_conduct import (
    backtest,
    holdout,
    named_options,
    print_shares,
    print_stop,
    put_in_shadow,
    ramp,
    row_of,
    whose_options,
)
from thinslice.cli.experiment_design import design
from thinslice.cli.experiment_ledger import ledger
from thinslice.cli.experiment_shadow import shadow as shadow_command
from thinslice.cli.workspace import Function, chosen_tenant, json_option, print_json
from thinslice.errors import BadInput
from thinslice.records import Experiment, Report
from thinslice.settings import Workspace, read_settings

if TYPE_CHECKING:
    from thinslice.serving.experiments import BrokenExperiment


@click.group("experiment", short_help="Design, start, ramp, stop and report experiments; analyze a file.")
def command() -> None:
    """Design, start, ramp, stop, report and list experiments; holdout, backtest; analyze one that ran elsewhere."""


def html_option(function: Function) -> Function:
    """Adds `--html FILE`: the report as one page."""
    page = click.Path(dir_okay=False, path_type=Path)
    return click.option("--html", type=page, metavar="FILE", help="Write the report as one HTML file, too.")(function)


for _part in (design, ramp, holdout, backtest, ledger, shadow_command):
    command.add_command(_part)


@command.command("start")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--shadow", is_flag=True, help="Not yet: let its policies answer in shadow, logged and never shown.")
@click.option("--share", type=float, metavar="0.1", help="Of the slates, how many are answered in shadow too.")
@click.option("--cold", is_flag=True, help="Start it although hardly anybody has seen what a variant would show.")
@whose_options
def start(
    file: Path, shadow: bool, share: float | None, cold: bool, tenant: str | None, workspace: Workspace, as_json: bool
) -> None:
    """Check the experiment in FILE (TOML) and start it; a running service follows within a second."""
    from thinslice.experiments import parse_experiment
    from thinslice.jobs.conduct import served_first, start_experiment
    from thinslice.jobs.support import support_of

    if shadow:
        put_in_shadow(workspace, chosen_tenant(workspace, tenant), file, share, as_json)
        return
    if share is not None:
        raise BadInput("--share is of slates in shadow.", hint="Give --shadow too.")
    settings = read_settings(workspace)
    name = chosen_tenant(workspace, tenant)
    text, now = file.read_bytes(), datetime.now(UTC)
    supports = support_of(workspace, parse_experiment(text, name, str(file)), now)
    experiment = start_experiment(workspace, name, text, str(file), now, supports=supports, cold=cold)
    for each in supports:
        if each.verdict in ("thin", "cold", "untrained"):
            click.echo(f"Warning: {each.sentence}", err=True)
    for other in served_first(workspace, experiment):
        click.echo(
            f"Warning: {other} runs on the same placement, and a slate is of one experiment: units may be missing from "
            "one of them. Give both a `layer` and ranges of it.",
            err=True,
        )
    if as_json:
        print_json(row_of(experiment))
        return
    until = "until it is stopped" if experiment.ends_at is None else f"until {experiment.ends_at:%Y-%m-%d %H:%M} UTC"
    title = settings.tenant(name).title or name
    click.echo(f"{experiment.name} runs for {title} {until}.")
    print_shares(experiment)


@command.command("stop")
@named_options
def stop(name: str, tenant: str | None, workspace: Workspace, as_json: bool) -> None:
    """Stop the experiment NAME: everybody gets the default policy again; what was learned stays."""
    from thinslice.jobs.conduct import stop_experiment

    experiment = stop_experiment(workspace, chosen_tenant(workspace, tenant), name, datetime.now(UTC))
    print_stop(experiment, as_json)


@command.command("report")
@html_option
@named_options
def report(name: str, tenant: str | None, html: Path | None, workspace: Workspace, as_json: bool) -> None:
    """Measure the experiment NAME now: decision, checks, effects with intervals."""
    from thinslice.jobs.measure import measure, read_experiment

    of = chosen_tenant(workspace, tenant)
    experiment = read_experiment(workspace, of, name)
    if experiment.started_at is None and experiment.shadow_at is not None:
        raise BadInput(
            f"experiment {name!r} was shown to nobody, so it has no effects.",
            hint=f"`thinslice experiment shadow {name}` says what its shadow told.",
        )
    result = measure(workspace, of, name, datetime.now(UTC), threads=os.cpu_count() or 1)
    currency = read_settings(workspace).tenant(of).currency
    _show(experiment, result, currency, html, as_json)


@command.command("list")
@whose_options
def list_(tenant: str | None, workspace: Workspace, as_json: bool) -> None:
    """List the experiments of a tenant, or of all; a file that cannot be read is named and hides no other."""
    from thinslice.serving.experiments import read_experiments

    settings = read_settings(workspace)
    if tenant is not None:
        settings.tenant(tenant)
    found, broken = read_experiments(workspace.experiments, tenant)
    rows = [row_of(experiment) for experiment in found] + [_broken_row(each) for each in broken]
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
@html_option
@json_option
def analyze(
    file: Path, unit: str, variant: str, control: str, metrics: tuple[str, ...], quantiles: tuple[str, ...],
    caps: tuple[str, ...], margins: tuple[str, ...], expected: str, propensity: str, covariate: str | None,
    segments: tuple[str, ...], day: str | None, exposure: str | None, cluster: str | None, block: str | None,
    burn_in: int, looks: int, planned_days: float | None, html: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Analyze an experiment that ran elsewhere: FILE is Parquet or CSV, one row per unit or per exposure."""
    from thinslice.jobs.analyze_file import Question, read_file

    ask = Question(
        unit=unit, variant=variant, control=control, metrics=metrics, quantiles=quantiles, caps=caps, margins=margins,
        expected=expected, propensity=propensity, covariate=covariate, segments=segments, day=day, exposure=exposure,
        cluster=cluster, block=block, burn_in=burn_in, looks=looks, planned_days=planned_days,
    )  # fmt: skip
    found = read_file(file, ask, datetime.now(UTC))
    _show(found.experiment, found.report, "", html, as_json)


def _broken_row(broken: "BrokenExperiment") -> dict[str, Any]:
    nothing = dict.fromkeys(
        ("kind", "control", "coverage", "weights", "allocation_version", "started_at", "ends_at", "stopped_at")
    )
    return {
        "name": broken.name, "tenant": broken.tenant, "status": "broken", **nothing, "variants": [],
        "file": broken.file, "error": broken.reason,
    }  # fmt: skip


def _show(experiment: Experiment, result: Report, currency: str, html: Path | None, as_json: bool) -> None:
    """Prints a report, and writes it as a page when one is asked for."""
    from thinslice.experiments.analyze import report_json

    if html is not None:
        from thinslice.cli.experiment_page import page

        html.write_text(page(experiment, result, currency), encoding="utf-8")
    if as_json:
        click.echo(report_json(result).decode())
        return
    from rich.console import Console

    from thinslice.cli.experiment_report import print_report

    print_report(Console(highlight=False), result, experiment=experiment, currency=currency)
