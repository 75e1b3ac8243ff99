"""Kill anything, at any moment: no acknowledged event is lost, none is stored twice, the service goes on answering."""

import contextlib
import http.client
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import pytest

from thinslice.cli.init import HEAD, make_tenant
from thinslice.settings import Workspace
from thinslice.store.compact import Compactor
from thinslice.store.lake import Lake
from thinslice.store.live import LiveDB

KILLS = 36
LONGEST_S = 210.0


class Sender(threading.Thread):
    """Sends batches of events over one line, again and again, and notes which were acknowledged."""

    def __init__(self, port: int, key: str, name: str, stop: threading.Event) -> None:
        super().__init__(name=name, daemon=True)
        self.port, self.key, self.stop = port, key, stop
        self.acknowledged: list[str] = []
        self.refused: list[str] = []
        self.longest_s = 0.0
        self.sent = 0

    def run(self) -> None:
        self.line: http.client.HTTPConnection | None = None
        try:
            while not self.stop.is_set():
                self.turn()
        finally:
            self.hang_up()

    def hang_up(self) -> None:
        if self.line is not None:
            self.line.close()
        self.line = None

    def insist(self, path: str, value: object) -> tuple[int, bytes] | None:
        """Asks until there is an answer, as a shop's server would; None when the test ends."""
        started = time.monotonic()
        while not self.stop.is_set():
            try:
                self.line = self.line or http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
                self.line.request("POST", path, json.dumps(value), {"Authorization": f"Bearer {self.key}"})
                answer = self.line.getresponse()
                found = answer.status, answer.read()
            except (OSError, http.client.HTTPException):
                self.hang_up()
                time.sleep(0.03)
                continue
            self.longest_s = max(self.longest_s, time.monotonic() - started)
            return found
        return None

    def turn(self) -> None:
        self.sent += 1
        ids = [f"{self.name}-{self.sent}-{number}" for number in range(10)]
        batch = [
            {
                "event_id": each,
                "name": "view_item",
                "item_id": f"i{number}",
                "visitor_id": f"{self.name}-{self.sent % 200}",
            }
            for number, each in enumerate(ids)
        ]
        found = self.insist("/v1/events", batch)
        if found is None:
            return
        if found[0] == 202:
            self.acknowledged += ids
        else:
            self.refused.append(f"{found[0]} {found[1][:200]!r}")


class Visitor(Sender):
    """Asks for slates, again and again; a broken line is tried anew, any other answer than a full slate is noted."""

    def turn(self) -> None:
        found = self.insist("/v1/recommendations", {"visitor_id": f"v{self.sent % 50}", "k": 5})
        if found is None:
            return
        if found[0] != 200 or len(json.loads(found[1])["items"]) != 5:
            self.refused.append(f"{found[0]} {found[1][:200]!r}")
        self.sent += 1
        time.sleep(0.005)


def family(pid: int) -> dict[int, str]:
    """Every living descendant of a process and its command line."""
    found: dict[int, str] = {}
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, IndexError):
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            found[int(path.name)] = f"{parent} " + (path / "cmdline").read_text().replace("\0", " ")
    family_, grew = {pid}, True
    while grew:
        more = {child for child, text in found.items() if int(text.split()[0]) in family_} - family_
        family_ |= more
        grew = bool(more)
    return {child: found[child] for child in family_ - {pid}}


@pytest.fixture
def service(tmp_path):
    workspace = Workspace(tmp_path / "workspace")
    workspace.root.mkdir()
    workspace.settings_file.write_text(HEAD + "\n[lake]\ncommit_every_s = 0.5\n\n[training]\nevery_s = 3.0\n")
    keys = make_tenant(workspace, "shop")
    LiveDB(workspace.live, 256).close()
    with (tmp_path / "log.txt").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", "from thinslice.cli import main; main()", "serve",
             "--workspace", str(workspace.root), "--port", "0"],
            stdout=log, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        yield workspace, keys, process
    finally:
        process.kill()
        process.wait()


def ask(port: int, method: str, path: str, body: object = None, key: str = "") -> int:
    line = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    with contextlib.closing(line):
        line.request(method, path, json.dumps(body), {"Authorization": f"Bearer {key}"})
        return line.getresponse().status


def wait_for(what, longest_s=40.0):
    deadline = time.monotonic() + longest_s
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError, http.client.HTTPException, json.JSONDecodeError):
            if (found := what()) is not None:
                return found
        time.sleep(0.1)
    raise AssertionError("waited in vain")


@pytest.mark.faults
def test_killing_anything_at_any_moment_loses_nothing_and_doubles_nothing(service):
    workspace, keys, process = service
    state = wait_for(lambda: json.loads((workspace.run / "service.json").read_text()))
    port = int(state["url"].rpartition(":")[2])
    items = [{"item_id": f"i{number}", "title": f"Thing {number}"} for number in range(20)]
    wait_for(lambda: ask(port, "PUT", "/v1/items", items, keys["secret"]) == 202 or None)
    wait_for(lambda: ask(port, "GET", "/readyz") == 200 or None)
    stop = threading.Event()
    senders = [Sender(port, keys["secret"], f"s{number}", stop) for number in range(3)]
    visitors = [Visitor(port, keys["secret"], f"v{number}", stop) for number in range(2)]
    for thread in (*senders, *visitors):
        thread.start()
    luck = random.Random(0)
    killed: Counter[str] = Counter()
    began = time.monotonic()
    used = []
    while sum(killed.values()) < KILLS and time.monotonic() - began < LONGEST_S:
        time.sleep(luck.uniform(0.2, 1.8))
        choice = family(process.pid)
        if not choice:
            continue
        victim = luck.choice(sorted(choice))
        kind = next(
            (word for word in ("worker", "training", "jobs") if f"process.{word}" in choice[victim]), "starting"
        )
        with contextlib.suppress(ProcessLookupError):
            os.kill(victim, signal.SIGKILL)
            killed[kind] += 1
        if sum(killed.values()) in (KILLS // 2, KILLS):
            live = LiveDB(workspace.live, 256)
            used.append(live.used_share())
            live.close()
    time.sleep(2.0)
    stop.set()
    for thread in (*senders, *visitors):
        thread.join(timeout=15)
    assert process.poll() is None, "the parent lives"
    before = family(process.pid)
    ended = time.monotonic()
    process.send_signal(signal.SIGTERM)
    process.wait(timeout=12)
    assert time.monotonic() - ended < 10
    assert not [pid for pid in before if Path(f"/proc/{pid}").exists()], "the whole tree ends"
    Compactor(workspace).run_once(datetime.now(UTC))
    stored = Counter(Lake(workspace.lake).scan("events", columns=["event_id"]).column("event_id").to_pylist())
    acknowledged = {each for sender in senders for each in sender.acknowledged}
    exposures = Lake(workspace.lake).scan("exposures", columns=["recommendation_id"])
    shown = Counter(exposures.column("recommendation_id").to_pylist())
    slates = sum(visitor.sent for visitor in visitors)
    print(f"\nkilled {dict(killed)} in {time.monotonic() - began:.0f} s; {len(acknowledged):,} events acknowledged, "
          f"{len(stored):,} stored; {slates:,} slates, {len(shown):,} exposures; longest wait "
          f"{max(thread.longest_s for thread in (*senders, *visitors)):.2f} s; live map used {used}")  # fmt: skip
    assert sum(killed.values()) >= 30
    assert killed["worker"] >= 5
    assert killed["jobs"] >= 5
    assert len(acknowledged) > 5_000
    assert len(acknowledged - stored.keys()) == 0, "acknowledged events are lost"
    assert [each for each, count in stored.items() if count > 1] == [], "events are stored twice"
    assert [each for each, count in shown.items() if count > 1] == [], "exposures are stored twice"
    assert len(shown) >= slates, "a slate that was answered has its exposure"
    assert [text for thread in (*senders, *visitors) for text in thread.refused] == []
    assert max(thread.longest_s for thread in (*senders, *visitors)) < 15.0
    assert used[1] <= 1.5 * used[0] + 0.01, "the live map does not grow by being killed"
