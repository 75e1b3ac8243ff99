"""The whole service under load: slates per second, durable events per second, and how soon an event shows in a slate.

40 k items, 200 k sessions of history, 50 k visitors with live state, a running experiment, the compactor on and
training looping beside it; the load generator runs on the same machine. With `--policy session-ranker --items 100000
--sessions 1000000 --rate 2000` it asks the same of the two-stage ranking over a larger shop. `--keep DIR` keeps the
prepared workspace there and copies it for each run.
"""

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.load import Outcome, closed, poisson, post
from benchmarks.machine import describe
from thinslice.records import LiveSession
from thinslice.settings import Workspace
from thinslice.store.artifacts import FileArtifacts
from thinslice.store.live import LiveDB

PROGRAM = str(Path(sys.executable).parent / "thinslice")
VISITORS = 50_000
CONNECTIONS = 64
"""The kernel deals them out to the workers by chance: of 32, one worker often got three fifths, and so of the load."""

EXPERIMENT = """\
name = "bench"
placement = "home"
training = "isolated"
days = 14

[[variants]]
name = "control"
policy = "CONTROL"
weight = 0.5

[[variants]]
name = "treatment"
policy = "POLICY"
weight = 0.5
"""
SETTINGS = """\
[lake]
commit_every_s = 5.0

[training]
every_s = 1.0
"""


def thinslice(*arguments: str) -> str:
    """Runs one command of the installed program and returns what it printed."""
    command = [PROGRAM, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=1800)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    return done.stdout


class Shop(NamedTuple):
    """How large the shop is, and which two policies the experiment compares."""

    items: int = 40_000
    sessions: int = 200_000
    policy: str = "session-knn"
    control: str = "popular"


def clicks(shop: Shop, rng: np.random.Generator) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Shape (sessions, 5) item numbers and unix seconds: neighborhoods of items, popular ones more often."""
    center = (shop.items * rng.power(0.6, shop.sessions)).astype(np.int64)
    items = (center[:, None] + rng.integers(-20, 21, (shop.sessions, 5))) % shop.items
    start = time.time() - 14 * 86400 + np.sort(rng.random(shop.sessions)) * 13.9 * 86400
    return items, start[:, None] + np.arange(5) * 20.0


def prepare(folder: Path, shop: Shop, more: str = "") -> dict[str, str]:
    """A workspace with catalog, history, a trained model and a running experiment; returns the keys.

    Args:
        folder: Of the workspace.
        shop: How large.
        more: Settings beside `SETTINGS`.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    keys: dict[str, str] = json.loads(thinslice("init", "--workspace", str(folder), "--json"))["keys"]
    settings = folder / "thinslice.toml"
    kept = settings.read_text()
    for section in ("[lake]", "[training]"):
        if section in kept:
            raise SystemExit(f"thinslice init writes {section} itself now; adapt the benchmark")
    settings.write_text(kept + "\n" + SETTINGS + more)
    rng = np.random.default_rng(0)
    items, times = clicks(shop, rng)
    table = pa.table(
        {
            "session_id": np.repeat(np.arange(shop.sessions), 5).astype(str),
            "item_id": items.ravel().astype(str),
            "ts": times.ravel(),
            "event": ["view_item"] * items.size,
        }
    )
    pq.write_table(table, folder / "events.parquet")
    catalog = {
        "item_id": np.arange(shop.items).astype(str),
        "title": [f"Item {number}" for number in range(shop.items)],
        "brand": [f"brand {number % 97}" for number in range(shop.items)],
        "categories": [[f"kind {number // 50}"] for number in range(shop.items)],
        "price_minor": [500 + number * 7919 % 20_000 for number in range(shop.items)],
    }
    pq.write_table(pa.table(catalog), folder / "items.parquet")
    workspace = ["--workspace", str(folder), "--tenant", "shop"]
    thinslice("import", "items", str(folder / "items.parquet"), *workspace)
    thinslice("import", "events", str(folder / "events.parquet"), *workspace)
    (folder / "bench.toml").write_text(EXPERIMENT.replace("CONTROL", shop.control).replace("POLICY", shop.policy))
    thinslice("experiment", "start", str(folder / "bench.toml"), *workspace)
    thinslice("train", *workspace)
    return keys


def visit(folder: Path, shop: Shop) -> None:
    """Live sessions of all visitors, as of now."""
    items, _ = clicks(shop, np.random.default_rng(0))
    live, now = LiveDB(Workspace(folder).live, 256), time.time()
    for first in range(0, VISITORS, 1000):
        changes = {}
        for visitor in range(first, first + 1000):
            seen = [str(each) for each in items[visitor % shop.sessions][:4]]
            changes["shop", f"v{visitor}"] = LiveSession(
                visitor_id=f"v{visitor}", session_id=f"s{visitor}", started_at=now, last_at=now,
                items=seen, names=["view_item"] * 4, times=[now] * 4, event_count=4,
            )  # fmt: skip
        live.update(changes, now=now)
    live.close()


def prepared(folder: Path, shop: Shop, keep: Path | None) -> dict[str, str]:
    """A prepared workspace in `folder`, copied from `keep` when one of this shop is there; returns the keys."""
    if keep is None:
        return prepare(folder, shop)
    note, source = keep / "prepared.json", keep / "workspace"
    wanted = shop._asdict()
    if not note.exists():
        if source.exists():
            raise SystemExit(f"{source} was not prepared to its end; remove it")
        keep.mkdir(parents=True, exist_ok=True)
        note.write_text(json.dumps({"shop": wanted, "keys": prepare(source, shop)}))
    found = json.loads(note.read_text())
    if found["shop"] != wanted:
        raise SystemExit(f"{keep} holds another shop: {found['shop']} instead of {wanted}")
    shutil.copytree(source, folder)
    keys: dict[str, str] = found["keys"]
    return keys


@contextlib.contextmanager
def service(folder: Path, workers: int) -> Iterator[int]:
    """A running service; yields its port and stops the tree at the end."""
    command = [PROGRAM, "serve", "--workspace", str(folder), "--port", "0"]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    log = (folder / "serve.txt").open("w")
    process = subprocess.Popen([*command, "--workers", str(workers)], stdout=log, stderr=log, env=environment)
    try:
        info = folder / "run" / "service.json"
        deadline = time.monotonic() + 120
        port = 0
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError, ValueError, KeyError):
                port = int(json.loads(info.read_text())["url"].rsplit(":", 1)[1])
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2) as answer:
                    if answer.status == 200:
                        break
            time.sleep(0.1)
        else:
            raise SystemExit((folder / "serve.txt").read_text())
        yield port
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=30)


def tree_megabytes() -> float:
    """Memory of this process's descendants, shared pages counted once (PSS)."""
    total = 0
    parents: dict[int, int] = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError):
            pid, rest = status.parent.name, status.read_text().rpartition(")")[2].split()
            parents[int(pid)] = int(rest[1])
    for pid in parents:
        above = pid
        while above in parents and above != os.getpid():
            above = parents[above]
        if above == os.getpid() and pid != os.getpid():
            with contextlib.suppress(OSError):
                rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
                total += int(rollup.split("\nPss:")[1].split()[0])
    return total / 1024


def slates(port: int, key: str, shop: Shop, rate: float, seconds: float) -> Outcome:
    """Slates for random visitors in Poisson arrivals, with a trickle of events so that training has news."""
    rng = np.random.default_rng(1)
    visitors = rng.integers(0, VISITORS, 100_000)

    def request(number: int) -> bytes:
        visitor = visitors[number % len(visitors)]
        if number % 50 == 0:
            event = {"name": "view_item", "visitor_id": f"v{visitor}", "item_id": str(visitor % shop.items)}
            return post("/v1/events", key, json.dumps([event]).encode())
        body = {"placement": "home", "k": 20, "visitor_id": f"v{visitor}"}
        return post("/v1/recommendations", key, json.dumps(body).encode())

    poisson("127.0.0.1", port, request, rate=200, seconds=5, connections=CONNECTIONS)
    return poisson("127.0.0.1", port, request, rate=rate, seconds=seconds, connections=CONNECTIONS)


def events(port: int, key: str, shop: Shop, seconds: float) -> Outcome:
    """Batches of ten events over four connections, each acknowledged when durable."""

    def request(number: int) -> bytes:
        batch = [
            {
                "event_id": f"b{number}-{each}",
                "name": "view_item",
                "visitor_id": f"v{number % VISITORS}",
                "item_id": str((number * 7 + each) % shop.items),
                "occurred_at": datetime.now(UTC).isoformat(),
            }
            for each in range(10)
        ]
        return post("/v1/events", key, json.dumps(batch).encode())

    return closed("127.0.0.1", port, request, seconds=seconds, connections=4)


def call(port: int, path: str, key: str, body: Any) -> tuple[Any, str]:
    """One request on a connection of its own; returns the answer and the worker that gave it."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}", data=json.dumps(body).encode(), headers={"Authorization": f"Bearer {key}"}
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.loads(answer.read()), answer.headers["X-Worker"]


def reaction(port: int, key: str, shop: Shop, tries: int) -> dict[str, float]:
    """From sending an event to having a slate from another worker that reflects it; and whether each one did."""
    took, stale, other = [], 0, 0
    for number in range(tries):
        visitor, item = f"reaction-{number}", str((number * 37) % shop.items)
        begin = time.perf_counter()
        event = {"name": "view_item", "visitor_id": visitor, "item_id": item}
        _, wrote = call(port, "/v1/events", key, event)
        for _ in range(20):
            answer, read = call(port, "/v1/recommendations", key, {"visitor_id": visitor, "k": 5, "placement": "x"})
            stale += not any(f"Item {item}" in each["reason"] or each["item_id"] == item for each in answer["items"])
            if read != wrote:
                other += 1
                took.append((time.perf_counter() - begin) * 1000)
                break
    p50, p99 = np.percentile(took, [50, 99])
    return {"tries": tries, "other_worker": other, "p50_ms": float(p50), "p99_ms": float(p99), "not_reflected": stale}


def main() -> None:
    """Prepares, serves, measures, prints one line a figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, default=1000.0, help="slates a second")
    parser.add_argument("--seconds", type=float, default=60.0, help="of slates")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--items", type=int, default=Shop().items)
    parser.add_argument("--sessions", type=int, default=Shop().sessions)
    parser.add_argument("--policy", default=Shop().policy)
    parser.add_argument("--control", default=Shop().control, help="the policy of the experiment's other half")
    parser.add_argument("--keep", type=Path, help="a folder that keeps the prepared workspace for the next run")
    options = parser.parse_args()
    shop = Shop(options.items, options.sessions, options.policy, options.control)
    print("machine:", describe(), flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "workspace"
        begin = time.perf_counter()
        keys = prepared(folder, shop, options.keep)
        visit(folder, shop)
        print(f"prepared in {time.perf_counter() - begin:.0f} s", flush=True)
        with service(folder, options.workers) as port:
            models = FileArtifacts(Workspace(folder).models)
            before = models.generation("shop")
            show("slates, Poisson", slates(port, keys["secret"], shop, options.rate, options.seconds).row())
            print("models published meanwhile:", models.generation("shop") - before, flush=True)
            print("memory of the tree:", f"{tree_megabytes():.0f} MB", flush=True)
            row = events(port, keys["secret"], shop, 15).row()
            show("events, batches of 10", {**row, "events_per_s": row["per_s"] * 10})
            show("event to slate", reaction(port, keys["secret"], shop, 300))


def show(what: str, row: dict[str, float]) -> None:
    """One figure, one line."""
    print(f"{what}:", ", ".join(f"{name} {value:,.2f}" for name, value in row.items()), flush=True)


if __name__ == "__main__":
    main()
