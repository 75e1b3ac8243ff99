"""`thinslice experiment ramp | holdout | backtest`: while an experiment runs, beside all of them, and after one."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from thinslice.cli.workspace import Function, chosen_tenant, json_option, print_json, workspace_option
from thinslice.errors import BadInput
from thinslice.experiments import is_shadowed
from thinslice.records import Experiment
from thinslice.settings import Workspace


def whose_options(function: Function) -> Function:
    """Adds `--tenant`, which may be left out when the workspace has one, `--workspace` and `--json`."""
    tenant = click.option("--tenant", default=None, help="Whose; may be left out when the workspace has one tenant.")
    return tenant(workspace_option(json_option(function)))


def named_options(function: Function) -> Function:
    """Adds the NAME of an experiment and what `whose_options` adds: for every command about one experiment."""
    return click.argument("name")(whose_options(function))


def row_of(experiment: Experiment) -> dict[str, Any]:
    """An experiment as `--json` prints it."""
    status = "running"
    if experiment.stopped_at is not None:
        status = "stopped"
    elif experiment.started_at is None:
        status = "shadow" if is_shadowed(experiment) else "draft"
    times = {name: getattr(experiment, name) for name in ("started_at", "ends_at", "stopped_at")}
    return {
        "name": experiment.name, "tenant": experiment.tenant, "status": status, "kind": experiment.kind,
        "control": experiment.control_name, "variants": [variant.name for variant in experiment.variants],
        "coverage": experiment.coverage, "weights": {variant.name: variant.weight for variant in experiment.variants},
        "allocation_version": experiment.allocation_version,
        **{name: None if at is None else at.isoformat() for name, at in times.items()},
    }  # fmt: skip


def print_shares(experiment: Experiment) -> None:
    """One line a variant: its share of all units, its policy, its side."""
    for variant in experiment.variants:
        role = "control" if variant.name == experiment.control_name else "treatment"
        share = variant.weight * experiment.coverage
        if experiment.layer:
            share *= experiment.layer_range[1] - experiment.layer_range[0]
        click.echo(f"  {variant.name:<20} {share:6.1%} of {experiment.unit}s  policy {variant.policy} ({role})")


def print_stop(experiment: Experiment, as_json: bool) -> None:
    """Says that an experiment, a holdout or a shadow is stopped, and where what it told is read."""
    if as_json:
        print_json(row_of(experiment))
        return
    name = experiment.name
    if experiment.started_at is None:
        click.echo(f"The shadow of {name} is stopped. `thinslice experiment shadow {name}` says what it told.")
    else:
        click.echo(f"{name} is stopped. `thinslice experiment report {name}` says what it told.")


def put_in_shadow(workspace: Workspace, tenant: str, file: Path, share: float | None, as_json: bool) -> None:
    """Puts the experiment in a file into shadow, and says so."""
    from thinslice.jobs.conduct import start_shadow

    experiment = start_shadow(workspace, tenant, file.read_bytes(), str(file), datetime.now(UTC), share)
    if as_json:
        print_json(row_of(experiment))
        return
    click.echo(f"{experiment.name} is in shadow: {experiment.shadow_share:.0%} of the slates are answered twice.")
    click.echo(f"`thinslice experiment shadow {experiment.name}` says whether it is ready.")


@click.command("ramp")
@click.option("--coverage", type=float, metavar="0.5", help="The share of units that take part; it only grows.")
@click.option("--weights", metavar="NAME=0.2,NAME=0.8", help="New weights; who was served keeps the first variant.")
@named_options
def ramp(
    name: str, coverage: float | None, weights: str | None, tenant: str | None, workspace: Workspace, as_json: bool
) -> None:
    """Change the coverage or the weights of the running experiment NAME; a running service follows within a second."""
    from thinslice.jobs.conduct import ramp_experiment

    if coverage is None and weights is None:
        raise BadInput("nothing to change.", hint="Give --coverage 0.5 or --weights old=0.2,new=0.8.")
    done = ramp_experiment(
        workspace,
        chosen_tenant(workspace, tenant),
        name,
        datetime.now(UTC),
        coverage=coverage,
        weights=_shares(weights),
    )
    if as_json:
        print_json(row_of(done.experiment) | {"kept": done.kept})
        return
    click.echo(f"{name} runs under allocation {done.experiment.allocation_version}.")
    print_shares(done.experiment)
    if done.kept:
        click.echo(f"  {done.kept:,} {done.experiment.unit}s that were served before keep their first variant.")


@click.group("holdout", short_help="Spare a share of visitors everything that is tested and shipped.")
def holdout() -> None:
    """The global holdout: a share of visitors who see nothing new, against as many who live like everybody."""


@holdout.command("start")
@click.option("--share", type=float, required=True, metavar="0.05", help="Of the visitors; as many more are measured.")
@click.option("--policy", metavar="NAME", help="What those held out see; default: the tenant's default policy of now.")
@click.option("--days", type=float, metavar="D", help="How long; default until it is stopped.")
@whose_options
def start_holdout_command(
    share: float, policy: str | None, days: float | None, tenant: str | None, workspace: Workspace, as_json: bool
) -> None:
    """Start the holdout; `experiment report` says what everything since then has brought together."""
    from thinslice.jobs.conduct import start_holdout

    of = chosen_tenant(workspace, tenant)
    _said(start_holdout(workspace, of, share, datetime.now(UTC), policy=policy, days=days), as_json)


@holdout.command("stop")
@whose_options
def stop_holdout_command(tenant: str | None, workspace: Workspace, as_json: bool) -> None:
    """Stop the holdout: everybody sees what was shipped."""
    from thinslice.jobs.conduct import stop_holdout

    stopped = stop_holdout(workspace, chosen_tenant(workspace, tenant), datetime.now(UTC))
    print_stop(stopped, as_json)


@holdout.command("show")
@whose_options
def show_holdout_command(tenant: str | None, workspace: Workspace, as_json: bool) -> None:
    """Show the holdout that runs."""
    from thinslice.jobs.conduct import running_holdout

    _said(running_holdout(workspace, chosen_tenant(workspace, tenant)), as_json)


@click.command("backtest")
@click.option("--share", type=float, default=0.05, show_default=True, metavar="0.05",
              help="Of the units, who get the old policy back; as many more are compared with them.")  # fmt: skip
@click.option("--variant", metavar="NAME", help="Which variant was shipped, when there were several treatments.")
@click.option("--days", type=float, metavar="D", help="How long; default as long as NAME was planned.")
@named_options
def backtest(
    name: str, share: float, variant: str | None, days: float | None, tenant: str | None, workspace: Workspace,
    as_json: bool,
) -> None:  # fmt: skip
    """After experiment NAME was shipped: give a share of units the old policy back, to see whether it still helps."""
    from thinslice.jobs.conduct import start_backtest

    of = chosen_tenant(workspace, tenant)
    _said(start_backtest(workspace, of, name, share, datetime.now(UTC), variant=variant, days=days), as_json)


def _said(experiment: Experiment, as_json: bool) -> None:
    if as_json:
        print_json(row_of(experiment))
        return
    until = "until it is stopped" if experiment.ends_at is None else f"until {experiment.ends_at:%Y-%m-%d %H:%M} UTC"
    click.echo(f"{experiment.name} runs {until}.")
    print_shares(experiment)


def _shares(text: str | None) -> dict[str, float] | None:
    """`old=0.2,new=0.8` as a mapping.

    Raises:
        BadInput: It is not written like that.
    """
    if text is None:
        return None
    shares: dict[str, float] = {}
    for part in text.split(","):
        name, _, share = part.partition("=")
        try:
            shares[name.strip()] = float(share)
        except ValueError:
            raise BadInput(
                f"--weights {part!r} is no NAME=SHARE.", hint="For example --weights old=0.2,new=0.8."
            ) from None
    return shares
