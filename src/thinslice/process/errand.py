"""One errand of the jobs in a process of its own, behind all else: writing down ended sessions."""

import argparse
import json
import logging
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from thinslice.process.bond import die_with, stand_back
from thinslice.settings import Workspace
from thinslice.store.lake import Lake


def sessions(workspace: Workspace) -> dict[str, Any]:
    """Writes down the sessions that have ended; `due_at` is when the next open one may end, in unix seconds."""
    from thinslice.jobs.sessions import write_sessions

    written = write_sessions(Lake(workspace.lake), datetime.now(UTC))
    return {"sessions": written.sessions, "due_at": written.due_at}


ERRANDS: dict[str, Callable[[Workspace], dict[str, Any]]] = {"sessions": sessions}
"""Name → what it does; what it returns is printed as one line of JSON, with the seconds that it computed."""


def main(arguments: Sequence[str]) -> None:
    """Runs one errand; see `thinslice.process.jobs` for its command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--what", choices=tuple(ERRANDS), required=True)
    parser.add_argument("--parent", type=int, required=True)
    options = parser.parse_args(arguments)
    die_with(options.parent)
    stand_back()
    logging.basicConfig(level=logging.WARNING, format=f"%(asctime)s {options.what} %(levelname)s %(message)s")
    found = ERRANDS[options.what](Workspace(options.workspace))
    sys.stdout.write(json.dumps({**found, "computed_s": time.process_time()}) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
