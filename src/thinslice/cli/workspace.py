"""What every command shares: which workspace and tenant it works in, and results as JSON."""

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from thinslice.errors import BadInput
from thinslice.settings import Workspace, read_settings

UNFIT = "%[]^|\\"
"""Characters of a folder's name that the library of the lake reads as something else."""

Function = TypeVar("Function", bound=Callable[..., Any])


def to_workspace(text: str) -> Workspace:
    """The folder named on the command line; it need not exist yet.

    Raises:
        BadInput: It is a file or lies under one, or its path, with all folders above it, holds a character that no
            lake can be kept under.
    """
    root = Path(text).expanduser().resolve()
    unfit = next((letter for letter in str(root) if letter in UNFIT or not letter.isprintable()), None)
    if unfit is not None:
        shown = str(root) if unfit.isprintable() else ascii(str(root))
        raise BadInput(
            f"a workspace cannot lie in {shown}: its tables cannot be kept under a path with {unfit!r}.",
            hint=f"Choose a folder whose path has none of {' '.join(UNFIT)} in it.",
        )
    file = next((each for each in (root, *root.parents) if each.exists() and not each.is_dir()), None)
    if file is not None:
        raise BadInput(f"a workspace is a folder, and {file} is a file.", hint="Name a folder, or one to be made.")
    return Workspace(root)


def chosen_tenant(workspace: Workspace, tenant: str | None) -> str:
    """The tenant named on the command line, or the only one there is.

    Raises:
        BadInput: There are several, or none.
        UnknownName: There is none of that name.
    """
    settings = read_settings(workspace)
    if tenant is None:
        if len(settings.tenants) != 1:
            known = ", ".join(sorted(settings.tenants)) or "none"
            raise BadInput(f"--tenant is needed: the workspace has {len(settings.tenants)} tenants ({known}).")
        return next(iter(settings.tenants))
    settings.tenant(tenant)
    return tenant


def workspace_option(function: Function) -> Function:
    """Adds `--workspace DIR` (default ./workspace); the function gets `workspace: Workspace`."""
    return click.option(
        "--workspace",
        type=to_workspace,
        default="./workspace",
        metavar="DIR",
        show_default=True,
        help="The folder of this installation.",
    )(function)


def of(tenant: str, workspace: Workspace) -> str:
    """The options of a command to type next, each after a space: a tenant and a workspace that are not the default.

    >>> of("shop", to_workspace("./workspace")), of("toys", Workspace(Path("/srv/rec")))
    ('', ' --workspace /srv/rec --tenant toys')
    """
    where = "" if workspace.root == Path("workspace").resolve() else f" --workspace {shlex.quote(str(workspace.root))}"
    return where + ("" if tenant == "shop" else f" --tenant {tenant}")


def json_option(function: Function) -> Function:
    """Adds `--json`; the function gets `as_json: bool`."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON value instead of words.")(function)


def print_json(value: Any) -> None:
    """Prints one JSON value on one line; NaN is refused rather than printed."""
    click.echo(json.dumps(value, ensure_ascii=False, allow_nan=False))
