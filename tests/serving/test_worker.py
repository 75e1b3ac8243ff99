"""One worker on the real stores: hot swap in its thread, durable events, several workers on one live store."""

import asyncio
import json
import subprocess
import sys
import time
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from thinslice.models import MODELS, from_columns
from thinslice.records import Event, Exposure, Item, RecommendationRequest
from thinslice.serving import ExperimentFiles, Intake, ModelHost, RecommendationIds, Recommender
from thinslice.serving.intake import LogExposures
from thinslice.settings import Workspace, parse_settings
from thinslice.store.artifacts import FileArtifacts
from thinslice.store.codec import decode
from thinslice.store.live import LiveDB
from thinslice.store.log import GroupCommit, SegmentWriter, read_frames, segments

SETTINGS = parse_settings("[tenants.shop]\n")
KEY = SimpleNamespace(tenant="shop", kind="secret")


class Worker:
    """A worker of a workspace, without HTTP; a process may open the live store once, so two workers here share it."""

    def __init__(self, workspace, name, live=None):
        self.live = live or LiveDB(workspace.live, 8)
        self.commit = GroupCommit(SegmentWriter(workspace.log, name))
        self.models = ModelHost(FileArtifacts(workspace.models), SETTINGS.tenants)
        self.models.start()
        experiments, ids = ExperimentFiles(workspace.experiments), RecommendationIds(b"s" * 32)
        self.intake = Intake(SETTINGS, self.live, self.commit, experiments, ids)
        self.recommender = Recommender(SETTINGS, self.live, self.models, experiments, ids, LogExposures(self.commit))

    async def send(self, *events):
        body = json.dumps([{"name": "view_item", **event} for event in events]).encode()
        return await self.intake.events(body, KEY, datetime.now(UTC))

    def ask(self, **fields):
        return self.recommender.recommend("shop", RecommendationRequest(**fields), "secret", datetime.now(UTC))

    def close(self):
        self.models.close()
        self.commit.close()


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path)


@pytest.fixture
def worker(workspace):
    worker = Worker(workspace, "one")
    yield worker
    worker.close()
    worker.live.close()


def publish(workspace, sessions):
    rows = [(f"s{n}", item, n + at / 10) for n, each in enumerate(sessions) for at, item in enumerate(each)]
    clicks = from_columns(*[list(column) for column in zip(*rows, strict=True)])
    artifacts = FileArtifacts(workspace.models)
    arrays = {name: model.fit(clicks, rng=0).arrays() for name, model in MODELS.items()}
    version = artifacts.put("shop", "live", arrays, {})
    artifacts.promote("shop", "live", version)
    return version


def wait_for(condition, timeout_s=20.0):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come in time"
        time.sleep(0.02)


def test_a_model_published_elsewhere_answers_soon_and_no_request_waits_for_it(workspace, worker):
    worker.live.put_items([Item(tenant="shop", item_id=each, updated_at=datetime.now(UTC)) for each in "abcd"])
    assert worker.ask().model_version == "untrained"
    first = publish(workspace, [["a", "b"], ["c", "d"]])
    wait_for(lambda: worker.ask(items=["a"]).model_version == first)
    wait_for(lambda: worker.ask(items=["a"]).items[0].source == "session-knn")
    second = publish(workspace, [["a", "b"], ["c", "d"], ["a", "d"]])
    answered = 0
    while worker.ask(items=["a"]).model_version == first:
        answered += 1
        time.sleep(0.005)
        assert answered < 2000
    assert worker.ask(items=["a"]).model_version == second
    artifacts = FileArtifacts(workspace.models)
    artifacts.rollback("shop", "live")
    wait_for(lambda: worker.ask(items=["a"]).model_version == first)


def test_what_was_accepted_is_in_the_log_and_so_is_what_was_served(workspace, worker):
    async def visit():
        results = await asyncio.gather(
            *[worker.send({"event_id": f"e{n}", "visitor_id": f"v{n}", "item_id": "a"}) for n in range(20)]
        )
        worker.ask(visitor_id="v3")
        return results

    results = asyncio.run(visit())
    assert sum(result.accepted for result in results) == 20
    records = [
        record
        for path in segments(workspace.log)
        for _, payload, _ in read_frames(path)
        for record in decode(payload)[1]
    ]
    assert {record.event_id for record in records if isinstance(record, Event)} == {f"e{n}" for n in range(20)}
    assert [record.visitor_id for record in records if isinstance(record, Exposure)] == ["v3"]


def test_an_event_taken_by_one_worker_is_in_the_next_slate_of_another(workspace, worker):
    publish(workspace, [["a", "b"], ["c", "d"], ["e", "f"]])
    other = Worker(workspace, "two", worker.live)
    try:
        wait_for(lambda: other.ask(items=["a"], k=1).items[:1] and other.ask(items=["a"], k=1).items[0].item_id == "b")
        for item, follower in (("a", "b"), ("c", "d"), ("e", "f")):
            asyncio.run(worker.send({"event_id": item, "visitor_id": item, "item_id": item}))
            assert other.ask(visitor_id=item, k=1).items[0].item_id == follower
    finally:
        other.close()


def test_the_newest_events_are_noted_for_the_live_page(worker):
    asyncio.run(worker.send({"event_id": "e", "visitor_id": "v", "item_id": "a"}))
    (row,) = worker.live.recent("shop")
    assert (row["name"], row["visitor_id"], row["item_id"]) == ("view_item", "v", "a")


def test_request_time_imports_no_lake_and_no_compiler():
    code = (
        "import sys, thinslice.serving, thinslice.web.context\n"
        "heavy = {'duckdb', 'deltalake', 'ibis', 'pyarrow', 'numba', 'scipy'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
