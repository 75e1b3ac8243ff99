"""Connections go where there is time: the worker that computes most hands idle ones over, and no caller notices.

The kernel deals connections out to the workers by chance, and a proxy keeps its few for hours: of 64, one worker often
has 40, and three fifths of all slates with them, so that it queues while the other rests. So each worker says how much
it computes; the one that does more than the mean gives away connections that bring as much as it has too much.
"""

import asyncio
import logging
import mmap
import os
import socket
import struct
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

MEASURE_EVERY_S = 0.5
"""How long a worker measures itself, in seconds."""

LEAST_SURPLUS = 0.03
"""What a worker does more than the mean, in cores, is left with it up to here."""

SILENT_S = 2.0
"""A worker that has not said anything for so long (seconds) is not there."""

_log = logging.getLogger("thinslice.web")
_ENTRY = struct.Struct("=dd")


class Board:
    """What each worker computes, in a small file that all of them share.

    Args:
        path: The file; it is made when it is not there.
        names: Of all workers.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     board = Board(Path(folder) / "board", ["w1", "w2"])
    ...     board.say("w1", 0.25, now=100.0)
    ...     board.heard(now=100.5), board.heard(now=103.0)
    ({'w1': 0.25}, {})
    """

    def __init__(self, path: Path, names: Sequence[str]) -> None:
        self._at = {name: number * _ENTRY.size for number, name in enumerate(names)}
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(descriptor, len(names) * _ENTRY.size)
            self._map = mmap.mmap(descriptor, len(names) * _ENTRY.size)
        finally:
            os.close(descriptor)

    def say(self, name: str, share: float, now: float) -> None:
        """Tells the others how much of a core one worker computes.

        Args:
            name: Whose share it is.
            share: Seconds on a processor a second.
            now: `time.monotonic()`, which all processes of a machine share.
        """
        _ENTRY.pack_into(self._map, self._at[name], now, share)

    def heard(self, now: float) -> dict[str, float]:
        """The shares of the workers that are there."""
        said = {name: _ENTRY.unpack_from(self._map, at) for name, at in self._at.items()}
        return {name: share for name, (at, share) in said.items() if 0.0 <= now - at <= SILENT_S}


class Gift(NamedTuple):
    """What a worker shall give away.

    Attributes:
        to: Which worker gets it.
        share: How much of what this worker does: of its answers, in 0..1.
    """

    to: str
    share: float


def gift(name: str, shares: Mapping[str, float]) -> Gift | None:
    """What one worker gives to the one that computes least, so that neither passes the mean; None when it has no more.

    >>> gift("w1", {"w1": 1.0, "w2": 0.5})
    Gift(to='w2', share=0.25)
    >>> gift("w2", {"w1": 1.0, "w2": 0.5}) is None
    True
    """
    mine, mean = shares[name], sum(shares.values()) / len(shares)
    to = min(shares, key=lambda each: shares[each])
    surplus = min(mine - mean, mean - shares[to])
    return Gift(to, surplus / mine) if surplus > LEAST_SURPLUS else None


class Tally:
    """How many answers one connection had, in the measured time before and since."""

    __slots__ = ("before", "round", "since")

    def __init__(self) -> None:
        self.round = self.before = self.since = 0


class Connection(Protocol):
    """What can be handed over: the protocol of one connection, between two requests."""

    tally: Tally
    transport: asyncio.Transport


class Balance:
    """One worker's part in the balance of all.

    Args:
        name: Of this worker.
        board: What all workers say.
        inbox: Where connections of others arrive.
        outboxes: Where this one's go, by worker.
    """

    def __init__(self, name: str, board: Board, inbox: socket.socket, outboxes: Mapping[str, socket.socket]) -> None:
        self._name = name
        self._board = board
        self._inbox = inbox
        self._outboxes = outboxes
        self._round = self._answers = self._answers_before = 0
        self._computed = 0.0
        self._gift: Gift | None = None
        self._arriving: set[asyncio.Task[Any]] = set()
        self._timer: asyncio.TimerHandle | None = None
        inbox.setblocking(False)
        for outbox in outboxes.values():
            outbox.setblocking(False)

    def begin(self, loop: asyncio.AbstractEventLoop, make: Callable[[], asyncio.Protocol]) -> None:
        """Takes connections from now on, and measures, for as long as the loop runs.

        Args:
            loop: Of this worker.
            make: The protocol for a connection.
        """
        self._loop, self._make = loop, make
        self._measured_at, self._computed = time.monotonic(), time.thread_time()
        loop.add_reader(self._inbox.fileno(), self._take)
        self._timer = loop.call_later(MEASURE_EVERY_S, self._measure)

    def end(self) -> None:
        """Takes and gives nothing any more."""
        self._gift = None
        if self._timer is not None:
            self._timer.cancel()
            self._loop.remove_reader(self._inbox.fileno())

    def answered(self, connection: Connection) -> None:
        """Counts an answer, and gives the connection away when it brings what is to be given.

        Nothing of a next request may have been read from it.
        """
        tally = connection.tally
        if tally.round != self._round:
            tally.before = tally.since if tally.round == self._round - 1 else 0
            tally.since, tally.round = 0, self._round
        tally.since += 1
        self._answers += 1
        if self._gift is not None and tally.before:
            share = tally.before / max(1, self._answers_before)
            if share <= self._gift.share and self._hand_over(connection, self._gift.to):
                self._gift = self._gift._replace(share=self._gift.share - share)

    def _measure(self) -> None:
        now, computed = time.monotonic(), time.thread_time()
        share = (computed - self._computed) / (now - self._measured_at)
        self._measured_at, self._computed = now, computed
        self._board.say(self._name, share, now)
        # After a round in which connections moved, half of what was measured is from before: so it gives in every
        # other round.
        self._round += 1
        self._answers_before, self._answers = self._answers, 0
        self._gift = gift(self._name, self._board.heard(now)) if self._round % 2 == 0 else None
        self._timer = self._loop.call_later(MEASURE_EVERY_S, self._measure)

    def _hand_over(self, connection: Connection, to: str) -> bool:
        transport = connection.transport
        if transport.get_write_buffer_size() or transport.is_closing():
            return False
        try:
            socket.send_fds(self._outboxes[to], [b"c"], [transport.get_extra_info("socket").fileno()])
        except OSError:  # the other has not taken the last ones yet
            return False
        transport.abort()  # closes it here alone: what was sent is the same connection
        return True

    def _take(self) -> None:
        try:
            _, descriptors, _, _ = socket.recv_fds(self._inbox, 1, 1)
        except BlockingIOError:
            return
        for descriptor in descriptors:
            accepted = self._loop.connect_accepted_socket(self._make, socket.socket(fileno=descriptor))
            task = self._loop.create_task(accepted)
            self._arriving.add(task)
            task.add_done_callback(self._arrived)

    def _arrived(self, task: "asyncio.Task[Any]") -> None:
        self._arriving.discard(task)
        if not task.cancelled() and task.exception() is not None:
            _log.warning("a connection was lost on its way from another worker: %s", task.exception())
