"""`thinslice experiment shadow NAME`: what a policy would have shown before its launch, and whether it is ready."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from thinslice.cli.experiment_conduct import named_options
from thinslice.cli.workspace import chosen_tenant, print_json
from thinslice.settings import Workspace

if TYPE_CHECKING:
    from thinslice.experiments.support import Share, Support
    from thinslice.jobs.shadow import ShadowReport


@click.command("shadow", short_help="What an experiment in shadow would have shown, and whether it is ready.")
@named_options
def shadow(name: str, tenant: str | None, workspace: Workspace, as_json: bool) -> None:
    """Report the shadow of the experiment NAME: overlap with what was shown, latency, fallbacks, errors, support."""
    import msgspec

    from thinslice.jobs.shadow import shadow_report

    found = shadow_report(workspace, chosen_tenant(workspace, tenant), name, datetime.now(UTC))
    if as_json:
        print_json(msgspec.to_builtins(found))
        return
    _print(found)


def _print(found: "ShadowReport") -> None:
    since = f"{found.shadow_at:%Y-%m-%d %H:%M} UTC"
    click.echo(f"{found.experiment} is {found.status}; {found.share:.0%} of the slates since {since}.")
    if found.dropped:
        click.echo(f"{found.dropped:,} questions were dropped: the workers had better things to do.")
    for row in found.rows:
        click.echo(f"\n{row.sentence}")
        click.echo(f"  policy {row.policy}: {row.slates:,} slates for {row.visitors:,} visitors")
        click.echo(f"  shows what was shown too      {_share(row.overlap)}")
        click.echo(f"  begins with the same item     {_share(row.same_first)}")
        click.echo(f"  places filled by others       {_share(row.fallbacks)}")
        click.echo(f"  slates in which a model broke {_share(row.errors)}")
        for words, took in (("its own", row.latency_ms), ("what was shown", row.live_latency_ms)):
            if took.p50 is not None:
                click.echo(f"  latency, {words:<20} p50 {took.p50:.2f}  p90 {took.p90:.2f}  p99 {took.p99:.2f} ms")
        if row.learned is not None:
            click.echo(f"  its explorer has learned {row.learned[0]:,} batches, {row.learned[1]:,} places")
        print_support(row.support)


def print_support(of: "Support") -> None:
    """How far the log reaches to one variant, as lines."""
    click.echo(f"  {of.sentence}")
    for row in of.segments:
        shown = row["shown"]
        value = shown["value"] if isinstance(shown, dict) else None
        told = "-" if value is None else f"{value:.0%}"
        click.echo(f"    {row['segment']} {row['value']}: {row['slates']} slates, {told} shown before")


def _share(of: "Share") -> str:
    if of.value is None:
        return "-"
    ends = "" if of.ci is None else f"  (95 % interval {of.ci[0]:.1%} to {of.ci[1]:.1%})"
    return f"{of.value:6.1%}{ends}"
