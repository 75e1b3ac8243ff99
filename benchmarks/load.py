"""A load generator: Poisson arrivals over keep-alive connections, timed from when each request was due.

It shares the machine with what it measures, so it is a plain loop over sockets, and writes its requests beforehand.
"""

import select
import socket
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

GRACE_S = 10.0
"""So long after the last request answers are waited for; those that have not come then are misses."""


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


class Connection:
    """One keep-alive HTTP/1.1 connection with at most one request under way."""

    def __init__(self, host: str, port: int) -> None:
        self.address = (host, port)
        self.due = 0.0
        self.connect()

    def connect(self) -> None:
        """Opens it (again)."""
        self.socket = socket.create_connection(self.address, timeout=5)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.settimeout(None)  # it is read when there is something; a timeout costs a call more each time
        self.buffer = b""
        self.missing = -1

    def fileno(self) -> int:
        """For `select`."""
        return self.socket.fileno()

    def send(self, due: float, request: bytes) -> None:
        """Sends one request that was due at a moment of `time.perf_counter`."""
        self.due, self.buffer, self.missing = due, b"", -1
        self.socket.sendall(request)

    def read(self) -> int:
        """Takes in what has come: the status once the answer is whole, -1 before, 0 when the connection broke."""
        try:
            data = self.socket.recv(65536)
        except OSError:
            data = b""
        if not data:
            self.socket.close()
            self.connect()
            return 0
        self.buffer += data
        if self.missing < 0:
            end = self.buffer.find(b"\r\n\r\n")
            if end < 0:
                return -1
            head = self.buffer[:end].lower()
            at = head.find(b"content-length:")
            length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            self.missing = end + 4 + length
        return int(self.buffer[9:12]) if len(self.buffer) >= self.missing else -1


def poisson(
    host: str, port: int, make: Callable[[int], bytes], *, rate: float, seconds: float, connections: int, rng: int = 0
) -> Outcome:
    """Sends `make(i)` at the times of a Poisson process of `rate` a second, whatever the answers do (open loop)."""
    outcome = Outcome()
    idle = deque(Connection(host, port) for _ in range(connections))
    busy: dict[int, Connection] = {}
    waiting: deque[tuple[float, int]] = deque()
    gaps = np.random.default_rng(rng).exponential(1 / rate, int(rate * seconds))
    requests = [make(number) for number in range(len(gaps))]
    begin = time.perf_counter() + 0.05
    dues = deque((begin + np.cumsum(gaps)).tolist())
    number = 0
    deadline = dues[-1] + GRACE_S if dues else begin
    while dues or busy or waiting:
        now = time.perf_counter()
        while dues and dues[0] <= now:
            waiting.append((dues.popleft(), number))
            number += 1
        while waiting and idle:
            due, which = waiting.popleft()
            connection = idle.popleft()
            connection.send(due, requests[which])
            busy[connection.fileno()] = connection
        if now > deadline:
            break
        pause = max(0.0, (dues[0] if dues else now + 0.1) - time.perf_counter())
        for descriptor in select.select(list(busy), [], [], pause)[0] if busy else _sleep(pause):
            connection = busy[descriptor]
            status = connection.read()
            if status >= 0:
                note(outcome, status, connection.due)
                del busy[descriptor]
                idle.append(connection)
    outcome.errors += len(busy) + len(waiting)
    outcome.seconds = time.perf_counter() - begin
    return outcome


def closed(host: str, port: int, make: Callable[[int], bytes], *, seconds: float, connections: int) -> Outcome:
    """Each connection sends its next request when the last answer came (closed loop)."""
    outcome = Outcome()
    begin = time.perf_counter()
    busy = {Connection(host, port) for _ in range(connections)}
    for number, connection in enumerate(busy):
        connection.send(time.perf_counter(), make(number))
    number = len(busy)
    while busy and time.perf_counter() - begin < seconds + GRACE_S:
        for connection in select.select(busy, [], [], 1.0)[0]:
            status = connection.read()
            if status < 0:
                continue
            now = time.perf_counter()
            note(outcome, status, connection.due)
            if now - begin > seconds:
                busy.discard(connection)
            else:
                connection.send(now, make(number))
                number += 1
    outcome.errors += len(busy)
    outcome.seconds = time.perf_counter() - begin
    return outcome


def note(outcome: Outcome, status: int, due: float) -> None:
    """Remembers one answer."""
    if 200 <= status < 300:
        outcome.latency_ms.append((time.perf_counter() - due) * 1000)
    else:
        outcome.errors += 1


def _sleep(seconds: float) -> list[int]:
    """Nobody is under way: waits, and nothing has come."""
    time.sleep(seconds)
    return []


def post(path: str, key: str, body: bytes) -> bytes:
    """One HTTP/1.1 request as bytes."""
    head = f"POST {path} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {key}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body
