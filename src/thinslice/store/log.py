"""The intake log: every event and exposure is in these files before anybody is told that it was received."""

import asyncio
import errno
import fcntl
import os
import re
import struct
import sys
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from enum import IntEnum
from pathlib import Path

from thinslice.errors import LogFull, StoreError
from thinslice.settings import NAME_PATTERN

HEADER = struct.Struct("<II")
"""Length and CRC32 of the payload that follows; the payload's first byte is its kind."""

MAX_FRAME_BYTES = 64 * 1024 * 1024
"""A longer length field is taken for garbage."""

SEGMENT_BYTES = 64 * 1024 * 1024
"""A segment that has grown to this size is closed and the next one begun."""

SEGMENT_SUFFIX = ".seg"

EXPOSURE_FLUSH_S = 0.025
"""How long a frame that nobody waits for may lie unsynced before a flush begins; with the flush itself under 50 ms."""

_CHUNK = 4 * 1024 * 1024
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class LogKind(IntEnum):
    """What the records of one frame are."""

    EVENTS = 1
    EXPOSURES = 2
    ITEMS = 3
    ORDERS = 4
    QUARANTINE = 5
    FORGET = 6
    SHADOWS = 7


def frame(kind: int, payload: bytes) -> bytes:
    """One frame: length, CRC32, payload.

    Args:
        kind: A `LogKind`.
        payload: The kind as one byte, then msgpack; `thinslice.store.codec.encode` makes it.

    Raises:
        ValueError: The payload does not begin with its kind, or is longer than a frame may be.
    """
    if not payload or payload[0] != kind:
        raise ValueError(f"a payload of kind {int(kind)} begins with that byte; codec.encode makes it so")
    if len(payload) > MAX_FRAME_BYTES:
        raise ValueError(f"a frame holds at most {MAX_FRAME_BYTES} bytes, got {len(payload)}")
    return HEADER.pack(len(payload), zlib.crc32(payload)) + payload


def read_frames(path: Path | str, start: int = 0) -> Iterator[tuple[int, bytes, int]]:
    """The whole frames of a segment, up to the first torn or damaged one.

    Args:
        path: A segment, which may still be written to.
        start: Where to begin, in bytes; the end offset of an earlier frame.

    Yields:
        Kind, payload (its first byte is the kind again), and the offset in bytes where the frame ends.
    """
    with Path(path).open("rb", buffering=0) as file:
        file.seek(start)
        offset = start
        rest = b""
        while True:
            chunk = file.read(_CHUNK)
            if not chunk:
                return
            rest = rest + chunk if rest else chunk
            at = 0
            while at + HEADER.size <= len(rest):
                length, checksum = HEADER.unpack_from(rest, at)
                if not 0 < length <= MAX_FRAME_BYTES:
                    return
                end = at + HEADER.size + length
                if end > len(rest):
                    break
                payload = rest[at + HEADER.size : end]
                if zlib.crc32(payload) != checksum:
                    return
                yield payload[0], payload, offset + end
                at = end
            rest = rest[at:]
            offset += at


def segments(directory: Path | str) -> list[Path]:
    """Every segment of a log directory, oldest first."""
    found = [path for path in Path(directory).glob(f"*{SEGMENT_SUFFIX}") if not path.name.startswith(".")]
    return sorted(found, key=lambda path: (_born(path), path.name))


def _born(path: Path) -> int:
    """The time in a segment's name, nanoseconds."""
    parts = path.name.removesuffix(SEGMENT_SUFFIX).rsplit("-", 2)
    return int(parts[-2]) if len(parts) == 3 and parts[-2].isdigit() else 0


def is_open(path: Path | str) -> bool:
    """Whether a living writer still holds a segment; a killed one lets go at once."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def sync_directory(path: Path | str) -> None:
    """Makes the names in a directory survive a power loss."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class SegmentWriter:
    """An intake log of one process: segments in one directory, each written by one process alone.

    `append` and `close` belong to one thread; `flush` may run in another at the same time. A segment carries an
    exclusive lock as long as its writer lives, so that readers can tell a finished one.

    Args:
        directory: Where segments lie; made when absent.
        name: The worker's name, 1 to 64 of a-z, 0-9, underscore and hyphen.
        segment_bytes: The size in bytes after which the next segment begins.
    """

    def __init__(self, directory: Path | str, name: str, *, segment_bytes: int = SEGMENT_BYTES) -> None:
        if not re.fullmatch(NAME_PATTERN, name):
            raise ValueError(f"{name!r} cannot name a log")
        self.directory = Path(directory)
        self.name = name
        self.path: Path
        self._segment_bytes = segment_bytes
        self._ticket = 0
        self._retired: list[int] = []
        self._flushing = threading.Lock()
        self._swapping = threading.Lock()
        self._descriptor = -1
        self._size = 0
        self.directory.mkdir(parents=True, exist_ok=True)
        self._open()

    def append(self, kind: int, payload: bytes) -> int:
        """Writes one frame; it survives the death of the process, and a power loss after the next `flush`.

        Args:
            kind: A `LogKind`.
            payload: What `codec.encode` made: the kind as one byte, then msgpack.

        Returns:
            The frame's ticket, one higher than the last; `flush` says up to which ticket all is durable.

        Raises:
            LogFull: The disk is full; nothing of the frame is left.
            StoreError: The write failed in another way; nothing of the frame is left.
        """
        if self._descriptor < 0:
            raise StoreError(f"the log {self.name} is closed.")
        data = frame(kind, payload)
        if self._size and self._size + len(data) > self._segment_bytes:
            self._rotate()
        try:
            written = os.write(self._descriptor, data)
            if written != len(data):
                self._write_rest(data, written)
        except OSError as error:
            self._take_back()
            raise _as_store_error(error, self.path) from error
        self._size += len(data)
        self._ticket += 1
        return self._ticket

    def flush(self) -> int:
        """Makes all that was written before the call survive a power loss.

        Returns:
            The newest ticket that is durable.

        Raises:
            OSError: The disk refused. What was written may be lost, and a second try would lie: end the process.
        """
        with self._flushing:
            with self._swapping:
                ticket, current = self._ticket, self._descriptor
                retired, self._retired = self._retired, []
            for descriptor in retired:
                os.fdatasync(descriptor)
                os.close(descriptor)
            if current >= 0:
                os.fdatasync(current)
            return ticket

    def close(self) -> None:
        """Flushes, closes and lets go of the segment; closing twice is harmless."""
        if self._descriptor < 0:
            return
        with self._swapping:
            self._retired.append(self._descriptor)
            self._descriptor = -1
        self.flush()

    def _open(self) -> None:
        """Begins a segment under a name never used before; it is locked before it can be seen."""
        name = f"{self.name}-{time.time_ns()}-{os.getpid()}"
        draft = self.directory / f".{name}.draft"
        path = self.directory / f"{name}{SEGMENT_SUFFIX}"
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
            descriptor = os.open(draft, flags, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.link(draft, path)
                draft.unlink()
                sync_directory(self.directory)
            except OSError:
                os.close(descriptor)
                draft.unlink(missing_ok=True)
                raise
        except OSError as error:
            raise _as_store_error(error, path) from error
        with self._swapping:
            if self._descriptor >= 0:
                self._retired.append(self._descriptor)
            self._descriptor, self.path, self._size = descriptor, path, 0

    _rotate = _open

    def _write_rest(self, data: bytes, written: int) -> None:
        while written < len(data):
            more = os.write(self._descriptor, memoryview(data)[written:])
            if more == 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            written += more

    def _take_back(self) -> None:
        """Cuts off half a frame, so that the next one can be read; goes on in a new segment when that fails."""
        try:
            os.ftruncate(self._descriptor, self._size)
        except OSError:
            self._rotate()


def _as_store_error(error: OSError, path: Path) -> StoreError:
    if error.errno in _FULL:
        return LogFull("the disk is full.", hint="Free some space; then send again.")
    return StoreError(f"cannot write {path.name}: {error.strerror}.")


def end_process(error: BaseException) -> None:
    """Ends this process at once, because what it acknowledged next might be lost (exit code 74)."""
    sys.stderr.write(f"the log could not be made durable ({error}); this process ends.\n")
    sys.stderr.flush()
    os._exit(74)


class GroupCommit:
    """Many requests, one fdatasync: a thread flushes back to back and wakes all whose frames are then durable.

    Belongs to one event loop. While one flush runs the next group gathers; there is no timer, so a lone event waits
    for one fdatasync and a crowd shares one.

    Args:
        writer: The log of this process; `close` closes it.
        on_failure: Called in the flushing thread when a flush fails; ends the process unless told otherwise.
    """

    def __init__(self, writer: SegmentWriter, *, on_failure: Callable[[BaseException], None] = end_process) -> None:
        self.writer = writer
        self.flushes = 0
        self.last_flush_s = 0.0
        self._on_failure = on_failure
        self._waiting: deque[tuple[int, asyncio.Future[None], asyncio.AbstractEventLoop]] = deque()
        self._wake = threading.Condition()
        self._wanted = 0
        self._durable = 0
        self._lazy_since: float | None = None
        self._closing = False
        self._flusher = threading.Thread(target=self._run, name="log-flusher", daemon=True)
        self._flusher.start()

    async def append(self, kind: int, payload: bytes) -> None:
        """Writes a frame and returns when it is durable.

        Raises:
            LogFull: The disk is full; nothing was kept.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        ticket = self.writer.append(kind, payload)
        with self._wake:
            self._waiting.append((ticket, future, loop))
            self._wanted = ticket
            self._wake.notify()
        await future

    def write(self, kind: int, payload: bytes) -> None:
        """Writes a frame without waiting: it survives kill -9 at once and a power loss within 50 ms.

        Raises:
            LogFull: The disk is full; nothing was kept.
        """
        self.writer.append(kind, payload)
        if self._lazy_since is None:
            with self._wake:
                self._lazy_since = time.monotonic()
                self._wake.notify()

    def close(self) -> None:
        """Makes everything durable, answers all who wait, ends the thread and closes the log."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._flusher.join()
        self.writer.close()

    def _run(self) -> None:
        while self._gather():
            # Taken back before the flush: a frame written while it runs starts its own 50 ms.
            self._lazy_since = None
            begin = time.monotonic()
            try:
                durable = self.writer.flush()
            except OSError as error:
                self._on_failure(error)
                return
            self.last_flush_s = time.monotonic() - begin
            self.flushes += 1
            self._answer(durable)

    def _gather(self) -> bool:
        """Sleeps until there is something to flush; False when closing and all is flushed."""
        with self._wake:
            while True:
                if self._wanted > self._durable:
                    return True
                if self._lazy_since is None:
                    if self._closing:
                        return False
                    self._wake.wait()
                    continue
                left = self._lazy_since + EXPOSURE_FLUSH_S - time.monotonic()
                if left <= 0 or self._closing:
                    return True
                self._wake.wait(left)

    def _answer(self, durable: int) -> None:
        ready: dict[asyncio.AbstractEventLoop, list[asyncio.Future[None]]] = {}
        with self._wake:
            self._durable = durable
            while self._waiting and self._waiting[0][0] <= durable:
                _, future, loop = self._waiting.popleft()
                ready.setdefault(loop, []).append(future)
        for loop, futures in ready.items():
            if not loop.is_closed():
                loop.call_soon_threadsafe(_resolve, futures)


def _resolve(futures: list["asyncio.Future[None]"]) -> None:
    for future in futures:
        if not future.done():
            future.set_result(None)
