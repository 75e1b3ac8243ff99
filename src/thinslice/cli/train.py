"""`thinslice train`: trains a tenant's models from the lake and publishes them to a running service."""

from datetime import UTC, datetime

import click

from thinslice.cli.workspace import json_option, print_json, workspace_option
from thinslice.settings import Workspace, read_settings


@click.command("train", short_help="Train a tenant's models from the lake and publish them.")
@workspace_option
@click.option("--tenant", default="shop", show_default=True, help="Whose models.")
@click.option("--policy", help="Train this policy's model only; by default all policies.")
@click.option(
    "--full/--refit", default=None, help="Tune models anew, or only learn the new clicks; by default when due."
)
@click.option("--force", is_flag=True, help="Publish also what does not pass the gates; the manifest says so.")
@click.option("--rng", type=int, default=0, show_default=True, help="The seed: same data, same seed, same models.")
@json_option
def command(
    workspace: Workspace, tenant: str, policy: str | None, full: bool | None, force: bool, rng: int, as_json: bool
) -> None:
    """Train a tenant's models from the lake and publish them; a running service takes them within a second.

    A model goes live when it is better than what is popular and not worse than the live one by the tenant's margin.
    """
    from thinslice.jobs.train import train

    read_settings(workspace).tenant(tenant)
    trained = train(workspace, tenant, policy=policy, now=datetime.now(UTC), rng=rng, full=full, force=force)
    if as_json:
        print_json([each.as_json() for each in trained])
        return
    for each in trained:
        state = "live" if each.live else "kept, not live: the slot was rolled back"
        where = "" if each.slot == "live" else f" ({each.slot})"
        click.echo(
            f"Trained {', '.join(each.models)}{where} on {each.sessions:,} sessions, {each.clicks:,} clicks, "
            f"{each.items:,} items in {each.seconds:.1f} s; version {each.version} is {state}."
        )
        if any(each.people.values()):
            click.echo(
                f"  Known are {each.people['users']:,} users and {each.people['visitors']:,} visitors without a login; "
                f"{each.people['came_back']:,} of them came more than once."
            )
        for name, figures in each.offline.items():
            click.echo(
                f"  {name:<14} HR@20 {measured(figures['hr'], figures['hr_se'])}   "
                f"MRR@20 {measured(figures['mrr'], figures['mrr_se'])}   (offline, {figures['n']:,} queries)"
            )
        for name, why in each.refused.items():
            instead = "the model before goes on" if name in each.kept else "popularity answers instead"
            click.echo(f"  {name} was withheld, {instead}: {'; '.join(why)}.")
        if each.tuned:
            click.echo(f"  Tuned on these clicks: {', '.join(each.tuned)}.")
        for name, due in each.tuning_due.items():
            click.echo(f"  {name} waits for being tuned ({due}): `thinslice train --full` does it now.")
        if each.simplest:
            click.echo(f"  {each.simplest}")
        if each.default:
            click.echo(f"  The policy auto stands for {each.default}.")
        click.echo("  Since the last model: " + " ".join(each.changes))


def measured(value: float, error: float | None) -> str:
    """A figure with its 95 % interval, which one session alone does not give.

    >>> measured(0.5, 0.01), measured(0.5, None)
    ('0.500 ± 0.020', '0.500 (one session)')
    """
    return f"{value:.3f} (one session)" if error is None else f"{value:.3f} ± {1.96 * error:.3f}"
