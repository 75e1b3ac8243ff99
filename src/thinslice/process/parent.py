"""The parent of `serve`: opens the port, starts workers and jobs, restarts what dies, drains everything at the end.

It imports nothing heavy and computes nothing, so that it is always there. The port belongs to it. On Linux each worker
has a socket of its own on that port, so that the kernel deals connections out evenly: at one shared socket the worker
that wakes first takes them all. While a worker is dead, its connections wait for the next one; when it dies again and
again, its socket is closed until it starts, and the others answer.
"""

import fcntl
import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from thinslice.errors import BadInput, StoreError
from thinslice.process.bond import ONE_THREAD, processors_for, push_back
from thinslice.process.guard import Guard
from thinslice.settings import Settings, Workspace

GRACE_S = 8.0
"""How long children may take to finish their work after SIGTERM, in seconds; then they are killed."""

STARVED_GRACE_S = 1.0
"""The same for jobs that starve, and so would take long to end by themselves."""

GUARD_EVERY_S = 1.0

FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 5.0
CALM_S = 3.0
"""A child that lived this long is restarted at once; sooner deaths double the pause, up to the longest."""

POLL_S = 0.05

log = logging.getLogger("thinslice.process")


@dataclass
class Child:
    """One process that shall always run."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    listener: socket.socket | None = None
    process: "subprocess.Popen[bytes] | None" = None
    started_at: float = 0.0
    start_at: float = 0.0
    pause_s: float = 0.0
    restarts: int = 0
    kill_at: float | None = None
    stderr: Path | None = None
    descriptors: Sequence[int] = ()

    @property
    def pid(self) -> int | None:
        """Its process id while it runs."""
        return self.process.pid if self.process is not None else None


@dataclass
class Service:
    """A running service: the parent's view.

    Args:
        workspace: Must hold thinslice.toml.
        settings: As read from it.
        host: Where to listen.
        port: 0 takes any free one; `url` tells which.
        workers: Number of web workers.
        environment: Variables for all children, beside those of this process.
        children: Filled by `open` and `add`.
    """

    workspace: Workspace
    settings: Settings
    host: str
    port: int
    workers: int
    environment: Mapping[str, str] = field(default_factory=dict)
    children: list[Child] = field(default_factory=list)

    def open(self) -> None:
        """Takes the workspace and the port, then starts every child; from then on SIGTERM and SIGINT set `stopping`.

        Raises:
            StoreError: Another service runs in this workspace.
            BadInput: The address cannot be listened on.
        """
        self.workspace.run.mkdir(parents=True, exist_ok=True)
        self._lock = (self.workspace.run / "lock").open("a+")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            raise StoreError(
                f"a service is already running in {self.workspace.root}.",
                hint=f"Its process ids are in {self.workspace.run / 'service.json'}.",
            ) from None
        self._shared = not hasattr(socket, "SO_REUSEPORT") or sys.platform != "linux"
        try:
            listen(self.host, self.port).close()  # somebody else's socket would not stop those that share the port
            listeners = [listen(self.host, self.port, together=not self._shared)]
            self.port = listeners[0].getsockname()[1]
            for _ in range(1, self.workers):
                shared = listeners[0] if self._shared else listen(self.host, self.port, together=True)
                listeners.append(shared)
        except OSError as error:
            self._lock.close()
            raise BadInput(
                f"{self.host}:{self.port} cannot be listened on: {error.strerror or error}.",
                hint="Another --port or --host?",
            ) from None
        (self.workspace.run / "service.json").unlink(missing_ok=True)  # of a parent that was killed
        metrics = self.workspace.run / "metrics"
        for folder in (metrics, self.workspace.run / "counters"):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
        base = {**os.environ, **self.environment, "PROMETHEUS_MULTIPROC_DIR": str(metrics)}
        common = ["--workspace", str(self.workspace.root), "--parent", str(os.getpid())]
        names = [f"w{number}" for number in range(1, self.workers + 1)]
        self._inboxes = {name: socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM) for name in names}
        for name, listener, processor in zip(names, listeners, processors_for(self.workers), strict=True):
            command = [sys.executable, "-m", "thinslice.process.worker", *common, "--name", name]
            command += [] if processor is None else ["--processor", str(processor)]
            descriptors = [self._inboxes[name][0].fileno()]
            command += ["--inbox", str(descriptors[0])]
            for other in (other for other in names if other != name):
                descriptors.append(self._inboxes[other][1].fileno())
                command += ["--outbox", other, str(descriptors[-1])]
            self.children.append(Child(name, command, {**base, **ONE_THREAD}, listener, descriptors=descriptors))
        command = [sys.executable, "-m", "thinslice.process.jobs", *common]
        self.children.append(Child("jobs", command, {**base, **ONE_THREAD}))
        new = next(self.workspace.models.glob("*/versions/*"), None) is None  # no shop has a model yet
        every_s = self.settings.lake.commit_every_s
        self._guard = Guard(self.workspace.run / "jobs.json", every_s, time.time(), shares=new)
        self._guarded_at = time.monotonic()
        self._told: list[int] = []
        self._handlers = {number: signal.signal(number, self._on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
        for child in self.children:
            self._start(child)
        self._write()

    @property
    def url(self) -> str:
        """Where the service answers."""
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(self.host, self.host)
        return f"http://{host}:{self.port}"

    def add(self, name: str, command: Sequence[str], *, stderr: Path | None = None) -> None:
        """Starts one more child, which is restarted and drained like the others."""
        child = Child(name, command, {**os.environ, **self.environment, **ONE_THREAD}, stderr=stderr)
        self.children.append(child)
        self._start(child)
        self._write()

    def tend(self) -> bool:
        """Restarts what has died, after its pause, and guards the lake; returns whether anything changed."""
        now = time.monotonic()
        changed = self._guard_lake(now)
        for child in self.children:
            if child.kill_at is not None and now >= child.kill_at and child.process is not None:
                child.process.kill()
            if child.process is not None and child.process.poll() is not None:
                lived = now - child.started_at
                short = lived < CALM_S
                child.pause_s = min(LONGEST_PAUSE_S, max(FIRST_PAUSE_S, 2 * child.pause_s)) if short else 0.0
                child.start_at = now + child.pause_s
                log.warning(
                    "%s (pid %s) ended with code %s after %.1f s; it starts again in %.1f s",
                    child.name, child.pid, child.process.returncode, lived, child.pause_s,
                )  # fmt: skip
                if child.listener is not None and child.pause_s and not self._shared and self._others(child):
                    child.listener.close()
                self._forget(child.process.pid)
                child.process = None
                changed = True
            if child.process is None and now >= child.start_at:
                child.restarts += child.kill_at is None
                self._start(child)
                changed = True
        if changed:
            self._write()
        return changed

    def _guard_lake(self, now: float) -> bool:
        """Gives the jobs a share, or takes it back, about once a second; returns whether it did."""
        if now < self._guarded_at + GUARD_EVERY_S:
            return False
        self._guarded_at = now
        if not self._guard.look(time.time()):
            return False
        for child in self.children:
            if child.name == "jobs" and child.process is not None:
                if self._guard.shares:
                    child.process.terminate()
                    child.kill_at = now + STARVED_GRACE_S
                else:
                    push_back(child.process.pid)
        return True

    @property
    def stopping(self) -> bool:
        """Whether SIGTERM or SIGINT came since the service was opened."""
        return bool(self._told)

    def run(self) -> None:
        """Tends the children until SIGTERM or SIGINT, then drains."""
        try:
            while not self.stopping:
                self.tend()
                time.sleep(POLL_S)
        finally:
            self.close()

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self._told.append(number)

    def close(self) -> None:
        """Drains the whole tree: SIGTERM to all, and what is left after the grace is killed."""
        running = [child.process for child in self.children if child.process is not None]
        for process in running:
            if process.poll() is None:
                process.terminate()
        deadline = time.monotonic() + GRACE_S
        while time.monotonic() < deadline and any(process.poll() is None for process in running):
            time.sleep(POLL_S)
        for process in running:
            if process.poll() is None:
                log.warning("pid %s did not end within %.0f s and is killed", process.pid, GRACE_S)
                process.kill()
            process.wait()
        for child in self.children:
            if child.listener is not None:
                child.listener.close()
        for pair in self._inboxes.values():
            for end in pair:
                end.close()
        (self.workspace.run / "service.json").unlink(missing_ok=True)
        self._lock.close()
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _others(self, child: Child) -> bool:
        """Whether another worker answers meanwhile."""
        return any(each.listener and each.process and each.process.poll() is None
                   for each in self.children if each is not child)  # fmt: skip

    def _start(self, child: Child) -> None:
        command, descriptors = list(child.command), [*child.descriptors]
        if child.listener is not None:
            if child.listener.fileno() < 0:
                child.listener = listen(self.host, self.port, together=True)
            descriptors.append(child.listener.fileno())
            command += ["--fd", str(descriptors[-1])]
        if child.name == "jobs" and self._guard.shares:
            command.append("--share")
        with child.stderr.open("ab") if child.stderr else open(os.devnull, "ab") as sink:  # noqa: PTH123
            child.process = subprocess.Popen(
                command,
                env=dict(child.environment),
                pass_fds=descriptors,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=sink if child.stderr else None,
                process_group=0,  # its own for Ctrl-C, but of our session: between sessions Linux heeds no priority
            )
        child.started_at, child.kill_at = time.monotonic(), None

    def _forget(self, pid: int) -> None:
        """Drops the gauges of a dead worker; its counters stay, so that sums never go back."""
        for path in (self.workspace.run / "metrics").glob(f"gauge_live*_{pid}.db"):
            path.unlink(missing_ok=True)

    def _write(self) -> None:
        """Tells operators and `doctor` which processes run."""
        state = {
            "pid": os.getpid(),
            "url": self.url,
            "processes": {child.name: child.pid for child in self.children},
            "restarts": {child.name: child.restarts for child in self.children},
            "jobs_share": {"now": self._guard.shares, "times": self._guard.times},
        }
        draft = self.workspace.run / "service.draft"
        draft.write_text(json.dumps(state), encoding="utf-8")
        draft.replace(self.workspace.run / "service.json")


def listen(host: str, port: int, *, together: bool = False) -> socket.socket:
    """A listening socket that a worker inherits.

    Args:
        host: An address of this machine.
        port: 0 takes any free one.
        together: Whether other sockets of ours may listen on the same port.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if together:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind((host, port))
        listener.listen(2048)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener
