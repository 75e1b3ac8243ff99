"""The demo: one line of JSON, then a shop, a console and an experiment that fills; a second run goes on with them."""

import contextlib
import http.client
import json
import select
import signal
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from click.testing import CliRunner

from thinslice.cli.demo import EXPERIMENT, first_source
from thinslice.cli.program import program
from thinslice.errors import NotReady
from thinslice.experiments import is_running
from thinslice.jobs.measure import measure, read_experiment
from thinslice.jobs.train import train
from thinslice.process.bond import alive
from thinslice.settings import Workspace
from thinslice.store.artifacts import FileArtifacts

DEMO = [sys.executable, "-c", "from thinslice.cli import main; main()", "demo", "--port", "0", "--json"]


@contextlib.contextmanager
def demo(folder):
    with (folder / "log.txt").open("w") as log:
        process = subprocess.Popen(
            [*DEMO, "--workspace", str(folder / "w")], stdout=subprocess.PIPE, stderr=log, text=True, cwd=folder
        )
    try:
        assert select.select([process.stdout], [], [], 45)[0], "no line within 45 s"
        line = process.stdout.readline()
        assert line, (folder / "log.txt").read_text()
        yield process, json.loads(line)
    finally:
        process.send_signal(signal.SIGINT)
        try:
            assert process.wait(timeout=15) == 0
        finally:
            process.kill()
            process.stdout.close()


def get(url, headers=None):
    parts = urlsplit(url)
    line = http.client.HTTPConnection(parts.hostname, parts.port, timeout=10)
    with contextlib.closing(line):
        line.request("GET", f"{parts.path}?{parts.query}", headers=headers or {})
        answer = line.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read().decode()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("demo")


def test_the_demo_is_ready_within_thirty_seconds_and_shows_everything(folder):
    started = time.monotonic()
    with demo(folder) as (process, ready):
        assert time.monotonic() - started < 30
        assert set(ready) == {"tenant", "workspace", "urls", "keys"}
        assert set(ready["urls"]) == {"api", "shop", "console", "experiment"}
        assert set(ready["keys"]) == {"publishable", "secret", "admin"}
        assert get(ready["urls"]["api"] + "/readyz")[0] == 200
        status, _, page = get(ready["urls"]["shop"])
        assert status == 200
        assert "Chosen for you" in page
        status, headers, _ = get(ready["urls"]["console"])
        cookie = {name.lower(): value for name, value in headers.items()}["set-cookie"]
        assert "HttpOnly" in cookie
        assert status in (200, 302, 303)
        assert "set-cookie" not in {name.lower() for name in get(ready["urls"]["console"])[1]}, "the link logs in once"
        report = Path(ready["workspace"]) / "reports" / "shop" / "session-knn-vs-popular.json"
        deadline = time.monotonic() + 60
        units = {}
        while not (len(units) == 2 and min(units.values()) >= 25):
            assert time.monotonic() < deadline, units
            time.sleep(0.25)
            if report.is_file():
                units = json.loads(report.read_text())["units"]
        status, _, page = get(ready["urls"]["experiment"], {"Cookie": cookie.partition(";")[0]})
        assert status == 200
        assert "session-knn" in page
        pids = list(json.loads((Path(ready["workspace"]) / "run" / "service.json").read_text())["processes"].values())
        pss = sum(
            int(Path(f"/proc/{pid}/smaps_rollup").read_text().split("Pss:")[1].split()[0])
            for pid in [process.pid, *pids]
        )
        assert pss < 1_500_000, f"{pss} kB"
        result = CliRunner().invoke(program, ["doctor", "--workspace", ready["workspace"], "--json"])
        assert json.loads(result.stdout)["status"] in ("ok", "look"), result.stdout
    assert not any(alive(pid) for pid in pids)


def test_a_second_run_goes_on_with_the_same_shop_and_keys(folder):
    before = json.loads((folder / "w" / "demo.json").read_text())
    with demo(folder) as (_, ready):
        assert ready["keys"] == before["keys"]
    after = json.loads((folder / "w" / "demo.json").read_text())
    assert after["run"] == before["run"] + 1


def test_the_live_experiment_of_the_demo_learns_apart_and_its_report_says_so(folder):
    workspace = Workspace(folder / "w")
    experiment = read_experiment(workspace, "shop", EXPERIMENT)
    assert (experiment.training, is_running(experiment)) == ("isolated", True)
    now = datetime.now(UTC)
    trained = {each.slot: each for each in train(workspace, "shop", now=now, full=False)}
    slots = {each.name: f"exp.{EXPERIMENT}.{each.name}" for each in experiment.variants}
    assert set(slots.values()) <= set(trained)
    for name, slot in slots.items():
        manifest = FileArtifacts(workspace.models).manifest("shop", trained[slot].version)
        lineage = manifest["lineage"][EXPERIMENT][name]
        assert lineage["contamination"] == 0
        assert lineage["clicks"]["before"] > 1_000
        assert lineage["clicks"][name] > 0
        assert [lineage["clicks"][other] for other in slots if other != name] == [0]
    assert trained["live"].clicks > max(trained[slot].clicks for slot in slots.values())
    checks = {check.name: check for check in measure(workspace, "shop", EXPERIMENT, now).checks}
    assert checks["isolated_training"].passed
    assert checks["contamination"].passed
    assert checks["contamination"].statistic == 0


def test_the_demo_does_not_touch_a_workspace_of_ones_own(tmp_path):
    CliRunner().invoke(program, ["init", "--workspace", str(tmp_path)])
    result = CliRunner().invoke(program, ["demo", "--workspace", str(tmp_path)])
    assert result.exit_code == 2
    assert "does not touch your data" in result.stderr


def test_a_worker_that_is_not_ready_is_asked_for_no_slate():
    asked = []

    class Busy(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(503)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_POST = do_GET

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Busy)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        with pytest.raises(NotReady, match="not ready"):
            first_source(f"http://127.0.0.1:{server.server_port}", "key")
    finally:
        server.shutdown()
        server.server_close()
    assert asked == ["/readyz"]
