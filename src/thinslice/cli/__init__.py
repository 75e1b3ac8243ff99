"""The command line: one file a command, imported only when it is called."""

from thinslice.cli.program import COMMANDS, main

__all__ = ["COMMANDS", "main"]
