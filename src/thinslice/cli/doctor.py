"""`thinslice doctor`: why it is empty, slow, stale or stuck, and what to do."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from thinslice.cli.workspace import json_option, print_json, workspace_option
from thinslice.settings import Workspace

if TYPE_CHECKING:
    from thinslice.jobs.checkup import Finding

MARKS = {"ok": "ok     ", "look": "look   ", "problem": "PROBLEM"}


@click.command("doctor", short_help="Why it is empty, slow, stale or stuck, and what to do.")
@workspace_option
@json_option
def command(workspace: Workspace, as_json: bool) -> None:
    """Check a workspace: one line a check, and what to do about each that is not well.

    The exit code is 1 when one of them is a problem, else 0.
    """
    import msgspec

    from thinslice.jobs.checkup import ORDER, check_up

    findings = check_up(workspace, datetime.now(UTC))
    worst = max((finding.status for finding in findings), key=ORDER.__getitem__)
    if as_json:
        rows = [msgspec.structs.asdict(finding) for finding in findings]
        print_json({"workspace": str(workspace.root), "status": worst, "findings": rows})
    else:
        _print(workspace, findings, worst)
    if worst == "problem":
        raise click.exceptions.Exit(1)


def _print(workspace: Workspace, findings: list[Finding], worst: str) -> None:
    click.echo(f"Workspace {workspace.root}")
    for finding in findings:
        color = {"ok": "green", "look": "yellow", "problem": "red"}[finding.status]
        click.echo(f"  {click.style(MARKS[finding.status], fg=color)}  {finding.name:<11} {finding.message}")
        if finding.advice:
            click.echo(f"{'':<22}→ {finding.advice}")
    said = {
        "ok": "All is well.",
        "look": "It works; some things are worth a look.",
        "problem": "Something is the matter.",
    }
    click.echo(said[worst])
