"""The fast lane: a slate is answered in the moment its last byte arrives, without the queue that pages wait in.

For each request uvicorn starts a task, and takes its answer in pieces; that costs as much as half of making a slate.
Routes that never wait need neither: this protocol answers them where they arrive, and leaves all else to uvicorn.
"""

import asyncio
import time
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import unquote

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from thinslice.web.balance import Balance, Tally
from thinslice.web.door import MAX_BODY_BYTES, Door, JsonRoute
from thinslice.web.waiting import Rounds

Lane = tuple[Door, dict[bytes, JsonRoute]]
"""A door, and those of its routes, by method, that never wait."""


class Lanes(NamedTuple):
    """The fast routes: by path, and by beginning and end of a path with a part of its own between them."""

    by_path: dict[bytes, Lane]
    by_pattern: list[tuple[bytes, bytes, Lane]]


def lanes_of(doors: Mapping[str, Door]) -> Lanes:
    """The routes that can be answered at once."""
    lanes = Lanes({}, [])
    for path, door in doors.items():
        routes = door.routes.items()
        lane = (door, {method.encode(): route for method, route in routes if method != "HEAD" and not route.waits})
        if "{" in path:
            begin, _, end = path.replace("}", "{").split("{")
            lanes.by_pattern.append((begin.encode(), end.encode(), lane))
        else:
            lanes.by_path[path.encode()] = lane
    return lanes


class Ready(NamedTuple):
    """A request on the fast lane whose body is on its way."""

    door: Door
    route: JsonRoute
    query: bytes
    part: str


class LaneProtocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 with a fast lane; `lane_protocol` makes the class that `uvicorn.Config(http=...)` takes."""

    lanes: Lanes
    rounds: Rounds
    balance: Balance | None

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.tally = Tally()
        self._between = False
        self._lane: Ready | None = None
        self._body = b""
        self._last = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Sends each answer when it is made, and not after those of other connections that arrived beside it."""
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=0)

    def data_received(self, data: bytes) -> None:
        """Takes in what has come; a connection that was answered on the lane and brought nothing else may move."""
        super().data_received(data)
        if self._between:
            self._between = False
            if self.balance is not None:
                self.balance.answered(self)

    def on_message_begin(self) -> None:
        """Begins; what only uvicorn needs waits until it does."""
        self._between = False
        self.url = b""
        self.expect_100_continue = False
        self.headers = []

    def on_headers_complete(self) -> None:
        """Takes the lane when the request has one, is alone on its connection, and says how long it is."""
        path, _, query = self.url.partition(b"?")
        self._lane = self._found(path, query) if (self.cycle is None or self.cycle.response_complete) else None
        if self._lane is None:
            url, headers, expect = self.url, self.headers, self.expect_100_continue
            super().on_message_begin()
            self.url, self.expect_100_continue = url, expect
            self.headers += headers
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Gathers the body."""
        if self._lane is None:
            super().on_body(body)
        else:
            self._body = self._body + body if self._body else body

    def on_message_complete(self) -> None:
        """Answers."""
        if self._lane is None:
            super().on_message_complete()
            return
        door, route, query, part = self._lane
        body, self._lane, self._body = self._body, None, b""
        last = self._last or not self.parser.should_keep_alive()
        waited_s = self.rounds.waited_s(self.loop.time(), time.monotonic())
        self.transport.write(door.at_once(route, dict(self.headers), query, body, part, last=last, waited_s=waited_s))
        self.rounds.answered(time.monotonic())
        if last:
            self.transport.close()
        self.on_response_complete()
        self._between = not last

    def shutdown(self) -> None:
        """Lets a request whose body is still on its way have its answer."""
        if self._lane is None:
            super().shutdown()
        else:
            self._last = True

    def _found(self, path: bytes, query: bytes) -> Ready | None:
        lane, part = self.lanes.by_path.get(path), ""
        if lane is None:
            for begin, end, each in self.lanes.by_pattern:
                if path.startswith(begin) and path.endswith(end) and len(path) > len(begin) + len(end):
                    lane, part = each, unquote(path[len(begin) : len(path) - len(end)].decode("ascii"))
                    break
            else:
                return None
        route = lane[1].get(self.parser.get_method())
        if route is None or self.pipeline or self.expect_100_continue or self.flow.write_paused or not self._plain():
            return None
        return Ready(lane[0], route, query, part)

    def _plain(self) -> bool:
        """Whether the headers tell a length within the limit, or none, and nothing that changes the conversation."""
        for name, value in self.headers:
            if name == b"content-length":
                if not value.isdigit() or len(value) > 9 or int(value) > MAX_BODY_BYTES:
                    return False
            elif name in (b"transfer-encoding", b"upgrade"):
                return False
        return bool(self.parser.get_http_version() == "1.1")


def lane_protocol(doors: Mapping[str, Door], balance: Balance | None = None) -> type[LaneProtocol]:
    """The protocol class of one worker; `balance` moves connections between it and others."""
    own = {"lanes": lanes_of(doors), "rounds": Rounds(), "balance": balance}
    return type("WorkerProtocol", (LaneProtocol,), own)
