"""One training of one tenant in a process of its own: what it takes and breaks goes with it."""

import argparse
import logging
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from thinslice.errors import NotReady
from thinslice.process.bond import die_with, stand_back
from thinslice.settings import Workspace


def main(arguments: Sequence[str]) -> None:
    """Trains and publishes; see `thinslice.process.jobs` for its command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--tenant", required=True)
    parser.add_argument("--parent", type=int, required=True)
    options = parser.parse_args(arguments)
    die_with(options.parent)
    stand_back()
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s training %(levelname)s %(message)s")
    from thinslice.jobs.train import train  # only after the bond: this takes a second

    try:
        train(Workspace(options.workspace), options.tenant, now=datetime.now(UTC), rng=0)
    except NotReady as error:
        logging.getLogger("thinslice.jobs").info("%s: %s", options.tenant, error)


if __name__ == "__main__":
    main(sys.argv[1:])
