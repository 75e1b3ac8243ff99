"""`thinslice keys`: which keys a page, a server or a person holds; make one more, or take one's rights away."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from thinslice.cli.workspace import chosen_tenant, json_option, print_json, workspace_option
from thinslice.errors import BadInput
from thinslice.settings import Workspace, read_settings

if TYPE_CHECKING:
    from thinslice.store.keys import NamedKey

KINDS = {"publishable": "in the browser", "secret": "on your server", "admin": "for the console"}
"""Each kind and where it is used."""


@click.group("keys", short_help="List, create and revoke keys.")
def command() -> None:
    """List, create and revoke keys. A running service follows at its next request."""


@command.command("list")
@workspace_option
@click.option("--tenant", default=None, help="Only this tenant's; by default all.")
@json_option
def list_(workspace: Workspace, tenant: str | None, as_json: bool) -> None:
    """Every key: its kind, whose it is, its first characters, its id, and when it was made."""
    from thinslice.store.keys import Keys

    settings = read_settings(workspace)
    if tenant is not None:
        settings.tenant(tenant)
    found = [each for each in Keys(workspace.keys_file).named() if tenant in (None, each.info.tenant)]
    if as_json:
        print_json([_row(each) for each in found])
        return
    if not found:
        click.echo("No key yet; `thinslice keys create` makes one.")
    for each in found:
        info = each.info
        made = f"{info.created_at:%Y-%m-%d %H:%M}" if info.created_at else "not known"
        state = "revoked" if info.revoked else "works"
        pages = f"  {', '.join(info.origins)}" if info.origins else ""
        click.echo(f"{info.tenant:<16} {info.kind:<12} {each.start + '…':<14} id {each.id}  {made:<16}  {state}{pages}")


@command.command("create")
@workspace_option
@click.option("--tenant", default=None, help="Whose; may be left out when the workspace has one tenant.")
@click.option("--kind", type=click.Choice(tuple(KINDS)), required=True, help="For a page, a server or a person.")
@click.option("--origin", "origins", multiple=True, metavar="URL",
              help="A page that may use it, https://shop.example; by default the tenant's settings say.")  # fmt: skip
@json_option
def create(workspace: Workspace, tenant: str | None, kind: str, origins: tuple[str, ...], as_json: bool) -> None:
    """Make one more key. It is shown this once."""
    from thinslice.store.keys import Keys, key_id

    of = chosen_tenant(workspace, tenant)
    key = Keys(workspace.keys_file).create(of, kind, [_origin(each) for each in origins], now=datetime.now(UTC))
    if as_json:
        print_json({"key": key, "id": key_id(key), "tenant": of, "kind": kind, "origins": list(origins)})
        return
    click.echo(f"One more {kind} key of {of} ({KINDS[kind]}), shown only now:")
    click.echo(f"  {key}")
    click.echo(f"`thinslice keys revoke {key_id(key)}` takes it back.")


@command.command("revoke")
@click.argument("key")
@workspace_option
@click.option("--tenant", default=None, help="Only a key of this tenant.")
@json_option
def revoke(key: str, workspace: Workspace, tenant: str | None, as_json: bool) -> None:
    """Take a key's rights away, named by its first characters (at least 8) or its id."""
    from thinslice.store.keys import Keys

    settings = read_settings(workspace)
    if tenant is not None:
        settings.tenant(tenant)
    keys = Keys(workspace.keys_file)
    done = keys.revoke_named(key, tenant)
    if as_json:
        print_json(_row(done))
        return
    click.echo(f"The {done.info.kind} key {done.start}… of {done.info.tenant} (id {done.id}) is refused from now on.")
    same = (done.info.tenant, done.info.kind)
    if not any((info.tenant, info.kind) == same and not info.revoked for info in keys.all()):
        click.echo(
            f"{done.info.tenant} has no {done.info.kind} key left; "
            f"`thinslice keys create --kind {done.info.kind} --tenant {done.info.tenant}` makes one."
        )


def _row(key: "NamedKey") -> dict[str, Any]:
    info = key.info
    return {
        "id": key.id, "tenant": info.tenant, "kind": info.kind, "start": key.start,
        "created_at": None if info.created_at is None else info.created_at.isoformat(), "revoked": info.revoked,
        "origins": list(info.origins),
    }  # fmt: skip


def _origin(text: str) -> str:
    from urllib.parse import urlsplit

    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.netloc or parts.path.strip("/") or parts.query:
        raise BadInput(f"{text!r} is no origin.", hint="Write scheme and host: https://shop.example.")
    return f"{parts.scheme}://{parts.netloc}"
