"""`thinslice train`: trains a tenant's models from the lake and publishes them to a running service."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from thinslice.cli.workspace import json_option, of, print_json, workspace_option
from thinslice.settings import Workspace, read_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from thinslice.jobs.publication import Trained

PLAIN = {
    "better than popular": "it is worse than what is popular",
    "not worse than live": "it may be worse than the model that serves now",
    "no segment collapsed": "it fails a part of the visits",
    "coverage": "it shows far fewer different items than the model that serves now",
    "latency": "it is too slow",
}
"""Gate → what it means that it was not passed."""

EVERY_S = 5.0
"""How often a line says how far it is where no terminal shows it, in seconds."""

UNCHANGED = "nothing: the same data, settings and code."
"""What `jobs.offline.changes_of` says where nothing is different."""


@click.command("train", short_help="Train a tenant's models from the lake and publish them.")
@workspace_option
@click.option("--tenant", default="shop", show_default=True, help="Whose models.")
@click.option("--policy", help="Train this policy's model only; by default all policies.")
@click.option(
    "--full/--refit", default=None, help="Tune models anew, or only learn the new clicks; by default when due."
)
@click.option("--force", is_flag=True, help="Publish also what does not pass the gates; the manifest says so.")
@click.option(
    "--rng", type=click.IntRange(0), default=0, show_default=True, help="The seed: same data, same seed, same models."
)
@json_option
def command(
    workspace: Workspace, tenant: str, policy: str | None, full: bool | None, force: bool, rng: int, as_json: bool
) -> None:
    """Train a tenant's models from the lake and publish them; a running service takes them within a second.

    A model goes live when it is better than what is popular and not worse than the live one by the tenant's margin.
    """
    from thinslice.jobs.train import train

    read_settings(workspace).tenant(tenant)
    with telling() as told:
        trained = train(
            workspace, tenant, policy=policy, now=datetime.now(UTC), rng=rng, full=full, force=force, told=told
        )
    if as_json:
        print_json([each.as_json() for each in trained])
        return
    for each in trained:
        where = "" if each.slot == "live" else f" ({each.slot})"
        click.echo(
            f"Trained {', '.join(each.models)}{where} on {each.sessions:,} sessions, {each.clicks:,} clicks, "
            f"{each.items:,} items in {each.seconds:.1f} s; version {each.version} is "
            f"{_state(each, tenant, workspace)}."
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
        if each.slot == "live" and not each.offline:
            click.echo(
                "  How good they are is not known yet: the newest tenth of the sessions holds no second click on an "
                "item that was there before. Nothing is wrong; training measures as soon as there are more sessions."
            )
        for name, why in each.refused.items():
            click.echo(f"  {_refused(name, why, name in each.kept)}")
        if each.refused and each.slot == "live":
            click.echo(
                "    Nothing to mend: training asks again as the log grows. What would help: "
                f"`thinslice evaluate --tenant {tenant}{of('shop', workspace)} --why`; to publish all the same: "
                f"`thinslice train{of(tenant, workspace)} --force`."
            )
        if each.tuned:
            click.echo(f"  Tuned on these clicks: {', '.join(each.tuned)}.")
        for name, due in each.tuning_due.items():
            click.echo(
                f"  {name} serves with the settings it has; it should be tuned ({due}): "
                f"`thinslice train{of(tenant, workspace)} --full` does it now, a running service by itself."
            )
        if each.simplest:
            click.echo(f"  {each.simplest}")
        if each.default:
            click.echo(f"  Visitors get {each.default}: the policy auto stands for it now.")
        click.echo(
            "  Nothing is new since the last model: the same data, settings and code."
            if each.changes == [UNCHANGED]
            else "  Since the last model: " + " ".join(each.changes)
        )


@contextmanager
def telling() -> Iterator[Callable[[str], object]]:
    """Says on stderr what is under way: on a terminal at once, else in lines, one each `EVERY_S` seconds at most."""
    if sys.stderr.isatty():
        from rich.console import Console

        with Console(stderr=True, highlight=False).status("") as status:
            yield status.update
        return
    said_at = time.monotonic()

    def told(what: str) -> None:
        nonlocal said_at
        if time.monotonic() - said_at >= EVERY_S:
            said_at = time.monotonic()
            click.echo(what, err=True)

    yield told


def _state(trained: Trained, tenant: str, workspace: Workspace) -> str:
    """Whether visitors get it, and if not, how they would."""
    if trained.live:
        return "live"
    return (
        "kept but not live, because somebody rolled this slot back; "
        f"`thinslice models promote {trained.version}{of(tenant, workspace)}` makes it live"
    )


def _refused(name: str, why: Sequence[str], kept: bool) -> str:
    """That a model does not go live, by which gate, and what visitors get in its place.

    >>> _refused("session-knn", ["coverage: 40 against 90"], True)[:66]
    'session-knn does not go live, the model before it goes on serving:'
    """
    said = []
    for each in why:
        gate, _, detail = each.partition(": ")
        said.append(f"{PLAIN[gate]} ({detail})" if gate in PLAIN else each)
    instead = "the model before it goes on serving" if kept else "popular items are shown in its place"
    return f"{name} does not go live, {instead}: {'; '.join(said)}."


def measured(value: float, error: float | None) -> str:
    """A figure with its 95 % interval, which one session alone does not give.

    >>> measured(0.5, 0.01), measured(0.5, None)
    ('0.500 ± 0.020', '0.500 (one session)')
    """
    return f"{value:.3f} (one session)" if error is None else f"{value:.3f} ± {1.96 * error:.3f}"
