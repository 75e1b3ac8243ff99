"""The program `thinslice`: finds a command's file when it is called, and turns errors into exit codes.

Exit codes are 0 done, 1 failed, 2 bad usage or bad input; messages go to stderr and say what, where and what to do.
"""

import errno
import importlib
import os
import signal
import sys
import threading
from collections.abc import Sequence
from types import FrameType
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
            with _Interrupts():
                return super().invoke(ctx)
        except BrokenPipeError:
            sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115 (nobody reads us any more)
            ctx.exit(1)
        except ThinsliceError as error:
            raise (Refused if isinstance(error, BadInput) else Failed)(str(error)) from None
        except OSError as error:
            raise Failed(_said(error)) from None
        except _of_the_lake() as error:
            said = str(error).partition("\n")[0].rstrip(".")
            raise Failed(f"the lake cannot be read: {said}. Restore what it names from a backup.") from None


def _of_the_lake() -> tuple[type[Exception], ...]:
    """The errors of the lake's libraries about files; none where nobody has imported them."""
    kinds = {"duckdb": ("IOException", "InvalidInputException"), "deltalake.exceptions": ("DeltaError",)}
    return tuple(
        getattr(sys.modules[module], name) for module, names in kinds.items() if module in sys.modules for name in names
    )


def _said(error: OSError) -> str:
    """What the system refused, in words; libraries that write say in many ways that the disk is full.

    >>> _said(OSError("442890 requested and 89056 written"))
    'the disk is full. Make room and do it again: what was stored stays, and nothing is stored twice.'
    >>> _said(PermissionError(13, "Permission denied", "/srv/rec/keys.json"))
    '/srv/rec/keys.json: Permission denied.'
    """
    text = " ".join(str(error).split())
    if error.errno == errno.ENOSPC or "No space left" in text or "requested and" in text:
        where = f" ({error.filename})" if error.filename else ""
        return (
            f"the disk is full{where}. Make room and do it again: what was stored stays, and nothing is stored twice."
        )
    return f"{error.filename or 'the system'}: {(error.strerror or text).rstrip('.')}."


class _Interrupts:
    """What fails after Ctrl-C fails because of it: libraries that compute raise errors of their own then."""

    def __init__(self) -> None:
        self._came = False

    def __enter__(self) -> None:
        self._before = signal.getsignal(signal.SIGINT)
        if self._mine():
            signal.signal(signal.SIGINT, self._come)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if self._mine():
            signal.signal(signal.SIGINT, self._before)
        if self._came and error is not None and not isinstance(error, click.exceptions.Exit):
            raise click.Abort from None

    def _mine(self) -> bool:
        return self._before is signal.default_int_handler and threading.current_thread() is threading.main_thread()

    def _come(self, number: int, frame: FrameType | None) -> None:
        self._came = True
        signal.default_int_handler(number, frame)


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
