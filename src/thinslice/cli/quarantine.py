"""`thinslice quarantine`: what was refused and why, and taking it in again once it is right."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click
import msgspec

from thinslice.cli.workspace import json_option, print_json, workspace_option
from thinslice.errors import BadInput, UnknownName
from thinslice.settings import Workspace, read_settings

if TYPE_CHECKING:
    from thinslice.records import Quarantined


@click.group("quarantine", short_help="What was refused and why; replay it.")
def command() -> None:
    """What was refused and why; replay it once it is right."""


@command.command("list")
@workspace_option
@click.option("--tenant", help="Only this tenant's; by default all.")
@click.option("--code", help="Only what was refused with this code.")
@click.option("--limit", type=click.IntRange(1), default=1000, show_default=True, help="The newest so many.")
@click.option("--all", "everything", is_flag=True, help="Also what was replayed since.")
@json_option
def list_(
    workspace: Workspace, tenant: str | None, code: str | None, limit: int, everything: bool, as_json: bool
) -> None:
    """The refused records, the newest first, each with its reason."""
    rows = read(workspace, tenant, code=code, replayed=everything)
    shown = rows[:limit]
    if as_json:
        print_json([_as_json(row) for row in shown])
        return
    if not rows:
        click.echo("The quarantine is empty.")
        return
    for row in shown:
        where = f" {row.file}:{row.line}" if row.file else ""
        click.echo(f"{row.quarantine_id[:12]}  {row.received_at:%Y-%m-%d %H:%M:%S}  {row.tenant}  {row.kind}{where}")
        click.echo(f"    {row.reason} [{row.code}]")
        click.echo(f"    {row.raw if len(row.raw) <= 200 else row.raw[:199] + '…'}")
    if len(rows) > len(shown):
        click.echo(f"… and {len(rows) - len(shown):,} older ones; --limit shows more.")
    click.echo(f"{len(rows):,} in the quarantine. `thinslice quarantine replay` takes in what is right now.")


@command.command("replay")
@workspace_option
@click.option("--tenant", help="Only this tenant's; by default all.")
@click.option("--code", help="Only what was refused with this code.")
@click.option("--id", "ids", multiple=True, help="Only this record (the beginning of its id is enough); repeatable.")
@click.option("--set", "changes", multiple=True, metavar="FIELD=VALUE", help="Put a value in first; empty: leave out.")
@json_option
def replay_(
    workspace: Workspace,
    tenant: str | None,
    code: str | None,
    ids: tuple[str, ...],
    changes: tuple[str, ...],
    as_json: bool,
) -> None:
    """Take refused records in again; those that are right now reach the lake, the others stay."""
    from thinslice.jobs.load import replay

    change = dict(_change(each) for each in changes)
    rows = read(workspace, tenant, code=code)
    if ids:
        chosen = [row for row in rows if row.quarantine_id.startswith(ids)]
        unknown = [each for each in ids if not any(row.quarantine_id.startswith(each) for row in chosen)]
        if unknown:
            raise UnknownName(f"nothing in the quarantine has the id {', '.join(unknown)}.")
        rows = chosen
    replayed = replay(workspace, rows, now=datetime.now(UTC), change=change)
    if as_json:
        print_json({"replayed": replayed, "remaining": len(rows) - replayed})
        return
    click.echo(f"{replayed:,} of {len(rows):,} are right now and in the lake; {len(rows) - replayed:,} stay.")


def read(
    workspace: Workspace, tenant: str | None, *, code: str | None = None, replayed: bool = False
) -> "list[Quarantined]":
    """The quarantine, the newest first, with what the logs still hold.

    Raises:
        UnknownName: There is no such tenant.
    """
    from thinslice.records import Quarantined
    from thinslice.store.compact import Compactor
    from thinslice.store.lake import Lake
    from thinslice.store.schemas import to_records

    settings = read_settings(workspace)
    if tenant is not None:
        settings.tenant(tenant)
    if workspace.log.is_dir():
        Compactor(workspace).run_once(datetime.now(UTC))
    connection = Lake(workspace.lake).connect(tenant=tenant)
    try:
        query = "SELECT * FROM quarantine ORDER BY received_at DESC, file, line, quarantine_id"
        rows = to_records(Quarantined, connection.sql(query).to_arrow_table())
    finally:
        connection.close()
    return [row for row in rows if (replayed or not row.replayed) and (code is None or row.code == code)]


def _as_json(row: "Quarantined") -> dict[str, Any]:
    try:
        value = msgspec.json.decode(row.raw)
    except msgspec.DecodeError:
        value = None
    sent = {row.kind: value} if isinstance(value, dict) else {"raw": row.raw}
    return {
        **sent,
        "quarantine_id": row.quarantine_id,
        "tenant": row.tenant,
        "kind": row.kind,
        "code": row.code,
        "reason": row.reason,
        "field": row.field,
        "received_at": row.received_at.isoformat(),
        "file": row.file,
        "line": row.line,
        "replayed": row.replayed,
    }


def _change(text: str) -> tuple[str, Any]:
    field, sign, value = text.partition("=")
    if not sign or not field:
        raise BadInput(f"--set {text!r} is not FIELD=VALUE.", hint="Write --set currency=EUR, for instance.")
    return field, value or None
