"""The jobs process of `serve`: compacts, measures, sweeps and trains on a schedule, politely, apart from the answers.

It runs with one thread, in idle time; where that does not suffice, the parent starts it with a share (see
`thinslice.process.guard`). Training, and what takes long and cannot be late, runs in children of their own, so that a
crash or a peak of memory there hurts nothing. What it did last stands in `run/jobs.json` for the parent, `doctor` and
the console.
"""

import argparse
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

import msgspec

from thinslice.jobs.compact import is_due, log_bytes
from thinslice.jobs.measure import measure_all
from thinslice.jobs.news import news_of_tenants
from thinslice.jobs.program import write_programs
from thinslice.jobs.recipes import needed_policies
from thinslice.jobs.refill import refill_catalog, refill_sessions
from thinslice.jobs.schedule import Attempt, News, Timer, lag_s, next_feed, next_training, next_tuning
from thinslice.jobs.tend import tend
from thinslice.jobs.training_data import Counted, count_all
from thinslice.process.bond import computed_s, die_with, stand_back
from thinslice.process.guard import said_in
from thinslice.process.patience import Patience
from thinslice.settings import Settings, Workspace, read_settings
from thinslice.store.artifacts import LIVE_SLOT, FileArtifacts
from thinslice.store.compact import Compactor
from thinslice.store.lake import Lake
from thinslice.store.live import LiveDB

SHARE_OF_JOBS = 5
"""With this priority the jobs that starved get about a quarter of a core: more than 2,000 slates a second fill."""

SWEEP_EVERY_S = 5.0
SESSIONS_EVERY_S = 30.0
LARGEST_SHARE = 0.1
"""How much of a core the reports of running experiments may take, and writing down sessions: the more there is to
count, the more seldom they come."""

MAINTAIN_EVERY_S = 1800.0
LONGEST_TRAINING_S = 1800.0
"""A training that takes longer is ended and counts as failed."""

FEED_EVERY_S = 15.0
"""A catalog that changes all the time is learned at most so often (seconds); other trainings have their own pace."""

TUNE_EVERY_S = 600.0
"""A tenant's models tune themselves at most so often (seconds), also when that failed or did not pass the gates."""

log = logging.getLogger("thinslice.jobs")


class Jobs:
    """The schedule of one workspace.

    Args:
        workspace: Where everything lies.
        settings: As read at the start.
        share: Whether this process has a share of its own, which its children may keep; else it fills idle time.
    """

    def __init__(self, workspace: Workspace, settings: Settings, *, share: bool = False) -> None:
        self.workspace = workspace
        self.settings = settings
        self.lake = Lake(workspace.lake)
        self.artifacts = FileArtifacts(workspace.models)
        self.live = LiveDB(workspace.live, settings.live.map_mb)
        self.compactor = Compactor(workspace)
        tick = min(1.0, settings.lake.commit_every_s)
        self.timers = {
            "compact": Timer(tick, longest_s=30.0),
            "measure": Timer(max(5.0, settings.lake.commit_every_s), longest_s=120.0, share=LARGEST_SHARE),
            "sweep": Timer(SWEEP_EVERY_S),
            "sessions": Timer(max(SESSIONS_EVERY_S, settings.lake.commit_every_s)),
            "train": Timer(1.0),
            "maintain": Timer(MAINTAIN_EVERY_S, due_at=time.monotonic() + MAINTAIN_EVERY_S / 2),
        }
        before = said_in(workspace.run / "jobs.json")
        self.state: dict[str, Any] = {
            "pid": os.getpid(),
            "errors": {},
            "training": None,
            "tuning": None,
            "training_lag_s": {},
            "covered_until": before.get("covered_until", 0.0),
            "starved": before.get("starved", []) if share else [],
        }
        self._compacted_at = float("-inf")
        self._attempted: dict[str, Attempt] = {}
        self._tuned_at: dict[str, float] = {}
        self._counted = (-1, -1)
        self._news: list[News] = []
        self._children: dict[str, tuple[str, subprocess.Popen[bytes], float]] = {}
        self._computed_s: dict[str, float] = {}
        self._share = share
        self._patience = Patience((lane, tenant) for lane, tenant in self.state["starved"])
        self._catalog_version = -1
        self._item_sequence: dict[str, int] = {}
        self._new_items = False
        self._sessions: tuple[int, float | None] = (-1, None)
        self._sessions_rest_until = 0.0
        self._errands: dict[str, subprocess.Popen[bytes]] = {}
        self._stopping = threading.Event()

    def stop(self) -> None:
        """Asks the loop to end after the job in progress; a training in progress is dropped."""
        self._stopping.set()

    def run(self) -> None:
        """Runs the jobs until stopped."""
        try:
            while not self._stopping.is_set():
                for name, job in self._jobs():
                    if self._stopping.is_set():
                        break
                    self._run(name, job)
                self._stopping.wait(0.1)
        finally:
            trainings = [process for _, process, _ in self._children.values()]
            for child in [*trainings, *self._errands.values()]:
                with child:
                    child.kill()
            self.live.close()

    def _jobs(self) -> list[tuple[str, Callable[[], None]]]:
        return [
            ("compact", self.compact),
            ("sweep", self.sweep),
            ("train", self.train),
            ("measure", self.measure),
            ("sessions", self.sessions),
            ("maintain", self.maintain),
        ]

    def _run(self, name: str, job: Callable[[], None]) -> None:
        timer = self.timers[name]
        start, computed = time.monotonic(), time.process_time()
        if not timer.due(start):
            return
        try:
            job()
        except Exception as error:  # one broken job must not stop the others: it is logged, shown and tried again
            timer.failed(time.monotonic())
            log.exception("the job %r failed (%s in a row)", name, timer.failures)
            self.state["errors"][name] = {"message": str(error) or repr(error), "at": now_text()}
            self.write_state()
        else:
            timer.done(start, time.process_time() - computed)
            if self.state["errors"].pop(name, None) is not None:
                self.write_state()

    def compact(self) -> None:
        """Brings the logs into the lake when it is time."""
        waited = time.monotonic() - self._compacted_at
        self._look_for_items()
        grown = log_bytes(self.workspace)
        if not is_due(self.settings.lake, waited_s=waited, grown_bytes=grown, new_items=self._new_items):
            return
        self._compacted_at, began = time.monotonic(), time.time()
        self._new_items = False
        counts = self.compactor.run_once(datetime.now(UTC))
        if not counts.busy:
            self.state["covered_until"] = began
        self.state["compacted_at"] = now_text()
        self.state["compacted"] = msgspec.structs.asdict(counts)
        self.refill()
        self.write_state()

    def _look_for_items(self) -> None:
        """Notes whether a shop has told of items since the last time."""
        for tenant in self.settings.tenants:
            seen = self._item_sequence.get(tenant)
            sequence, changed = self.live.item_changes(tenant, seen or 0)
            self._item_sequence[tenant] = sequence
            self._new_items = self._new_items or (seen is not None and bool(changed))

    def refill(self) -> None:
        """Brings imported items into the live catalog, and after a power loss the visits of the last half hour."""
        version = self.lake.version("items")
        if version != self._catalog_version:
            refill_catalog(self.lake, self.live, self.settings.tenants)
            self._catalog_version = version
        boot, filled = self.workspace.live / "boot", self.workspace.live / "filled"
        this_boot = boot.read_text(encoding="ascii")
        if not filled.is_file() or filled.read_text(encoding="ascii") != this_boot:
            refill_sessions(self.lake, self.live, datetime.now(UTC))
            filled.write_text(this_boot, encoding="ascii")

    def sweep(self) -> None:
        """Drops live sessions that have expired."""
        self.live.sweep(now=time.time())

    def sessions(self) -> None:
        """Writes down the sessions that have ended, when there are new events or an open one may have ended."""
        done = self._errand("sessions")
        if done is not None:
            self._sessions = (self._sessions[0], done["due_at"])
            self._sessions_rest_until = time.monotonic() + done["computed_s"] / LARGEST_SHARE
            self.state["sessions_at"] = now_text()
        if time.monotonic() < self._sessions_rest_until:
            return
        version, due_at = self.lake.version("events"), self._sessions[1]
        if version != self._sessions[0] or (due_at is not None and time.time() > due_at):
            self._sessions = (version, None)
            self._start_errand("sessions")

    def measure(self) -> None:
        """Writes the report of every running experiment for the console, and lets results steer where they are to."""
        tend(self.workspace, datetime.now(UTC))
        measure_all(self.workspace, datetime.now(UTC))
        write_programs(self.workspace)
        self.state["measured_at"] = now_text()

    def maintain(self) -> None:
        """Joins small files of the lake and drops old ones that no model and no report names."""
        maintain(self.lake, self.artifacts, list(self.settings.tenants))
        self.state["maintained_at"] = now_text()
        self.write_state()

    def _start_errand(self, what: str) -> None:
        """Starts a child that runs an errand behind everything else; does nothing while the last one is under way."""
        if what not in self._errands:
            command = [sys.executable, "-m", "thinslice.process.errand", "--workspace", str(self.workspace.root)]
            command += ["--what", what, "--parent", str(os.getpid())]
            self._errands[what] = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)

    def _errand(self, what: str) -> dict[str, Any] | None:
        """What an errand that has ended since the last look printed; None when none has.

        Raises:
            RuntimeError: It failed.
        """
        process = self._errands.get(what)
        if process is None or process.poll() is None:
            return None
        del self._errands[what]
        said, _ = process.communicate()
        if process.returncode:
            if what == "sessions":
                self._sessions = (-1, None)
            raise RuntimeError(f"{what} ended with code {process.returncode}; see the service's log")
        found: dict[str, Any] = json.loads(said)
        return found

    def train(self) -> None:
        """Looks after the trainings in progress, and starts those that are due.

        There are two lanes: one for what comes each minute, and one for tuning, which takes long; so no tenant waits
        for a tuning, not even its own. What is tuned learns at its end what came meanwhile.
        """
        for lane in list(self._children):
            self._look_after(lane)
        every_s = self.settings.training.every_s
        versions = (self.lake.version("events"), self.lake.version("items"))
        if versions != self._counted:
            wanted = {name: needed_policies(self.settings, name) for name in self.settings.tenants}
            self._news = news_of_tenants(self.lake, self.artifacts, wanted, self._attempted)
            self._counted = versions
        now = time.time()
        lag = {tenant: round(seconds, 1) for tenant, seconds in lag_s(self._news, now, every_s).items()}
        if lag != self.state["training_lag_s"]:
            self.state["training_lag_s"] = lag
            self.write_state()
        if "training" not in self._children:
            tenant = next_training(self._news, now, every_s)
            if tenant is not None:
                self._start("training", "refit", tenant, now)
                return
            tenant = next_feed(self._news, now, min(every_s, FEED_EVERY_S))
            if tenant is not None:
                self._start("training", "feed", tenant, now)
                return
        if "tuning" not in self._children:
            tenant = next_tuning(self._news, now, TUNE_EVERY_S, self._tuned_at)
            if tenant is not None:
                self._tuned_at[tenant] = now
                self._start("tuning", "tune", tenant, now)

    def _start(self, lane: str, what: str, tenant: str, now: float) -> None:
        command = [sys.executable, "-m", "thinslice.process.training", "--workspace", str(self.workspace.root)]
        command += ["--tenant", tenant, "--what", what, "--parent", str(os.getpid())]
        first = self._share and what == "refit" and LIVE_SLOT not in self.artifacts.live(tenant)
        if first or self._patience.starves(lane, tenant):
            command.append("--share")
        if what != "tune":
            there = count_all(self.lake).get(tenant, Counted(0, ""))
            before = self._attempted.get(tenant)
            # New items alone do not take the events of the last minute off the list of what is to be learned.
            rows = there.rows if what != "feed" else before.rows if before is not None else 0
            at = now if what != "feed" or before is None else before.at
            self._attempted[tenant] = Attempt(at, rows, there.feed)
            self._counted = (-1, -1)
        self._children[lane] = (tenant, subprocess.Popen(command, stdin=subprocess.DEVNULL), time.monotonic())
        self.state[lane] = tenant
        self.write_state()

    def _look_after(self, lane: str) -> None:
        tenant, process, started = self._children[lane]
        code = process.poll()
        if code is None:
            self._computed_s[lane] = computed_s(process.pid)
        if code is None and time.monotonic() - started > LONGEST_TRAINING_S:
            process.kill()
            code = process.wait()
        if code is None:
            return
        del self._children[lane]
        self._counted = (-1, -1)
        self.state[lane] = None
        took = time.monotonic() - started
        self._patience.ended(lane, tenant, took_s=took, computed_s=self._computed_s.pop(lane, 0.0))
        self.state["starved"] = self._patience.starved
        if code == 0:
            self.state.setdefault("trained", {})[tenant] = {"at": now_text(), "took_s": round(took, 2)}
            self.write_state()
        else:
            raise RuntimeError(f"{lane} of {tenant} ended with code {code} after {took:.1f} s; see the service's log")

    def write_state(self) -> None:
        """Tells `doctor` and the console what the jobs did last."""
        draft = self.workspace.run / "jobs.draft"
        draft.write_text(json.dumps(self.state), encoding="utf-8")
        draft.replace(self.workspace.run / "jobs.json")


def maintain(lake: Lake, artifacts: FileArtifacts, tenants: Sequence[str]) -> None:
    """Optimizes the lake; vacuum keeps every version that a kept model names."""
    named = {
        int(row["lake_version"]) for tenant in tenants for row in artifacts.versions(tenant) if row["lake_version"]
    }
    lake.maintain(keep_versions=named)


def now_text() -> str:
    """The time as it stands in `jobs.json`."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def main(arguments: Sequence[str]) -> None:
    """Runs the jobs process; see `thinslice.process.parent` for its command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--share", action="store_true")
    options = parser.parse_args(arguments)
    die_with(options.parent)
    stand_back(keep_share=options.share, nice=SHARE_OF_JOBS)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s jobs %(levelname)s %(message)s")
    workspace = Workspace(options.workspace)
    jobs = Jobs(workspace, read_settings(workspace), share=options.share)

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        jobs.stop()

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    jobs.run()


if __name__ == "__main__":
    main(sys.argv[1:])
