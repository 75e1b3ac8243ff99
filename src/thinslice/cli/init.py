"""`thinslice init`: makes a workspace with one tenant and its keys, or adds a tenant to a workspace."""

import json
import re
import shlex
from pathlib import Path

import click

from thinslice.cli.workspace import json_option, print_json, workspace_option
from thinslice.errors import BadInput
from thinslice.settings import AUTO, NAME_PATTERN, PRESETS, Workspace, parse_settings, read_settings

HEAD = """\
# The settings of this workspace; docs/reference/settings.md lists every one, with its default.
# Running processes read this file when they start.

[serve]
host = "127.0.0.1"
port = 8080
workers = 2
"""

TENANT = """
[tenants.{name}]
title = {title}
preset = "{preset}"
origins = []                      # pages that may use the publishable key, e.g. ["https://shop.example"]
consent_publishable = "none"      # consent of a browser's event that names none: none, measurement, personalization
consent_secret = "personalization"
default_policy = "{policy}"{why}
"""


@click.command("init", short_help="Make a workspace, or one more tenant in it, and its keys.")
@workspace_option
@click.option("--tenant", default="shop", show_default=True, help="The name of the tenant.")
@click.option("--preset", type=click.Choice(PRESETS), default="shop", show_default=True, help="What it recommends.")
@click.option("--new-keys", is_flag=True, help="Three more keys of a tenant that is there; its old ones still work.")
@json_option
def command(workspace: Workspace, tenant: str, preset: str, new_keys: bool, as_json: bool) -> None:
    """Make a workspace, or one more tenant in it, and its keys. The keys are shown this once."""
    keys = make_keys(workspace, tenant) if new_keys else make_tenant(workspace, tenant, preset=preset, policy=AUTO)
    if as_json:
        print_json({"workspace": str(workspace.root), "tenant": tenant, "keys": keys})
        return
    click.echo(f"Workspace {workspace.root}, tenant {tenant}. Its keys, shown only now:")
    for kind, use in (
        ("publishable", "in the browser"),
        ("secret", "on your server"),
        ("admin", "for the console"),
    ):
        click.echo(f"  {kind:<12} {keys[kind]}  ({use})")
    if new_keys:
        return
    where = (
        ""
        if workspace.root.resolve() == Path("workspace").resolve()
        else f" --workspace {shlex.quote(str(workspace.root))}"
    )
    click.echo(f"Next: thinslice import events FILE --tenant {tenant}{where}, then train, then serve.")


def make_tenant(
    workspace: Workspace, tenant: str, *, preset: str = "shop", title: str = "", policy: str = "session-knn"
) -> dict[str, str]:
    """Writes the tenant into the settings file, with its default policy, and makes its keys.

    Returns:
        `publishable`, `secret` and `admin` keys, which are stored nowhere in the clear.

    Raises:
        BadInput: The name is no name, or the tenant is there already.
    """
    if not re.fullmatch(NAME_PATTERN, tenant):
        raise BadInput(
            f"{tenant!r} cannot name a tenant.", hint="Use 1 to 64 of a-z, 0-9, underscore and hyphen: my-shop."
        )
    path = workspace.settings_file
    there = path.is_file()
    if there and tenant in read_settings(workspace).tenants:
        raise BadInput(
            f"tenant {tenant!r} is already in {path}.",
            hint="Choose another --tenant. Keys cannot be shown again; --new-keys makes more of them.",
        )
    text = path.read_text(encoding="utf-8") if there else HEAD
    text = text.rstrip("\n") + "\n" + TENANT.format(
        name=tenant, title=json.dumps(title or tenant), preset=preset, policy=policy,
        why="           # the simplest that is not worse than the best: training chooses" if policy == AUTO else "",
    )  # fmt: skip
    parse_settings(text, where=str(path))
    workspace.root.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".draft")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)
    return make_keys(workspace, tenant)


def make_keys(workspace: Workspace, tenant: str) -> dict[str, str]:
    """Three more keys of a tenant that is there: `publishable`, `secret` and `admin`; those it had still work.

    Raises:
        UnknownName: There is no such tenant.
    """
    from thinslice.store.keys import Keys

    read_settings(workspace).tenant(tenant)
    keys = Keys(workspace.keys_file)
    return {kind: keys.create(tenant, kind) for kind in ("publishable", "secret", "admin")}
