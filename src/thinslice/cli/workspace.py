"""What every command shares: which workspace it works in, and results as JSON."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from thinslice.settings import Workspace

Function = TypeVar("Function", bound=Callable[..., Any])


def to_workspace(text: str) -> Workspace:
    """The folder named on the command line; it need not exist yet."""
    return Workspace(Path(text).expanduser().resolve())


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


def json_option(function: Function) -> Function:
    """Adds `--json`; the function gets `as_json: bool`."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON value instead of words.")(function)


def print_json(value: Any) -> None:
    """Prints one JSON value on one line; NaN is refused rather than printed."""
    click.echo(json.dumps(value, ensure_ascii=False, allow_nan=False))
