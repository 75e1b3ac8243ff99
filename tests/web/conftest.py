"""One worker's whole application, answering on a real port."""

import contextlib
import http.client
import json
import shutil
import socket
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from playwright.sync_api import sync_playwright

from thinslice.cli.demo import prepare
from thinslice.cli.init import make_tenant
from thinslice.experiments import dump_experiment
from thinslice.experiments.analyze import report_json
from thinslice.jobs.demo import fill
from thinslice.jobs.refill import refill_catalog
from thinslice.jobs.train import train
from thinslice.metrics import DEFAULT_METRICS
from thinslice.records import Decision, Experiment, MetricResult, Report, Variant
from thinslice.settings import Workspace, read_settings
from thinslice.store.codec import decode
from thinslice.store.lake import Lake
from thinslice.store.live import LiveDB
from thinslice.store.log import read_frames
from thinslice.web.app import create_app
from thinslice.web.lane import lane_protocol


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Worker:
    workspace: Workspace
    port: int
    keys: dict[str, str]
    context: Any
    app: Any

    def ask(self, method: str, path: str, value: Any = None, *, key: str | None = None, headers=None) -> Answer:
        body = value if isinstance(value, bytes | None) else json.dumps(value).encode()
        sent = dict(headers or {})
        if key is not None:
            sent["Authorization"] = f"Bearer {self.keys.get(key, key)}"
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        with contextlib.closing(connection):
            connection.request(method, path, body, sent)
            answer = connection.getresponse()
            headers = {name.lower(): text for name, text in answer.getheaders()}
            return Answer(answer.status, headers, answer.read())


@contextlib.contextmanager
def serving(workspace: Workspace, keys: dict[str, str]):
    listener = socket.create_server(("127.0.0.1", 0))
    app = create_app(workspace, read_settings(workspace), "w1")
    config = uvicorn.Config(
        app, lifespan="on", log_config=None, ws="none", timeout_graceful_shutdown=2,
        http=lane_protocol(app.state.doors),
    )  # fmt: skip
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    deadline = time.monotonic() + 20
    while not server.started and time.monotonic() < deadline:
        time.sleep(0.01)
    try:
        yield Worker(workspace, listener.getsockname()[1], keys, app.state.context, app)
    finally:
        server.should_exit = True
        thread.join(timeout=10)
        listener.close()


@pytest.fixture(scope="module")
def worker(tmp_path_factory):
    workspace = Workspace(tmp_path_factory.mktemp("workspace"))
    keys = make_tenant(workspace, "shop")
    items = [{"item_id": f"i{number}", "title": f"Thing {number}"} for number in range(30)]
    with serving(workspace, keys) as worker:
        assert worker.ask("PUT", "/v1/items", items, key="secret").status == 202
        yield worker


@pytest.fixture(scope="session")
def metric_row():
    """Makes one line of a report: `metric_row(name, role, effect, reading="better", margin=None)`."""

    def make(name, role, effect, reading="better", margin=None):
        return MetricResult(
            name=name, role=role, variant="new", n_control=500, n_treatment=510, mean_control=100.0,
            mean_treatment=100.0 * (1 + effect), effect_size=100.0 * effect, effect_size_ci=(1.0, 20.0),
            rel_effect_size=effect, rel_effect_size_ci=(effect - 0.05, effect + 0.05), pvalue=0.01,
            always_valid_ci=(-5.0, 25.0), margin=margin, reading=reading,
        )  # fmt: skip

    return make


@pytest.fixture(scope="session")
def put_experiment():
    """Writes an experiment and its report as the jobs would: `put_experiment(worker, metrics, checks, ...)`."""

    def put(worker, metrics, checks, *, hypothesis="It sells more.", interval=lambda day: [0.01, 0.2]):
        start = datetime(2026, 11, 1, 12, tzinfo=UTC)
        variants = [
            Variant(name="old", policy="popular", weight=0.5),
            Variant(name="new", policy="session-knn", weight=0.5),
        ]
        experiment = Experiment(
            name="ranker", tenant="shop", hypothesis=hypothesis, variants=variants, metrics=list(DEFAULT_METRICS),
            days=14, started_at=start, ends_at=start + timedelta(days=14),
        )  # fmt: skip
        path = worker.workspace.experiments / "shop" / "ranker.toml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dump_experiment(experiment))
        curve = [
            {
                "until": (start + timedelta(days=day)).isoformat(), "name": "revenue_per_visitor", "variant": "new",
                "n_control": 100 * day, "n_treatment": 100 * day, "effect_size": 10.0, "effect_size_ci": [1.0, 19.0],
                "rel_effect_size": 0.1, "rel_effect_size_ci": interval(day), "always_valid_ci": [-5.0, 25.0],
            }
            for day in range(1, 6)
        ]  # fmt: skip
        report = Report(
            experiment="ranker", control="old", metrics=metrics, cumulative=curve, as_of=start,
            units={"old": 500, "new": 510}, checks=checks,
            decision=Decision(action="extend", variant=None, sentence="Extend: 9 days to go.", reasons=["not yet"]),
        )  # fmt: skip
        folder = worker.workspace.reports / "shop"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "ranker.json").write_bytes(report_json(report))
        return path, experiment

    return put


@contextlib.contextmanager
def app_on_a_port(app):
    """Serves an ASGI application on a free port of this machine: yields its address."""
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, lifespan="off", log_config=None, ws="none", timeout_graceful_shutdown=2)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(timeout=10)
        listener.close()


@pytest.fixture(scope="session")
def serve_app():
    """`with serve_app(application) as url:` serves a small application of a test."""
    return app_on_a_port


CHROMIUM_ARGS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="module")
def browser():
    """A real Chromium. One per module: while Playwright runs, its thread cannot run another event loop."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert chromium, "browser tests need Chromium (apt install chromium); deselect them with -m 'not browser'"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, headless=True, args=CHROMIUM_ARGS)
        try:
            yield browser
        finally:
            browser.close()


@pytest.fixture
def complaints():
    """What the pages of `open_page` complained about: console errors, thrown errors, CSP reports, foreign requests."""
    return []


@pytest.fixture
def open_page(browser, complaints):
    """Makes pages, each in its own fresh context: `open_page(width=390, color_scheme="dark", ...) -> Page`."""
    contexts = []

    def make(width=1280, height=900, **options):
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(10_000)
        page.on("console", lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda asked: complaints.append(f"asked {asked.url}") if _foreign(asked.url) else None)
        return page

    yield make
    for context in contexts:
        context.close()


def _foreign(url: str) -> bool:
    return not url.startswith(("http://127.0.0.1", "http://localhost", "data:", "blob:", "about:"))


@pytest.fixture
def axe():
    """Runs axe-core in a page, also under a strict content security policy: `axe(page) -> list[str]`, one a finding."""
    source = (Path(__file__).parent / "third_party" / "axe.min.js").read_text(encoding="utf-8")
    tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]

    def run(page, tags=tags):
        page.evaluate(f"() => {{ {source}\n; }}")
        found = page.evaluate("tags => axe.run(document, {runOnly: {type: 'tag', values: tags}})", tags)
        return [
            f"{each['id']} ({each['impact']}): {each['help']} at {' '.join(node['target'])}: {node['failureSummary']}"
            for each in found["violations"]
            for node in each["nodes"]
        ]

    return run


@pytest.fixture(scope="session")
def demo_shop(tmp_path_factory):
    """A worker with the demo's catalog, a past, and models trained on it; the keys lie where the demo leaves them."""
    workspace = Workspace(tmp_path_factory.mktemp("demo"))
    keys, _ = prepare(workspace)
    now = datetime.now(UTC)
    fill(workspace, "shop", now=now)
    train(workspace, "shop", now=now)
    with contextlib.closing(LiveDB(workspace.live)) as live:
        refill_catalog(Lake(workspace.lake), live, ["shop"])
    with serving(workspace, keys) as worker:
        deadline = time.monotonic() + 20
        while worker.context.models.bundle("shop") is None and time.monotonic() < deadline:
            time.sleep(0.01)
        yield worker


@pytest.fixture
def log_of():
    """What a worker's log holds by now: `log_of(worker, LogKind.EVENTS) -> list`, oldest first."""

    def records(worker, kind):
        segments = sorted(path for path in worker.workspace.log.rglob("*") if path.is_file())
        frames = [frame for segment in segments for frame in read_frames(segment)]
        return [record for found, payload, _ in frames if found == kind for record in decode(payload)[1]]

    return records
