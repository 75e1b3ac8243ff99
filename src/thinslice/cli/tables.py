"""Tables in the width of the terminal; in a file or a pipe, where nothing is narrow, no line is broken."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

UNBROKEN = 200
"""Columns where no terminal says how many it has."""

WIDE = 110
"""From here on there is room for what matters less; in a narrower window it is left out, not cut off."""


def paper() -> Console:
    """Where a command prints its tables: stdout. COLUMNS, where it is set, says how wide that is."""
    from rich.console import Console

    known = sys.stdout.isatty() or "COLUMNS" in os.environ
    return Console(highlight=False, width=None if known else UNBROKEN)


def plain_table(first: str, *, fold: bool = False) -> Table:
    """A table without lines; its first column names the rows, and with `fold` long names are broken, not cut off."""
    from rich.table import Table

    made = Table(box=None, header_style="bold", pad_edge=False, collapse_padding=True)
    made.add_column(first, no_wrap=not fold, overflow="fold" if fold else "ellipsis")
    return made
