"""The jobs fill idle time; where there is none, they get a share before the lake falls far behind."""

import contextlib
import http.client
import json
import os
import subprocess
import sys
import threading
import time

import pytest

from thinslice.cli.init import HEAD, make_tenant
from thinslice.process.bond import push_back
from thinslice.process.guard import BEHIND_S, FIRST_HOLD_S, LONGEST_HOLD_S, Guard
from thinslice.settings import Workspace
from thinslice.store.lake import Lake

COMMIT_EVERY_S = 60.0
ON_TIME_S = 60.0
"""By then an acknowledged event is in the lake of a service that commits often."""


@pytest.fixture
def said(tmp_path):
    path = tmp_path / "jobs.json"

    def say(**what):
        path.write_text(json.dumps(what))
        return path

    return say


def test_jobs_that_keep_up_fill_idle_time(said):
    guard = Guard(said(covered_until=900.0, starved=[]), COMMIT_EVERY_S, opened_at=0.0)
    assert not guard.look(900.0 + COMMIT_EVERY_S + BEHIND_S)
    assert not guard.shares


def test_a_lake_that_falls_behind_gives_the_jobs_a_share_once(said):
    guard = Guard(said(covered_until=900.0), COMMIT_EVERY_S, opened_at=0.0)
    late = 900.0 + COMMIT_EVERY_S + BEHIND_S + 1
    assert guard.look(late)
    assert guard.shares
    assert not guard.look(late + 10 * FIRST_HOLD_S), "what does not help is not done again and again"
    assert guard.times == 1


def test_where_no_shop_has_a_model_the_jobs_begin_with_a_share_and_stand_back_later(said):
    guard = Guard(said(covered_until=1_000.0), COMMIT_EVERY_S, opened_at=990.0, shares=True)
    assert guard.shares
    assert not guard.look(1_001.0)
    said(covered_until=990.0 + FIRST_HOLD_S)
    assert guard.look(991.0 + FIRST_HOLD_S)
    assert not guard.shares
    assert guard.times == 0, "nobody starved"


def test_what_an_earlier_service_left_behind_is_no_delay_of_this_one(said):
    guard = Guard(said(covered_until=0.0), COMMIT_EVERY_S, opened_at=1_000_000.0)
    assert not guard.look(1_000_001.0)


def test_a_training_that_starved_asks_for_a_share_too(said):
    guard = Guard(said(covered_until=1_000.0, starved=[["training", "shop"]]), COMMIT_EVERY_S, opened_at=0.0)
    assert guard.look(1_001.0)
    said(covered_until=2_000.0, starved=[["training", "shop"]])
    assert not guard.look(2_001.0), "and keeps it until one ends in time"


def test_the_jobs_stand_back_again_and_wait_longer_each_time_that_was_too_early(said):
    guard = Guard(said(covered_until=0.0), COMMIT_EVERY_S, opened_at=0.0)
    now, held = 200.0, []
    for _ in range(6):
        said(covered_until=0.0)
        assert guard.look(now)
        began = now
        while guard.shares:
            now += 10.0
            said(covered_until=now)
            guard.look(now)
        held.append(now - began)
        now += COMMIT_EVERY_S + BEHIND_S + 1
    assert [round(each / FIRST_HOLD_S) for each in held] == [1, 2, 4, 8, 12, 12]
    assert held[-1] <= LONGEST_HOLD_S + 10
    said(covered_until=0.0)
    assert guard.look(now + 2 * LONGEST_HOLD_S)
    said(covered_until=now + 2 * LONGEST_HOLD_S + FIRST_HOLD_S)
    assert guard.look(now + 2 * LONGEST_HOLD_S + FIRST_HOLD_S + 1), "after a long time of rest it begins anew"


def test_a_file_that_a_loss_of_power_cut_short_says_nothing(tmp_path):
    (tmp_path / "jobs.json").write_bytes(b"")
    assert not Guard(tmp_path / "jobs.json", COMMIT_EVERY_S, opened_at=100.0).look(101.0)


THREADS = """
import os, threading
for _ in range(5):
    threading.Thread(target=threading.Event().wait, daemon=True).start()
print("ready", flush=True)
input()
for thread in os.listdir("/proc/self/task"):
    print(os.sched_getscheduler(int(thread)) == os.SCHED_IDLE, os.getpriority(os.PRIO_PROCESS, int(thread)))
"""


@pytest.mark.linux
def test_a_process_is_pushed_back_with_all_its_threads():
    process = subprocess.Popen([sys.executable, "-c", THREADS], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with process:
        assert process.stdout is not None
        process.stdout.readline()
        push_back(process.pid)
        told, _ = process.communicate(b"\n", timeout=30)
    assert told.split() == [b"True", b"19"] * 6
    push_back(process.pid)  # who is gone is no error


SERVE = """
import os, sys
os.sched_setaffinity(0, {int(each) for each in sys.argv.pop(1).split(",")})
from thinslice.cli import main
main()
"""


@contextlib.contextmanager
def spinning(cores):
    code = "import os, sys\nos.sched_setaffinity(0, {int(sys.argv[1])})\nwhile True: pass"
    spinners = [subprocess.Popen([sys.executable, "-c", code, str(core)]) for core in cores]
    try:
        yield
    finally:
        for each in spinners:
            each.kill()
            each.wait()


@contextlib.contextmanager
def serving(workspace, cores, log):
    command = [sys.executable, "-c", SERVE, ",".join(map(str, cores)), "serve", "--workspace", str(workspace.root)]
    with log.open("w") as sink:
        process = subprocess.Popen([*command, "--port", "0"], stdout=sink, stderr=sink)
    try:
        yield process
        process.terminate()
        process.wait(timeout=20)
    finally:
        process.kill()
        process.wait()


def state_of(workspace):
    with contextlib.suppress(OSError, json.JSONDecodeError):
        return json.loads((workspace.run / "service.json").read_text())
    return None


def wait_for(what, longest_s):
    deadline = time.monotonic() + longest_s
    while time.monotonic() < deadline:
        if found := what():
            return found
        time.sleep(0.2)
    raise AssertionError("waited in vain")


class Shop(threading.Thread):
    """Sends an event twice a second and notes when it was acknowledged."""

    def __init__(self, port, key):
        super().__init__(daemon=True)
        self.port, self.key, self.stop, self.acknowledged = port, key, threading.Event(), {}

    def run(self):
        number = 0
        while not self.stop.wait(0.5):
            number += 1
            event = {"event_id": f"e{number}", "name": "view_item", "item_id": "i1", "visitor_id": "v1"}
            with contextlib.suppress(OSError, http.client.HTTPException):
                line = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
                with contextlib.closing(line):
                    line.request("POST", "/v1/events", json.dumps([event]), {"Authorization": f"Bearer {self.key}"})
                    if line.getresponse().status == 202:
                        self.acknowledged[event["event_id"]] = time.monotonic()


@pytest.mark.linux
@pytest.mark.faults
def test_events_reach_the_lake_within_a_minute_though_others_take_every_core(tmp_path):
    cores = sorted(os.sched_getaffinity(0))[:2]
    workspace = Workspace(tmp_path / "workspace")
    workspace.root.mkdir()
    workspace.settings_file.write_text(HEAD + "\n[lake]\ncommit_every_s = 1.0\n")
    key = make_tenant(workspace, "shop")["secret"]
    (workspace.models / "shop" / "versions" / "earlier").mkdir(parents=True)  # no new shop, whose jobs have a share
    lake, arrived = Lake(workspace.lake), {}

    def look():
        for each in lake.scan("events", columns=["event_id"]).column("event_id").to_pylist():
            arrived.setdefault(each, time.monotonic())
        return arrived

    with serving(workspace, cores, tmp_path / "log.txt"):
        state = wait_for(lambda: state_of(workspace), 60)
        shop = Shop(int(state["url"].rpartition(":")[2]), key)
        shop.start()
        wait_for(look, 60)
        with spinning(cores):
            began = time.monotonic()
            wait_for(lambda: state_of(workspace)["jobs_share"]["times"], 60)
            told = time.monotonic()
            wait_for(lambda: any(at > told for name, at in dict(shop.acknowledged).items() if name in look()), 90)
            waiting = dict(shop.acknowledged)
            wait_for(lambda: waiting.keys() <= look().keys(), 60)
        shop.stop.set()
        shop.join(timeout=15)
    took = {name: arrived[name] - at for name, at in waiting.items()}
    print(f"share after {told - began:.0f} s, the slowest event took {max(took.values()):.1f} s")  # pytest -s shows it
    assert max(took.values()) < ON_TIME_S
