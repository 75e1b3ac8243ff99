"""The process tree: it answers from many workers, restarts what dies, and ends as a whole."""

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from thinslice.cli.init import HEAD, make_tenant
from thinslice.errors import BadInput, StoreError
from thinslice.jobs.checkup import service_of
from thinslice.jobs.demo import fill
from thinslice.process import Service
from thinslice.process.bond import alive, processors_for
from thinslice.records import Item
from thinslice.settings import Workspace, read_settings
from thinslice.store.lake import Lake
from thinslice.store.live import LiveDB

THINSLICE = [sys.executable, "-c", "from thinslice.cli import main; main()"]
SETTINGS = HEAD + "\n[lake]\ncommit_every_s = 0.5\n\n[training]\nevery_s = 2.0\n"


def wait_for(what, longest_s=30.0):
    deadline = time.monotonic() + longest_s
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError, http.client.HTTPException, json.JSONDecodeError, KeyError, IndexError):
            if found := what():
                return found
        time.sleep(0.05)
    raise AssertionError("waited in vain")


class Running:
    """A running `thinslice serve`."""

    def __init__(self, workspace: Workspace, keys: dict[str, str], process: subprocess.Popen) -> None:
        self.workspace, self.keys, self.process = workspace, keys, process
        self.port = int(self.state()["url"].rpartition(":")[2])

    def state(self):
        return wait_for(lambda: json.loads((self.workspace.run / "service.json").read_text()))

    def ask(self, method, path, value=None, key="secret"):
        line = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        with contextlib.closing(line):
            line.request(method, path, json.dumps(value), {"Authorization": f"Bearer {self.keys[key]}"})
            answer = line.getresponse()
            return answer.status, answer.getheader("x-worker"), answer.read()

    def slate(self, **question):
        status, worker, body = self.ask("POST", "/v1/recommendations", {"k": 5, **question})
        assert status == 200, body
        return worker, json.loads(body)


@contextlib.contextmanager
def serving(folder, *, before=None):
    workspace = Workspace(folder / "workspace")
    workspace.root.mkdir(parents=True)
    workspace.settings_file.write_text(SETTINGS)
    keys = make_tenant(workspace, "shop")
    if before is not None:
        before(workspace)
    with (folder / "log.txt").open("w") as log:
        process = subprocess.Popen(
            [*THINSLICE, "serve", "--workspace", str(workspace.root), "--port", "0"],
            stdout=log, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        yield Running(workspace, keys, process)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=15)
        finally:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A shop with a past, imported but not trained: serving it does the rest."""
    with serving(
        tmp_path_factory.mktemp("serve"), before=lambda workspace: fill(workspace, "shop", now=datetime.now(UTC))
    ) as running:
        wait_for(lambda: running.ask("GET", "/readyz")[0] == 200)
        yield running


def test_serve_trains_what_was_imported_and_a_click_changes_the_very_next_slate_on_any_worker(shop):
    wait_for(lambda: shop.slate(visitor_id="x")[1]["model_version"] != "untrained", 60)
    items = [item["item_id"] for item in shop.slate(visitor_id="someone")[1]["items"]]

    def both_are_warm():
        answers = [shop.slate(items=items[:1]) for _ in range(20)]
        warm = {worker for worker, slate in answers if slate["items"][0]["source"] == "session-knn"}
        return len(warm) == 2 and warm == {worker for worker, _ in answers}

    wait_for(both_are_warm, 60)
    workers = set()
    for number in range(40):
        visitor = f"clicker-{number}"
        _, before = shop.slate(visitor_id=visitor)
        event = {"name": "view_item", "item_id": before["items"][number % 5]["item_id"], "visitor_id": visitor}
        assert shop.ask("POST", "/v1/events", [event])[0] == 202
        worker, after = shop.slate(visitor_id=visitor)
        workers.add(worker)
        assert event["item_id"] not in [item["item_id"] for item in after["items"]]
        assert after["items"][0]["source"] == "session-knn"
        assert after["items"][0]["reason"].startswith("Because you viewed ")
    assert workers == {"w1", "w2"}


def test_what_one_worker_is_told_of_the_catalog_every_worker_knows_within_a_second(shop):
    assert shop.ask("PUT", "/v1/items", [{"item_id": "fresh-1", "title": "Fresh"}])[0] == 202
    _, slate = shop.slate(k=1, visitor_id="y")
    item = slate["items"][0]["item_id"]
    assert shop.ask("PUT", "/v1/items", [{"item_id": item, "status": "held"}])[0] == 202
    time.sleep(1.0)
    seen = set()
    for _ in range(60):
        worker, slate = shop.slate(k=300, visitor_id="y")
        seen.add(worker)
        assert item not in [each["item_id"] for each in slate["items"]]
    assert seen == {"w1", "w2"}


def test_events_and_exposures_reach_the_lake(shop):
    shop.ask(
        "POST", "/v1/events", [{"event_id": "to-the-lake", "name": "view_item", "item_id": "a", "visitor_id": "v"}]
    )
    recommendation = shop.slate(visitor_id="v")[1]["recommendation_id"]
    lake = Lake(shop.workspace.lake)
    wait_for(lambda: "to-the-lake" in lake.scan("events", columns=["event_id"]).column("event_id").to_pylist())
    wait_for(lambda: recommendation in lake.scan("exposures", columns=["recommendation_id"]).column(0).to_pylist())


def test_an_import_beside_a_running_service_reaches_its_catalog(shop):
    item = Item(tenant="shop", item_id="imported", updated_at=datetime.now(UTC), title="Imported")
    Lake(shop.workspace.lake).append("items", [item])
    live = LiveDB(shop.workspace.live, read_settings(shop.workspace).live.map_mb)
    with contextlib.closing(live):
        wait_for(lambda: item in live.item_changes("shop", 0)[1])


def test_metrics_are_of_all_workers_whichever_answers(shop):
    for _ in range(20):
        shop.slate(visitor_id="z")
    time.sleep(1.5)  # each worker publishes what it counted about once a second
    counts = set()
    for _ in range(10):
        _, _, body = shop.ask("GET", "/metrics")
        line = next(
            line for line in body.decode().splitlines() if line.startswith("thinslice_recommendation_seconds_count")
        )
        counts.add(line)
    assert len(counts) == 1


def test_the_service_says_which_processes_run_and_a_killed_one_comes_back(shop):
    state = service_of(shop.workspace)
    assert state is not None
    assert set(state["processes"]) == {"w1", "w2", "jobs"}
    for name in ("w1", "jobs"):
        os.kill(state["processes"][name], signal.SIGKILL)
    again = wait_for(
        lambda: (
            (now := shop.state())["processes"]["w1"] not in (None, state["processes"]["w1"])
            and now["processes"]["jobs"] not in (None, state["processes"]["jobs"])
            and now
        )
    )
    assert again["restarts"]["w1"] == again["restarts"]["jobs"] == 1
    wait_for(lambda: {shop.slate(visitor_id="a")[0] for _ in range(20)} == {"w1", "w2"})


@pytest.mark.linux
def test_connections_are_dealt_out_to_both_workers(shop):
    def both_answer():
        return len({shop.ask("GET", "/healthz")[1] for _ in range(8)}) == 2

    wait_for(both_answer)
    answered = [shop.ask("GET", "/healthz")[1] for _ in range(60)]
    assert min(answered.count("w1"), answered.count("w2")) >= 12  # a fair coin falls short once in half a million times


def test_a_busy_worker_hands_connections_to_one_that_rests_and_no_answer_is_missed(shop):
    lines = []
    while len(lines) < 8:
        line = http.client.HTTPConnection("127.0.0.1", shop.port, timeout=10)
        lines.append(line)
        if asked(shop, line) != "w1":
            lines.pop().close()

    workers, deadline = {"w1"}, time.monotonic() + 30.0
    while workers != {"w1", "w2"} and time.monotonic() < deadline:
        workers = {asked(shop, line) for _ in range(20) for line in lines}
    workers = {asked(shop, line) for line in lines}
    for line in lines:
        line.close()
    assert workers == {"w1", "w2"}, "the busy one keeps its part, too"


def asked(shop, line):
    """The worker that answers on this connection, which is never opened anew."""
    line.auto_open = line.sock is None
    line.request(
        "POST", "/v1/recommendations", json.dumps({"k": 5}), {"Authorization": f"Bearer {shop.keys['secret']}"}
    )
    answer = line.getresponse()
    assert answer.status == 200
    assert not answer.will_close
    answer.read()
    return answer.getheader("x-worker")


@pytest.mark.linux
def test_each_worker_stays_on_a_processor_of_its_own_when_there_are_as_many(shop):
    there = os.sched_getaffinity(0)
    stays = [os.sched_getaffinity(pid) for name, pid in shop.state()["processes"].items() if name != "jobs"]
    assert stays == ([{each} for each in sorted(there)] if len(there) == 2 else [there, there])


@pytest.mark.linux
def test_workers_roam_where_there_are_fewer_or_more_of_them_than_processors(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {5, 3})
    assert processors_for(2) == [3, 5]
    assert processors_for(1) == [None]
    assert processors_for(3) == [None, None, None]


def test_a_second_service_in_the_same_workspace_is_refused(shop):
    settings = read_settings(shop.workspace)
    with pytest.raises(StoreError, match="already running"):
        Service(shop.workspace, settings, host="127.0.0.1", port=0, workers=1).open()


def test_a_port_that_is_taken_is_bad_input(shop, tmp_path):
    workspace = Workspace(tmp_path)
    make_tenant(workspace, "shop")
    with pytest.raises(BadInput, match="cannot be listened on"):
        Service(workspace, read_settings(workspace), host="127.0.0.1", port=shop.port, workers=1).open()
    assert service_of(workspace) is None


def test_the_first_item_of_an_empty_shop_is_in_the_very_next_slate_of_any_worker(tmp_path):
    with serving(tmp_path) as running:
        wait_for(lambda: running.ask("GET", "/healthz")[0] == 200)
        for _ in range(10):
            assert running.slate()[1]["items"] == []
        assert running.ask("PUT", "/v1/items", [{"item_id": "mug"}])[0] == 202
        for _ in range(10):
            assert [item["item_id"] for item in running.slate()[1]["items"]] == ["mug"]


def test_sigterm_ends_the_whole_tree_within_ten_seconds_and_what_was_taken_is_in_the_log(tmp_path):
    with serving(tmp_path) as running:
        items = [{"item_id": f"i{number}"} for number in range(5)]
        wait_for(lambda: running.ask("PUT", "/v1/items", items)[0] == 202)
        pids = [running.process.pid, *running.state()["processes"].values()]
        started = time.monotonic()
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(timeout=10) == 0
        assert time.monotonic() - started < 10
        assert not any(alive(pid) for pid in pids)
        assert not (running.workspace.run / "service.json").exists()
        assert list(running.workspace.log.glob("*"))


def test_when_the_parent_is_killed_nothing_survives(tmp_path):
    with serving(tmp_path) as running:
        wait_for(lambda: running.ask("GET", "/healthz")[0] == 200)
        pids = list(running.state()["processes"].values())
        os.kill(running.process.pid, signal.SIGKILL)
        running.process.wait(timeout=5)
        wait_for(lambda: not any(alive(pid) for pid in pids), 5)


def test_web_workers_never_import_the_libraries_of_the_lake():
    code = """
import sys, thinslice.process.worker, thinslice.web.app
heavy = {"duckdb", "deltalake", "ibis", "pyarrow", "scipy", "pandas"} & set(sys.modules)
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_the_parent_stays_small():
    code = """
import sys, thinslice.process.parent
heavy = {"numpy", "numba", "starlette", "uvicorn", "duckdb", "deltalake", "pyarrow", "lmdb"} & set(sys.modules)
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_a_running_worker_has_no_lake_library_in_its_memory(shop):
    for name in ("w1", "w2"):
        maps = Path(f"/proc/{shop.state()['processes'][name]}/maps").read_text()
        assert not [word for word in ("duckdb", "deltalake", "libarrow") if word in maps]
