"""What every command shares: which workspace it works in, and results as JSON."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from thinslice.settings import Workspace

Function = TypeVar("Function", bound=Callable[..., Any])


class WorkspacePath(click.ParamType):
    """A folder on the command line, handed on as a `Workspace`."""

    name = "directory"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Workspace:
        """Resolves the folder; it need not exist yet."""
        return value if isinstance(value, Workspace) else Workspace(Path(value).expanduser().resolve())


def workspace_option(function: Function) -> Function:
    """Adds `--workspace DIR` (default ./workspace); the function gets `workspace: Workspace`."""
    return click.option(
        "--workspace",
        type=WorkspacePath(),
        default="./workspace",
        show_default=True,
        help="The folder of this installation.",
    )(function)


def json_option(function: Function) -> Function:
    """Adds `--json`; the function gets `as_json: bool`."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON value instead of words.")(function)


def print_json(value: Any) -> None:
    """Prints one JSON value on one line; NaN is refused rather than printed."""
    click.echo(json.dumps(value, ensure_ascii=False, allow_nan=False))
