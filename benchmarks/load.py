"""A load generator: Poisson arrivals over keep-alive connections, timed from when each request was due."""

import asyncio
import selectors
import time
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass
class Outcome:
    """What came back: latencies in milliseconds from the scheduled arrival; an error counts as a miss."""

    latency_ms: list[float] = field(default_factory=list)
    errors: int = 0
    seconds: float = 0.0

    def row(self) -> dict[str, float]:
        """p50, p90, p99 over all requests, errors as infinite."""
        values = np.array(self.latency_ms + [np.inf] * self.errors)
        p50, p90, p99 = np.percentile(values, [50, 90, 99], method="higher")
        rate = len(self.latency_ms) / self.seconds
        return {"per_s": rate, "p50_ms": float(p50), "p90_ms": float(p90), "p99_ms": float(p99), "errors": self.errors}


def run(load: Coroutine[None, None, Outcome]) -> Outcome:
    """Runs a load in a loop whose timers keep to microseconds; the default loop's wake up to a millisecond late."""
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selectors.SelectSelector())) as runner:
        return runner.run(load)


class Connection(asyncio.Protocol):
    """One keep-alive HTTP/1.1 connection with at most one request under way."""

    def __init__(self, freed: Callable[["Connection"], None]) -> None:
        self.freed = freed
        self.buffer = b""
        self.done: Callable[[int], None] | None = None
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remembers the transport."""
        self.transport = transport  # type: ignore[assignment]

    def send(self, request: bytes, done: Callable[[int], None]) -> None:
        """Sends one request; `done` gets the status, 0 when the connection broke."""
        self.done = done
        self.buffer = b""
        assert self.transport is not None
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        """Finds the end of the answer by its content-length."""
        self.buffer += data
        head, found, body = self.buffer.partition(b"\r\n\r\n")
        if not found:
            return
        at = head.lower().find(b"content-length:")
        length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
        if len(body) >= length and self.done is not None:
            done, self.done = self.done, None
            done(int(head[9:12]))
            self.freed(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """A request under way has failed."""
        if self.done is not None:
            done, self.done = self.done, None
            done(0)


async def poisson(
    host: str, port: int, make: Callable[[int], bytes], *, rate: float, seconds: float, connections: int, rng: int = 0
) -> Outcome:
    """Sends `make(i)` at the times of a Poisson process of `rate` a second, whatever the answers do (open loop)."""
    outcome = Outcome()
    idle: deque[Connection] = deque()
    waiting: deque[tuple[float, bytes]] = deque()
    loop = asyncio.get_running_loop()

    def freed(connection: Connection) -> None:
        if waiting:
            start(connection, *waiting.popleft())
        else:
            idle.append(connection)

    def start(connection: Connection, due: float, request: bytes) -> None:
        def done(status: int) -> None:
            if 200 <= status < 300:
                outcome.latency_ms.append((time.perf_counter() - due) * 1000)
            else:
                outcome.errors += 1

        connection.send(request, done)

    for _ in range(connections):
        _, connection = await loop.create_connection(lambda: Connection(freed), host, port)
        idle.append(connection)
    gaps: NDArray[np.float64] = np.random.default_rng(rng).exponential(1 / rate, int(rate * seconds))
    begin = time.perf_counter() + 0.05
    total = 0
    for offset in np.cumsum(gaps):
        due = begin + offset
        pause = due - time.perf_counter()
        if pause > 0:
            await asyncio.sleep(pause)
        request = make(total)
        total += 1
        if idle:
            start(idle.popleft(), due, request)
        else:
            waiting.append((due, request))
    deadline = time.perf_counter() + 10
    while len(outcome.latency_ms) + outcome.errors < total and time.perf_counter() < deadline:
        await asyncio.sleep(0.01)
    outcome.errors += total - len(outcome.latency_ms) - outcome.errors
    outcome.seconds = time.perf_counter() - begin
    return outcome


async def closed(host: str, port: int, make: Callable[[int], bytes], *, seconds: float, connections: int) -> Outcome:
    """Each connection sends its next request when the last answer came (closed loop)."""
    outcome = Outcome()
    loop = asyncio.get_running_loop()
    begin = time.perf_counter()
    counter = 0
    finished = loop.create_future()
    busy = connections

    def freed(connection: Connection) -> None:
        nonlocal counter, busy
        if time.perf_counter() - begin > seconds:
            busy -= 1
            if busy == 0:
                finished.set_result(None)
            return
        sent = time.perf_counter()

        def done(status: int) -> None:
            if 200 <= status < 300:
                outcome.latency_ms.append((time.perf_counter() - sent) * 1000)
            else:
                outcome.errors += 1

        counter += 1
        connection.send(make(counter), done)

    for _ in range(connections):
        _, connection = await loop.create_connection(lambda: Connection(freed), host, port)
        freed(connection)
    await asyncio.wait_for(finished, seconds + 30)
    outcome.seconds = time.perf_counter() - begin
    return outcome


def post(path: str, key: str, body: bytes) -> bytes:
    """One HTTP/1.1 request as bytes."""
    head = f"POST {path} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {key}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body
