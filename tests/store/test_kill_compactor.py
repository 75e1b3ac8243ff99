"""Writers and compactors are killed at random moments: nothing acknowledged is lost, nothing is in the lake twice."""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest

from thinslice.settings import Workspace
from thinslice.store.compact import Compactor
from thinslice.store.lake import Lake
from thinslice.store.live import LiveDB
from thinslice.store.log import segments

KILLS = 40
LONGEST_S = 90.0

WRITER = """
import asyncio, os, sys, time
from datetime import UTC, datetime
from pathlib import Path
from thinslice.records import Event, Exposure, LiveSession
from thinslice.settings import Workspace
from thinslice.store.codec import encode
from thinslice.store.live import LiveDB
from thinslice.store.log import GroupCommit, LogKind, SegmentWriter

name, root, notes = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
workspace = Workspace(root)
sent, acknowledged, shown = (notes / f"{name}.{kind}" for kind in ("sent", "acknowledged", "shown"))

def lines(path):
    text = path.read_text() if path.exists() else ""
    return text.splitlines() if text.endswith("\\n") or not text else text.splitlines()[:-1]

def note(path):
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

before, done = lines(sent), set(lines(acknowledged))
again = [line for line in before if line not in done] + sorted(done)[-3:]
number = len(before)
out, ack, show = note(sent), note(acknowledged), note(shown)
live = LiveDB(workspace.live, 16)

async def main():
    global number
    commit = GroupCommit(SegmentWriter(workspace.log, name, segment_bytes=20_000))

    async def send(batch):
        now = datetime.now(UTC)
        events = [Event(event_id=f"{batch}-{n}", tenant="shop", name="view_item", occurred_at=now, received_at=now,
                        visitor_id=f"v{n}", item_id="i") for n in range(10)]
        await commit.append(LogKind.EVENTS, encode(LogKind.EVENTS, events))
        at = time.time()
        live.update({("shop", batch): LiveSession(visitor_id="v", session_id="s", started_at=at, last_at=at)}, now=at)
        os.write(ack, f"{batch}\\n".encode())
        exposure = Exposure(recommendation_id=f"{batch}-r", tenant="shop", occurred_at=now, placement="home",
                            policy="p", model_version="m")
        commit.write(LogKind.EXPOSURES, encode(LogKind.EXPOSURES, [exposure]))
        os.write(show, f"{batch}-r\\n".encode())

    async def connection(which):
        global number
        while True:
            if again:
                batch = again.pop()
            else:
                number += 1
                batch = f"{name}-{number}-{which}"
                os.write(out, f"{batch}\\n".encode())
            await send(batch)
            await asyncio.sleep(0.01)

    await asyncio.gather(*(connection(which) for which in range(3)))

asyncio.run(main())
"""

COMPACTOR = """
import sys, time
from datetime import UTC, datetime
from pathlib import Path
from thinslice.settings import Workspace
from thinslice.store.compact import Compactor

compactor = Compactor(Workspace(Path(sys.argv[1])), keep_s=0, batch_rows=500)
round = 0
while True:
    compactor.run_once(datetime.now(UTC))
    round += 1
    if round % 7 == 0:
        compactor.lake.maintain()
"""


@pytest.mark.faults
def test_no_kill_loses_or_doubles_an_event(tmp_path):
    rng = random.Random(0)
    workspace = Workspace(tmp_path / "workspace")
    notes = tmp_path / "notes"
    notes.mkdir()
    commands = {
        **{name: [WRITER, name, str(workspace.root), str(notes)] for name in ("w0", "w1")},
        "compactor": [COMPACTOR, str(workspace.root)],
    }

    def start(name):
        return subprocess.Popen([sys.executable, "-c", *commands[name]], start_new_session=True)

    children = {name: start(name) for name in commands}
    killed = Counter()
    used = []
    watch = LiveDB(workspace.live, 16)
    deadline = time.monotonic() + LONGEST_S
    try:
        time.sleep(2.5)
        while sum(killed.values()) < KILLS:
            assert time.monotonic() < deadline, f"only {killed} within {LONGEST_S} s"
            time.sleep(rng.uniform(0.05, 2.0))
            for name in rng.sample(sorted(children), rng.choice([1, 1, 2])):
                assert children[name].poll() is None, f"{name} ended by itself"
                children[name].send_signal(signal.SIGKILL)
                children[name].wait(timeout=10)
                killed[name] += 1
                children[name] = start(name)
            watch.sweep(now=time.time())
            used.append(watch.used_share())
    finally:
        for child in children.values():
            if child.poll() is None:
                os.kill(child.pid, signal.SIGKILL)
            child.wait(timeout=10)

    later = datetime.now(UTC) + timedelta(hours=1)
    begin = time.monotonic()
    Compactor(workspace, keep_s=0).run_once(later)
    took = time.monotonic() - begin
    assert segments(workspace.log) == []

    def noted(kind):
        return [line for path in notes.glob(f"*.{kind}") for line in path.read_text().split("\n")[:-1]]

    lake = Lake(workspace.lake)
    events = Counter(lake.scan("events")["event_id"].to_pylist())
    shown = Counter(lake.scan("exposures")["recommendation_id"].to_pylist())
    acknowledged = {f"{batch}-{number}" for batch in noted("acknowledged") for number in range(10)}
    sent = {f"{batch}-{number}" for batch in noted("sent") for number in range(10)}
    print(f"killed {dict(killed)}; acknowledged {len(acknowledged)}, in the lake {len(events)}, sent {len(sent)}")
    print(f"the last run took {took:.1f} s")
    assert len(acknowledged) > 2_000
    assert acknowledged - set(events) == set()
    assert [name for name, count in events.items() if count > 1] == []
    assert set(events) <= sent
    assert set(noted("shown")) - set(shown) == set()
    assert [name for name, count in shown.items() if count > 1] == []
    assert killed["compactor"] >= 8
    assert used[-1] < 0.5
    watch.close()
