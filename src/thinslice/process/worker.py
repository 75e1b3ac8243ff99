"""One web worker: serves the whole application on the socket that its parent opened, until SIGTERM."""

import argparse
import asyncio
import gc
import logging
import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import uvicorn

from thinslice.process.bond import die_with, stay_on
from thinslice.settings import Workspace, read_settings

if TYPE_CHECKING:
    from thinslice.web.balance import Balance

DRAIN_S = 5
"""How long answers in progress may take after SIGTERM, in seconds; event streams are cut then."""


COLLECT_AFTER = (20_000, 20, 50)
"""A collection looks at all items of all catalogs, for which no slate should wait: so it comes more seldom."""


class Server(uvicorn.Server):
    """uvicorn's server, which also takes connections that other workers hand over."""

    def __init__(self, config: uvicorn.Config, balance: "Balance | None") -> None:
        super().__init__(config)
        self._balance = balance

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begins to listen, and then to take."""
        await super().startup(sockets)
        if self._balance is not None:
            self._balance.begin(asyncio.get_running_loop(), self._protocol)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Takes no more, and lets what was begun be answered."""
        if self._balance is not None:
            self._balance.end()
        await super().shutdown(sockets)

    def _protocol(self) -> asyncio.Protocol:
        made: asyncio.Protocol = self.config.http_protocol_class(  # type: ignore[call-arg]
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return made


def main(arguments: Sequence[str]) -> None:
    """Runs a worker; see `thinslice.process.parent` for its command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--processor", type=int)
    parser.add_argument("--inbox", type=int, help="where connections of the other workers arrive")
    parser.add_argument("--outbox", nargs=2, action="append", default=[], metavar=("NAME", "FD"))
    options = parser.parse_args(arguments)
    die_with(options.parent)
    if options.processor is not None:
        stay_on(options.processor)
    logging.basicConfig(level=logging.WARNING, format=f"%(asctime)s {options.name} %(levelname)s %(message)s")
    listener = socket.socket(fileno=options.fd)
    from thinslice.web.app import create_app  # only after the bond: this takes a second
    from thinslice.web.balance import Balance, Board
    from thinslice.web.lane import lane_protocol

    workspace = Workspace(options.workspace)
    app = create_app(workspace, read_settings(workspace), options.name)
    balance = None
    if options.inbox is not None:
        outboxes = {name: socket.socket(fileno=int(descriptor)) for name, descriptor in options.outbox}
        board = Board(workspace.run / "balance", sorted([options.name, *outboxes]))
        balance = Balance(options.name, board, socket.socket(fileno=options.inbox), outboxes)
    gc.freeze()  # modules live as long as the process; a slate leaves nothing behind that only the collector finds
    gc.set_threshold(*COLLECT_AFTER)
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http=lane_protocol(app.state.doors, balance),
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
    server = Server(config, balance)
    server.run(sockets=[listener])
    logging.shutdown()
    os._exit(0 if server.started else 1)  # threads of the stores have been closed by the application


if __name__ == "__main__":
    main(sys.argv[1:])
