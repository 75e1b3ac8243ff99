"""`thinslice models`: list, diff, promote and roll back what `train` has published; a running service follows."""

from datetime import UTC, datetime
from typing import Any

import click

from thinslice.cli.workspace import json_option, print_json, workspace_option
from thinslice.settings import BUILT_IN_POLICIES, Workspace

tenant_option = click.option("--tenant", default="shop", show_default=True, help="Whose models.")
slot_option = click.option(
    "--slot", default="live", show_default=True, help="`live`, or `exp.NAME.VARIANT` of an experiment."
)


@click.group("models", short_help="List, compare, promote and roll back trained models.")
def command() -> None:
    """List, compare, promote and roll back trained models; a running service follows within a second."""


@command.command("list")
@workspace_option
@tenant_option
@json_option
def list_(workspace: Workspace, tenant: str, as_json: bool) -> None:
    """Every kept generation, newest first: when it was made, from how much, how it ranked, which one is live."""
    from thinslice.jobs.generations import listed

    rows = listed(workspace, tenant)
    if as_json:
        print_json(rows)
        return
    if not rows:
        click.echo("No models yet: `thinslice train` makes some.")
        return
    click.echo(f"{'version':<17} {'made (UTC)':<17} {'slot':<24} {'sessions':>9}  {'HR@20':>6} {'MRR@20':>6}  of")
    for row in rows:
        # what visitors get speaks for a generation, else its best; of policies of one model the one that bears its name
        best = max(
            row["offline"].items(),
            key=lambda each: (each[0] == row["default"], each[1]["mrr"], each[0] in BUILT_IN_POLICIES),
            default=None,
        )
        figures = f"{'-':>6} {'-':>6}  -"
        if best is not None:
            figures = f"{best[1]['hr']:>6.3f} {best[1]['mrr']:>6.3f}  {best[0]}"
        made = datetime.fromtimestamp(row["stored_at"], UTC).strftime("%Y-%m-%d %H:%M")
        live = " (live)" if row["live"] else ""
        click.echo(f"{row['version']:<17} {made:<17} {row['name']:<24} {row['sessions'] or 0:>9,}  {figures}{live}")
        for line in _remarks(row):
            click.echo(f"    {line}")


@command.command("diff")
@workspace_option
@tenant_option
@slot_option
@click.option("--policy", "policies", multiple=True, help="Compare this policy's models; by default those in use.")
@click.argument("a", default="previous")
@click.argument("b", default="live")
@json_option
def diff(
    workspace: Workspace, tenant: str, slot: str, policies: tuple[str, ...], a: str, b: str, as_json: bool
) -> None:
    """What is different between two generations, by default between the live one and the one before it.

    A and B are versions (their first letters will do), `live` or `previous`.
    """
    from thinslice.jobs import generations

    found = generations.diff(workspace, tenant, a, b, slot=slot, policies=policies, now=datetime.now(UTC))
    if as_json:
        print_json(found)
        return
    click.echo(f"From {found['a']} to {found['b']} ({slot}):")
    for change in found["changes"]:
        click.echo(f"  {change}")
    for names, where in ((found["only_a"], found["a"]), (found["only_b"], found["b"])):
        if names:
            click.echo(f"  only in {where}: {', '.join(names)}.")
    click.echo(f"Asked: {found['questions']}; differences are paired, with 95 % intervals.")
    for row in found["policies"]:
        click.echo(f"  {row['policy']}")
        for metric in row["difference"]:
            moved = row["difference"][metric]
            low, high = moved["ci"]
            between = "" if low is None else f" [{low:+.4f}, {high:+.4f}]"
            click.echo(
                f"    {metric.upper() + '@20':<7} {row['a'][metric]:.4f} to {row['b'][metric]:.4f}: "
                f"{moved['value']:+.4f}{between}"
            )
        if row["sessions"]:
            click.echo(
                f"    slates  {row['overlap']:.1%} the same items, {row['identical']:.1%} the same slate, "
                f"on the newest {row['sessions']:,} sessions"
            )


@command.command("promote")
@workspace_option
@tenant_option
@slot_option
@click.option("--force", is_flag=True, help="Also when it does not pass the gates; the registry notes why.")
@click.argument("version")
@json_option
def promote(workspace: Workspace, tenant: str, slot: str, force: bool, version: str, as_json: bool) -> None:
    """Make a stored VERSION live, if it passes the gates against the one that is live now."""
    from thinslice.jobs import generations

    done = generations.promote(workspace, tenant, version, slot=slot, force=force, now=datetime.now(UTC))
    if as_json:
        print_json(done)
        return
    click.echo(f"Version {done['version']} is live in {slot}; before it was {done['before']}.")
    for why in done["why"]:
        click.echo(f"  By force, against this: {why}")


@command.command("rollback")
@workspace_option
@tenant_option
@slot_option
@json_option
def rollback(workspace: Workspace, tenant: str, slot: str, as_json: bool) -> None:
    """Make the version before the live one live again; trainings on a schedule leave it there."""
    from thinslice.jobs import generations

    done = generations.rollback(workspace, tenant, slot=slot)
    if as_json:
        print_json(done)
        return
    click.echo(
        f"Version {done['version']} is live again in {slot}, in place of {done['before']}. Scheduled trainings "
        "leave it there: `thinslice train` or `thinslice models promote VERSION` goes on."
    )


def _remarks(row: dict[str, Any]) -> list[str]:
    """What should be known of a generation."""
    found = [f"{name} was withheld: {'; '.join(why)}" for name, why in row["refused"].items()]
    found += [f"{name} was published by force: {'; '.join(why)}" for name, why in row["forced"].items()]
    if row["default"]:
        found.append(f"auto stands for {row['default']}")
    if row["held"]:
        found.append("held since a rollback: scheduled trainings leave it live")
    for note in row["notes"]:
        at = datetime.fromtimestamp(note["at"], UTC).strftime("%Y-%m-%d %H:%M")
        against = f", by force against: {'; '.join(note['why'])}" if note["why"] else ""
        found.append(f"{at} {note['action']} by hand{against}")
    return found
