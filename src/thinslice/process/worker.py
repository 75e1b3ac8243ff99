"""One web worker: serves the whole application on the socket that its parent opened, until SIGTERM."""

import argparse
import gc
import logging
import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

import uvicorn

from thinslice.process.bond import die_with
from thinslice.settings import Workspace, read_settings

DRAIN_S = 5
"""How long answers in progress may take after SIGTERM, in seconds; event streams are cut then."""


COLLECT_AFTER = (20_000, 20, 50)
"""A collection looks at all items of all catalogs, for which no slate should wait: so it comes more seldom."""


def main(arguments: Sequence[str]) -> None:
    """Runs a worker; see `thinslice.process.parent` for its command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--name", required=True)
    options = parser.parse_args(arguments)
    die_with(options.parent)
    logging.basicConfig(level=logging.WARNING, format=f"%(asctime)s {options.name} %(levelname)s %(message)s")
    listener = socket.socket(fileno=options.fd)
    from thinslice.web.app import create_app  # only after the bond: this takes a second
    from thinslice.web.lane import lane_protocol

    workspace = Workspace(options.workspace)
    app = create_app(workspace, read_settings(workspace), options.name)
    gc.freeze()  # modules live as long as the process; a slate leaves nothing behind that only the collector finds
    gc.set_threshold(*COLLECT_AFTER)
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http=lane_protocol(app.state.doors),
        ws="none",
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        date_header=False,
        timeout_graceful_shutdown=DRAIN_S,
        timeout_keep_alive=30,
    )
    server = uvicorn.Server(config)
    server.run(sockets=[listener])
    logging.shutdown()
    os._exit(0 if server.started else 1)  # threads of the stores have been closed by the application


if __name__ == "__main__":
    main(sys.argv[1:])
