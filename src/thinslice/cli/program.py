"""The program `thinslice`: finds a command's file when it is called, and turns errors into exit codes.

Exit codes are 0 done, 1 failed, 2 bad usage or bad input; messages go to stderr and say what, where and what to do.
"""

import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any

import click

from thinslice import __version__
from thinslice.errors import BadInput, ThinsliceError

COMMANDS = {
    "demo": ("thinslice.cli.demo", "A shop, shoppers and a live experiment to look at, until Ctrl-C."),
    "init": ("thinslice.cli.init", "Make a workspace, or one more tenant in it, and its keys."),
    "keys": ("thinslice.cli.keys", "List, create and revoke keys."),
    "import": ("thinslice.cli.import_", "Read events, items, orders, users or edges from files."),
    "train": ("thinslice.cli.train", "Train a tenant's models from the lake and publish them."),
    "models": ("thinslice.cli.models", "List, compare, promote and roll back trained models."),
    "evaluate": (
        "thinslice.cli.evaluate",
        "How well each model would have ranked the sessions of a tenant or file.",
    ),
    "benchmark": ("thinslice.cli.benchmark", "Goals written down before the first run: freeze, label, run."),
    "serve": ("thinslice.cli.serve", "Run the service: web workers and jobs."),
    "recommend": ("thinslice.cli.recommend", "One slate for a session, in the terminal."),
    "rules": ("thinslice.cli.rules", "What a shop forbids, prefers and pins; what each rule takes out of a slate."),
    "experiment": ("thinslice.cli.experiment", "Start, stop, report and list experiments; analyze a file."),
    "rehearse": ("thinslice.cli.rehearse", "An experiment before it is run, on shoppers whose truth is known."),
    "quarantine": ("thinslice.cli.quarantine", "What was refused and why; replay it."),
    "doctor": ("thinslice.cli.doctor", "Why it is empty, slow, stale or stuck, and what to do."),
}
"""Command → the module whose `command` it is, and its line in `--help` (so that help imports nothing else)."""


class Program(click.Group):
    """A group whose commands are imported when they are called, and whose errors are exit codes."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """The commands in the order in which a newcomer meets them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Imports one command's file."""
        if cmd_name not in COMMANDS:
            return None
        command = importlib.import_module(COMMANDS[cmd_name][0]).command
        if not isinstance(command, click.Command):
            raise TypeError(f"{COMMANDS[cmd_name][0]}.command is no click command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """The list in `--help`, written without importing any command."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        """Runs a command; what Thinslice or the disk refuses becomes a sentence on stderr and an exit code."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115 (nobody reads us any more)
            ctx.exit(1)
        except ThinsliceError as error:
            raise (Refused if isinstance(error, BadInput) else Failed)(str(error)) from None
        except OSError as error:
            raise Failed(f"{error.filename or 'the system'}: {error.strerror or error}.") from None


class Failed(click.ClickException):
    """It could not be done."""

    exit_code = 1


class Refused(click.ClickException):
    """What was asked is wrong."""

    exit_code = 2


@click.group(cls=Program, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="thinslice")
def program() -> None:
    """Recommendations from a thin slice of behavior, and the experiments that prove they help."""


def main(arguments: Sequence[str] | None = None) -> None:
    """The entry point of the console script."""
    program(args=arguments, prog_name="thinslice")
