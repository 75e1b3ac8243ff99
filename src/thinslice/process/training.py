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
    parser.add_argument("--what", choices=("refit", "feed", "tune"), required=True)
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--share", action="store_true")
    options = parser.parse_args(arguments)
    die_with(options.parent)
    stand_back(keep_share=options.share)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s training %(levelname)s %(message)s")
    log = logging.getLogger("thinslice.jobs")
    from thinslice.jobs.train import train  # only after the bond: this takes a second

    try:
        trained = train(
            Workspace(options.workspace), options.tenant, now=datetime.now(UTC), rng=0,
            full=None if options.what == "tune" else False, feed=options.what == "feed", scheduled=True,
        )  # fmt: skip
    except NotReady as error:
        log.info("%s: %s", options.tenant, error)
        return
    for name, why in trained[0].refused.items() if options.what == "tune" else ():
        log.warning("%s: the new model of %s was withheld: %s", options.tenant, name, "; ".join(why))


if __name__ == "__main__":
    main(sys.argv[1:])
